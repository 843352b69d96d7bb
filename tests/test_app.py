import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from koa_hf import Grader, phantom


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
    with pytest.raises(AppError, match=r"letter\.png is not an image that can be read here; give a PNG"):
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
