import base64
import dataclasses
import html
import io

import numpy as np
import pytest
from PIL import Image

from koa_hf.demo import page
from koa_hf.demo.batch import Row
from koa_hf.demo.components import film_editor, film_update, heat_map, knee_boxes, room_for_another
from koa_hf.errors import KoaError
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import NotGraded
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import Radiograph
from tests.helpers import grading


def test_words_from_outside_are_text_in_the_page():
    assert page.text("<b>${x}{{y}}") == "&lt;b&gt;&#36;&#123;x&#125;&#123;&#123;y&#125;&#125;"


KNEE = Radiograph(np.tile(np.arange(60, dtype=np.uint8), (40, 1)), "knee.dcm", "left", "AP", ("Frame 1 was read.",))


def shown(xray: Radiograph = KNEE, drawn: bool = False, box=None, **said) -> str:
    told = {"side": xray.side, "view": xray.view, "notes": xray.notes, "box": box}
    return page.knee_html(GradedKnee(grading(**told, **said), xray), 0, xray, drawn)


def test_the_result_states_the_range_and_that_an_upside_down_negative_was_righted():
    result = shown(inverted=True, turned=True)
    assert "KL 2, could be KL 1 to 2" in result
    assert "hold a reader's grade in 90% of knees of the Osteoarthritis Initiative" in html.unescape(result)
    assert "was inverted before grading" in result
    assert "was rotated by 180 degrees before grading" in result
    plain = shown(grade_set=None, coverage=None, familiar=None, unfamiliarity=None)
    assert "could be" not in plain
    assert "inverted" not in plain
    assert "rotated" not in plain


def test_what_a_dicom_file_says_of_itself_is_shown():
    assert "According to the file: left knee, AP view. · Frame 1 was read." in shown()
    assert "According to the file" not in shown(Radiograph(KNEE.pixels, "knee.png"))


def test_an_image_unlike_the_training_knees_is_said_to_be_so_and_grade_and_evidence_are_folded_away():
    result = shown(familiar=False, unfamiliarity=3.2, turned=True)
    fold = result.index('<details class="anyway"><summary>Show the grade anyway')
    assert result.index("Unlike the knees") < fold
    assert "KL 2" not in result[:fold]
    assert "<img" not in result[:fold]
    assert "was rotated by 180 degrees" in result[fold:]
    assert result.endswith("</details></section>")
    drawn = shown(familiar=False, unfamiliarity=3.2, drawn=True)
    assert "A drawing, not an X-ray" in drawn
    assert '<details class="anyway" open>' in drawn


def test_the_knees_of_a_film_are_told_apart():
    assert '<p class="side">Left knee</p>' in shown(box=(0, 0, 40, 40))
    assert "Knee 1 from the left" in shown(Radiograph(KNEE.pixels, "film.png"), box=(0, 0, 40, 40))
    assert 'class="side"' not in shown()


def test_the_heat_map_has_a_layer_for_each_grade_and_says_which_are_empty():
    evidence = np.zeros((5, 4, 4), np.float32)
    evidence[2, 1, 1] = 1
    value = page.heat_map_layers(GradedKnee(grading(heatmap=evidence), KNEE))
    assert (value["grade"], value["width"], value["height"]) == (2, 60, 40)
    assert [layer["empty"] for layer in value["layers"]] == [True, True, False, True, True]


def test_the_film_editor_shows_boxes_in_film_pixels_and_takes_them_back():
    found = KneeBox((-4, 2, 20, 26), "right", 0.9, False)
    boxes = [found, KneeBox((30, 1, 50, 21), "left", 0.9, False, side_by_user=True)]
    update = film_update(KNEE, boxes)
    assert (update["width"], update["height"], update["most"]) == (60, 40, 2)
    assert update["value"] == [
        {"box": [-4, 2, 20, 26], "side": "right", "by_user": False},
        {"box": [30, 1, 50, 21], "side": "left", "by_user": True},
    ]
    assert update["knees"] == [{"box": [-4, 2, 20, 26], "side": "right"}]  # what a user set says nothing of other boxes
    assert [dataclasses.replace(box, score=0.9) for box in knee_boxes(update["value"])] == boxes


def test_a_film_wide_enough_for_a_second_knee_gets_a_box_beside_the_only_one():
    one = KneeBox((10, 20, 110, 120), "right", 0.9, False)
    assert room_for_another([one], width=400) == [290, 20, 390, 120]
    assert room_for_another([one], width=150) is None
    assert room_for_another([one, one], width=400) is None


@pytest.mark.parametrize("sent", [[{}], ["box"], [{"box": [1, 2, 3]}], [{"box": [0, 0, float("inf"), 1]}], 7])
def test_boxes_that_the_page_would_not_send_are_refused_in_a_sentence(sent):
    with pytest.raises(KoaError, match="reload the page"):
        knee_boxes(sent)


def test_nothing_from_outside_goes_through_the_templates_of_the_custom_components():
    hostile = Radiograph(KNEE.pixels, "${alert(1)}`{{x}}.png", "left", "AP", ("{{note}} ${note}",))
    knee = GradedKnee(grading(file=hostile.name, box=(0, 0, 40, 40), notes=hostile.notes), hostile)
    update = film_update(hostile, [KneeBox((0, 0, 40, 40), "left", 0.9, False)])
    for sent in (update, page.heat_map_layers(knee), film_editor().props, heat_map(0).props):
        assert not set("$`{") & set("".join(map(str, leaves(sent))))
    assert not set("$`{") & set(page.knee_html(knee, 0, hostile))


def leaves(value) -> list:
    """The values inside nested lists and dicts."""
    if isinstance(value, dict | list):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value]


def test_a_batch_says_how_far_it_is_and_counts_a_film_of_two_knees_once():
    data = b"film"
    rows = [
        Row(grading(file="a.png", side="right"), data),
        Row(grading(file="a.png", side="left"), data),
        Row(NotGraded(file="b", error="no")),
    ]
    busy, done = page.batch_html(rows, 3), page.batch_html(rows, 2)
    assert "Graded 1 of 3 files; 1 could not be graded." in busy
    assert 'aria-busy="true"' in busy
    assert 'value="2"' in busy
    assert 'aria-busy="false"' in done


def test_pictures_are_sent_at_full_resolution_and_each_grade_has_its_drawing():
    large = Radiograph(np.zeros((1800, 1500), np.uint8), "film.png")
    source = page.picture_uri(large)
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert picture.size == (1500, 1800)
    for grade in range(5):
        assert f'alt="Drawn knee with KL {grade}"' in page.scale_html()


def test_what_was_noted_of_a_knee_and_not_of_its_film_is_said_with_its_grade():
    film = Radiograph(
        np.tile(np.arange(200, dtype=np.uint8), (200, 1)), "film.png", notes=("The first page was read.",)
    )
    knee = Radiograph(film.pixels[:90, :90], "film.png", "left", notes=(*film.notes, "This knee is 90 pixels wide."))
    graded = grading(side="left", notes=knee.notes, box=(0, 0, 90, 90))
    result = page.knee_html(GradedKnee(graded, knee), 0, film)
    assert result.count("The first page was read.") == 1
    assert '<p class="noted">This knee is 90 pixels wide.</p>' in result
