import ast
import asyncio
import base64
import os
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image

import app
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading
from koa_hf.imaging import phantom
from tests.demo import running_demo


@pytest.fixture(scope="module")
def client(demo_url, tmp_path_factory) -> Client:
    return Client(demo_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_the_api_answers_what_the_grader_says(client, grader, knee_png):
    answer = client.predict(handle_file(knee_png), api_name="/grade")
    expected = grader.grade(knee_png).to_dict()
    assert answer.pop("seconds") > 0
    expected.pop("seconds")
    assert answer.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-6)
    assert answer.pop("expected_grade") == pytest.approx(expected.pop("expected_grade"), abs=1e-6)
    assert answer == expected


def test_a_16_bit_upload_reaches_the_grader_as_it_was(client, grader, tmp_path):
    deep = tmp_path / "deep.png"
    Image.fromarray(phantom.draw_knee(4, seed=2).astype(np.uint16) * 13).save(deep)
    answer = client.predict(handle_file(deep), api_name="/grade")
    expected = grader.grade(deep)
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_file_that_is_no_image_is_refused_in_a_sentence_and_the_server_stays_up(client, knee_png, tmp_path):
    bad = tmp_path / "letter.png"
    bad.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"letter\.png is not an image that can be read here; give a DICOM, PNG"):
        client.predict(handle_file(bad), api_name="/grade")
    assert client.predict(handle_file(knee_png), api_name="/grade")["grade"] in range(5)


def test_the_api_is_described_and_only_grading_is_public(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name: one["parameters"][0]["parameter_name"] for name, one in endpoints.items()} == {
        "/grade": "image",
        "/grade_film": "image",
        "/grade_many": "files",
    }
    for endpoint in endpoints.values():
        assert RESEARCH_USE_NOTICE in endpoint["description"]
        assert all(f"{key}: " in endpoint["description"] for key in Grading.descriptions())
    assert endpoints["/grade_many"]["parameters"][0]["python_type"]["type"] == "list[filepath]"


def test_the_knees_of_a_film_are_graded_one_by_one(client, film_png):
    right, left = client.predict(handle_file(film_png), api_name="/grade_film")
    assert (right["side"], left["side"]) == ("right", "left")
    assert right["box"][0] < left["box"][0]
    assert right["grade"] in range(5)
    assert right["file"] == "film.png"


def test_many_files_are_graded_and_a_bad_one_is_named(client, knee_png, film_png, tmp_path):
    bad, together = tmp_path / "letter.png", tmp_path / "more.zip"
    bad.write_text("Dear colleague")
    with zipfile.ZipFile(together, "w") as opened:
        opened.write(film_png, "visit 2/film.png")
    rows = client.predict([handle_file(path) for path in (bad, knee_png, together)], api_name="/grade_many")
    assert [(row["file"], row.get("side")) for row in rows] == [
        ("letter.png", None),
        ("knee.png", None),
        ("visit 2/film.png", "right"),
        ("visit 2/film.png", "left"),
    ]
    assert "is not an image" in rows[0]["error"]
    assert rows[0].keys() == {"file", "error"}
    assert rows[1]["grade"] == client.predict(handle_file(knee_png), api_name="/grade")["grade"]


def test_an_assistant_grades_through_mcp(demo_url, client, knee_png):
    async def ask():
        async with (
            streamablehttp_client(f"{demo_url}gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            image = "data:image/png;base64," + base64.b64encode(knee_png.read_bytes()).decode()
            return tools, await session.call_tool("grade", {"image": image})

    with ThreadPoolExecutor() as beside:  # in this thread, the browser tests have a loop of their own running
        tools, answer = beside.submit(lambda: asyncio.run(ask())).result()
    assert set(tools) >= {"grade", "grade_film", "grade_many"}
    assert "Kellgren-Lawrence" in tools["grade"].description
    assert RESEARCH_USE_NOTICE in tools["grade"].description
    assert not answer.isError
    graded = ast.literal_eval(answer.content[0].text)  # Gradio writes Python's own notation
    assert graded["grade"] == client.predict(handle_file(knee_png), api_name="/grade")["grade"]


def test_it_ends_when_told_to_straight_after_its_first_answer(model_folder, tmp_path):
    options = ("--model", str(model_folder), "--engine", "torch", "--root-path", "/knees")
    with running_demo(*options, env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        with urllib.request.urlopen(demo.url) as answer:
            assert "/knees" in answer.read().decode()
        demo.process.terminate()
        assert demo.process.wait(timeout=15) == 0
        assert "Traceback" not in demo.written()
    assert not list(tmp_path.glob("koa-demo-*"))


@pytest.mark.parametrize(
    "options", [["--timeout", "0"], ["--max-megabytes", "nan"], ["--disagreements-repo", "user/name"]]
)
def test_options_that_make_no_sense_are_refused(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        app.main(options)
    assert "--" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_no_model_ends_it_with_one_sentence(tmp_path, capsys):
    assert app.main(["--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not a model folder: it has no config.json.\n"
