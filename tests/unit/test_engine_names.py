"""Names: what may reach a path, a container, an Nginx variable or a command line, and what may not."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import (
    AppName,
    check_service,
    check_version,
    is_newer,
    nearest,
    other,
    parse_release_id,
    release_id,
)
from tests.unit.engine_world import QUICK

INJECTIONS = [
    "", "1.0; rm -rf /", "$(id)", "`id`", "a|b", "a&b", "a>b", "a b", "a\tb", "a'b", 'a"b', "a\\b", "a*b", "{a}",
    "../1.0", "1.0/..", "a/b", "..", ".hidden", "-rf", "--help", "1.0\n", "\n1.0", "1.0\x00", "1.0\r", "ä", "1.0+build",
    "a:b", "a@b", "a#b", "a%2e", "\u0661.0.0",
]  # fmt: skip
versions = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
apps = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,3}", fullmatch=True)
environments = st.from_regex(r"[a-z][a-z0-9]{0,12}", fullmatch=True)


@pytest.mark.parametrize("text", INJECTIONS)
def test_an_injection_is_no_name_of_any_kind(text: str) -> None:
    for check in (check_version, check_service, lambda t: AppName(t, "prod"), lambda t: AppName("shop", t)):
        with pytest.raises(SwitchyardError) as error:
            check(text)
        assert error.value.code is Exit.USAGE


@QUICK
@given(st.text(max_size=140))
def test_a_version_that_passes_needs_no_quoting_anywhere(text: str) -> None:
    try:
        assert check_version(text) == text
    except SwitchyardError:
        return
    assert text.isascii()
    assert re.sub(r"[A-Za-z0-9_.-]", "", text) == ""
    assert text[0] not in "-." and len(text) <= 128


@QUICK
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_name_that_passes_is_one_path_component_and_one_word(app: str, environment: str) -> None:
    try:
        name = AppName(app, environment)
    except SwitchyardError:
        return
    assert re.fullmatch(r"[a-z0-9-]+", str(name)) is not None
    assert re.fullmatch(r"[a-z0-9_]+", name.variable) is not None


@pytest.mark.parametrize("text", ["Shop", "shop_a", "-shop", "shop-", "shop--web", "9shop", "a" * 129, "shop."])
def test_an_app_name_outside_the_rule_is_refused(text: str) -> None:
    with pytest.raises(SwitchyardError, match="not a valid application name"):
        AppName(text, "prod")


def test_an_environment_has_no_dash_since_that_would_make_names_ambiguous() -> None:
    with pytest.raises(SwitchyardError, match="'prod-eu' is not a valid environment name"):
        AppName("shop", "prod-eu")


def test_a_refusal_shows_only_the_start_of_a_long_name() -> None:
    with pytest.raises(SwitchyardError) as error:
        check_version("x" * 5000)
    assert len(error.value.message) < 200


@QUICK
@given(apps, environments)
def test_a_name_reads_back_in_one_way(app: str, environment: str) -> None:
    name = AppName(app, environment)
    assert AppName.parse(str(name)) == name


@QUICK
@given(apps, environments, apps, environments)
def test_two_names_share_neither_text_nor_variable_nor_project(a: str, b: str, c: str, d: str) -> None:
    left, right = AppName(a, b), AppName(c, d)
    if left == right:
        return
    assert str(left) != str(right)
    assert left.variable != right.variable
    assert {left.project("blue"), left.project("green")}.isdisjoint({right.project("blue"), right.project("green")})


@pytest.mark.parametrize("text", ["shop", "", "-prod", "shop-", "a/b-prod", "shop-prod\n"])
def test_what_is_no_app_and_environment_does_not_parse(text: str) -> None:
    with pytest.raises(SwitchyardError):
        AppName.parse(text)


@QUICK
@given(st.integers(1, 10**7), versions)
def test_a_release_id_reads_back(number: int, version: str) -> None:
    assert parse_release_id(release_id(number, version)) == (number, version)


@QUICK
@given(st.lists(st.integers(1, 9999), min_size=2, max_size=5), versions)
def test_release_ids_sort_by_number(numbers: list[int], version: str) -> None:
    assert sorted(release_id(n, version) for n in numbers) == [release_id(n, version) for n in sorted(numbers)]


@pytest.mark.parametrize("text", ["", "1.0.0", "42-1.0", "0042", "0042-", "0042-../x", "0042-1.0\n", "x0042-1.0"])
def test_what_is_no_release_id_is_none(text: str) -> None:
    assert parse_release_id(text) is None


# Section 11 of semantic versioning, and the example in it
ASCENDING = [
    "0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
    "1.0.0-rc.1", "1.0.0", "1.0.1-0", "1.0.1", "1.9.0", "1.10.0", "2.0.0", "10.0.0",
]  # fmt: skip


def test_versions_order_as_semantic_versioning_says() -> None:
    for (i, left), (j, right) in itertools.product(enumerate(ASCENDING), repeat=2):
        assert is_newer(left, right) is (i > j), (left, right)


def test_a_leading_v_and_build_data_do_not_count() -> None:
    assert is_newer("v1.0.1", "1.0.0")
    assert not is_newer("v1.0.0", "1.0.0")
    assert not is_newer("1.0.0+b", "1.0.0+a")


@pytest.mark.parametrize("text", ["main", "9f3c2ab", "1.0", "1.0.0.0", "latest", ""])
def test_what_is_no_semantic_version_has_no_order(text: str) -> None:
    assert not is_newer(text, "1.0.0")
    assert not is_newer("1.0.0", text)


@QUICK
@given(versions, versions)
def test_of_two_versions_at_most_one_is_newer(left: str, right: str) -> None:
    assert not (is_newer(left, right) and is_newer(right, left))


def test_the_nearest_name_is_offered_and_a_far_one_is_not() -> None:
    assert nearest("stagin", ["production", "staging"]) == ", did you mean 'staging'?"
    assert nearest("xyz", ["production", "staging"]) == ""
    assert nearest("x", []) == ""


def test_the_other_colour_of_the_other_colour_is_the_colour() -> None:
    assert (other("blue"), other("green")) == ("green", "blue")
