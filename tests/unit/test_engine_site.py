"""The pointer file's text: what Nginx is told for a first release, on probation, after it, and with old assets."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import layout
from switchyard.engine.site import Pointer, Site, read
from switchyard.names import Colour
from tests.unit.engine_world import QUICK, World, service

WEB = {"web": service(routes=["/"], asset_paths=["/assets/"]), "api": service(routes=["/api/", "/healthz"])}


def blocks(text: str, opening: str) -> dict[str, str]:
    """Top-level blocks whose head matches `opening` (one group names them), by that name."""
    found = {}
    for match in re.finditer(rf"^{opening} {{$", text, re.MULTILINE):
        found[match[1]] = text[match.end() : text.index("\n}", match.end())]
    return found


def upstreams(text: str) -> dict[str, list[str]]:
    return {name: re.findall(r"^    server (.*);$", body, re.MULTILINE) for name, body in
            blocks(text, r"upstream (\S+)").items()}  # fmt: skip


def locations(text: str) -> dict[str, str]:
    found = re.findall(r"^    location (= /\S*|/\S*|@\S+) \{\n(.*?)^    \}$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def check_structure(text: str) -> None:
    """What holds for every file: balanced, closed, and nothing names what is not there."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    outside = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "", code)
    depth = 0
    for character in outside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    for line in outside.splitlines():
        bare = line.strip()
        assert not bare or bare[-1] in "{};", line
    defined = re.findall(r"^upstream (\S+) \{$", text, re.MULTILINE)
    assert len(defined) == len(set(defined))
    passed_to = re.findall(r"proxy_pass http://([^$/;]+)", text)
    mapped_to = re.findall(r"(?:default|idle|old) ([\w-]+\.[\w.-]+);", text)
    assert {*passed_to, *mapped_to} == set(defined)
    for name, servers in upstreams(text).items():
        assert servers and any("backup" not in server for server in servers), name
    # Top-level blocks are servers, upstreams and maps alone; a stray directive would be one of http{}.
    assert set(re.findall(r"^(\w+)", code, re.MULTILINE)) <= {
        "map",
        "log_format",
        "upstream",
        "server",
        "split_clients",
    }
    named = re.findall(r"^    location (@\S+) \{$", text, re.MULTILINE)
    assert set(re.findall(r"error_page [0-9 ]+= (@[^;]+);", text)) <= set(named)
    assert len(named) == len(set(named))


def render(
    world: World, services: dict[str, Any], *, colour: Colour = "blue", previous: bool = False, probation: bool = False
) -> tuple[Site, str]:
    old = world.record(1, services=services) if previous else None
    live = world.record(2, services=services)
    site = world.site(Pointer(live.id, colour, old.id if old else "", probation), live, old)
    text = site.render()
    check_structure(text)
    return site, text


def test_a_first_release_is_alone_in_its_upstream(world: World) -> None:
    site, text = render(world, {"api": service()})
    assert upstreams(text) == {"shop-test.api": [f"{site.live_targets('api')[0]} max_fails=0"]}
    assert "backup" not in text and "previous" not in text.partition("\n")[2]


def test_the_whole_file_of_a_small_first_release(world: World) -> None:
    _, text = render(world, {"api": service()})
    mark, *lines = text.splitlines()
    assert read(mark) == Pointer("0002-2.0.0", "blue")
    start = lines.index("upstream shop-test.api {")
    assert (
        lines[start:]
        == f"""\
upstream shop-test.api {{
    zone shop-test.api 128k;
    server 127.0.0.1:18000 max_fails=0;
    keepalive 64;
    keepalive_timeout 60s;
}}

server {{
    include sites/shop-test.conf;
    access_log {layout.LOGS}/edge/shop-test.jsonl shop-test buffer=64k flush=1s;
    location / {{
        include proxy.conf;
        proxy_read_timeout 60s;
        proxy_pass http://shop-test.api;
    }}
}}

server {{
    listen 127.0.0.1:8901;
    server_name shop-test.proof;
    access_log off;
    location = /api {{
        include proxy.conf;
        proxy_read_timeout 60s;
        add_header X-Switchyard-Release 0002-2.0.0 always;
        add_header X-Switchyard-Upstream $upstream_addr always;
        proxy_pass http://shop-test.api/health;
    }}
    location /via/api/ {{
        include proxy.conf;
        proxy_read_timeout 60s;
        add_header X-Switchyard-Release 0002-2.0.0 always;
        add_header X-Switchyard-Upstream $upstream_addr always;
        proxy_pass http://shop-test.api/;
    }}
}}""".splitlines()
    )


def test_on_probation_the_previous_release_is_the_backup_and_nothing_else(world: World) -> None:
    site, text = render(world, WEB, colour="green", previous=True, probation=True)
    assert site.previous is not None
    for name in ("web", "api"):
        new, old = site.live_targets(name), site.targets(site.previous, name, "blue")
        assert upstreams(text)[f"shop-test.{name}"] == [f"{new[0]} max_fails=0", f"{old[0]} max_fails=0 backup"]
        assert set(new).isdisjoint(old)


