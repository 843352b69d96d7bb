"""One answer to right or left, in every view of a result."""

import io
import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from koa_hf.demo import page
from koa_hf.grading.examination import examine
from koa_hf.imaging import laterality, localiser, phantom, radiograph
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.report import csv_table, pdf_page
from koa_hf.report.document import Report
from koa_hf.report.secondary_capture import secondary_capture
from tests.helpers import Stub, dicom_of
from train.pictures.composites import Crop, compose

RIGHT, LEFT = phantom.draw_knee(2, 3, "right"), phantom.draw_knee(1, 4, "left")
CERTAIN = 1.0
BLANK = Image.new("RGB", (8, 8))
"""In place of the page that a capture shows: here, only its header is read."""


@pytest.fixture(scope="module")
def bilateral() -> np.ndarray:
    """A film of two drawn knees, as it is usually displayed."""
    knees = [Crop(RIGHT, "right"), Crop(LEFT, "left")]
    return compose("bilateral", knees, np.random.default_rng(1), size=200, varied=False).pixels


def mirrored(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])


@pytest.mark.parametrize(
    ("image", "series", "side", "contradicts"),
    [
        ("R", "", "right", False),
        ("", "L", "left", False),
        ("R", "R", "right", False),
        ("L", "R", "left", True),
        ("B", "R", None, False),
        ("U", "R", None, False),
        ("", "", None, False),
    ],
)
def test_the_tag_of_the_image_goes_before_that_of_its_series(image, series, side, contradicts):
    stated, cautions = laterality.stated(image, series)
    assert stated == side
    assert bool(cautions) == contradicts


@pytest.mark.parametrize(
    ("shapes", "side", "film", "sides", "contradicts"),
    [
        ([2], None, None, ["right"], False),
        ([0.5], None, None, [None], False),
        ([2], None, ("R", "F"), ["left"], False),  # the file says that the film is mirrored
        ([2], "left", None, ["left"], True),
        ([0.5], "left", None, ["left"], False),
        ([2, -2], None, None, ["right", "left"], False),
        ([2, -2], "right", None, ["right", "left"], True),  # one tag on a film of two knees
        ([-2, 2], "right", None, [None, None], True),  # on each other's places
        ([2, -2], None, ("R", "F"), ["left", "right"], False),  # a mirrored pair has the shapes of a pair
        ([-2, 2], None, ("R", "F"), [None, None], True),
        ([0.1, 0.2], None, ("L", "F"), ["right", "left"], False),
    ],
)
def test_tags_orientation_places_and_shapes_decide_in_a_stated_order(shapes, side, film, sides, contradicts):
    decided, cautions = laterality.decide(shapes, CERTAIN, side, film)
    assert list(decided) == sides
    assert bool(cautions) == contradicts


def test_the_orientation_turns_with_the_film():
    assert laterality.orientation(["L", "F"]) == ("L", "F")
    assert laterality.orientation(["LF", "FR"]) == ("L", "F")
    assert laterality.orientation(["L"]) is laterality.orientation("") is laterality.orientation(["X", "F"]) is None
    assert laterality.turned(("L", "F"), 2) == ("R", "H")
    assert laterality.turned(("L", "F"), 1) == ("F", "R")
    assert laterality.turned(("F", "R"), 3) == ("L", "F")
    assert laterality.turned(None, 1) is None


def knees_of(pixels: np.ndarray, **tags) -> list:
    """The graded knees of a DICOM film, and the film."""
    elements = {"ImageLaterality": ""} | tags
    film = radiograph.read(dicom_of(pixels, **elements), "film.dcm")
    (examination,) = examine(Stub(), [film])
    return [(knee, film) for knee in examination.knees]


def told(knee, film) -> dict:
    """Side of a knee by view: JSON, CSV, page, capture."""
    header = pydicom.dcmread(io.BytesIO(secondary_capture(film.dicom, knee.grading, BLANK)))
    return {
        "JSON": json.loads(Report(knee, film).json())["side"],
        "CSV": csv_table.row_of(knee.grading)["side"] or None,
        "page": next(
            (side for side in ("right", "left") if page.knee_name(knee, 0) == f"{side.capitalize()} knee"), None
        ),
        "capture": {"R": "right", "L": "left"}.get(header.Laterality),
        "capture's text": next(
            (side for side in ("right", "left") if f"{side} knee" in header.DerivationDescription), None
        ),
    }


