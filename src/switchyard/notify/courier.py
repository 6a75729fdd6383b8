"""Brings news to every target, each at its own pace, until the spool is empty. Killed anywhere, it goes on later.

Delivery is at least once: what was sent and not yet noted when the process died is sent again, with the same id.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from switchyard.engine.announce import announce
from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import RUNTIME, STATE
from switchyard.errors import SwitchyardError
from switchyard.notify import spool
from switchyard.notify.config import FILE, Config, Target
from switchyard.notify.send import Refused, Undelivered, send

NOTES = STATE / "notify"
LOCK = RUNTIME / "notify.lock"
Say = Callable[[str], None]
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0
_LOOK_SECONDS = 0.25
_LINGER_SECONDS = 2.0
"""How long an empty spool is watched before the process ends; a deploy leaves its news seconds apart."""
_DROPPED = "notify.dropped"


class Courier(threading.Thread):
    """Serves one target, in the order in which things happened. Another target's trouble is not its own."""

    def __init__(self, target: Target, host: str, say: Say) -> None:
        super().__init__(name=target.name, daemon=True)
        self.target, self.host, self.say = target, host, say
        self.done = self._recall()
        self.stop = threading.Event()
        self._failures = 0

    @property
    def _notes(self) -> Path:
        return NOTES / f"{self.target.name}.json"

    def _recall(self) -> set[str]:
        try:
            return set(map(str, json.loads(self._notes.read_text())))
        except (OSError, ValueError, TypeError):
            return set()

    def run(self) -> None:
        """Deliver until told to stop."""
        while not self.stop.is_set():
            pause = _LOOK_SECONDS
            for name in spool.waiting():
                if name not in self.done and (pause := self._try(name)):
                    break
            self.stop.wait(pause or _LOOK_SECONDS)

    def _try(self, name: str) -> float:
        """Deliver one piece; returns how long to wait before trying again, 0 when it is settled."""
        news = spool.read(name)
        try:
            if news is not None and self.target.wants(news):
                send(self.target, news, self.host, name.removesuffix(".json"))
                self.say(f"{self.target.name}: delivered {news.get('kind')} ({name})")
        except Refused as error:
            self.say(f"{self.target.name}: {name} is given up: {error.reason}")
        except Undelivered as error:
            self._failures += 1
            pause = max(error.pause, min(_FIRST_PAUSE * 2.0 ** (self._failures - 1), _LONGEST_PAUSE))
            # Spread, so that many hosts do not return to a receiver in one instant.
            pause *= random.uniform(0.8, 1.2)  # noqa: S311 - no secret depends on it
            self.say(f"{self.target.name}: {name} is not delivered ({error.reason}); next attempt in {pause:.0f} s")
            return pause
        self._failures = 0
        self._settle(name)
        return 0.0

    def _settle(self, name: str) -> None:
        self.done = self.done.intersection(spool.waiting()) | {name}
        try:
            replace_file(self._notes, json.dumps(sorted(self.done)) + "\n", step="notify.note", mode=0o600)
        except SwitchyardError as error:
            # On a full disk it is better to risk saying a thing twice than to say nothing.
            self.say(error.message)


def deliver(config: Config, say: Say) -> None:
    """Deliver everything and return once the spool has been empty for a moment.

    Raises `SwitchyardError` when another notifier is at work.
    """
    # Before anything is sent: what changes from then on has to be noticed.
    empty_since, configured = 0.0, _modified(FILE)
    with exclusive(LOCK, wait=0, busy="Another notifier is delivering already."):
        couriers = [Courier(target, config.host, say) for target in config.targets]
        for courier in couriers:
            courier.start()
        # With another configuration this process ends, and its path unit starts it again: the spool is not empty.
        while _modified(FILE) == configured:
            writing = spool.unfinished()
            names = _bounded(config, spool.waiting(), couriers, say)
            settled = [name for name in names if all(name in courier.done for courier in couriers)]
            if settled and not couriers:
                _log(settled, say)
            spool.remove(settled)
            if writing or len(settled) < len(names):
                empty_since = 0.0
            elif not empty_since:
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since >= _LINGER_SECONDS:
                break
            time.sleep(_LOOK_SECONDS)
        for courier in couriers:
            courier.stop.set()


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def _log(names: list[str], say: Say) -> None:
    """Without targets the journal is where news end."""
    for name in names:
        news = spool.read(name) or {}
        say(f"{news.get('severity')}: {news.get('app')}: {news.get('title')}")


def _bounded(config: Config, names: list[str], couriers: list[Courier], say: Say) -> list[str]:
    """Drop what is too old or too much, and say so: in the log, and to the targets once they can be reached."""
    dropped = spool.surplus(names, config.max_age_hours * 3600, config.max_news)
    if not dropped:
        return names
    unheard = [c.target.name for c in couriers if any(name not in c.done for name in dropped)]
    spool.remove(dropped)
    left = [name for name in names if name not in set(dropped)]
    if unheard:
        title = (
            f"{len(dropped)} pieces of news were dropped: too old, or too many. Undelivered to {', '.join(unheard)}."
        )
        say(title)
        # One such notice at a time: it must not fill the spool that it speaks of.
        if all((spool.read(name) or {}).get("kind") != _DROPPED for name in left):
            announce(_DROPPED, title, severity="warning", count=len(dropped), oldest=dropped[0])
    return left