def test_settled_the_previous_release_gets_no_traffic(world: World) -> None:
    site, text = render(world, {"api": service()}, colour="green", previous=True)
    assert site.previous is not None
    old = site.targets(site.previous, "api", "blue")
    assert upstreams(text) == {"shop-test.api": [f"{site.live_targets('api')[0]} max_fails=0"]}
    # The log still knows its address: workers of before the reload finish their requests there.
    assert re.escape(old[0]) in text


def test_each_line_of_the_log_says_for_which_release_the_request_was(world: World) -> None:
    site, text = render(world, {"api": service()}, colour="green", previous=True, probation=True)
    new, old = site.pointer.release, site.pointer.previous
    assert f'"meant":"{new}"' in text
    # Whoever looks at the other colour is no user of this one.
    text = with_preview(site)
    assert '"meant":"$shop_test_meant"' in text
    assert f'map $switchyard_preview $shop_test_meant {{ default "{new}"; idle ""; }}' in text
    text = with_preview(site, share=5)
    assert text.count("$shop_test_meant {") == 1
    assert f'map $shop_test_side $shop_test_meant {{ default "{new}"; old "{old}"; }}' in text


def with_preview(site: Site, **pointer: Any) -> str:
    """The text of the same site where the preview is on."""
    text = replace(site, host=replace(site.host, preview=True), pointer=replace(site.pointer, **pointer)).render()
    check_structure(text)
    return text


def test_the_preview_is_answered_by_the_idle_colour_whatever_was_there_before(world: World) -> None:
    for previous in (False, True):
        site, text = render(world, {"api": service()}, previous=previous)
        assert "switchyard_preview" not in text
        text = with_preview(site)
        idle = site.targets(site.live, "api", "green")
        assert upstreams(text)["shop-test.api.idle"] == [f"{idle[0]} max_fails=0"]
        assert "map $switchyard_preview $shop_test_to_api { default shop-test.api; idle shop-test.api.idle; }" in text
        assert "proxy_pass http://$shop_test_to_api;" in locations(text)["/"]


def test_the_preview_of_a_canary_is_the_canary_also_when_nobody_else_has_it(world: World) -> None:
    site, _ = render(world, {"api": service()}, colour="green", previous=True, probation=True)
    text = with_preview(site, share=0)
    assert "split_clients $remote_addr $shop_test_draw { * old; }" in text
    assert "map $switchyard_preview $shop_test_side { default $shop_test_choice; idle new; }" in text
    assert ".idle" not in text


def test_while_hosts_move_one_by_one_there_is_no_preview(world: World) -> None:
    site, _ = render(world, {"api": service()}, previous=True)
    assert "switchyard_preview" not in with_preview(site, rolling=True)
    alone = {"blue": {"api": ["127.0.0.1:1"]}}
    assert "switchyard_preview" not in with_preview(site, members=alone, previous="")


def test_a_404_under_the_asset_paths_is_asked_of_the_previous_release(world: World) -> None:
    site, text = render(world, WEB, colour="green", previous=True)
    assert site.previous is not None
    found = locations(text)
    assert set(found) == {"/", "/api/", "= /healthz", "/assets/", "@shop-test-web-previous", "@shop-test-gone",
                          "= /web", "= /api", "/via/web/", "/via/api/"}  # fmt: skip
    assert "error_page 404 = @shop-test-web-previous;" in found["/assets/"]
    assert "proxy_pass http://shop-test.web.previous;" in found["@shop-test-web-previous"]
    assert upstreams(text)["shop-test.web.previous"] == [f"{site.targets(site.previous, 'web', 'blue')[0]} max_fails=0"]
    for location in ("/", "/api/", "= /healthz"):
        assert "error_page" not in found[location]


def test_without_a_previous_release_an_asset_is_a_plain_location(world: World) -> None:
    _, text = render(world, {"web": service(asset_paths=["/assets/"])})
    assert "error_page" not in text.partition("location @")[0]
    assert "proxy_pass http://shop-test.web;" in locations(text)["/assets/"]


def test_an_asset_path_that_is_also_a_route_is_there_once(world: World) -> None:
    services = {"web": service(routes=["/", "/assets/"], asset_paths=["/assets/"])}
    _, text = render(world, services, previous=True, colour="green")
    assert len(re.findall(r"location /assets/ ", text)) == 1
    assert "error_page 404" in locations(text)["/assets/"]


def test_a_service_that_the_previous_release_lacked_has_no_backup(world: World) -> None:
    old = world.record(1, services={"api": service(routes=["/api/"])})
    live = world.record(2, services=WEB)
    text = world.site(Pointer(live.id, "green", old.id, probation=True), live, old).render()
    check_structure(text)
    assert len(upstreams(text)["shop-test.api"]) == 2
    assert len(upstreams(text)["shop-test.web"]) == 1
    assert "shop-test.web.previous" not in text


def test_several_instances_are_ejected_one_by_one_and_one_alone_never(world: World) -> None:
    site, text = render(world, {"api": service(instances=3), "web": service(routes=["/web/"])})
    assert upstreams(text)["shop-test.api"] == [f"{t} max_fails=2 fail_timeout=5s" for t in site.live_targets("api")]
    assert len(set(site.live_targets("api"))) == 3
    assert upstreams(text)["shop-test.web"] == [f"{site.live_targets('web')[0]} max_fails=0"]


