"""What the control side may ask for: every key known, every type right, every rule named when it is broken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Request, parse, route_owner
from switchyard.strict import build
from tests.unit.engine_world import QUICK, make_request, request_data, service


def refusal(data: object) -> str:
    with pytest.raises(SwitchyardError) as error:
        parse(data)
    assert error.value.code is Exit.USAGE
    return error.value.message


def with_service(**changes: Any) -> dict[str, Any]:
    return request_data(services={"api": service(**changes)})


# strict.build


@dataclass(frozen=True)
class _Leaf:
    count: int
    ratio: float = 1.0
    on: bool = False


@dataclass(frozen=True)
class _Tree:
    leaf: _Leaf
    leaves: list[_Leaf] = field(default_factory=list)
    named: dict[str, _Leaf] = field(default_factory=dict)
    maybe: _Leaf | None = None


def test_nested_data_becomes_dataclasses() -> None:
    data = {"leaf": {"count": 1}, "leaves": [{"count": 2}], "named": {"x": {"count": 3, "ratio": 2}}, "maybe": None}
    assert build(_Tree, data, "t") == _Tree(_Leaf(1), [_Leaf(2)], {"x": _Leaf(3, 2.0)}, None)
    assert isinstance(build(_Tree, data, "t").named["x"].ratio, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"leaf": {"count": 1}, "leavs": []}, "t.leavs: unknown key, did you mean 'leaves'?"),
        ({"leaf": {"cuont": 1}}, "t.leaf.cuont: unknown key, did you mean 'count'?"),
        ({"leaf": {"count": 1}, "leaves": [{"count": 1}, {"cont": 1}]}, "t.leaves[1].cont: unknown key, did you"),
        ({"leaf": {"count": 1}, "named": {"x": {"cnt": 1}}}, "t.named.x.cnt: unknown key, did you mean 'count'?"),
        ({"leaf": {"count": 1}, "maybe": {"rato": 1}}, "t.maybe.rato: unknown key, did you mean 'ratio'?"),
        ({"leaf": {"count": 1, "zzzz": 1}}, "t.leaf.zzzz: unknown key."),
        ({}, "t.leaf: is required."),
        ({"leaf": {}}, "t.leaf.count: is required."),
        ({"leaf": []}, "t.leaf: expected a mapping, found list."),
        ([], "t: expected a mapping, found list."),
        ({"leaf": {"count": "1"}}, "t.leaf.count: expected int, found str ('1')."),
        ({"leaf": {"count": True}}, "t.leaf.count: expected int, found bool ('True')."),
        ({"leaf": {"count": 1.0}}, "t.leaf.count: expected int, found float ('1.0')."),
        ({"leaf": {"count": None}}, "t.leaf.count: expected int, found NoneType ('None')."),
        ({"leaf": {"count": 1, "ratio": True}}, "t.leaf.ratio: expected float, found bool ('True')."),
        ({"leaf": {"count": 1, "on": 1}}, "t.leaf.on: expected bool, found int ('1')."),
        ({"leaf": {"count": 1}, "leaves": {}}, "t.leaves: expected a list, found dict."),
        ({"leaf": {"count": 1}, "named": []}, "t.named: expected a mapping, found list."),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(data: object, message: str) -> None:
    with pytest.raises(SwitchyardError) as error:
        build(_Tree, data, "t")
    assert error.value.message.startswith(message)
    assert error.value.code is Exit.USAGE


# request.parse


def test_a_plain_request_gets_the_documented_defaults() -> None:
    request = parse(request_data())
    spec = request.services["api"]
    assert (spec.instances, spec.health.path, spec.health.successes) == (1, "/health", 3)
    assert (request.retain, request.schema_epoch, str(request.name)) == (3, 1, "shop-test")
    assert spec.reference == "registry.test/shop/api:1.0.0"


def test_a_digest_wins_over_a_tag() -> None:
    spec = make_request(services={"api": service(digest="sha256:" + "a" * 64)}).services["api"]
    assert spec.reference == "registry.test/shop/api@sha256:" + "a" * 64


@pytest.mark.parametrize("protocol", [0, 2, "1", None])
def test_another_protocol_is_refused_before_anything_else(protocol: object) -> None:
    with pytest.raises(SwitchyardError, match="speaks protocol 1") as error:
        parse({"protocol": protocol, "nonsense": 1})
    assert error.value.code is Exit.ENGINE_MISMATCH


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"sevices": {}}, "app_sevices: unknown key, did you mean 'services'?"),
        ({"services": {"api": service(imge="x")}}, "app_services.api.imge: unknown key, did you mean 'image'?"),
        ({"services": {"api": service(health={"pth": "/"})}}, "app_services.api.health.pth: unknown key, did you mean"),
        ({"smoke_tests": [{"path": "/"}, {"pat": "/"}]}, "app_smoke_tests[1].pat: unknown key, did you mean 'path'?"),
        ({"secrets": {"KEY": {"value": "", "uid": 1, "usr": 1}}}, "app_secrets.KEY.usr: unknown key"),
        ({"migration": {"service": "api", "comand": []}}, "app_migration.comand: unknown key, did you mean 'command'?"),
        ({"database": {"max_conections": 1}}, "app_database.max_conections: unknown key, did you mean"),
        ({"services": {"api": {"port": 1}}}, "app_services.api.image: is required"),
        ({"services": {"api": service(port=True)}}, "app_services.api.port: expected int, found bool"),
        ({"services": {"api": service(env={"A": 1})}}, "app_services.api.env.A: expected str, found int"),
        ({"app": "Shop"}, "'Shop' is not a valid application name"),
        ({"environment": "a-b"}, "'a-b' is not a valid environment name"),
        ({"version": "../x"}, "'../x' is not a valid version"),
        ({"services": {}}, "app_services: name at least one service"),
        ({"services": {"API": service()}}, "'API' is not a valid service name"),
        ({"secrets": {"a-b": {"value": "", "uid": 1}}}, "app_secrets.a-b: is no variable name"),
        ({"secrets": {"../x": {"value": "", "uid": 1}}}, "app_secrets.../x: is no variable name"),
        ({"migration": {"service": "worker", "command": ["x"]}}, "app_migration.service: 'worker' is not in"),
        ({"migration": {"service": "api", "command": []}}, "app_migration.command: name the command as a list"),
        ({"migration_decision": "retry"}, "migration: use resume or resolve"),
        ({"services": {"api": service(uid=0)}}, "app_services.api.uid: 0 is root: use another user, or declare it"),
        ({"services": {"api": service(exceptions=["rot"])}}, "app_services.api.exceptions: 'rot' is none: use root"),
        ({"smoke_tests": [{"path": "health"}]}, "app_smoke_tests[0].path: start it with a slash"),
        ({"schema_epoch": 0}, "app_schema_epoch: use 1 or more"),
        ({"retain": -1}, "app_retain: use 0 or more"),
    ],
)
def test_a_broken_rule_is_named_with_its_key(change: dict[str, Any], start: str) -> None:
    assert refusal(request_data(**change)).startswith(start)


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"image": "Shop Api"}, "app_services.api.image: 'Shop Api' is no image name"),
        ({"image": "-v"}, "app_services.api.image: '-v' is no image name"),
        ({"tag": "a b"}, "'a b' is not a valid version"),
        ({"tag": ""}, "app_services.api.tag: a tag or a digest is needed"),
        ({"digest": "sha256:abc"}, "app_services.api.digest: a digest is sha256: and 64"),
        ({"port": 0}, "app_services.api.port: use a port from 1 to 65535"),
        ({"port": 65536}, "app_services.api.port: use a port from 1 to 65535"),
        ({"instances": 0}, "app_services.api.instances: use 1 to 50"),
        ({"instances": 51}, "app_services.api.instances: use 1 to 50"),
        ({"health": {"successes": 0}}, "app_services.api.health.successes: use 1 to 100"),
        ({"health": {"path": "health"}}, "app_services.api: 'health' is no path"),
        ({"health": {"path": "/a;b"}}, "app_services.api: '/a;b' is no path"),
        ({"routes": ["/{x}"]}, "app_services.api: '/{x}' is no path"),
        ({"routes": ["/a b"]}, "app_services.api: '/a b' is no path"),
        ({"routes": ["/a\n"]}, "app_services.api: '/a\n' is no path"),
        ({"routes": ["/$uri"]}, "app_services.api: '/$uri' is no path"),
        ({"routes": ["/", "/"]}, "app_services.api.routes: '/' is also api's"),
        ({"asset_paths": ['/"']}, "app_services.api: '/\"' is no path"),
        ({"routes": ["/api/"], "asset_paths": ["/assets/"]}, "app_services.api.asset_paths: '/assets/' is not routed"),
        ({"env": {"A-B": "x"}}, "app_services.api.env.A-B: is no variable name"),
        ({"secret_env": {"1A": "x"}}, "app_services.api.env.1A: is no variable name"),
        ({"secrets": ["KEY"]}, "app_services.api.secrets: secret 'KEY' is not in app_secrets"),
        ({"secret_env": {"A": "KEY"}}, "app_services.api.secrets: secret 'KEY' is not in app_secrets"),
    ],
)
def test_a_broken_rule_of_a_service_is_named_with_its_key(change: dict[str, Any], start: str) -> None:
    assert refusal(with_service(**change)).startswith(start)


def test_two_services_cannot_have_one_route() -> None:
    services = {"api": service(routes=["/api/"]), "web": service(routes=["/", "/api/"])}
    assert refusal(request_data(services=services)) == "app_services.web.routes: '/api/' is also api's."


def test_a_smoke_test_needs_a_route() -> None:
    data = request_data(services={"api": service(routes=["/api/"])}, smoke_tests=[{"path": "/web"}])
    assert refusal(data) == "app_smoke_tests[0].path: no service has a route for '/web'."


# route_owner


def routed(**routes: list[str]) -> Request:
    return make_request(services={name: service(routes=paths) for name, paths in routes.items()})


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/", "web"),
        ("/index.html", "web"),
        ("/api/", "api"),
        ("/api/orders", "api"),
        ("/api/admin/x", "admin"),
        ("/api", "web"),
        ("/apix", "web"),
        ("/healthz", "probe"),
        ("/healthz?full=1", "probe"),
        ("/healthz/deep", "web"),
        ("/healthzz", "web"),
    ],
)
def test_the_longest_matching_route_owns_a_path(path: str, owner: str) -> None:
    request = routed(web=["/"], api=["/api/"], admin=["/api/admin/"], probe=["/healthz"])
    assert route_owner(request, path) == owner


def test_a_path_outside_every_route_has_no_owner() -> None:
    assert route_owner(routed(api=["/api/"]), "/") is None


@QUICK
@given(st.lists(st.from_regex(r"/([a-c]/){0,3}", fullmatch=True), min_size=1, max_size=5, unique=True), st.data())
def test_the_owner_has_the_longest_route_that_is_a_prefix(routes: list[str], data: st.DataObject) -> None:
    request = routed(**{f"s{index}": [route] for index, route in enumerate(routes)})
    path = data.draw(st.from_regex(r"/([a-d]/){0,4}", fullmatch=True))
    fitting = sorted((r for r in routes if path.startswith(r)), key=len)
    expected = f"s{routes.index(fitting[-1])}" if fitting else None
    assert route_owner(request, path) == expected


# public


@QUICK
@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=6, max_size=40))
def test_the_public_request_holds_no_secret_value(value: str) -> None:
    secret = f"<{value}>"
    request = make_request(
        secrets={"KEY": {"value": secret, "uid": 7}},
        services={"api": service(secrets=["KEY"], secret_env={"TOKEN": "KEY"})},
    )
    public = json.dumps(request.public(), ensure_ascii=False)
    assert secret not in public and json.dumps(secret, ensure_ascii=False)[1:-1] not in public
    assert request.public()["secrets"] == {"KEY": {"value": "", "uid": 7}}


def test_the_public_request_reads_back_as_the_same_request() -> None:
    request = make_request(migration={"service": "api", "command": ["up"]}, database={"max_connections": 50})
    assert parse(json.loads(json.dumps(request.public()))) == request
