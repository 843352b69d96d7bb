"""The demo as somebody sees it: headless Chromium, no network beyond the demo's own server."""

import csv
import io
import json
import re
import threading
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pypdf
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Browser, Dialog, Locator, Page, expect
from skimage import data

from app import build_demo
from koa_hf import Grader
from koa_hf.demo.batch import Limits
from koa_hf.demo.endpoints import GRADING_QUEUE
from koa_hf.demo.examples import drawn_examples
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import ImageSource
from tests.demo import running_demo
from tests.helpers import dicom_of
from tests.processes import free_port

pytestmark = pytest.mark.browser

CONTRAST = """(element) => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    while (/, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
"""WCAG 2's contrast ratio of an element's text with what is behind it; 4.5 is the least for reading."""


@pytest.fixture(scope="module")
def visit(browser: Browser, demo_url) -> Iterator[tuple[Page, list[str]]]:
    """One visit to the demo, which most tests continue, and the addresses that the page asks for: a page takes as long
    to open as an X-ray to grade."""
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    yield page, requests
    page.context.close()


@pytest.fixture
def requests(visit, demo_url) -> Iterator[list[str]]:
    """Addresses that the page asks for during a test; all must be the demo's server."""
    _, requests = visit
    requests.clear()
    yield requests
    assert [url for url in requests if not url.startswith((demo_url, "data:", "blob:"))] == []


@pytest.fixture
def demo(visit, demo_url, requests) -> Page:
    """The page, empty."""
    page, _ = visit
    page.set_viewport_size({"width": 1280, "height": 720})
    return emptied(page, demo_url)


def emptied(page: Page, url: str) -> Page:
    """The page as it is at first; opened anew if it isn't yet, or if a test failed on it."""
    clear = page.get_by_role("button", name="Clear")
    if page.get_by_role("dialog").count() or not (clear.is_visible() or empty(page).is_visible()):
        return opened(page, url)
    if clear.is_visible():
        clear.click()
    expect(empty(page)).to_be_visible()
    return page


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(empty(page)).to_be_visible(timeout=20_000)
    return page


def empty(page: Page) -> Locator:
    return page.get_by_role("heading", name="No X-ray yet")


def upload(page: Page, *paths) -> None:
    page.set_input_files("#koa-upload input[type=file]", list(paths))


def downloaded(page: Page, button: Locator) -> tuple[str, bytes]:
    """Name and content of what a button saves."""
    with page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_an_upload_is_graded_at_once_and_shown_with_its_evidence(demo, grader, knee_png):
    expect(demo.get_by_text(RESEARCH_USE_NOTICE)).to_be_visible()
    upload(demo, knee_png)
    grading = grader.grade(knee_png)
    expect(demo.locator("h2.grade")).to_have_text(re.compile(rf"KL {grading.grade}\s+·\s+{grading.name}"))
    expect(demo.get_by_role("row")).to_have_count(5)
    expect(demo.get_by_alt_text("The X-ray as it was read")).to_be_visible()
    expect(demo.locator(".layer:visible")).to_have_attribute("data-grade", str(grading.grade))
    expect(demo.get_by_text(f"version {grading.revision}").first).to_be_visible()


def test_opacity_evidence_and_enlarging_work_without_asking_the_server(demo, knee_png, requests):
    upload(demo, knee_png)
    expect(demo.locator(".layer:visible")).to_have_css("opacity", "0.6")
    requests.clear()
    demo.get_by_role("slider", name="Heat map opacity (%)").fill("25")
    expect(demo.locator(".layer:visible")).to_have_css("opacity", "0.25")
    for grade in "40":
        demo.get_by_role("radio", name=f"KL {grade}").check()
        expect(demo.locator(".layer:visible")).to_have_attribute("data-grade", grade)
    enlarge = demo.get_by_role("button", name="Enlarge").last
    enlarge.press("Enter")
    large = demo.get_by_role("dialog")
    expect(large.locator(".layer:visible")).to_have_attribute("data-grade", "0")
    before = large.locator("img").first.bounding_box()["width"]
    demo.keyboard.press("+")
    assert large.locator("img").first.bounding_box()["width"] > 1.2 * before
    demo.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(enlarge).to_be_focused()
    assert [url for url in requests if not url.startswith("data:")] == []


