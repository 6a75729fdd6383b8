"""One run, from the first connection to the audited report."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from tests.load.audit import Audit, audit
from tests.load.config import LoadConfig
from tests.load.report import MAX_EXAMPLES, Report, Snapshot, Switch
from tests.load.run import Run
from tests.load.target import targets
from tests.load.workers import WORKERS


class Load:
    """Runs in the caller's event loop; `LoadProcess` gives it a process of its own."""

    def __init__(self, config: LoadConfig) -> None:
        self.config = config
        self._targets = targets(config)
        self._run: Run | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._cpu = 0.0

    async def start(self) -> None:
        """Begin to send, until `stop` or one of the bounds."""
        run = self._run = Run(self.config, self._targets)
        self._cpu = time.process_time()
        for kind, count in self.config.workers.items():
            for number in range(count):
                # A generator of its own for each worker: what one does never changes another's times.
                rng = random.Random(f"{self.config.seed} {kind} {number}")  # noqa: S311 - think times
                self._tasks.append(asyncio.create_task(WORKERS[kind](run, rng)))
        self._deadline = asyncio.get_running_loop().call_later(self.config.max_duration, run.stop)

    def snapshot(self) -> Snapshot:
        """Return the totals so far."""
        return self._running.tally.snapshot()

    async def finished(self) -> None:
        """Return when nothing more is issued: after `stop`, or at a bound."""
        await self._running.stopped.wait()

    async def stop(self, switches: Sequence[Switch] | None = None) -> Report:
        """Issue nothing more, let what is in flight complete, look up the writes, and report."""
        run = self._running
        run.stop()
        duration = time.monotonic() - run.tally.started
        cpu = time.process_time() - self._cpu
        if self._deadline is not None:
            self._deadline.cancel()
        _, late = await asyncio.wait(self._tasks, timeout=self.config.finish_limit)
        for task in late:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            # A worker that failed by itself would have made the load smaller without anybody knowing.
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
        writes = Audit()
        if self.config.audited:
            writes = await audit(self._targets, run.routes.audit, run.keys, self.config.timeout)
        return self._report(run, writes, duration, cpu).judge(switches)

    @property
    def _running(self) -> Run:
        if self._run is None:
            raise RuntimeError("the load was not started")
        return self._run

    def _report(self, run: Run, writes: Audit, duration: float, cpu: float) -> Report:
        tally = run.tally
        return Report(
            seed=self.config.seed,
            target=self.config.url,
            started=tally.started,
            duration=duration,
            drain=self.config.drain,
            settle=self.config.settle,
            sent=tally.sent,
            answered=tally.answered,
            lost_requests=tally.lost,
            lost_writes=len(writes.missing),
            duplicated=len(writes.duplicated),
            refused_streams=tally.refused_streams,
            idle_closes=tally.idle_closes,
            echoes=tally.echoes,
            longest_gap_ms=round(tally.longest_gap * 1000, 3),
            cpu_share=round(cpu / max(duration, 1e-9), 4),
            audit_error=writes.error,
            write_examples=[*writes.missing, *writes.duplicated][:MAX_EXAMPLES],
            by_release=dict(tally.by_release),
            by_kind=tally.by_kind(),
            request_losses=tally.losses,
            connections=tally.connections,
            new_connections=tally.new_connections,
            assets={url: sorted(releases) for url, releases in sorted(tally.assets.items())},
        )
