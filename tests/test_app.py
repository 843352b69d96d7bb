import asyncio
import base64
import json
import os
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import jsonschema
import numpy as np
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from pypdf import PdfReader

import app
from koa_hf.demo.api import DESCRIPTIONS, Api
from koa_hf.demo.batch import Limits
from koa_hf.demo.endpoints import PageWithApi, add_api
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading
from koa_hf.imaging import phantom
from koa_hf.report import evidence
from tests.demo import running_demo
from tests.helpers import zipped


@pytest.fixture(scope="module")
def client(demo_url, tmp_path_factory) -> Client:
    return Client(demo_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_gradios_queue_has_the_pauses_that_the_demo_sets():
    queue = gr.Blocks().queue()._queue
    assert queue.sleep_when_free < app.POLL_SECONDS
    assert queue.progress_update_sleep_when_free < app.POLL_SECONDS


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


def test_the_api_is_described_with_every_field_and_its_type(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name: one["parameters"][0]["parameter_name"] for name, one in endpoints.items()} == {
        "/grade": "image",
        "/grade_film": "image",
        "/grade_many": "files",
        "/heat_map": "image",
        "/report": "image",
    }
    for endpoint in endpoints.values():
        assert RESEARCH_USE_NOTICE in endpoint["description"]
        assert "handle_file('knee.png')" in endpoint["parameters"][0]["python_type"]["description"]
    for name, kind in (("/grade", "dict("), ("/grade_film", "list[dict("), ("/grade_many", "list[dict(")):
        written = endpoints[name]["returns"][0]["python_type"]["type"]
        assert written.startswith(kind)
        assert all(f"{key}: " in written for key in Grading.descriptions())
        assert "grade: int (Kellgren-Lawrence grade" in written
        assert "box: tuple[int, int, int, int] | None" in written
        assert ("error: str" in written) == (name == "/grade_many")
    assert [endpoints[name]["returns"][0]["python_type"]["type"] for name in ("/heat_map", "/report")] == [
        "filepath",
        "filepath",
    ]


def test_results_are_as_described(client, knee_png, film_png, tmp_path):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    letter = tmp_path / "letter.png"
    letter.write_text("Dear colleague")
    for name, given in (("/grade", knee_png), ("/grade_film", film_png), ("/grade_many", [film_png, letter])):
        given = list(map(handle_file, given)) if isinstance(given, list) else handle_file(given)
        schema = endpoints[name]["returns"][0]["type"]
        jsonschema.Draft202012Validator(schema).validate(client.predict(given, api_name=name))


def test_a_film_gives_a_heat_map_of_each_knee_and_a_report_with_a_page_for_each(client, film_png, knee_png):
    with Image.open(client.predict(handle_file(film_png), api_name="/heat_map")) as both:
        assert (both.format, both.mode, both.height) == ("PNG", "RGB", evidence.HEIGHT)
        assert both.width > 1.5 * evidence.HEIGHT
        colours = np.asarray(both, int)
        assert np.ptp(colours, axis=2).max() > 50
    pages = PdfReader(client.predict(handle_file(film_png), api_name="/report")).pages
    assert ["right knee" in page.extract_text().lower() for page in pages] == [True, False]
    assert len(PdfReader(client.predict(handle_file(knee_png), api_name="/report")).pages) == 1


def test_a_data_uri_may_be_passed_as_it_is(client, knee_png):
    graded = client.predict(data_uri(knee_png), api_name="/grade")
    assert graded["sha256"] == client.predict(handle_file(knee_png), api_name="/grade")["sha256"]
    (row,) = client.predict([data_uri(knee_png)], api_name="/grade_many")
    assert row["grade"] in range(5)


def test_a_public_url_may_be_passed_as_it_is(knee_png, tmp_path, monkeypatch):
    # Gradio fetches from public addresses only; this machine counts as one here.
    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with PageWithApi() as page:
        add_api(Api(None, Limits(), tmp_path))
    grade = next(function for function in page.fns.values() if function.api_name == "grade")
    folder = partial(SimpleHTTPRequestHandler, directory=str(knee_png.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as web, ThreadPoolExecutor() as beside:
        beside.submit(web.serve_forever)

        def received(name: str) -> str:
            url = f"http://127.0.0.1:{web.server_port}/{name}"
            return beside.submit(lambda: asyncio.run(page.preprocess_data(grade, [url], None))).result()[0]

        fetched = received("knee.png")
        with pytest.raises(gr.Error, match="no X-ray could be fetched"):
            received("nothing.png")
        web.shutdown()
    assert Path(fetched).read_bytes() == knee_png.read_bytes()


def test_a_zip_is_sent_to_the_endpoint_that_opens_zips(client, knee_png, tmp_path):
    together = tmp_path / "more.zip"
    together.write_bytes(zipped({"knee.png": knee_png.read_bytes()}))
    for name in ("/grade", "/grade_film", "/heat_map", "/report"):
        with pytest.raises(AppError, match=r"^more\.zip is a zip; /grade_many opens zips\.$"):
            client.predict(handle_file(together), api_name=name)


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
        ("knee.png", "right"),
        ("visit 2/film.png", "right"),
        ("visit 2/film.png", "left"),
    ]
    assert "is not an image" in rows[0]["error"]
    assert rows[0].keys() == {"file", "error"}
    assert rows[1]["grade"] == client.predict(handle_file(knee_png), api_name="/grade")["grade"]


def by_assistant(demo_url: str, *calls: tuple[str, dict]) -> tuple[dict, list]:
    """The tools that the mcp package's own client finds, by name, and the answers to these calls."""

    async def ask():
        async with (
            streamablehttp_client(f"{demo_url}gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    with ThreadPoolExecutor() as beside:  # in this thread, the browser tests have a loop of their own running
        return beside.submit(lambda: asyncio.run(ask())).result()


def test_an_assistant_uses_each_tool_with_a_file(demo_url, client, knee_png, film_png):
    knee, film = data_uri(knee_png), data_uri(film_png)
    calls = [
        ("grade", {"image": knee}),
        ("grade_film", {"image": film}),
        ("grade_many", {"files": [knee, film]}),
        ("heat_map", {"image": film}),
        ("report", {"image": film}),
    ]
    tools, answers = by_assistant(demo_url, *calls)
    assert set(tools) == set(DESCRIPTIONS)
    for name, arguments in calls:
        schema = tools[name].inputSchema
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(arguments)  # fails for a $ref to nowhere
        assert "https URL" in json.dumps(schema)
        assert "data URI" in json.dumps(schema)
        assert "Kellgren-Lawrence" in tools[name].description
        assert RESEARCH_USE_NOTICE in tools[name].description
    assert not [answer for answer in answers if answer.isError]
    one, both, many = (json.loads(answer.content[0].text) for answer in answers[:3])
    assert one["grade"] == client.predict(handle_file(knee_png), api_name="/grade")["grade"]
    assert [knee["side"] for knee in both] == ["right", "left"]
    assert [knee["side"] for knee in many] == ["right", "right", "left"]
    assert all(f"{key}: " in tools["grade"].description for key in Grading.descriptions())
    picture, report = answers[3].content[0], answers[4].content[0]
    assert picture.mimeType == "image/png"
    with urllib.request.urlopen(report.text) as pdf:
        assert pdf.read(5) == b"%PDF-"


def test_an_assistant_that_passes_something_else_is_told_what_to_pass(demo_url):
    _, answers = by_assistant(
        demo_url,
        ("grade", {"image": "/home/me/knee.png"}),
        ("grade_many", {"files": ["/home/me/knee.png"]}),
        ("grade", {"image": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}),
        ("grade_many", {"files": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}),
        ("grade", {"image": "data:image/png;base64," + base64.b64encode(b"Dear colleague").decode()}),
        ("grade", {}),
    )
    said = [answer.content[0].text for answer in answers]
    assert all(answer.isError for answer in answers)
    assert all("data URI" in sentence for sentence in said[:2])
    assert all("is not of type 'string'" in sentence for sentence in said[2:4])
    assert "is not an image that can be read here" in said[4]
    assert "'image' is a required property" in said[5]
    assert not [sentence for sentence in said if "Traceback" in sentence or "passwd:" in sentence]


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
