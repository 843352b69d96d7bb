"""Screenshots of the demo for docs/, taken in headless Chromium.

    python app.py &
    python benchmarks/screenshots.py http://127.0.0.1:7860             # all of them
    python benchmarks/screenshots.py http://127.0.0.1:7860 demo-film   # one

The X-rays are phantoms. Needs requirements-dev.txt and Chromium.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data

from benchmarks.reporting import ROOT
from koa_hf.imaging import phantom
from train.pictures.composites import Crop, compose

DOCS = ROOT / "docs"
SECONDS = 1000  # Playwright counts milliseconds


def drawn_film(path: Path) -> Path:
    """A film with both knees."""
    crops = [Crop(phantom.draw_knee(3, seed=1), "right"), Crop(phantom.draw_knee(1, seed=2, side="left"), "left")]
    Image.fromarray(compose("bilateral", crops, np.random.default_rng(4), 420, varied=False).pixels).save(path)
    return path


def example(page: Page, folder: Path) -> None:
    page.get_by_role("button", name="One knee").click()
    page.locator("h2.grade").wait_for()


def film(page: Page, folder: Path) -> None:
    upload(page, drawn_film(folder / "both-knees.png"))
    page.locator("#koa-knee-1 .card").wait_for()
    page.get_by_text("Show the grade anyway").first.click()


def batch(page: Page, folder: Path) -> None:
    letter = folder / "letter.png"
    letter.write_text("Dear colleague")
    knees = []
    for grade in range(5):
        knees.append(folder / f"visit-{grade}.png")
        Image.fromarray(phantom.draw_knee(grade, seed=20 + grade)).save(knees[-1])
    upload(page, *knees[:2], letter, *knees[2:], drawn_film(folder / "both-knees.png"))
    page.get_by_role("heading", name="Results").wait_for()


def refused(page: Page, folder: Path) -> None:
    cat = folder / "cat.png"
    Image.fromarray(data.cat()).save(cat)
    upload(page, cat)
    page.get_by_role("heading", name="Unlike the knees").wait_for()


def failed(page: Page, folder: Path) -> None:
    letter = folder / "letter.png"
    letter.write_text("Dear colleague")
    upload(page, letter)
    page.get_by_role("heading", name="could not be graded").wait_for()


def empty(page: Page, folder: Path) -> None:
    page.get_by_role("heading", name="No X-ray yet").wait_for()


def upload(page: Page, *files: Path) -> None:
    page.set_input_files("#koa-upload input[type=file]", list(files))


DESK, PHONE = (1180, 900), (390, 844)
SHOTS = {
    "demo": (example, DESK, "light"),
    "demo-dark": (example, DESK, "dark"),
    "demo-phone": (example, PHONE, "light"),
    "demo-film": (film, DESK, "light"),
    "demo-film-phone": (film, PHONE, "dark"),
    "demo-batch": (batch, DESK, "light"),
    "demo-refused": (refused, DESK, "light"),
    "demo-failed": (failed, PHONE, "light"),
    "demo-empty": (empty, DESK, "dark"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:7860", help="of the running demo")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all: {', '.join(SHOTS)}")
    args = parser.parse_args()
    url, names = args.url.rstrip("/"), args.names
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (show, (width, height), theme) in SHOTS.items():
            if names and name not in names:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            page.set_default_timeout(120 * SECONDS)
            page.goto(f"{url}/?__theme={theme}")
            empty(page, Path(folder))
            show(page, Path(folder))
            page.evaluate("size => size > 640 && scrollTo(0, 0)", width)
            page.wait_for_timeout(1.5 * SECONDS)
            page.screenshot(path=DOCS / f"{name}.png", full_page=(width, height) == DESK)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
