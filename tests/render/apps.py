"""Applications as users describe them, from one container to everything at once."""

from typing import Any

IMAGE = "registry.example.com/shop"


def _base(**more: Any) -> dict[str, Any]:
    return {"app_name": "shop", "app_version": "1.4.0", **more}


ONE_CONTAINER = _base(app_services={"web": {"image": f"{IMAGE}/web", "port": 8080, "routes": ["/"]}})

API_WEB_DATABASE = _base(
    app_services={
        "api": {
            "image": f"{IMAGE}/api",
            "port": 8000,
            "routes": ["/api/"],
            "database": True,
            "database_connections": 10,
            "secrets": ["DATABASE_URL"],
            "env": {"DATABASE_URL_FILE": "/run/secrets/DATABASE_URL", "DEBUG": False, "WORKERS": 4},
            "volumes": {"uploads": "/data"},
        },
        "web": {"image": f"{IMAGE}/web", "port": 8080, "uid": 10002, "routes": ["/"], "asset_paths": ["/assets/"]},
    },
    app_secrets={"DATABASE_URL": "postgresql://shop", "MIGRATION_URL": "postgresql://owner"},
    app_migration={
        "service": "api",
        "command": ["alembic", "upgrade", "head"],
        "current": ["alembic", "current"],
        "secrets": ["MIGRATION_URL"],
        "env": {"URL_FILE": "/run/secrets/MIGRATION_URL"},
    },
    app_smoke_tests=[{"path": "/api/v1/orders"}],
)

MANY_INSTANCES = _base(
    app_services={
        "web-shop": {"image": f"{IMAGE}/web", "port": 80, "instances": 3, "routes": ["/"]},
        "live-feed": {"image": f"{IMAGE}/feed", "port": 81, "instances": 2, "routes": ["/feed/"], "tag": "stable"},
    }
)

AWKWARD_VALUES = _base(
    app_services={
        "api": {
            "image": f"{IMAGE}/api",
            "port": 8000,
            "digest": f"sha256:{'a' * 64}",
            "routes": ["/"],
            "env": {
                "MONEY": "$5 ${HOME}",
                "QUOTES": "a'b\"c",
                "LINES": "one\ntwo: {x}",
                "ACCENT": "größe",
                "EMPTY": "",
            },
            "command": ["serve", "--prefix", "$ROOT"],
            "healthcheck": {"test": ["CMD", "true", "$X"]},
            "secret_env": {"TOKEN": "API_TOKEN"},
            "tmpfs": ["/var/run/app", "/cache:size=16m"],
            "cpus": 0.5,
        }
    },
    app_secrets={"API_TOKEN": "it's a \\ secret"},
)

ALL = {
    "one container": ONE_CONTAINER,
    "api, web, database": API_WEB_DATABASE,
    "many instances": MANY_INSTANCES,
    "awkward values": AWKWARD_VALUES,
}
