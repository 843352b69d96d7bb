import csv
import hashlib
import io
import json
import shutil
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from PIL import Image
from pypdf import PdfReader

from koa_hf.cli import main
from koa_hf.errors import KoaError
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import SCHEMA, Grading, NotGraded
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.report import pdf_page
from koa_hf.report.csv_table import COLUMNS, csv_writer, row_of
from koa_hf.report.document import Report
from koa_hf.report.secondary_capture import secondary_capture
from tests.helpers import dicom_of

SHA256 = hashlib.sha256(b"the X-ray").hexdigest()
TIME = datetime(2026, 11, 23, 2, 16, 29, tzinfo=UTC)
WORST = {
    "file": "снимок_" * 40 + ".png",
    "familiar": False,
    "unfamiliarity": 1.04,
    "inverted": True,
    "turned": True,
    "model": "somebody/" + "a-long-name-" * 30,
    "grade": 3,
    "name": "moderate",
}
FILE = {"side": "left", "view": "PA", "notes": ("Frame 1 was read.",)}
NOTE = "Trained on drawings, for testing the software. " * 20


def graded(**changes) -> Grading:
    """A grading as a model with all its rules makes it; the evidence for KL 2 lies in the middle."""
    rows, columns = np.mgrid[:7, :7] - 3
    evidence = np.exp(-(rows**2 + columns**2) / 2).astype(np.float32)
    values = dict(
        file="knee.png",
        sha256=SHA256,
        grade=2,
        name="minimal",
        probabilities=(0.06, 0.22, 0.58, 0.13, 0.01),
        calibrated=True,
        expected_grade=1.81,
        grade_set=(1, 3),
        coverage=0.9,
        familiar=True,
        unfamiliarity=0.61,
        inverted=False,
        turned=False,
        model="user/koa-xception",
        revision="3f1c0a9b2d4e",
        seconds=0.11,
        heatmap=np.stack([evidence] * 5),
    )
    return Grading(**values | changes)


def report_of(grading: Grading, pixels: np.ndarray | None = None, film: np.ndarray | None = None, time=TIME) -> Report:
    knee = Radiograph(phantom.draw_knee(2, seed=2) if pixels is None else pixels, "knee")
    return Report(GradedKnee(grading, knee), knee if film is None else Radiograph(film, "film"), time)


def text_of(pdf: bytes) -> str:
    """All words of the page, one space between any two."""
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return " ".join(page.extract_text().split())


def pictures_of(pdf: bytes) -> list[np.ndarray]:
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return [np.asarray(image.image.convert("L"), float) for image in page.images]


def test_the_json_holds_what_its_schema_says_and_no_picture():
    grading = graded(**FILE, box=(1, 2, 30, 40), model_note="a note")
    values = json.loads(report_of(grading).json())
    assert list(values) == ["schema", "time", "notice", *Grading.descriptions()]
    assert values["schema"] == SCHEMA == "koa-grading/2"
    assert values["time"] == "2026-11-23T02:16:29Z"
    assert values["notice"] == RESEARCH_USE_NOTICE
    assert (values["sha256"], values["box"], values["model_note"]) == (SHA256, [1, 2, 30, 40], "a note")
    assert (values["side"], values["view"], values["notes"]) == ("left", "PA", ["Frame 1 was read."])
    assert (values["grade_set"], values["coverage"], values["familiar"]) == ([1, 3], 0.9, True)
    assert sum(values["probabilities"]) == pytest.approx(1)
    assert (values["certainty"], values["remarks"]) == (grading.certainty, grading.remarks)


def test_the_time_is_utc_wherever_the_clock_stands():
    elsewhere = TIME.astimezone(timezone(timedelta(hours=7)))
    assert report_of(graded(), time=elsewhere).to_dict() == report_of(graded()).to_dict()


def test_a_row_of_the_csv_has_every_column_and_leaves_empty_what_a_model_cannot_tell(tmp_path):
    plain = graded(grade_set=None, coverage=None, familiar=None, unfamiliarity=None, inverted=True, turned=True)
    undecodable = tmp_path / "knee-\udcff.png"
    with csv_writer(tmp_path / "grades.csv") as writer:
        for outcome in (graded(), plain, NotGraded(file=str(undecodable), error="it is damaged")):
            writer.writerow(row_of(outcome))
    with (tmp_path / "grades.csv").open(newline="", encoding="utf-8") as opened:
        full, bare, failed = csv.DictReader(opened)
    assert list(full) == list(COLUMNS)
    assert (full["grade_low"], full["grade_high"], full["familiar"], full["turned"]) == ("1", "3", "true", "false")
    assert (bare["grade_low"], bare["grade_high"], bare["familiar"]) == ("", "", "")
    assert (bare["inverted"], bare["turned"]) == ("true", "true")
    assert plain.remarks == ["negative, inverted", "upside down, turned"]
    assert {column for column, cell in failed.items() if cell} == {"file", "error"}
    assert failed["error"] == "it is damaged"
    assert failed["file"].endswith("knee-\\udcff.png")


