"""The page: one self-contained HTML document about one application. Pure; it asks nothing of anybody when shown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import pairwise
from typing import Any

from switchyard.report import charts, story, traffic
from switchyard.report.charts import Axis, Mark
from switchyard.report.data import Data
from switchyard.report.dora import Dora, compute, duration
from switchyard.report.facts import objectives
from switchyard.report.story import Stay
from switchyard.report.style import CSS
from switchyard.report.traffic import Tally

_VERDICTS = {"good": "good", "bad": "taken back", "left": "left by a person"}
_AROUND_MINUTES = 30
_SWITCHES = 9
_ROWS = 40
_BUCKETS = 14
_POINTS = 168
"""Values that the overview has at most: one an hour over a week."""


def render(data: Data) -> str:
    """The whole document."""
    told = story.stays(data.events)
    title = f"{data.app} in {data.environment}"
    parts = [
        _head(data, title, told),
        _alarm(data),
        _dora(data),
        _users(data, told),
        _switches(data, told),
        _timeline(data),
        _backups(data),
        _host(data),
        _footer(data),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Should a value ever carry markup past the escaping, it still could load and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(anchor: str, title: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{note}</p>' if note else ""
    return f'<h2 id="{anchor}">{title}</h2>{said}{body}'


def _nothing(anchor: str, title: str, words: str) -> str:
    return _section(anchor, title, f'<div class="card"><p class="muted">{words}</p></div>')


def _day(moment: datetime) -> str:
    return f"{moment:%a} {moment.day} {moment:%b}"


def _time(moment: datetime) -> str:
    return f'<time datetime="{moment.isoformat(timespec="seconds")}">{_day(moment)} {moment:%H:%M}</time>'


def _pill(kind: str, words: str) -> str:
    return f'<span class="pill {kind}">{escape(words)}</span>'


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{share * 100:.2f} %" if share < 0.01 else f"{share * 100:.1f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


# Head


def _head(data: Data, title: str, told: Sequence[Stay]) -> str:
    head = (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="muted small">{_day(data.since)} to {_day(data.until)} {data.until:%Y}, '
        f"made {data.until:%H:%M} UTC on {escape(data.host)}</p></header>"
    )
    if not told:
        return f'{head}<div class="card live"><p>Nothing is live yet.</p></div>'
    live, previous = told[-1], next((stay for stay in reversed(told[:-1]) if stay.release != told[-1].release), None)
    seen = traffic.total(data.minutes, (data.until - timedelta(hours=1)).timestamp()).get(live.release, Tally())
    facts = [
        ("Live", f'<span class="big">{escape(live.release)}</span>'),
        ("For", duration((data.until - live.since).total_seconds())),
        ("Colour", escape(live.colour) or "-"),
        ("Before it", escape(previous.release) if previous else "-"),
    ]
    if seen.requests:
        facts += [("Errors, last hour", _percent(seen.error_share)), ("p95, last hour", _ms(seen.percentile(0.95)))]
    items = "".join(f"<dl><dt>{name}</dt><dd>{value}</dd></dl>" for name, value in facts)
    return f'{head}<div class="card live">{items}</div>'


def _alarm(data: Data) -> str:
    if not data.findings:
        return ""
    items = "".join(f"<li>{escape(finding)}</li>" for finding in data.findings[:10])
    return (
        '<div class="card alarm" role="alert"><strong>Something else than the engine changed the ledger.</strong>'
        f"<ul>{items}</ul></div>"
    )


# DORA


@dataclass(frozen=True)
class _Tile:
    name: str
    value: Callable[[Dora], float | None]
    words: Callable[[float], str]


_TILES = (
    _Tile("Deployments a day", lambda figures: figures.deployments_per_day, lambda value: f"{value:.1f}"),
    _Tile("Lead time", lambda figures: figures.lead_time_seconds, duration),
    _Tile("Change failure rate", lambda figures: figures.change_failure_rate, lambda value: f"{value:.0%}"),
    _Tile("Time to recovery", lambda figures: figures.recovery_seconds, duration),
    _Tile("Time between failures", lambda figures: figures.between_failures_seconds, duration),
)


def _dora(data: Data) -> str:
    span = data.until - data.since
    period = compute(data.events, data.since, data.until)
    earlier = compute(data.events, data.since - span, data.since)
    known = any(story.moment(event) < data.since for event in data.events)
    step = span / _BUCKETS if span < timedelta(days=_BUCKETS) else timedelta(days=max(1, span.days // _BUCKETS))
    if timedelta(days=3) <= span <= timedelta(days=_BUCKETS):
        step = timedelta(days=1)
    count = max(1, round(span / step))
    trend = [
        compute(data.events, data.until - step * (count - index), data.until - step * (count - index - 1))
        for index in range(count)
    ]
    tiles = "".join(_tile(tile, period, earlier if known else None, trend) for tile in _TILES)
    each = "day" if step == timedelta(days=1) else duration(step.total_seconds())
    note = f"The four DORA figures and one more, computed from the ledger. The bars show each {each} of the period."
    return _section("delivery", "Delivery", f'<div class="tiles">{tiles}</div>', note)


def _tile(tile: _Tile, period: Dora, earlier: Dora | None, trend: Sequence[Dora]) -> str:
    value = tile.value(period)
    before = tile.value(earlier) if earlier else None
    words = tile.words(value) if value is not None else "-"
    compared = f"before: {tile.words(before)}" if before is not None else ""
    values = [tile.value(figures) for figures in trend]
    if "Deployments" in tile.name:
        values = [float(figures.deployments) for figures in trend]
        compared = f"{period.deployments} in all<br>{compared}"
    elif "failure rate" in tile.name:
        compared = f"{period.failures} taken back<br>{compared}"
    told = ", ".join(tile.words(value) if value is not None else "none" for value in values)
    drawn = charts.spark(values, "err" if "failure rate" in tile.name else "bar", f"{tile.name}: {told}")
    return (
        f'<div class="card tile"><h3 class="muted">{tile.name}</h3><div class="value">{words}</div>'
        f'<div class="before">{compared}</div><div class="spark">{drawn}</div></div>'
    )


# What users got


def _axis(data: Data) -> Axis:
    """The period, with a tick for each of its days (or each few hours of a short one)."""
    first, last = data.since.timestamp(), data.until.timestamp()
    span = data.until - data.since
    step = timedelta(days=max(1, round(span.days / 8))) if span > timedelta(days=2) else timedelta(hours=6)
    at = datetime.combine(data.since.astimezone(UTC).date(), datetime.min.time(), UTC)
    ticks = []
    while at < data.until:
        if at >= data.since:
            ticks.append((at.timestamp(), f"{at:%a} {at.day}" if step >= timedelta(days=1) else f"{at:%H:%M}"))
        at += step
    return Axis(first, last, ticks)


def _marks(told: Iterable[Stay], axis: Axis) -> list[Mark]:
    return [
        Mark(
            stay.since.timestamp(), stay.verdict, f"{stay.release}, {_VERDICTS[stay.verdict]}, {stay.since:%d %b %H:%M}"
        )
        for stay in told
        if axis.first <= stay.since.timestamp() <= axis.last and stay.kind != "revert"
    ]


def _users(data: Data, told: Sequence[Stay]) -> str:
    axis = _axis(data)
    span = axis.last - axis.first
    slots = max(1, min(_POINTS, int(span // 300)))
    tallies = [Tally() for _ in range(slots)]
    for minute, by_release in data.minutes.items():
        at = minute * 60
        if axis.first <= at < axis.last:
            for tally in by_release.values():
                tallies[int((at - axis.first) / span * slots)].merge(tally)
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    if not whole.requests:
        return _nothing("users", "What users got", "No request was logged in this period.")
    minutes = span / slots / 60
    rate = [tally.requests / minutes if tally.requests else None for tally in tallies]
    share = [tally.error_share if tally.requests else None for tally in tallies]
    slow = [tally.percentile(0.95) if tally.requests else None for tally in tallies]
    tops = [charts.nice(max((v for v in values if v is not None), default=0)) for values in (rate, share, slow)]
    marks = _marks(told, axis)
    each = duration(span / slots)
    panels = [
        charts.panel(
            "Requests a minute", charts.line(rate, tops[0], "all", filled=True), axis, f"{_count(tops[0])}",
            f"Requests a minute, at most {_count(tops[0])}", marks=marks, named=False,
        ),
        charts.panel(
            "Errors (5xx)", charts.bars(share, tops[1], "err", 0.1), axis, _percent(tops[1]),
            f"Share of errors, on average {_percent(whole.error_share)}", marks=marks, named=False,
        ),
        charts.panel(
            "Response time, p95", charts.line(slow, tops[2], "all", filled=True), axis, _ms(tops[2]),
            f"95th percentile of response times, on average {_ms(whole.percentile(0.95))}", marks=marks,
        ),
    ]  # fmt: skip
    key = "".join(f'<li class="{kind}"><i></i>release, {words}</li>' for kind, words in _VERDICTS.items())
    note = (
        f"{_count(whole.requests)} requests, {_percent(whole.error_share)} errors, p95 {_ms(whole.percentile(0.95))}. "
        f"Each point is {each}."
    )
    return _section(
        "users", "What users got", f'<div class="card">{"".join(panels)}<ul class="key">{key}</ul></div>', note
    )


# Around each switch


def _switches(data: Data, told: Sequence[Stay]) -> str:
    shown = [(before, stay) for before, stay in pairwise(told) if stay.since >= data.since and stay.kind != "revert"]
    # Those that went wrong are what one wants to see; the newest others beside them.
    wrong = [pair for pair in shown if pair[1].verdict != "good"][-_SWITCHES:]
    chosen = wrong + [pair for pair in shown if pair not in wrong][len(wrong) - _SWITCHES :] if shown else []
    chosen = sorted(chosen[:_SWITCHES], key=lambda pair: pair[1].since, reverse=True)
    cards = [card for before, stay in chosen if (card := _switch(data, before, stay))]
    if not cards:
        return ""
    note = (
        f"Response time (p95) by minute, {_AROUND_MINUTES} minutes before and after: the old release in grey, "
        "the new one in blue, minutes with errors in red."
    )
    return _section("switches", "Around each switch", f'<div class="switches">{"".join(cards)}</div>', note)


def _switch(data: Data, before: Stay, stay: Stay) -> str:
    middle = stay.since.timestamp()
    first, last = middle - _AROUND_MINUTES * 60, middle + _AROUND_MINUTES * 60
    ends = stay.until.timestamp() if stay.until else last
    minute = int(middle // 60)
    slots = [data.minutes.get(minute + i, {}) for i in range(-_AROUND_MINUTES, _AROUND_MINUTES)]
    old, new = Tally(), Tally()
    for index, slot in enumerate(slots):
        if before.release in slot and index <= _AROUND_MINUTES:
            old.merge(slot[before.release])
        if stay.release in slot and index >= _AROUND_MINUTES:
            new.merge(slot[stay.release])
    if not old.requests and not new.requests:
        return ""
    old_p95, new_p95 = (
        [s[name].percentile(0.95) if name in s and s[name].requests else None for s in slots]
        for name in (before.release, stay.release)
    )
    errors = [max((t.error_share for t in slot.values()), default=0.0) for slot in slots]
    top = charts.nice(max(value for value in (*old_p95, *new_p95, 0.0) if value is not None))
    worst = charts.nice(max(0.1, *errors))
    drawn = charts.bars(errors, worst, "err", 0.1) + charts.line(old_p95, top, "old") + charts.line(new_p95, top, "new")
    label = f"p95 before {_ms(old.percentile(0.95))}, after {_ms(new.percentile(0.95))}"
    axis = Axis(first, last)
    rules = charts.rules([Mark(middle, "", "the switch")], axis)
    by = f", by {stay.kind}" if stay.kind != "deploy" else ""
    lasted = f"{by}, for {duration(ends - middle)}" if stay.until and ends < last else by
    rows = [
        ("Requests", _count(old.requests), _count(new.requests)),
        ("Errors", _percent(old.error_share), _percent(new.error_share)),
        ("p95", _ms(old.percentile(0.95)), _ms(new.percentile(0.95))),
    ]
    body = "".join(f"<tr><th scope=row>{name}</th><td>{a}</td><td>{b}</td></tr>" for name, a, b in rows)
    reason = f'<p class="reason">{escape(stay.reason)}</p>' if stay.reason else ""
    return (
        f'<section class="card switch"><header><h3>{escape(stay.release)}</h3>'
        f"{_pill(stay.verdict, _VERDICTS[stay.verdict])}</header>"
        f'<p class="muted small">{_time(stay.since)}{lasted}</p>'
        f'<div class="plot mid">{charts.svg(drawn, label)}{rules}</div>'
        f"<table><caption>Before and after {escape(stay.release)}</caption><thead><tr><th></th>"
        f"<th scope=col>{escape(before.release)}</th><th scope=col>{escape(stay.release)}</th></tr></thead>"
        f"<tbody>{body}</tbody></table>{reason}</section>"
    )


# Timeline

_OUTCOMES = {
    "live": ("good", "live"),
    "rolled back": ("left", "rolled back"),
    "reverted": ("bad", "taken back"),
    "failed": ("bad", "failed"),
    "unchanged": ("", "no change"),
    "ok": ("good", "ok"),
    "passed": ("good", "passed"),
    "done": ("good", "done"),
    "running": ("", "running"),
}


def _timeline(data: Data) -> str:
    done = [operation for operation in story.operations(data.events) if operation.began >= data.since]
    stays = {stay.op: stay for stay in reversed(story.stays(data.events))}
    rows = []
    for operation in reversed(done[-_ROWS:]):
        kind, words = _OUTCOMES.get(operation.outcome, ("", operation.outcome))
        stay = stays.get(operation.op)
        if stay and stay.kind == operation.kind == "deploy" and kind == "good" and stay.verdict != "good":
            kind, words = stay.verdict, _VERDICTS[stay.verdict]
        lead = duration((stay.since - stay.committed).total_seconds()) if stay and stay.committed else ""
        seconds = operation.end.get("seconds")
        took = duration(float(seconds)) if isinstance(seconds, int | float) else ""
        what = operation.release or operation.version
        message = str(operation.end.get("message", ""))
        rows.append(
            f'<tr><th scope=row class="what">{escape(operation.kind)} <span>{escape(what)}</span></th>'
            f'<td class="verdict">{_pill(kind, words) if words else ""}</td>'
            f'<td class="wide">{_time(operation.began)}{" by " + escape(operation.who) if operation.who else ""}</td>'
            f'<td class="num" data-name="took">{took}</td><td class="num" data-name="lead time">{lead}</td>'
            f'<td class="wide">{escape(message)}</td></tr>'
        )
    if not rows:
        return _nothing("timeline", "Timeline", "Nothing was done in this period.")
    note = f"The newest {_ROWS} of {len(done)}." if len(done) > _ROWS else ""
    table = (
        '<div class="card wrap"><table class="stack"><caption>Everything that was done</caption>'
        "<thead><tr><th scope=col>What</th><th scope=col>Verdict</th><th scope=col>When and who</th>"
        '<th scope=col class="num">Took</th><th scope=col class="num">Lead time</th><th scope=col>What came of it</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _section("timeline", "Timeline", table, note)


# Backups, hosts


def _backups(data: Data) -> str:
    drills = [event for event in data.events if event["event"] == "drill"][-8:]
    if not data.jobs and not drills:
        return _nothing(
            "backups",
            "Backups and drills",
            "No backup has run on this host and no restore was ever tried: what is not proven is not known to work.",
        )
    rows = "".join(_job(name, job, data.until) for name, job in data.jobs.items())
    jobs = (
        '<div class="card"><table class="stack"><caption>The last run of each job</caption><thead><tr>'
        "<th scope=col>Job</th><th scope=col>Last run</th><th scope=col>Last success</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
        if rows
        else ""
    )
    return _section("backups", "Backups and drills", f'<div class="grid2">{jobs}{_drills(drills)}</div>')


def _job(name: str, job: dict[str, Any], until: datetime) -> str:
    done = str(job.get("succeeded_at") or "")
    age = f"{duration((until - datetime.fromisoformat(done)).total_seconds())} ago" if done else "never"
    figures = ", ".join(
        f"{word} {duration(value)}" for word, value in zip(("RTO", "RPO"), objectives(job), strict=True) if value
    )
    return (
        f"<tr><th scope=row>{escape(name)}</th>"
        f'<td class="verdict">{_pill("good", "ok") if job["ok"] else _pill("bad", "failed")}</td>'
        f'<td class="wide">{age}{"; " + figures if figures else ""}<br>{escape(str(job.get("message", "")))}</td></tr>'
    )


def _outcome(outcome: str) -> str:
    return _pill("good" if outcome in ("ok", "done", "passed") else "bad", outcome)


def _drills(drills: Sequence[dict[str, Any]]) -> str:
    if not drills:
        return '<div class="card"><p class="muted">No restore drill has run yet.</p></div>'
    times = [float(event.get("rto_seconds") or 0.0) for event in drills]
    slots = [None] * (8 - len(times)) + times
    rows = "".join(
        f"<tr><th scope=row>{_time(story.moment(event))}</th>"
        f'<td class="verdict">{_outcome(str(event.get("outcome", "?")))}</td>'
        f'<td class="num" data-name="RTO">{duration(event.get("rto_seconds"))}</td>'
        f'<td class="num" data-name="RPO">{duration(event.get("rpo_seconds"))}</td></tr>'
        for event in reversed(drills)
    )
    words = ", ".join(duration(value) for value in times)
    drawn = charts.spark(slots, "bar", f"Recovery time of drills: {words}")
    return (
        f'<div class="card"><h3>Restore drills</h3><p class="muted small">Time until a restore answered</p>'
        f'<div style="height:36px;margin:10px 0 12px">{drawn}</div>'
        '<table class="stack"><caption>Restore drills</caption><thead>'
        "<tr><th scope=col>When</th><th scope=col>Outcome</th>"
        '<th scope=col class="num">RTO</th><th scope=col class="num">RPO</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _host(data: Data) -> str:
    if not data.figures:
        return ""
    disks = "".join(_disk(disk) for disk in data.figures["disks"])
    memory = data.figures["memory"]
    used = 1 - memory["available"] / memory["total"]
    load = data.figures["load"] / data.figures["cpus"]
    up = duration(data.until.timestamp() - data.figures["boot"])
    meters = _meter("Memory", used, f"{_percent(used)} of {memory['total'] / 1e9:.1f} GB used")
    meters += _meter("Processors", load, f"load {data.figures['load']:.2f} on {data.figures['cpus']} processors")
    up_words = f'<p class="muted small" style="margin-top:14px">{escape(data.host)}, up for {up}</p>'
    cards = f'<div class="card">{disks}</div><div class="card">{meters}{up_words}</div>'
    return _section("host", "Host", f'<div class="grid2">{cards}</div>')


def _meter(name: str, share: float, words: str) -> str:
    hot = " hot" if share > 0.8 else ""
    return (
        f'<div class="disk"><div><span>{escape(name)}</span><span class="muted small">{escape(words)}</span></div>'
        f'<div class="meter{hot}" role="meter" aria-label="{escape(name)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{min(100, round(share * 100))}"><span style="width:{min(100.0, share * 100):.1f}%"></span>'
        "</div></div>"
    )


def _disk(disk: dict[str, Any]) -> str:
    full = f"full in {disk['days_to_full']:g} days" if disk["days_to_full"] is not None else "not filling"
    share = 1 - disk["free"] / disk["size"] if disk["size"] else 0.0
    return _meter(disk["path"], share, f"{disk['free'] / 1e9:.1f} of {disk['size'] / 1e9:.0f} GB free, {full}")


def _footer(data: Data) -> str:
    state = "its chain is whole" if not data.findings else "its chain is BROKEN"
    return (
        f"<footer><p>Made by Switchyard from the ledger ({data.lines} lines, {state}) and the edge's own log. "
        f"All times are UTC. This page loads nothing from anywhere.</p></footer>"
    )