def test_a_bad_file_is_explained_and_takes_the_last_result_away(demo, knee_png, tmp_path):
    upload(demo, knee_png)
    expect(demo.locator("h2.grade")).to_be_visible()
    bad = tmp_path / "letter.png"
    bad.write_text("Dear colleague")
    upload(demo, bad)
    expect(demo.get_by_role("alert")).to_contain_text("letter.png is not an image that can be read here")
    expect(demo.locator("h2.grade")).to_be_hidden()
    expect(demo.locator(".pictures")).to_be_hidden()
    upload(demo, knee_png)
    expect(demo.locator("h2.grade")).to_be_visible()
    expect(demo.locator(".layer:visible")).to_have_count(1)


def test_an_example_is_graded_from_the_keyboard_and_cleared_again(demo):
    demo.get_by_role("button", name="One knee").press("Enter")
    expect(demo.get_by_text("drawing: One knee")).to_be_visible()
    demo.get_by_role("button", name="Clear").press("Enter")
    expect(empty(demo)).to_be_visible()
    expect(demo.locator(".pictures")).to_be_hidden()
    demo.get_by_role("button", name="One knee").press("Enter")
    expect(demo.locator(".layer:visible")).to_have_count(1)


def test_the_footer_opens_the_documentation_of_the_api(demo):
    demo.get_by_role("button", name="Use via API or MCP").click()
    expect(demo.get_by_role("heading", name="documentation")).to_be_visible()
    expect(demo.get_by_text("grade_film", exact=True).filter(visible=True).first).to_be_visible()
    demo.locator(".backdrop").click(position={"x": 5, "y": 5})
    expect(demo.get_by_role("dialog")).to_have_count(0)


def test_a_file_name_that_looks_like_a_template_is_shown_as_it_is(demo, film_png, tmp_path):
    name = "${alert(1)}`{{constructor}}<img src=x onerror=alert(2)>.png"
    said = []

    def dismiss(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    demo.on("dialog", dismiss)
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as hostile:
        hostile.write(film_png, name)
    upload(demo, tmp_path / "hostile.zip")
    expect(demo.get_by_role("heading", name="Results")).to_be_visible(timeout=30_000)
    # Gradio's table measures its widest cells in a copy that nobody sees.
    demo.locator("#koa-table").get_by_text("${alert(1)}").filter(visible=True).first.click()
    expect(demo.locator("#koa-knee-1 .file")).to_contain_text(name)
    demo.remove_listener("dialog", dismiss)
    assert said == []


def test_a_film_uploaded_again_shows_the_boxes_that_were_found(demo, film_png):
    upload(demo, film_png)
    boxes = demo.locator(".film .box")
    expect(boxes).to_have_count(2)
    found = boxes.first.get_attribute("data-box")
    boxes.first.press("ArrowRight")
    boxes.nth(1).press("Delete")
    expect(boxes).to_have_count(1)
    upload(demo, film_png)
    expect(boxes).to_have_count(2)
    expect(boxes.first).to_have_attribute("data-box", found)


def test_a_film_is_graded_knee_by_knee_and_again_once_its_boxes_are_corrected(demo, film_png):
    upload(demo, film_png)
    for i, name in enumerate(("Right knee", "Left knee")):
        expect(demo.locator(f"#koa-knee-{i} .side")).to_have_text(name)
    boxes = demo.locator(".film .box")
    box, found = boxes.first, boxes.first.get_attribute("data-box")
    expect(box).to_have_accessible_name(re.compile("^Box around the right knee"))
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    demo.mouse.move(*middle)
    demo.mouse.down()
    demo.mouse.move(middle[0] + 12, middle[1] + 8, steps=3)
    demo.mouse.up()
    dragged = box.get_attribute("data-box")
    assert dragged != found
    box.press("ArrowLeft")
    box.press("+")
    moved = [int(edge) for edge in box.get_attribute("data-box").split(",")]
    assert moved[2] - moved[0] == moved[3] - moved[1] > int(dragged.split(",")[2]) - int(dragged.split(",")[0])
    boxes.nth(1).get_by_role("button", name="Remove this box").click()
    demo.get_by_role("button", name="Grade the boxes").click()
    expect(demo.locator("#koa-knee-1")).to_be_hidden()
    name, content = downloaded(demo, demo.get_by_role("button", name="JSON"))
    report = json.loads(content)
    assert (report["box"], report["side"], report["file"]) == (moved, "right", "film.png")
    assert name == f"knee-report-{report['sha256'][:8]}-right.json"
    demo.get_by_role("button", name="Grade the image as it is").click()
    expect(demo.locator("#koa-knee-0 .side")).to_have_count(0)


def test_a_side_belongs_to_the_knee_that_a_box_lies_on_and_the_reader_may_set_it(demo, film_png):
    upload(demo, film_png)
    boxes = demo.locator(".film .box")
    right, left = (boxes.nth(i).get_attribute("data-box") for i in range(2))
    boxes.nth(1).press("Delete")
    drag(demo, boxes, int(left.split(",")[0]) - int(right.split(",")[0]))
    expect(boxes).to_have_accessible_name(re.compile("^Box around the left knee"))
    assert graded_again(demo, "Left knee")["side"] == "left"

    boxes.press("r")
    expect(boxes).to_have_accessible_name(re.compile("^Box around the right knee"))
    expect(boxes).to_contain_text("right (you)")
    report = graded_again(demo, "Right knee (set by you)")
    assert (report["side"], report["side_by_user"]) == ("right", True)

    boxes.get_by_role("button", name="make it the left knee").click()
    expect(boxes).to_contain_text("left (you)")
    drag(demo, boxes, int(right.split(",")[0]) - int(left.split(",")[0]))  # off that knee, what was set for it is gone
    expect(boxes).to_have_accessible_name(re.compile("^Box around the right knee"))
    report = graded_again(demo, "Right knee")
    assert (report["side"], report["side_by_user"]) == ("right", False)


def drag(page: Page, box: Locator, across: int) -> None:
    """Drag a box by so many pixels of the film to the right."""
    box.scroll_into_view_if_needed()
    place, (left, _, right, _) = box.bounding_box(), map(int, box.get_attribute("data-box").split(","))
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across * place["width"] / (right - left), y, steps=3)
    page.mouse.up()


