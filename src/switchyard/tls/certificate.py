"""Keeps each application's certificate: the first pair, its renewal, and what is to be said about it."""

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from switchyard.engine.announce import Severity, announce
from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import EDGE_TLS, TLS_LOCK, AppPaths, HostConfig
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build
from switchyard.tls import sources, store
from switchyard.tls.pairs import WARN_DAYS, Facts, Pair, day, objection, read
from switchyard.tls.store import Settings


@dataclass(frozen=True)
class State:
    """How an application's certificate stands."""

    mode: str
    state: str
    """valid, expiring, expired, not yet valid, mismatched, missing, unreadable, stand-in, wrong names or not loaded."""
    message: str
    """What is wrong and what to do, or ''."""
    issuer: str = ""
    names: tuple[str, ...] = ()
    days_left: float = 0.0
    not_after: str = ""
    fingerprint: str = ""
    renewal: str = ""
    """How the last renewal failed, or ''."""


def keep(name: AppName, data: Mapping[str, Any], given: Pair, host: HostConfig, *, check: bool) -> tuple[bool, State]:
    """Have the settings and a pair that Nginx can start with; returns whether anything changed, and how it stands.

    `given` is the inventory's own pair. Raises `SwitchyardError` when that one must not serve; the old one then stays.
    """
    settings = build(Settings, dict(data), "edge_tls")
    with _exclusively():
        text = json.dumps(asdict(settings), indent=1) + "\n"
        path = store.settings_file(name)
        changed = not path.is_file() or path.read_text() != text
        now = store.installed(name)
        pair = _given(given, now) if settings.mode == "files" else _fitting(name, settings, now)
        # Nobody vouches for it, so it only stands in where somebody will.
        stand_in = settings.mode == "acme" and (pair is None or read(pair.certificate).self_signed)
        renewed = now is None or pair != now.pair or stand_in != now.stand_in
        if check:
            return changed or renewed, _judge(name, settings)
        if changed:
            replace_file(path, text, step="tls.settings")
        store.install(name, pair or sources.self_signed(settings.names), host, stand_in=stand_in)
        return changed or renewed, _judge(name, settings)


def _given(given: Pair, now: store.Installed | None) -> Pair:
    """The inventory's pair. One that serves already may have come to its end since, which `status` says."""
    if (now is None or given != now.pair) and (problem := objection(given)):
        serving = "The pair in service stays." if now else "Nothing was changed."
        raise SwitchyardError(f"edge_tls_certificate and edge_tls_key: {problem}. {serving}", Exit.USAGE)
    return given


def _fitting(name: AppName, settings: Settings, now: store.Installed | None) -> Pair | None:
    """The pair that may go on serving, or None when a self-signed one has to be made."""
    if settings.mode == "self_signed":
        facts = read(now.pair.certificate) if now and not objection(now.pair) else None
        fits = facts and facts.self_signed and not facts.uncovered(settings.names) and facts.days_left > WARN_DAYS
        return now.pair if now and fits else None
    candidates = [pair for pair in (now.pair if now else None, sources.issued(name)) if pair]
    good = [pair for pair in candidates if not objection(pair)]
    # One that has expired is no worse than one that nobody vouches for, and it says whose it is.
    expired = [pair for pair in candidates if "has expired" in objection(pair)]
    return next(iter(good + expired), None)


def renew(name: AppName, host: HostConfig, *, force: bool = False, check: bool = False) -> tuple[bool, State]:
    """Renew what is due; returns whether a new pair came into service (with `check`: would), and how it stands.

    Raises `SwitchyardError` when it is due and fails; the old pair stays in service.
    """
    settings = store.load(name)
    if settings is None:
        raise SwitchyardError(f"{name} serves no TLS: set edge_tls and run provision.yml.", Exit.USAGE)
    with _exclusively():
        due = _due(name, settings) or ("it was asked for" if force and settings.mode != "files" else "")
        if check or not due:
            return bool(due), _settled(name, settings)
        try:
            if settings.mode == "acme":
                # What was issued and could not be installed: a server issues few a week.
                waiting = None if force else _waiting(name, settings)
                pair = waiting or sources.obtain(name, settings)
                _note(name, issued=settings.directory)
                if problem := objection(pair):
                    raise SwitchyardError(f"{settings.directory} issued a pair that must not serve: {problem}")
            else:
                pair = sources.self_signed(settings.names)
            changed = store.install(name, pair, host)
        except SwitchyardError as error:
            _note(name, failure=error.message)
            state = _judge(name, settings)
            severity: Severity = "critical" if state.days_left < 7 else "warning"
            announce("certificate.failed", error.message, severity=severity, app=str(name), days_left=state.days_left)
            raise SwitchyardError(
                f"{error.message.rstrip('.')}. The old pair stays in service ({state.state}); the timer tries again.",
                error.code,
                error.details,
            ) from error
        # Only now: while another authority's serves, this one's is due.
        _note(name, failure="", directory=settings.directory)
        state = _settled(name, settings)
        announce("certificate.renewed", f"The certificate of {name} was renewed.", app=str(name), until=state.not_after)
        return changed, state


