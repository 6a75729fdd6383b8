"""What the role `engine` leaves for systemd."""

from configparser import ConfigParser

from tests.render.rendering import render


def test_a_recovery_that_failed_at_boot_is_tried_again() -> None:
    unit = ConfigParser(strict=False)
    unit.read_string(render("engine", "__engine_unit", {}))
    assert unit["Service"]["Restart"] == "on-failure"
    # Slower than five starts in ten seconds, at which systemd gives up for good.
    assert int(unit["Service"]["RestartSec"]) > 2