def graded_again(page: Page, knee: str) -> dict:
    """The JSON report of the first knee, once its box is graded as this knee."""
    page.get_by_role("button", name="Grade the boxes").click()
    expect(page.locator("#koa-knee-0 .side")).to_have_text(knee)
    return json.loads(downloaded(page, page.locator("#koa-knee-0").get_by_role("button", name="JSON"))[1])


def test_a_film_is_graded_as_it_is_rotated_mirrored_and_windowed(demo, film_png):
    upload(demo, film_png)
    boxes, picture = demo.locator(".film .box"), demo.get_by_alt_text("The whole film")
    expect(boxes).to_have_count(2)
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    demo.get_by_role("button", name="Rotate right").press("Enter")
    expect(demo.locator("#koa-knee-0")).to_contain_text("The user rotated the film by 90 degrees clockwise")
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [height, width]
    demo.get_by_role("button", name="Rotate left").press("Enter")
    expect(demo.locator("#koa-knee-0")).not_to_contain_text("rotated the film")
    demo.get_by_role("button", name="Mirror").press("Enter")
    expect(demo.get_by_role("button", name="Mirror")).to_have_attribute("aria-pressed", "true")
    demo.get_by_role("button", name="Window").press("Enter")
    demo.get_by_role("button", name="Bone").press("Enter")
    expect(demo.locator("#koa-knee-0")).to_contain_text("level 65% and width 70%")
    expect(boxes).to_have_count(2)
    report = downloaded(demo, demo.locator("#koa-knee-0").get_by_role("button", name="JSON"))[1]
    assert json.loads(report)["notes"] == [
        "The user mirrored the film before grading.",
        "The user set the film's window to level 65% and width 70% of its grey levels before grading.",
    ]


