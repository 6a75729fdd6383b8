"""Pages in a real browser: the report with a week that the test made, and what a job sees of a web front end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from switchyard.report.page import render
from switchyard.report.style import CSS
from tests import browser
from tests.bed.shell import need
from tests.project import ROOT
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


PAGES = {
    "/": "<title>a</title><p id=p></p><script src=/app.js></script>",
    "/app.js": "document.getElementById('p').textContent = 'Hello ' + 'there'; fetch('/data?token=t0p')",
    "/data": "{}",
    "/throws": "<title>a</title><script>null.x</script>",
    "/says": "<title>a</title><script>console.error('no', 'wards')</script>",
    "/lacks": "<title>a</title><script src=/gone.js?token=t0p></script>",
    "/refused": "<title>a</title><script>fetch('http://127.0.0.1:9/x?token=t0p').catch(() => 0)</script>",
    "/events": "",
    "/streams": "<title>a</title><script>new EventSource('/events')</script>",
}


@pytest.fixture
def site() -> Iterator[str]:
    """A web front end with good and bad pages."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            self.send_response(200 if path in PAGES else 404)
            kind = "javascript" if path.endswith(".js") else "event-stream" if path == "/events" else "html"
            self.send_header("Content-Type", f"text/{kind}")
            self.end_headers()
            self.wfile.write(PAGES.get(path, "nothing here").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def smoke(pages: str, **more: str) -> subprocess.CompletedProcess[str]:
    path = need("chromium", "chromium", "looking at pages as users do")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "SMOKE_PAGES": pages, "SMOKE_BROWSER": path}
    argv = [sys.executable, str(ROOT / "scripts" / "ci" / "smoke.py")]
    return subprocess.run(argv, env=environment | more, capture_output=True, text=True, check=False, timeout=120)


def test_pages_are_opened_after_a_release(site: str) -> None:
    done = smoke(f"{site}/ Hello there\n{site}/streams")
    assert (done.returncode, done.stderr) == (0, ""), done


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/ Goodbye", "/ does not show 'Goodbye'."),
        ("/throws", "/throws throws: TypeError: Cannot read properties of null"),
        ("/says", "/says says in its console: no wards."),
        ("/lacks", "/gone.js: answers 404."),
        ("/refused", "http://127.0.0.1:9/x: net::ERR_"),
        ("/none", "/none: answers 404."),
    ],
)
def test_what_is_wrong_in_a_page_is_said(site: str, path: str, words: str) -> None:
    done = smoke(f"{site}{path}")
    assert done.returncode == 1 and words in done.stderr, done
    assert "t0p" not in done.stdout + done.stderr


def test_a_page_that_nobody_serves_and_a_browser_that_is_not_there_are_said() -> None:
    assert "cannot be opened (net::ERR_" in smoke("http://127.0.0.1:9/").stderr
    done = smoke("http://127.0.0.1:9/", SMOKE_BROWSER="no-such-browser")
    assert done.returncode == 2 and "there is no 'no-such-browser': install it" in done.stderr
    assert "is no http(s) address" in smoke("file:///etc/passwd").stderr
