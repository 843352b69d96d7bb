"""The demo as somebody sees it: headless Chromium, no network beyond the demo's own server."""

import re

import pytest
from playwright.sync_api import Page, expect

from koa_hf import Grader
from koa_hf.grades import RESEARCH_USE_NOTICE

pytestmark = pytest.mark.browser


@pytest.fixture
def foreign_requests(page: Page, demo_url) -> list[str]:
    """Requests to anybody but the demo's server."""
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    yield requests
    assert [url for url in requests if not url.startswith((demo_url, "data:", "blob:"))] == []


@pytest.fixture
def demo(page: Page, demo_url, foreign_requests) -> Page:
    page.goto(demo_url)
    expect(page.get_by_role("heading", name="No X-ray yet")).to_be_visible(timeout=20_000)
    return page


def upload(page: Page, path) -> None:
    page.set_input_files("#koa-upload input[type=file]", path)


def test_an_upload_is_graded_at_once_and_shown_with_its_evidence(demo, model_folder, knee_png):
    expect(demo.get_by_text(RESEARCH_USE_NOTICE)).to_be_visible()
    upload(demo, knee_png)
    grading = Grader.from_pretrained(model_folder).grade(knee_png)
    expect(demo.locator("h2.grade")).to_have_text(re.compile(rf"KL {grading.grade}\s+·\s+{grading.name}"))
    expect(demo.get_by_role("row")).to_have_count(5)
    expect(demo.get_by_alt_text("The X-ray as it was read")).to_be_visible()
    expect(demo.locator(".layer:visible")).to_have_attribute("data-grade", str(grading.grade))
    expect(demo.get_by_text(f"version {grading.revision}").first).to_be_visible()


def test_opacity_and_the_choice_of_evidence_work_without_asking_the_server(demo, knee_png, foreign_requests):
    upload(demo, knee_png)
    expect(demo.locator(".layer:visible")).to_have_css("opacity", "0.6")
    foreign_requests.clear()
    demo.get_by_label("range slider for Heat map opacity (%)").fill("25")
    expect(demo.locator(".layer:visible")).to_have_css("opacity", "0.25")
    for grade in "40":
        demo.get_by_role("radio", name=grade, exact=True).check()
        expect(demo.locator(".layer:visible")).to_have_attribute("data-grade", grade)
    assert [url for url in foreign_requests if not url.startswith("data:")] == []


def test_a_bad_file_is_explained_and_takes_the_last_result_away(demo, knee_png, tmp_path):
    upload(demo, knee_png)
    expect(demo.locator("h2.grade")).to_be_visible()
    bad = tmp_path / "letter.png"
    bad.write_text("Dear colleague")
    upload(demo, bad)
    expect(demo.get_by_role("alert")).to_contain_text("letter.png is not an image that can be read here")
    expect(demo.locator("h2.grade")).to_have_count(0)
    expect(demo.locator(".pictures")).to_have_count(0)
    upload(demo, knee_png)
    expect(demo.locator("h2.grade")).to_be_visible()


def test_an_example_is_graded_from_the_keyboard_and_cleared_again(demo):
    demo.get_by_role("button", name="KL 3").press("Enter")
    expect(demo.get_by_text("drawn knee, KL 3")).to_be_visible()
    demo.get_by_role("button", name="Clear").press("Enter")
    expect(demo.get_by_role("heading", name="No X-ray yet")).to_be_visible()
    expect(demo.locator(".pictures")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(demo, knee_png, width):
    demo.set_viewport_size({"width": width, "height": 844})
    upload(demo, knee_png)
    expect(demo.locator(".layer:visible")).to_be_visible()
    assert demo.evaluate("document.documentElement.scrollWidth") <= width
    right_edges = demo.eval_on_selector_all(
        ".card *, .pictures *, #koa-examples button, #koa-grade label",
        "elements => elements.map(element => element.getBoundingClientRect().right)",
    )
    assert max(right_edges) <= width
