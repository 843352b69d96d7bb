"""Take the screenshots in docs/: the demo, grading a drawn knee, in headless Chromium.

python app.py &
python docs/screenshots.py http://127.0.0.1:7860
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SHOTS = {"demo": (1180, 900, "light"), "demo-dark": (1180, 900, "dark"), "demo-phone": (390, 844, "light")}


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, theme) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            page.goto(f"{url}/?__theme={theme}")
            page.get_by_role("button", name="KL 3").click()
            page.locator("h2.grade").wait_for(timeout=60_000)
            page.wait_for_timeout(1500)
            page.screenshot(path=Path(__file__).parent / f"{name}.png", full_page=name != "demo-phone")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:7860")
