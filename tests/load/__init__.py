"""A strict load client: while releases are switched, every request is accounted for.

An attempted request is *lost* unless it got one complete, correct answer below 500. Nothing is retried,
with the one exception that HTTP/2 itself makes: a stream above GOAWAY's last id was never processed.

In a test or script::

    load = LoadProcess(LoadConfig(url="http://127.0.0.1:8080/", workers=mix("full")))
    load.start()
    ...                                  # switch releases, noting time.monotonic() before each
    report = load.stop([Switch(instant, "1", "2")])
    assert report.lossless, report.summary()
"""

from tests.load.config import BadUsage, LoadConfig, mix
from tests.load.load import Load
from tests.load.process import LoadDied, LoadProcess
from tests.load.report import Report, Snapshot, Switch

__all__ = [
    "BadUsage",
    "Load",
    "LoadConfig",
    "LoadDied",
    "LoadProcess",
    "Report",
    "Snapshot",
    "Switch",
    "mix",
]