def test_a_missed_second_knee_gets_a_box_beside_the_first(demo, film_png, tmp_path):
    film = np.array(Image.open(film_png))
    film[:, film.shape[1] // 2 :] = 20
    Image.fromarray(film).save(tmp_path / "half.png")
    upload(demo, tmp_path / "half.png")
    boxes = demo.locator(".film .box")
    expect(boxes).to_have_count(1)
    demo.get_by_role("button", name="Add a box beside it").click()
    expect(boxes).to_have_count(2)
    first, second = ([int(edge) for edge in boxes.nth(i).get_attribute("data-box").split(",")] for i in range(2))
    assert second[0] > first[2]
    assert second[1] == first[1]
    demo.get_by_role("button", name="Grade the image as it is").click()
    expect(boxes).to_have_count(0)


def test_a_dicom_x_ray_gets_reports_of_three_kinds(demo, tmp_path):
    xray = tmp_path / "KOLENKIN_OLEG.dcm"
    xray.write_bytes(dicom_of(phantom.draw_knee(3, seed=1)))
    upload(demo, xray)
    expect(demo.locator(".file")).to_contain_text("According to the file: right knee")
    name, pdf = downloaded(demo, demo.get_by_role("button", name="PDF report"))
    assert re.fullmatch(r"knee-report-[0-9a-f]{8}-right\.pdf", name)
    assert RESEARCH_USE_NOTICE.split(":")[0] in pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text()
    name, capture = downloaded(demo, demo.get_by_role("button", name="DICOM report"))
    assert name.endswith(".dcm")
    assert pydicom.dcmread(io.BytesIO(capture)).StudyInstanceUID == pydicom.dcmread(xray).StudyInstanceUID


def test_many_files_fill_a_table_and_a_row_opens_its_x_ray(demo, knee_png, film_png, tmp_path):
    together = tmp_path / "together.zip"
    with zipfile.ZipFile(together, "w") as opened_zip:
        opened_zip.write(knee_png, "visit 1/knee.png")
        opened_zip.writestr("<b>letter</b>.png", "Dear colleague")
    upload(demo, together, film_png)
    done = "Graded 2 of 3 files; 1 could not be graded."
    expect(demo.locator(".batch [role=status]")).to_contain_text(done, timeout=30_000)
    table = demo.locator("#koa-table")
    expect(table).to_contain_text("visit 1/knee.png")
    expect(table).to_contain_text("<b>letter</b>.png is not an image")
    _, content = downloaded(demo, demo.get_by_role("button", name="Download as CSV"))
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert [(row["file"], row["side"]) for row in rows] == [
        ("visit 1/knee.png", "right"),
        ("<b>letter</b>.png", ""),
        ("film.png", "right"),
        ("film.png", "left"),
    ]
    assert "is not an image" in rows[1]["error"]
    table.get_by_text("film.png").first.click()
    expect(demo.locator("#koa-knee-1 .side")).to_have_text("Left knee")
    expect(table).to_be_visible()


class Gate:
    """Grades as `grader` does, once it is open; until then, everybody waits."""

    def __init__(self, grader: Grader):
        self.model_id, self.revision, self.note, self._grader = grader.model_id, grader.revision, grader.note, grader
        self.opened = threading.Event()

    def grade_batch(self, radiographs: Iterable[ImageSource]) -> list[Grading]:
        self.opened.wait()
        return self._grader.grade_batch(radiographs)


@pytest.fixture(scope="module")
def gated_visit(browser: Browser, grader, tmp_path_factory) -> Iterator[tuple[Page, Gate]]:
    """One visit to a demo behind a gate, and the gate."""
    files, gate = tmp_path_factory.mktemp("gated"), Gate(grader)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(files))
        blocks = build_demo(gate, drawn_examples(), Limits(), files)
        url = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, server_port=free_port())[1]
        page = browser.new_page()
        try:
            yield opened(page, url), gate
        finally:
            gate.opened.set()
            page.context.close()
            blocks.close(verbose=False)


@pytest.fixture
def gated(gated_visit) -> tuple[Page, Gate]:
    """The page, empty, of a demo whose gradings wait, and what they wait for."""
    page, gate = gated_visit
    gate.opened.set()
    emptied(page, page.url)
    gate.opened.clear()
    return page, gate


def test_of_two_uploads_the_last_one_wins(gated, knee_png, film_png):
    page, gate = gated
    upload(page, film_png)
    expect(page.get_by_role("heading", name="Grading", exact=True)).to_be_visible()
    expect(empty(page)).to_be_hidden()
    upload(page, knee_png)
    page.wait_for_timeout(500)
    gate.opened.set()
    expect(page.locator("#koa-knee-0 .file")).to_contain_text("knee.png")
    page.wait_for_timeout(500)  # for the first, if it came after all
    expect(page.locator("#koa-knee-0 .file")).to_contain_text("knee.png")
    expect(page.locator("#koa-knee-1, #koa-film").filter(visible=True)).to_have_count(0)
    report = downloaded(page, page.get_by_role("button", name="JSON"))[1]
    assert json.loads(report)["file"] == "knee.png"