def test_every_app_host_is_in_the_upstream(world: World) -> None:
    live = world.record(1, services={"api": service(instances=2)})
    targets = ["10.0.0.5:18000", "10.0.0.5:18002", "[fd00::6]:18000", "[fd00::6]:18002"]
    text = world.site(Pointer(live.id, "blue", members={"blue": {"api": targets}}), live).render()
    check_structure(text)
    assert [s.split()[0] for s in upstreams(text)["shop-test.api"]] == targets


def test_every_route_goes_to_its_service_with_its_own_read_timeout(world: World) -> None:
    services = {
        "web": service(routes=["/", "/robots.txt"], response_timeout=30),
        "api": service(routes=["/api/"], response_timeout=90),
    }
    _, text = render(world, services)
    for location, name, seconds in (("/", "web", 30), ("= /robots.txt", "web", 30), ("/api/", "api", 90)):
        assert f"proxy_pass http://shop-test.{name};" in locations(text)[location]
        assert f"proxy_read_timeout {seconds}s;" in locations(text)[location]


def test_each_service_is_proven_through_its_real_upstream(world: World) -> None:
    services = {"web": service(routes=["/"], health={"path": "/up"}), "api": service(routes=["/api/"])}
    _, text = render(world, services)
    proof = text[text.rindex("\nserver {") :]
    assert "proxy_pass http://shop-test.web/up;" in proof and "proxy_pass http://shop-test.api/health;" in proof
    assert proof.count("X-Switchyard-Release 0002-2.0.0 always;") == 4
    assert proof.count("X-Switchyard-Upstream $upstream_addr always;") == 4
    assert "listen 127.0.0.1:8901;" in proof


def test_the_log_names_the_release_that_answered_last(world: World) -> None:
    site, text = render(world, {"api": service()}, colour="green", previous=True, probation=True)
    assert site.previous is not None
    new, old = site.live_targets("api")[0], site.targets(site.previous, "api", "blue")[0]
    body = blocks(text, r"map \$upstream_addr (\S+)")["$shop_test_release"]
    exact = dict(re.findall(r'^    "([^~"]+)" (\S+);$', body, re.MULTILINE))
    patterns = re.findall(r'^    "~(.+)" (\S+);$', body, re.MULTILINE)

    def named(upstream_address: str) -> list[str]:
        """As Nginx does: the exact key first, then the patterns in order."""
        if upstream_address in exact:
            return [exact[upstream_address]]
        return [value for pattern, value in patterns if re.search(pattern, upstream_address)]

    assert named(new) == [site.live.id]
    assert named(f"{new}, {old}") == [site.previous.id]
    assert named(old) == [site.previous.id]
    assert named(f"1{new}") == [] and named("") == [] and named(f"{new}9") == []


def test_the_log_line_is_json_with_numbers_where_nginx_always_has_them(world: World) -> None:
    _, text = render(world, {"api": service()})
    (form,) = re.findall(r"^log_format shop-test escape=json '(.*)';$", text, re.MULTILINE)
    assert form.startswith("{") and form.endswith("}")
    keys = re.findall(r'"(\w+)":("?)\$(\w+)\2[,}]', form)
    assert len(keys) == form.count("$")
    assert {key for key, quote, _ in keys if not quote} == {"msec", "status", "bytes", "seconds"}


releases = st.from_regex(r"[0-9]{4}-[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@QUICK
@given(
    colour=st.sampled_from(["blue", "green"]),
    version=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}", fullmatch=True),
    previous=releases,
    probation=st.booleans(),
)
def test_the_pointer_reads_back_from_the_text(
    world: World, colour: Colour, version: str, previous: str, probation: bool
) -> None:
    live = world.record(1, version=version)
    pointer = Pointer(live.id, colour, previous, probation)
    assert read(world.site(pointer, live).render()) == pointer


@pytest.mark.parametrize(
    "text",
    ["", "server {}", "# switchyard", "# switchyard {", "# switchyard []", '# switchyard {"release": "x"}',
     '# switchyard {"release": "x", "colour": "blue", "more": 1}', '\n# switchyard {"release":"x","colour":"blue"}'],
)  # fmt: skip
def test_what_is_no_pointer_file_of_ours_is_none(text: str) -> None:
    assert read(text) is None


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["api", "web", "admin"]), st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=3
    ),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_services_are_the_file_holds_together(
    world: World, shape: dict[str, tuple[int, bool]], previous: bool, probation: bool
) -> None:
    services = {
        name: service(routes=[f"/{name}/"], instances=count, asset_paths=[f"/{name}/assets/"] if assets else [])
        for name, (count, assets) in shape.items()
    }
    site, text = render(world, services, colour="green", previous=previous, probation=previous and probation)
    for name in services:
        assert f"/{name}/" in locations(text)
        assert [s.split()[0] for s in upstreams(text)[f"shop-test.{name}"] if "backup" not in s] == site.live_targets(
            name
        )
