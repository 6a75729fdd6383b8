"""What a person reads of a replica: how far behind it is, and what is wrong when something is."""

import pytest

from switchyard.data import replica


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            {"replica": True, "primary": "192.0.2.3", "lag_seconds": 0.0, "problem": ""},
            "streams from 192.0.2.3, 0 s behind",
        ),
        ({"replica": True, "lag_seconds": 95.5, "problem": "it does not stream"}, "it does not stream (95.5 s behind)"),
        ({"replica": True, "lag_seconds": None, "problem": "gone"}, "gone (nobody knows how far behind)"),
        ({"replica": False, "lag_seconds": None, "problem": "it was promoted"}, "it was promoted"),
        ({"problem": "there is no replica yet: run provision.yml"}, "there is no replica yet: run provision.yml"),
    ],
)
def test_a_replica_is_told_in_one_line(report: dict[str, object], words: str) -> None:
    assert replica.words(report) == words
