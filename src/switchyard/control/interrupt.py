"""Ctrl-C while several hosts are led: a wish to stop, heard at once and followed between two rounds.

Nobody but the coordinator can take back what it began, so it must not die of the signal.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# Ansible sends its workers the first and, five seconds later, the second; a job that is cancelled does the same.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether somebody wants the operation to stop; `heard` is called once, in a thread of its own."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self.wanted = False
        self._heard = heard

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Hear the signals instead of dying of them, where Python can: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if not self.wanted:
            self.wanted = True
            # What was interrupted may hold the lock of what is said.
            threading.Thread(target=self._heard).start()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt(
                "Interrupted again, half-way: the same command, a minute from now, or 'switchyard recover' makes all "
                "hosts agree."
            )
