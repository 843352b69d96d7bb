"""The demo's page is there before the model is."""

import shutil
import subprocess
import sys
import threading

import pytest

from koa_hf import Grader
from koa_hf.demo.starting import StartingGrader
from koa_hf.errors import KoaError
from koa_hf.imaging.radiograph import read
from koa_hf.network.model_folder import find_model
from tests.processes import REPOSITORY, free_port, run


def waiting(grader: StartingGrader, knee_png) -> tuple[threading.Thread, list]:
    """Somebody who asks for a grading, and what they got so far."""
    answers = []

    def ask() -> None:
        try:
            answers.extend(grader.grade_batch([knee_png]))
        except KoaError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(timeout=0.2)
    return thread, answers


def test_whoever_asks_before_the_model_is_loaded_gets_their_grade_after(model_folder, knee_png):
    grader = StartingGrader(find_model(model_folder))
    thread, answers = waiting(grader, knee_png)
    assert not answers
    loaded = grader.load("cpu", "fp32", "torch", read(knee_png))
    thread.join()
    assert answers == [Grader.from_pretrained(model_folder, engine="torch").grade(knee_png)]
    assert (grader.model_id, grader.revision, grader.note) == (loaded.model_id, loaded.revision, loaded.note)


def test_whoever_waits_for_a_model_that_can_not_be_loaded_is_told(model_folder, knee_png, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    grader = StartingGrader(find_model(folder))
    (folder / "model.safetensors").write_bytes(b"cut short")
    thread, answers = waiting(grader, knee_png)
    with pytest.raises(KoaError, match="damaged"):
        grader.load("cpu", "fp32", "torch", read(knee_png))
    thread.join()
    assert "could not be loaded" in str(answers[0])


def test_the_page_needs_nothing_that_only_grading_needs():
    heavy = "torch", "timm", "openvino", "transformers", "datasets", "sklearn", "highdicom", "matplotlib.figure"
    command = f"import sys, app; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_model_that_can_not_be_loaded_ends_the_demo_with_one_sentence(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"cut short")
    ended = run("app.py", "--port", free_port(), "--model", folder, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "damaged" in ended.stderr
    assert ended.stderr.count("\n") == 1
