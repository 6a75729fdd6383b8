"""A real browser for tests: Chromium from the distribution, without a window, reaching nothing but the given page."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.bed.shell import need

Pixel = tuple[int, int, int]
_MEASURE = """<script>onload = () => {
  const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && getComputedStyle(e).clipPath === 'none' && !e.closest('.wrap'));
  parent.document.title = [innerWidth, document.documentElement.scrollWidth, wide.length,
    wide.slice(0, 3).map(e => e.outerHTML.slice(0, 90))].join('|');
}</script>"""


@dataclass(frozen=True)
class Picture:
    """What the browser painted."""

    width: int
    height: int
    rows: list[bytes]
    said: str
    """Messages of the console."""

    def at(self, x: int, y: int) -> Pixel:
        """The colour of one point."""
        red, green, blue = self.rows[y][3 * x : 3 * x + 3]
        return red, green, blue

    def colours(self) -> Counter[Pixel]:
        """How many points have each colour."""
        return Counter(pixel for row in self.rows for pixel in struct.iter_unpack("BBB", row))


def _run(page: Path, width: int, height: int, *, dark: bool, more: list[str]) -> subprocess.CompletedProcess[str]:
    argv = [need("chromium", "chromium", "looking at pages as users do"), "--headless=new", "--disable-gpu"]
    argv += ["--hide-scrollbars", "--no-first-run", "--disable-extensions", "--enable-logging=stderr"]
    argv += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent}/profile"]
    argv += [f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    if os.geteuid() == 0:
        argv.append("--no-sandbox")
    return subprocess.run(
        [*argv, *more, page.as_uri()], check=True, capture_output=True, text=True, timeout=120, errors="replace"
    )


def look(html: str, width: int, height: int, *, dark: bool) -> Picture:
    """Paint a page in a window of this size."""
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(html)
        done = _run(page, width, height, dark=dark, more=[f"--screenshot={shot}"])
        said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
        return _decode(shot.read_bytes(), said)


def overflow(html: str, width: int) -> tuple[int, int, str]:
    """Width of the window, width of the content, and what stands out of the window at its right."""
    # The page's own policy forbids scripts, this one too.
    measured = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace(
        "</head>", f"{_MEASURE}</head>"
    )
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        # In a frame, since a window is never narrower than 500.
        frame = f'<iframe style="border:0;height:900px;width:{width}px" srcdoc="{escape(measured)}"></iframe>'
        page.write_text(f"<!doctype html><title></title>{frame}")
        text = _run(page, 1400, 900, dark=False, more=["--dump-dom"]).stdout
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    assert title, text[:500]
    inner, content, count, which = title[1].split("|", 3)
    return int(inner), int(content), which if int(count) else ""


def _decode(data: bytes, said: str) -> Picture:
    """Read a PNG of 8 bits in RGB or RGBA, not interlaced (RFC 2083), which is what Chromium writes."""
    chunks, at = {}, 8
    body = b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IDAT":
            body += content
        chunks[kind] = content
        at += length + 12
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, interlaced) == (8, 0) and colour in (2, 6)
    size = 3 if colour == 2 else 4
    raw, stride = zlib.decompress(body), width * size
    rows, above = [], bytes(stride)
    for y in range(height):
        method, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        _unfilter(method, line, above, size)
        above = bytes(line)
        rows.append(above if size == 3 else bytes(value for index, value in enumerate(above) if index % 4 < 3))
    return Picture(width, height, rows, said)


def _unfilter(method: int, line: bytearray, above: bytes, size: int) -> None:
    for index in range(len(line)):
        left = line[index - size] if index >= size else 0
        up, corner = above[index], above[index - size] if index >= size else 0
        if method == 1:
            line[index] = (line[index] + left) & 255
        elif method == 2:
            line[index] = (line[index] + up) & 255
        elif method == 3:
            line[index] = (line[index] + (left + up) // 2) & 255
        elif method == 4:
            guess = left + up - corner
            nearest = min((abs(guess - value), order, value) for order, value in enumerate((left, up, corner)))
            line[index] = (line[index] + nearest[2]) & 255
