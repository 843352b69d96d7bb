import base64
import html
import io

import numpy as np
from PIL import Image

from koa_hf.demo import page
from koa_hf.demo.batch import Row
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
    assert "hold the reader's grade in 90% of knees" in html.unescape(result)
    assert "it was inverted before it was graded" in result
    assert "it was turned by 180 degrees before it was graded" in result
    plain = shown(grade_set=None, coverage=None, familiar=None, unfamiliarity=None)
    assert "could be" not in plain
    assert "inverted" not in plain
    assert "turned" not in plain


def test_what_a_dicom_file_says_of_itself_is_shown():
    assert "According to the file: left knee, AP view. · Frame 1 was read." in shown()
    assert "According to the file" not in shown(Radiograph(KNEE.pixels, "knee.png"))


def test_an_image_unlike_the_training_knees_is_said_to_be_so_and_grade_and_evidence_are_folded_away():
    result = shown(familiar=False, unfamiliarity=3.2, turned=True)
    fold = result.index("<details><summary>Show the grade anyway")
    assert result.index("Unlike the knees") < fold
    assert "KL 2" not in result[:fold]
    assert "<img" not in result[:fold]
    assert "checked" not in result[:fold]
    assert "it was turned by 180 degrees" in result[fold:]
    assert "</details></section></div>" in result[fold:]
    drawn = shown(familiar=False, unfamiliarity=3.2, drawn=True)
    assert "A drawing, not an X-ray" in drawn
    assert "<details open>" in drawn


def test_the_knees_of_a_film_are_told_apart():
    assert '<p class="side">Left knee</p>' in shown(box=(0, 0, 40, 40))
    assert "Knee 1, from the left" in shown(Radiograph(KNEE.pixels, "film.png"), box=(0, 0, 40, 40))
    assert 'class="side"' not in shown()


def test_a_film_is_shown_with_its_boxes_in_its_own_pixels():
    film = page.film_html(
        KNEE, [KneeBox((-4, 2, 20, 26), "right", 0.9, False), KneeBox((30, 1, 50, 21), None, 0.9, False)], 2
    )
    assert 'data-width="60" data-height="40" data-most="2"' in film
    assert 'data-side="right" data-box="-4,2,20,26"' in film
    assert 'data-side="" data-box="30,1,50,21"' in film


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
