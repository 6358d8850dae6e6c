"""The page in a real browser: every picture is drawn, it fits phones, and nothing is fetched."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
WIDTHS = (360, 1280)

MEASURE = """() => {
    document.querySelectorAll("details").forEach(details => { details.open = true });
    const box = element => element.getBoundingClientRect();
    return {
        images: Array.from(document.images, image => image.naturalWidth),
        charts: Array.from(document.querySelectorAll("svg"), svg => Math.min(box(svg).width, box(svg).height)),
        overflow: document.documentElement.scrollWidth - window.innerWidth,
    }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no `chromium` on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def faults(browser: Browser, path: Path, width: int, media: str = "screen") -> list[str]:
    """What is wrong with a page, all of its details open."""
    found: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.emulate_media(media=media)
    page.on("console", lambda message: found.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    drawn = page.evaluate(MEASURE)
    page.close()
    found += [f"request: {url}" for url in requests if url != path.as_uri() and not url.startswith("data:")]
    found += [f"image {number} is broken" for number, size in enumerate(drawn["images"]) if not size > 0]
    found += [f"chart {number} is empty" for number, size in enumerate(drawn["charts"]) if not size > 0]
    found += [] if drawn["images"] and drawn["charts"] else ["no image or no chart"]
    found += [f"{drawn['overflow']} pixels too wide"] if drawn["overflow"] > 0 else []
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_whole_and_fits(browser: Browser, report: Path, width: int) -> None:
    assert faults(browser, report / "index.html", width) == []


def test_the_page_prints(browser: Browser, report: Path) -> None:
    assert faults(browser, report / "index.html", 794, "print") == []  # A4 at 96 dots an inch


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("data:image/png;base64,", "data:image/png;base64,AAAA"), "image 0 is broken"),
        (("<svg ", '<svg hidden style="display: none" '), "chart 0 is empty"),
        (("<h1>", '<h1 style="width: 2000px">'), "pixels too wide"),
        (("<h1>", '<h1><img src="absent.png">'), "request: file://"),
        (("<h1>", "<h1><script>throw Error('x')</script>"), "error: x"),
    ],
)
def test_faults_are_found(browser: Browser, report: Path, tmp_path: Path, change: tuple[str, str], fault: str) -> None:
    path = tmp_path / "index.html"
    path.write_text((report / "index.html").read_text().replace(*change, 1))
    assert any(fault in found for found in faults(browser, path, WIDTHS[0]))