def test_the_sentence_gives_the_range_and_its_coverage():
    assert graded().summary == "KL 2, could be KL 1 to 3 (90% coverage)"
    assert graded(grade_set=(2, 2)).summary == "KL 2, the only grade in its range (90% coverage)"
    assert graded(grade_set=None, coverage=None).summary == "KL 2"


def test_the_pdf_is_one_a4_page_that_says_all_there_is_to_say():
    pdf = pdf_page.pdf(report_of(graded(**FILE, model_note="Made for this test.")))
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    assert [float(edge) for edge in page.mediabox[2:]] == pytest.approx([210 / 25.4 * 72, 297 / 25.4 * 72], abs=0.5)
    text = text_of(pdf)
    for said in (
        RESEARCH_USE_NOTICE,
        "Made for this test.",
        "Frame 1 was read.",
        "minimal",
        graded().summary,
        graded().certainty,
        GRADES[2].definition,
        "Expected grade 1.8",
        "Left knee",
        "The X-ray as read, PA, 224 by 224 pixels",
        "2026-11-23 02:16:29 UTC",
        *("6%", "22%", "58%", "13%", "1%"),
        *("knee.png", SHA256, "user/koa-xception", "3f1c0a9b2d4e"),
    ):
        assert " ".join(said.split()) in text
    assert text.startswith("RESEARCH USE")


def test_the_same_grading_at_the_same_time_gives_the_same_file_in_any_thread():
    reports = [report_of(graded()), report_of(graded(), time=TIME + timedelta(seconds=1))]
    first, later = map(pdf_page.pdf, reports)
    assert first != later
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(pdf_page.pdf, reports)) == [first, later]


def test_an_image_unlike_the_training_knees_is_called_uncertain_before_any_grade_and_claims_no_coverage():
    text = text_of(pdf_page.pdf(report_of(graded(familiar=False, unfamiliarity=1.04))))
    assert 0 < text.index("Not certain: this image is unlike the training knees") < text.index("KL 2")
    assert "distance 1.1; over 1 is unlike" in text  # never "1.0; over 1"
    for claim in ("coverage", "90%", "calibrated", graded().certainty):
        assert claim not in text


def test_a_negative_is_shown_as_read_and_righted_under_the_heat_map():
    negative = 255 - phantom.draw_knee(2, seed=2)
    nothing_seen = np.zeros((5, 7, 7), np.float32)
    pdf = pdf_page.pdf(report_of(graded(inverted=True, heatmap=nothing_seen), negative))
    text = text_of(pdf)
    assert "photographic negative" in text
    assert "No region supports KL 2" in text
    as_read, righted = pictures_of(pdf)
    np.testing.assert_allclose(as_read, 255 - righted, atol=1)
    assert as_read.mean() == pytest.approx(negative.mean(), abs=1)


def test_an_upside_down_knee_is_shown_as_read_and_said_to_have_been_turned():
    read = phantom.draw_knee(2, seed=2)[::-1, ::-1]
    pdf = pdf_page.pdf(report_of(graded(turned=True), read))
    assert "It was turned by 180 degrees before it was graded" in text_of(pdf)
    as_read, _ = pictures_of(pdf)
    shown = np.asarray(Image.fromarray(as_read.astype(np.uint8)).resize(read.shape[::-1]), float)
    shown = shown[::-1]  # a PDF holds pictures from the bottom up
    assert abs(shown - read).mean() < 5 < abs(shown - read[::-1, ::-1]).mean()


def test_the_film_is_shown_too_with_the_knee_boxed():
    knee = phantom.draw_knee(2, seed=2)
    film = np.zeros((400, 600), np.uint8)
    film[100:324, 50:274] = knee
    pdf = pdf_page.pdf(report_of(graded(box=(50, 100, 274, 324)), film=film))
    assert "the knee in the box was graded" in text_of(pdf)
    film_shown, _, _ = pictures_of(pdf)
    assert film_shown.shape[1] / film_shown.shape[0] == pytest.approx(1.5, abs=0.02)
    whole = pdf_page.pdf(report_of(graded()))
    assert "the knee in the box" not in text_of(whole)
    assert len(pictures_of(whole)) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("снимок и\u0306 колена.png", "снимок й колена.png"),
        ("膝関節.png", "□□□.png"),
        ("knee 😀\U0001fabf.png", "knee 😀□.png"),
        ("knee\n\u202egpj\x00\udcff.png", "knee gpj□.png"),
        (r"$x_1$ \frac <b>&amp;{}`.png", r"$x_1$ \frac <b>&amp;{}`.png"),
        ("", "□"),
    ],
)
def test_a_file_name_is_shown_as_far_as_the_font_goes(name, shown):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters that it can't draw
        report = report_of(graded(file=name))
        text = text_of(pdf_page.pdf(report))
    assert f"File {shown} SHA-256" in text
    assert json.loads(report.json())["file"] == name