def _due(name: AppName, settings: Settings) -> str:
    """Why this pair has to be renewed now, or ''."""
    now = store.installed(name)
    if settings.mode == "files":
        return ""
    if now is None or objection(now.pair):
        return "there is no valid pair"
    if now.stand_in and settings.mode == "acme":
        return "only a self-signed pair stands in"
    # One that was issued before this was noted counts as today's: nothing is asked for that is not needed.
    if settings.mode == "acme" and _read_notes(name).get("directory", settings.directory) != settings.directory:
        return "another authority issued it"
    return _lacks(now.pair, settings)


def _waiting(name: AppName, settings: Settings) -> Pair | None:
    """The pair that was issued last, when it is as good as a new one would be and does not serve yet."""
    pair, now = sources.issued(name), store.installed(name)
    if pair is None or (now and now.pair == pair) or _read_notes(name).get("issued") != settings.directory:
        return None
    return None if objection(pair) or _lacks(pair, settings) else pair


def _lacks(pair: Pair, settings: Settings) -> str:
    """What the settings want of a pair that may serve and it has not, or ''."""
    facts = read(pair.certificate)
    if settings.mode == "acme" and facts.self_signed:
        return "the pair is self-signed"
    if facts.uncovered(settings.names):
        return "it does not hold for every name"
    # A certificate of a few days is renewed when a third of it is left.
    return "it ends soon" if facts.days_left < min(settings.renew_days, facts.days / 3) else ""


def _settled(name: AppName, settings: Settings) -> State:
    """How it stands, after a pair on disk that Nginx does not serve (a killed renewal) was taken up."""
    state = _judge(name, settings)
    if state.state == "not loaded":
        store.reload()
        state = _judge(name, settings)
    return state


def state_of(name: AppName) -> State | None:
    """How the certificate of an application stands, or None when it serves no TLS."""
    settings = store.load(name)
    return _judge(name, settings) if settings else None


def _judge(name: AppName, settings: Settings) -> State:
    now = store.installed(name)
    renewal = _last_failure(name)
    if now is None:
        message = "no certificate is installed: run provision.yml"
        return State(settings.mode, "missing", message, renewal=renewal)
    problem = objection(now.pair)
    try:
        facts = read(now.pair.certificate)
    except SwitchyardError as error:
        return State(settings.mode, "unreadable", f"{error.message}: run provision.yml", renewal=renewal)
    state, message = _standing(name, settings, now, facts, problem)
    issuer = "itself" if facts.self_signed else facts.issuer.partition("CN=")[2].partition(",")[0] or facts.issuer
    left = round(facts.days_left, 1)
    return State(
        settings.mode, state, message, issuer, facts.names, left, day(facts.not_after), facts.fingerprint, renewal
    )


def _standing(name: AppName, settings: Settings, now: store.Installed, facts: Facts, problem: str) -> tuple[str, str]:
    how = {
        "acme": "'sudo switchyard tls-renew' on the edge tries now and says why it cannot",
        "files": "put a new pair into the inventory and run provision.yml",
        "self_signed": "run provision.yml",
    }[settings.mode]
    if problem:
        known = (("expired", "expired"), ("belong together", "mismatched"), ("key cannot", "mismatched"))
        state = next((state for words, state in known if words in problem), "not yet valid")
        return state, f"{problem}: {how}"
    if AppPaths(name).pointer.is_file() and store.served(settings) not in ("", facts.fingerprint):
        return "not loaded", "the edge serves another pair than the one on disk: 'sudo switchyard tls-renew'"
    if now.stand_in:
        return "stand-in", f"self-signed until {settings.directory} has issued one: {how}"
    if missing := facts.uncovered(settings.names):
        return "wrong names", f"it does not hold for {', '.join(missing)}: {how}"
    soon = WARN_DAYS if settings.mode == "files" else min(WARN_DAYS, settings.renew_days, facts.days / 3)
    if facts.days_left < soon:
        return "expiring", f"it ends on {day(facts.not_after)}: {how}"
    return "valid", ""


def _exclusively() -> AbstractContextManager[None]:
    return exclusive(TLS_LOCK, wait=60, busy="Another command is at work on certificates; try again in a minute.")


def _notes(name: AppName) -> Path:
    return EDGE_TLS / f"{name}.json"


def _read_notes(name: AppName) -> dict[str, Any]:
    try:
        return dict(json.loads(_notes(name).read_text()))
    except (OSError, ValueError):
        return {}


def _note(name: AppName, **facts: str) -> None:
    """Note how the last renewal failed (`failure`), who issued what serves (`directory`), and the last (`issued`)."""
    notes = _read_notes(name) | facts | {"time": int(time.time())}
    replace_file(_notes(name), json.dumps(notes) + "\n", step="tls.notes")


def _last_failure(name: AppName) -> str:
    notes = _read_notes(name)
    return f"{day(notes['time'])}: {notes['failure']}" if notes.get("failure") else ""


def describe(state: State) -> list[str]:
    """The state in lines for a person."""
    days = f", {state.days_left:.0f} days left (until {state.not_after})" if state.not_after else ""
    by = f", issued by {state.issuer}" if state.issuer else ""
    lines = [f"{state.mode}: {state.state}{days}{by}"]
    if state.message:
        lines.append(state.message)
    if state.renewal:
        lines.append(f"the last renewal failed on {state.renewal}")
    return lines