def test_an_example_during_a_batch_ends_the_batch(gated, knee_png, film_png):
    page, gate = gated
    upload(page, knee_png, film_png)
    expect(page.get_by_text("Graded 0 of 2 files")).to_be_visible()
    page.get_by_role("button", name="DICOM", exact=True).click()
    expect(page.get_by_text("Graded 0 of 2 files")).to_be_hidden()
    gate.opened.set()
    expect(page.locator("#koa-knee-0 .file")).to_contain_text("drawing: DICOM · According to the file: left knee")
    expect(page.locator("#koa-table")).to_be_hidden()
    name, _ = downloaded(page, page.get_by_role("button", name="DICOM report"))
    assert name.endswith("-left.dcm")


def test_the_examples_are_called_by_what_they_show_and_claim_no_grade(demo):
    examples = demo.locator("#koa-examples")
    expect(examples).not_to_contain_text("KL")
    for name, seen in {
        "Two knees": "#koa-knee-1 .side:has-text('Left knee')",
        "Negative": "#koa-knee-0 .file:has-text('drawing: Negative')",
        "One knee": "#koa-knee-0 .file:has-text('drawing: One knee')",
    }.items():
        examples.get_by_role("button", name=name).click()
        expect(demo.locator(seen)).to_be_visible()


def test_a_visitor_who_has_to_wait_sees_their_place_in_the_queue(gated, knee_png):
    page, gate = gated
    client = Client(page.url, verbose=False, httpx_kwargs={"timeout": 120})
    busy = [
        client.submit(handle_file(knee_png), api_name="/grade") for _ in range(GRADING_QUEUE["concurrency_limit"] + 2)
    ]
    while waiting(page.url) < 2:
        page.wait_for_timeout(50)
    upload(page, knee_png)
    expect(page.locator("#koa-upload")).to_contain_text(re.compile(r"queue: \d/3"))
    gate.opened.set()
    expect(page.locator("h2.grade")).to_be_visible(timeout=60_000)
    assert all(job.result()["grade"] in range(5) for job in busy)


def waiting(url: str) -> int:
    """Requests in the demo's queue that nobody works on yet."""
    with urllib.request.urlopen(f"{url}gradio_api/queue/status") as answer:
        return json.loads(answer.read())["queue_size"]


@pytest.mark.parametrize(("width", "shown"), [(320, "film"), (390, "knee"), (1280, "knee")])
def test_nothing_is_wider_than_the_screen(demo, knee_png, film_png, width, shown):
    demo.set_viewport_size({"width": width, "height": 844})
    upload(demo, film_png if shown == "film" else knee_png)
    expect(demo.locator(".layer:visible").first).to_be_visible()
    assert demo.evaluate("document.documentElement.scrollWidth") <= width
    right_edges = demo.eval_on_selector_all(
        ".card :not(.canvas *), .pictures *, .controls *, .koa-reports button, #koa-examples button",
        "elements => elements.map(element => element.getBoundingClientRect().right)",
    )
    assert max(right_edges) <= width


def test_a_cat_is_refused_first_and_a_reader_may_disagree_in_the_dark_too(page: Page, tmp_path):
    cat = tmp_path / "cat.png"
    Image.fromarray(data.cat()).save(cat)
    remarks = tmp_path / "remarks"
    page.emulate_media(color_scheme="dark")
    with running_demo("--disagreements", str(remarks)) as demo:  # the bundled model: it knows what it doesn't know
        opened(page, demo.url)
        upload(page, cat)
        # The page is there before the model is: the first upload waits for it.
        expect(page.get_by_role("heading", name="Unlike the knees")).to_be_visible(timeout=60_000)
        expect(page.locator("#koa-knee-0")).not_to_contain_text(re.compile(r"KL \d"), use_inner_text=True)
        expect(page.locator(".layer:visible, .pictures:visible")).to_have_count(0)
        page.get_by_text("Show the grade anyway").press("Enter")
        expect(page.locator("h2.grade")).to_be_visible()
        expect(page.locator(".layer:visible")).to_have_count(1)

        page.get_by_role("button", name="I disagree").click()
        page.get_by_role("radio", name="KL 0 none").check()
        page.get_by_label("Why").fill("a cat")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("your grade was recorded, without the X-ray")).to_be_visible()
        assert len(list((remarks / "data").glob("*.parquet"))) == 1

        assert "dark" in page.locator("body").get_attribute("class")
        for words in page.locator("h1, .card p:visible, .card th:visible, .card summary:visible, .hint:visible").all():
            assert words.evaluate(CONTRAST) >= 4.5, words.inner_text()