def test_names_from_right_to_left_are_drawn_without_a_box():
    text = text_of(pdf_page.pdf(report_of(graded(file="صورة ركبة.png", model="ברך"))))
    assert "□" not in text


def test_a_long_name_keeps_its_beginning_and_end():
    text = text_of(pdf_page.pdf(report_of(graded(file="begin" + "x" * 5000 + "end.png"))))
    assert "File begin" in text
    assert "…" in text
    assert "end.png SHA-256" in text


@pytest.mark.parametrize("shape", [(1, 1), (162, 300), (1200, 200), (1, 3000), (3000, 1)])
def test_any_shape_and_the_longest_warnings_fit_on_the_page(shape):
    pixels = np.full(shape, 90, np.uint8)
    notes = ("The file holds 12 frames; frame 1 was read.",)
    worst = report_of(graded(**WORST, notes=notes, box=(-5, -5, 9999, 9999), model_note=NOTE), pixels, pixels)
    page = np.asarray(pdf_page.picture(worst, 60).convert("L"))
    margin = round(9 / 25.4 * 60)
    inside = np.zeros(page.shape, bool)
    inside[margin:-margin, margin:-margin] = True
    assert (page[~inside] == 255).all()
    assert (page[inside] < 128).any()


def test_the_page_has_no_colour_but_the_heat_map():
    seen = np.asarray(pdf_page.picture(report_of(graded()), 60), int)
    unseen = np.asarray(pdf_page.picture(report_of(graded(heatmap=np.zeros((5, 7, 7), np.float32))), 60), int)
    assert np.ptp(unseen, axis=2).max() == 0
    assert np.ptp(seen, axis=2).max() > 50


@pytest.fixture(scope="module")
def captured() -> tuple[bytes, bytes, np.ndarray]:
    """A DICOM X-ray, the secondary capture made from it, and the picture in that."""
    picture = pdf_page.picture(report_of(graded()))
    source = dicom_of(phantom.draw_knee(2, seed=2))
    made = secondary_capture(source, graded(side="right", model="C:\\модель\\" + "x" * 90), picture)
    return source, made, np.asarray(picture)


def test_the_secondary_capture_lies_in_the_patients_study_as_an_object_of_its_own(captured):
    xray, capture = (pydicom.dcmread(io.BytesIO(file)) for file in captured[:2])
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert capture[keyword].value == xray[keyword].value
    assert str(capture.PatientName) == "Коленкин^Олег"
    assert capture.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert capture.file_meta.MediaStorageSOPInstanceUID == capture.SOPInstanceUID
    assert len({xray.SOPInstanceUID, xray.SeriesInstanceUID, capture.SOPInstanceUID, capture.SeriesInstanceUID}) == 4
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == xray.SOPInstanceUID
    assert capture.Laterality == "R"


