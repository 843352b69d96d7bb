import html

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from koa_hf import Grader, Grading, phantom
from koa_hf.radiograph import Radiograph


@pytest.fixture(scope="module")
def client(demo_url, tmp_path_factory) -> Client:
    return Client(demo_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_the_api_answers_what_the_grader_says(client, model_folder, knee_png):
    answer = client.predict(handle_file(knee_png), api_name="/grade")
    expected = Grader.from_pretrained(model_folder).grade(knee_png).to_dict()
    assert answer.pop("seconds") > 0
    expected.pop("seconds")
    assert answer.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-6)
    assert answer.pop("expected_grade") == pytest.approx(expected.pop("expected_grade"), abs=1e-6)
    assert answer == expected


def test_a_16_bit_upload_reaches_the_grader_as_it_was(client, model_folder, tmp_path):
    deep = tmp_path / "deep.png"
    Image.fromarray(phantom.draw(4, seed=2).astype(np.uint16) * 13).save(deep)
    answer = client.predict(handle_file(deep), api_name="/grade")
    expected = Grader.from_pretrained(model_folder).grade(deep)
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_file_that_is_no_image_is_refused_in_a_sentence_and_the_server_stays_up(client, knee_png, tmp_path):
    bad = tmp_path / "letter.png"
    bad.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"letter\.png is not an image that can be read here; give a DICOM, PNG"):
        client.predict(handle_file(bad), api_name="/grade")
    assert client.predict(handle_file(knee_png), api_name="/grade")["grade"] in range(5)


def test_the_api_is_described_and_only_grading_is_public(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/grade"]
    assert endpoints["/grade"]["parameters"][0]["parameter_name"] == "image"


def test_words_from_outside_are_text_in_the_page():
    assert app.text("<b>${x}{{y}}") == "&lt;b&gt;&#36;&#123;x&#125;&#123;&#123;y&#125;&#125;"


def test_a_folder_that_is_no_model_ends_it_with_one_sentence(tmp_path, capsys):
    assert app.main(["--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not a model folder: it has no config.json.\n"


def grading(**said) -> Grading:
    values = {
        "source": "knee.png",
        "grade": 2,
        "name": "minimal",
        "probabilities": (0.1, 0.3, 0.5, 0.1, 0.0),
        "calibrated": True,
        "expected_grade": 1.6,
        "grade_set": (1, 2),
        "coverage": 0.9,
        "familiar": True,
        "unfamiliarity": 0.4,
        "inverted": False,
        "model": "m",
        "revision": "r",
        "seconds": 0.1,
        "heatmap": np.zeros((5, 4, 4), np.float32),
    }
    return Grading(**{**values, **said})


def test_the_result_states_the_range_and_that_a_negative_was_righted():
    page = app.result_html(grading(inverted=True))
    assert "KL 2, could be KL 1 to 2" in page
    assert "hold the reader's grade in 90% of knees" in html.unescape(page)
    assert "it was inverted before it was graded" in page
    plain = app.result_html(grading(grade_set=None, coverage=None, familiar=None, unfamiliarity=None))
    assert "could be" not in plain
    assert "inverted" not in plain


def test_what_a_dicom_file_says_of_itself_is_shown():
    one = Radiograph(
        np.zeros((8, 8), np.uint8), "knee.dcm", "left", "AP", ("The file holds 2 frames; frame 1 was read.",)
    )
    page = app.result_html(grading(), remarks=app.said_by_file(one))
    assert "According to the file: left knee, AP view." in page
    assert "The file holds 2 frames; frame 1 was read." in page
    assert app.said_by_file(Radiograph(one.pixels, "knee.png")) == ()


def test_an_image_unlike_the_training_knees_is_said_to_be_so_before_its_grade_which_is_folded_away():
    page = app.result_html(grading(familiar=False, unfamiliarity=3.2))
    assert page.index("Unlike the knees") < page.index("<details><summary>Show the grade anyway") < page.index("KL 2")
    drawn = app.result_html(grading(familiar=False, unfamiliarity=3.2), drawn=True)
    assert "A drawing, not an X-ray" in drawn
    assert "<details open>" in drawn
