"""The page is whole, accessible in its structure, asks nothing of anybody, and shows no markup that data brought."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from switchyard.engine.site import Pointer
from switchyard.report import collector, metrics, page
from switchyard.report.charts import nice
from switchyard.report.data import Data
from switchyard.report.dora import compute
from switchyard.report.style import CSS
from switchyard.report.traffic import Minutes
from switchyard.watch import standing
from tests.unit.engine_world import NAME, World
from tests.week import Week, week

VOID = {"meta", "br", "path", "rect", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and complains about ends that do not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@cache
def made_up() -> tuple[Week, Minutes]:
    made = week(5)
    return made, made.traffic()


def sample(**changes: Any) -> Data:
    made, minutes = made_up()
    given = {
        "events": made.events,
        "minutes": minutes,
        "figures": {
            "cpus": 2, "load": 0.6, "memory": {"total": 4e9, "available": 1e9}, "boot": made.until.timestamp() - 1e5,
            "disks": [{"path": "/", "size": 40e9, "free": 3e9, "inodes_free": 0.5, "days_to_full": 3.1}],
        },
        "lines": len(made.events),
    }  # fmt: skip
    return Data("shop", "production", "web-1", made.until - timedelta(days=7), made.until, **{**given, **changes})


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(sample())


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_is_well_formed_and_asks_nothing_of_anybody(html: str) -> None:
    reader = read(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.elements}
    assert not re.search(r"url\(|@import|https?:", html)
    policy = next(attributes["content"] for tag, attributes in reader.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_can_be_read_without_seeing_it(html: str) -> None:
    elements = read(html).elements
    assert ("html", {"lang": "en"}) in elements
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attributes.get("aria-label") for tag, attributes in elements if tag == "svg")
    tables = [tag for tag, _ in elements if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2) and tables
    identities = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_the_page_says_what_the_ledger_says(html: str) -> None:
    data, words = sample(), " ".join(read(html).words)
    figures = compute(data.events, data.since, data.until)
    assert f"{figures.deployments} in all" in words and f"{figures.failures} taken back" in words
    last = [event["release"] for event in data.events if event["event"] == "live"][-1]
    assert last in words
    for reason in {event["reason"] for event in data.events if event["event"] == "bad"}:
        assert reason in words
    assert "full in 3.1 days" in words


def test_a_changed_ledger_is_shouted(html: str) -> None:
    assert "Something else than the engine" not in html
    changed = page.render(sample(findings=["line 7 was edited"]))
    assert "Something else than the engine changed the ledger." in changed and "line 7 was edited" in changed


def test_what_data_brings_is_text() -> None:
    evil = "<script>alert(1)</script>\"'><b>"
    events = [
        {"time": "2026-03-15T10:00:00+00:00", "event": "start", "op": "a", "kind": evil, "who": evil, "version": evil},
        {"time": "2026-03-15T10:00:01+00:00", "event": "live", "op": "a", "release": evil, "colour": evil},
        {"time": "2026-03-15T10:00:02+00:00", "event": "end", "op": "a", "outcome": evil, "message": evil},
        {"time": "2026-03-15T10:00:03+00:00", "event": "drill", "subject": evil, "outcome": evil},
    ]
    jobs = {evil: {"job": evil, "ok": False, "at": "", "message": evil}}
    elements = read(page.render(sample(events=events, jobs=jobs, findings=[evil]))).elements
    assert not {"script", "b"} & {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)


def test_a_host_on_which_nothing_has_happened_yet_has_a_page() -> None:
    words = " ".join(read(page.render(sample(events=[], minutes={}, figures={}, lines=0))).words)
    assert "Nothing is live yet." in words and "No request was logged" in words and "Nothing was done" in words


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.0731, 0.08), (1, 1), (1.1, 1.5), (39, 40), (401, 500), (900, 1000)]
)
def test_a_value_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [value / 255 for value in bytes.fromhex(digits)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(mode: int) -> None:
    rules = re.findall(r":root\{(.*?)\}", CSS, re.DOTALL)[mode]
    palette = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", rules))
    pairs = [("ink", "bg"), ("ink", "card"), ("muted", "bg"), ("muted", "card"), ("muted", "plain"), ("bad", "card")]
    for ink, paper in [*pairs, ("good", "goodbg"), ("bad", "badbg"), ("left", "leftbg"), ("accent", "card")]:
        dark, light = sorted(luminance(palette[name]) for name in (ink, paper))
        # WCAG 2.2, success criterion 1.4.3.
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


# The collector


def test_the_collector_makes_page_and_metrics(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = week(3)
    world.paths.ledger.parent.mkdir(parents=True)
    world.paths.ledger.write_bytes(made.text)
    assert collector.collect([NAME], world.host, 7.0) == {str(NAME): 0}
    read(collector.page_file(NAME).read_text())
    monkeypatch.setattr(metrics, "DIRECTORY", world.root / "textfile")
    assert not metrics.write([NAME])
    (world.root / "textfile").mkdir()
    collector.collect([NAME], world.host, 7.0)
    text = (world.root / "textfile" / "switchyard.prom").read_text()
    deployed = len([e for e in made.events if e["event"] == "live" and e["committed"]])
    assert f'switchyard_deployments_total{{app="shop",environment="test"}} {deployed}\n' in text
    names = set(re.findall(r"^(\w+?)(?:_bucket|_count|_sum)?\{", text, re.MULTILINE))
    assert names <= set(metrics._HELP)


def test_probation_last_verdict_and_last_look_are_metrics_while_nobody_holds_the_lease(world: World) -> None:
    world.release(1, "blue")
    world.release(2, "green", previous="0001-1.0.0", probation=True)
    world.ledger().append("verdict", op="x", release="0001-1.0.0", verdict="pass")
    found = {name: (labels, value) for name, labels, value in metrics.samples([NAME])}
    app = {"app": "shop", "environment": "test"}
    assert found["switchyard_probation"] == (app, 1.0)
    assert found["switchyard_verdict_info"] == (app | {"release": "0001-1.0.0", "verdict": "pass"}, 1)
    assert "switchyard_looked_seconds" not in found
    standing.save(standing.Standing(looked_at=1234.0))
    world.point(Pointer("0002-2.0.0", "green", "0001-1.0.0"))
    found = {name: (labels, value) for name, labels, value in metrics.samples([NAME])}
    assert (found["switchyard_probation"][1], found["switchyard_looked_seconds"]) == (0.0, ({}, 1234.0))


def test_labels_are_escaped() -> None:
    assert metrics.text([("switchyard_probation", {"app": 'a"b\\c\nd'}, 1)]).endswith('{app="a\\"b\\\\c\\nd"} 1\n')


def test_a_large_log_is_rotated_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated: list[list[str]] = []
    monkeypatch.setattr(collector, "run", lambda argv, **_: rotated.append(argv))
    log = world.root / "var" / "log" / "switchyard" / "edge" / f"{NAME}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"{}\n")
    collector._rotate()
    assert rotated == []
    with log.open("ab") as file:
        file.truncate(collector._LARGE_LOG_BYTES + 1)
    collector._rotate()
    assert rotated == [["logrotate", "/etc/logrotate.d/switchyard-edge"]]
