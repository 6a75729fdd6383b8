"""The page in a real browser, with a week that the test made: on a phone and on a desk, by day and by night."""

from __future__ import annotations

import re

import pytest

from switchyard.report.page import render
from switchyard.report.style import CSS
from tests import browser
from tests.unit.test_report_page import sample

LIGHT, DARK = (dict(re.findall(r"--(\w+):(#[0-9a-f]+)", rules)) for rules in re.findall(r":root\{(.*?)\}", CSS, re.S))


def rgb(colour: str) -> browser.Pixel:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample())


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)], ids=["phone by night", "desk by day"])
def test_the_page_is_painted_in_its_colours(html: str, width: int, dark: bool) -> None:
    picture = browser.look(html, width, 1500, dark=dark)
    palette = DARK if dark else LIGHT
    assert (picture.width, picture.height) == (width, 1500)
    assert picture.said == ""
    assert picture.at(2, 2) == rgb(palette["bg"])
    seen = picture.colours()
    assert len(seen) > 50
    # Cards, words, curves, failed releases and good ones are all there to be seen.
    for name, least in (("card", width * 150), ("ink", 300), ("accent", 300), ("bad", 100), ("good", 20)):
        assert seen[rgb(palette[name])] >= least, name


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_stands_out_of_the_window(html: str, width: int) -> None:
    inner, content, which = browser.overflow(html, width)
    assert inner == width
    assert content <= width and which == ""
