"""The page of a report, opened in a browser: it shows what it should, asks for nothing, and survives hostile names."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_registry.core.manifest import InputRecord
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.reporting import writing
from tests.reporting.report_inputs import shares, store, suite

HOSTILE = "<script>document.title='run'</script> & \"co\""
WIDTH, HEIGHT = 1000, 1600


@pytest.fixture(scope="module")
def browser() -> str:
    """Headless Chromium; absent, it is an error where CI says so, and elsewhere a reason to skip."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("OGPSA_REQUIRE_BROWSER"):
        raise FileNotFoundError("these tests need chromium: apt-get install chromium")
    if found is None:
        pytest.skip("there is no chromium on this machine")
    return str(found)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page")
    made_from = InputRecord(role="model", path=str(root / "gone"), kind="model", fingerprint="f" * 64)
    for name, safe, right in (("base", 2, 40), (HOSTILE, 38, 30), ("ours", 37, 39)):
        store(
            root / "r" / re.sub(r"\W", "", name), name,
            suite("safety/xstest", {"safe": shares(safe, 40)}), suite("capability/maths", {"acc": shares(right, 50)}),
            inputs=[made_from],
        )  # fmt: skip
    config = ReportConfig(results=[str(root / "r")], start="base", out=root / "out", bootstrap=200, title="A <b>title")
    return report.run(config).path / writing.PAGE_FILE


def visit(browser: str, page: Path, *options: str) -> tuple[str, str]:
    """The document after loading, and what the browser's console said."""
    profile = page.parent.parent / f"profile-{len(options)}-{page.stem}"
    result = subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{HEIGHT}", *options, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=900, check=True,
    )  # fmt: skip
    return result.stdout, "\n".join(line for line in result.stderr.splitlines() if "CONSOLE" in line)


def screenshot(browser: str, page: Path, name: str, *options: str) -> np.ndarray:
    target = page.parent.parent / f"{name}.png"
    _, console = visit(browser, page, f"--screenshot={target}", *options)
    assert console == ""
    with Image.open(target) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        return np.asarray(picture.convert("L"), dtype=float)


def test_the_page_shows_everything_and_runs_nothing(browser, page):
    document, console = visit(browser, page, "--dump-dom")
    assert console == ""
    title = re.search(r"<title>(.*?)</title>", document, re.S)
    assert title.group(1) == "A &lt;b&gt;title"
    assert "<script" not in document
    for text in ("&lt;script&gt;", "capability/maths", "McNemar p", "Pareto front", "Lineage", "gone"):
        assert text in document
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', document)) == 2
    # What it names outside of itself: nothing.
    assert set(re.findall(r'(?:src|href|url)\s*[=(]\s*"?(\w+):', document)) == {"data"}


def test_the_page_is_drawn_light_and_dark(browser, page):
    light = screenshot(browser, page, "light")
    dark = screenshot(browser, page, "dark", "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    assert light.mean() > 200
    assert dark.mean() < 80
    for picture in (light, dark):
        # Text and charts from top to bottom: no band of the page is empty.
        assert all(band.std() > 3 for band in np.array_split(picture, 6))


def test_the_check_sees_what_a_page_asks_for(browser, page):
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt=""></main>'))
    assert "Content Security Policy" in visit(browser, broken, "--dump-dom")[1]