def test_the_secondary_capture_shows_the_page_and_says_that_it_is_research(captured):
    capture = pydicom.dcmread(io.BytesIO(captured[1]))
    np.testing.assert_array_equal(capture.pixel_array, captured[2])
    assert capture.BurnedInAnnotation == "YES"
    assert list(capture.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert capture.DerivationDescription.startswith("KL 2 (minimal)")
    assert RESEARCH_USE_NOTICE in capture.DerivationDescription
    assert capture.ImageComments == RESEARCH_USE_NOTICE


def test_the_secondary_capture_is_valid_dicom(captured, tmp_path):
    if not (validator := shutil.which("dciodvfy")):
        pytest.skip("no dciodvfy here; it is in Debian's dicom3tools")
    (tmp_path / "capture.dcm").write_bytes(captured[1])
    said = subprocess.run([validator, tmp_path / "capture.dcm"], capture_output=True, text=True)
    assert "Error" not in said.stderr + said.stdout


def test_only_a_dicom_x_ray_with_a_study_gets_a_secondary_capture(knee_png):
    picture = pdf_page.picture(report_of(graded()), 20)
    with pytest.raises(KoaError, match=r"knee.png is not DICOM"):
        secondary_capture(knee_png.read_bytes(), graded(), picture)
    with pytest.raises(KoaError, match="no StudyInstanceUID"):
        secondary_capture(dicom_of(phantom.draw_knee(2, seed=2), StudyInstanceUID=""), graded(), picture)


def test_values_that_dicom_forbids_are_taken_over_as_they_stand_and_no_warning_quotes_them():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = dicom_of(
            phantom.draw_knee(2, seed=2), PatientSex="MALE", AccessionNumber="", PatientBirthDate="2 Jan 1950"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = secondary_capture(source, graded(), pdf_page.picture(report_of(graded()), 20))
    capture = pydicom.dcmread(io.BytesIO(made))
    assert (capture.PatientSex, capture.AccessionNumber) == ("MALE", "")
    assert capture.get_item("PatientBirthDate").value == b"2 Jan 1950"


def test_a_dicom_file_without_preamble_gets_a_secondary_capture_too():
    source = dicom_of(phantom.draw_knee(2, seed=2))
    made = secondary_capture(source[132:], graded(), pdf_page.picture(report_of(graded()), 20))
    assert str(pydicom.dcmread(io.BytesIO(made)).PatientName) == "Коленкин^Олег"


def test_a_header_cut_short_is_refused():
    source = dicom_of(phantom.draw_knee(2, seed=2))
    picture = pdf_page.picture(report_of(graded()), 20)
    for length in (140, 200, 400, 500):
        with pytest.raises(KoaError):
            secondary_capture(source[:length], graded(), picture)


def test_the_command_writes_what_was_graded_and_from_which_file(knee_png, model_folder, tmp_path, capsys):
    xray = tmp_path / "колено 膝\udcff.png"
    shutil.copy(knee_png, xray)
    pdf, figures = tmp_path / "report.pdf", tmp_path / "report.json"
    assert main(["report", str(xray), "--model", str(model_folder), "--pdf", str(pdf), "--json", str(figures)]) == 0
    (values,) = json.loads(figures.read_text())
    assert values["sha256"] == hashlib.sha256(knee_png.read_bytes()).hexdigest()
    assert values["file"] == xray.name
    text = text_of(pdf.read_bytes())
    assert values["sha256"] in text
    assert GRADES[values["grade"]].definition in text
    assert RESEARCH_USE_NOTICE in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.pdf", xray.name}


def test_the_command_reports_every_knee_of_a_film_unless_it_is_to_be_graded_as_a_whole(
    film_png, model_folder, tmp_path, capsys
):
    xray, pdf, figures, capture = (tmp_path / name for name in ("film.dcm", "report.pdf", "report.json", "report.dcm"))
    xray.write_bytes(dicom_of(np.asarray(Image.open(film_png)), ImageLaterality=""))
    model = ["--model", str(model_folder), "--engine", "torch"]
    outputs = ["--pdf", str(pdf), "--json", str(figures), "--dicom", str(capture), "--sr", str(tmp_path / "sr.dcm")]
    assert main(["report", str(xray), *model, *outputs]) == 0
    said = capsys.readouterr().out
    knees = json.loads(figures.read_text())
    assert [knee["side"] for knee in knees] == ["right", "left"]
    pages = [page.extract_text() for page in PdfReader(pdf).pages]
    for knee, page in zip(knees, pages, strict=True):
        assert f"{knee['side'].capitalize()} knee" in page
        assert f"film.dcm, {knee['side']} knee: KL {knee['grade']}" in said
        header = pydicom.dcmread(tmp_path / f"report-{knee['side']}.dcm")
        assert header.Laterality == knee["side"][0].upper()
    assert not capture.exists()
    assert len(srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()) == 2
    assert main(["report", str(xray), "--whole", *model, "--json", str(figures)]) == 0
    (whole,) = json.loads(figures.read_text())
    assert (whole["box"], whole["side"]) == (None, None)


@pytest.mark.parametrize(
    "wrong", ["no output", "one output", "no folder", "a folder", "no file", "no image", "itself", "no dicom"]
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_nothing_is_written(
    wrong, knee_png, model_folder, tmp_path, capsys
):
    (tmp_path / "text.png").write_text("not an X-ray")
    xray = shutil.copy(knee_png, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = {
        "no output": [xray],
        "one output": [xray, "--pdf", str(tmp_path / "report"), "--json", str(tmp_path / "report")],
        "no folder": [xray, "--pdf", str(tmp_path / "no" / "report.pdf")],
        "a folder": [xray, "--json", str(tmp_path)],
        "no file": [str(tmp_path / "missing.png"), "--pdf", str(tmp_path / "report.pdf")],
        "no image": [str(tmp_path / "text.png"), "--pdf", str(tmp_path / "report.pdf")],
        "itself": [xray, "--dicom", xray],
        "no dicom": [xray, "--pdf", str(tmp_path / "report.pdf"), "--dicom", str(tmp_path / "report.dcm")],
    }[wrong]
    assert main(["report", *map(str, arguments), "--model", str(model_folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