@pytest.mark.parametrize(
    ("tags", "sides"),
    [
        ({}, ["right", "left"]),
        ({"ImageLaterality": "R"}, ["right", "left"]),
        ({"Laterality": "R"}, ["right", "left"]),
        ({"PatientOrientation": ["R", "F"], "mirrored": True}, ["left", "right"]),
        ({"ImageLaterality": "R", "mirrored": True}, ["right", "left"]),
    ],
)
def test_every_view_tells_the_same_sides_of_a_film_with_two_knees(bilateral, tags, sides):
    tags = dict(tags)
    pixels = mirrored(bilateral) if tags.pop("mirrored", False) else bilateral
    knees = knees_of(pixels, **tags)
    for (knee, film), side in zip(knees, sides, strict=True):
        assert set(told(knee, film).values()) == {side}
        assert bool(knee.grading.cautions) == ("PatientOrientation" not in tags and bool(tags))


def test_contradictory_tags_give_one_side_everywhere_and_a_caution_above_the_grade():
    ((knee, film),) = knees_of(LEFT, ImageLaterality="L", Laterality="R")
    assert set((told(knee, film) | {"page": "left"}).values()) == {"left"}
    (caution,) = knee.grading.cautions
    assert "contradicts itself" in caution
    html = page.knee_html(knee, 0, film)
    assert html.index(caution) < html.index('class="grade"')
    texts = " ".join(text.get_text() for text in pdf_page.draw(Report(knee, film), 50).axes[0].texts)
    assert texts.index(caution[:40]) < texts.index("KL 2")
    assert caution in csv_table.row_of(knee.grading)["cautions"]
    assert caution in knee.grading.to_dict()["cautions"]


def test_a_mirrored_film_of_one_tagged_knee_is_said_to_contradict_its_tag(real_data):
    crops = [np.asarray(Image.open(path)) for path in sorted(real_data.glob("val/0/*R.png"))[:10]]
    said = []
    for crop in crops:
        ((knee, _),) = knees_of(mirrored(crop), ImageLaterality="R")
        assert knee.grading.side == "right"
        said += [caution for caution in knee.grading.cautions if "shaped like a left one" in caution]
        ((knee, _),) = knees_of(mirrored(crop), ImageLaterality="R", PatientOrientation=["R", "F"])
        assert knee.grading.cautions == ()
    assert len(said) >= 9  # a few knees are symmetrical


def test_the_capture_says_body_part_side_and_box(bilateral):
    knee, film = knees_of(bilateral)[1]
    header = pydicom.dcmread(io.BytesIO(secondary_capture(film.dicom, knee.grading, BLANK)))
    assert header.BodyPartExamined == "KNEE"
    assert header.AnatomicRegionSequence[0].CodeValue == "72696002"  # SNOMED CT: knee
    assert f"left knee, box {' '.join(map(str, knee.grading.box))} (" in header.DerivationDescription


def test_a_box_drawn_by_hand_gets_its_side_as_a_found_one_does(bilateral):
    film = Radiograph(bilateral, "film.png")
    found = localiser.find_knees(film)
    drawn = [KneeBox(knee.box, None, 1.0, False) for knee in found]
    assert [knee.side for knee in localiser.with_sides(film, drawn)] == ["right", "left"]
    assert [knee.side for knee in localiser.with_sides(film, drawn[::-1])] == ["left", "right"]
    upside_down = Radiograph(np.ascontiguousarray(bilateral[::-1, ::-1]), "film.png")
    turned = [KneeBox(localiser.turned_box(knee.box, bilateral.shape), None, 1.0, False) for knee in drawn]
    assert [knee.side for knee in localiser.with_sides(upside_down, turned)] == ["right", "left"]
    by_user = [KneeBox(found[0].box, "left", 1.0, False)]
    assert [knee.side for knee in localiser.with_sides(film, by_user)] == ["left"]
