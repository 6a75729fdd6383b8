"""Every effect of the edge's own replacement, times {kill, error, hang}, times {before, after}: it serves throughout.

A death may leave two edges, never none; the same command again leaves one, with the new settings.
"""

import itertools

from tests import edges
from tests.lab import Fault, Lab
from tests.load import LoadConfig, LoadProcess

_SETTINGS = itertools.count(15_000)


def test_every_point_of_a_replacement(lab: Lab) -> None:
    assert lab.deploy("1.0.0")["code"] in (0, 1), "nothing to serve"
    host = lab.host
    lab.arm(None, trace=True)
    assert edges.keep(host, next(_SETTINGS)).returncode == 0
    steps = list(dict.fromkeys(lab.steps()))
    lab.disarm()
    assert {"edge.compose", "edge.up", "edge.quit", "edge.remove", "edge.rename"} <= {step for step, _ in steps}
    config = LoadConfig(url=lab.url, workers={"get": 4, "post": 2, "new": 4}, max_duration=3600, think=(0.02, 0.05))
    load = LoadProcess(config).start()
    silent = []
    for (step, nth), how, when in itertools.product(steps, ("kill", "error", "hang"), ("before", "after")):
        fault, wanted = Fault(step, nth, when, how), next(_SETTINGS)
        lab.arm(fault)
        done = edges.keep(host, wanted)
        if lab.disarm():
            silent.append(str(fault))
        running = [found for found in edges.containers(host) if found["State"] == "running"]
        assert 1 <= len(running) <= 2, f"{fault}: {running}"
        again = edges.keep(host, wanted)
        assert again.returncode == 0, f"{fault}, then: {again.stdout} (first: {done.stdout})"
        edges.only(host)
        limit = host.exec(["docker", "inspect", "--format", "{{.HostConfig.Ulimits}}", "switchyard-edge"]).stdout
        assert str(wanted) in limit, f"{fault}: {limit}"
    report = load.stop()
    assert report.lost == 0 and report.sent > 100, report.summary()
    assert silent == [], "planned faults that never fired"
