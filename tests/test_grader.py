import hashlib
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image

from koa_hf import Grader
from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES
from koa_hf.grading.result import Grading, percent
from koa_hf.imaging import phantom, radiograph
from koa_hf.network.model_folder import default_model


def test_timm_computes_the_same_logits_from_the_model_folder(grader, model_folder, knee_png):
    model = timm.create_model(f"local-dir:{model_folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        theirs = model(transform(Image.open(knee_png).convert("RGB")).unsqueeze(0))
    ours = grader.forward(grader.preprocessing(radiograph.read(knee_png)).unsqueeze(0)).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_transformers_pipeline_gives_the_same_probabilities_under_the_names_of_the_grades(
    grader, model_folder, knee_png
):
    pipeline = transformers.pipeline("image-classification", model=str(model_folder), device="cpu")
    theirs = {answer["label"]: answer["score"] for answer in pipeline(str(knee_png), top_k=5)}
    ours = dict(zip(GRADE_NAMES, grader.grade(knee_png).probabilities, strict=True))
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_grading_says_what_was_graded_by_which_model_and_how(grader, model_folder, knee_png):
    grading = grader.grade(knee_png)
    assert grading.file == "knee.png"
    assert grading.sha256 == hashlib.sha256(knee_png.read_bytes()).hexdigest()
    assert grading.grade == int(np.argmax(grading.probabilities))
    assert grading.name == GRADE_NAMES[grading.grade]
    assert sum(grading.probabilities) == pytest.approx(1)
    assert grading.expected_grade == pytest.approx(np.dot(grading.probabilities, range(5)))
    assert grading.model == str(model_folder)
    assert len(grading.revision) == 12
    assert grading.seconds > 0
    assert grading.heatmap.shape == (5, 3, 3)
    assert json.loads(json.dumps(grading.to_dict()))["probabilities"] == list(grading.probabilities)
    assert "heatmap" not in grading.to_dict()


def test_a_batch_gives_each_x_ray_the_grading_it_has_alone(grader):
    knees = [phantom.draw_knee(grade, seed=3) for grade in (0, 4, 2)]
    together, alone = grader.grade_batch(knees), [grader.grade(knee) for knee in knees]
    for batched, single in zip(together, alone, strict=True):
        assert batched.probabilities == pytest.approx(single.probabilities, abs=1e-5)
        np.testing.assert_allclose(batched.heatmap, single.heatmap, atol=1e-3)
    assert len({grading.probabilities for grading in together}) == 3
    assert grader.grade_batch([]) == []


def test_bfloat16_moves_probabilities_by_a_few_percent_at_most(grader, model_folder, knee_png):
    fast = Grader.from_pretrained(model_folder, precision="bf16", engine="torch").grade(knee_png)
    assert fast.probabilities == pytest.approx(grader.grade(knee_png).probabilities, abs=0.05)


def test_the_note_in_the_config_reaches_the_user(grader, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"koa_note": "Trained on drawings."}))
    assert Grader.from_pretrained(folder, engine="torch").note == "Trained on drawings."
    assert grader.note == ""


def test_the_revision_of_a_folder_changes_with_its_weights(grader, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    assert Grader.from_pretrained(folder, engine="torch").revision == grader.revision
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert Grader.from_pretrained(folder, engine="torch").revision != grader.revision


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("a/b/c", "neither a folder that exists nor a Hub id"),
        ("somebody/some-model", "the Hub can't be reached"),  # the tests run offline
    ],
)
def test_a_model_that_is_not_there_is_refused_in_one_sentence(model, sentence):
    with pytest.raises(KoaError, match=sentence):
        Grader.from_pretrained(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path, model_folder):
    with pytest.raises(KoaError, match=r"has no config\.json"):
        Grader.from_pretrained(tmp_path)
    with pytest.raises(KoaError, match="revisions exist on the Hub only"):
        Grader.from_pretrained(model_folder, revision="main")
    with pytest.raises(KoaError, match="no device"):
        Grader.from_pretrained(model_folder, device="cuda:99")


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        ("GatedRepoError", 403, "is gated on the Hub: ask for access"),
        ("RepositoryNotFoundError", 404, "neither a local folder nor a model on the Hub that you can access"),
        ("RevisionNotFoundError", 404, "has no revision 'v9'"),
        ("HfHubHTTPError", 401, "refuses access"),
        ("HfHubHTTPError", 503, r"HTTP 503\); try again later"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_sentence(monkeypatch, error, status, sentence):
    # Stands in for the Hub, which the tests can't reach.
    def refuse(*_, **__):
        response = SimpleNamespace(status_code=status, headers={}, request=None)
        raise getattr(huggingface_hub.errors, error)("refused", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(KoaError, match=sentence):
        Grader.from_pretrained("somebody/some-model", revision="v9")


def test_a_model_from_the_hub_is_known_by_its_commit(monkeypatch, model_folder, tmp_path, knee_png):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = shutil.copytree(model_folder, tmp_path / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    grading = Grader.from_pretrained("somebody/some-model", engine="torch").grade(knee_png)
    assert (grading.model, grading.revision) == ("somebody/some-model", commit)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(KoaError, match=r"somebody/some-model on the Hub .* no model\.safetensors"):
        Grader.from_pretrained("somebody/some-model", engine="torch")


def test_the_default_model_is_the_one_the_environment_names(monkeypatch):
    monkeypatch.setenv("KOA_MODEL", "somebody/some-model")
    assert default_model() == "somebody/some-model"


@pytest.mark.parametrize(
    ("grade", "probabilities", "phrase"),
    [
        (0, (0.95, 0.03, 0.01, 0.01, 0), "Clearly KL 0 to the model (95%)"),
        (2, (0.02, 0.2, 0.75, 0.02, 0.01), "Fairly sure of KL 2 (75%); KL 1 is next (20%)"),
        (2, (0.05, 0.3, 0.55, 0.06, 0.04), "Leans to KL 2 (55%); KL 1 is next (30%)"),
        (1, (0.1, 0.4, 0.35, 0.1, 0.05), "Unsure, chiefly between KL 1 (40%) and KL 2 (35%)"),
        (2, (0.29, 0.28, 0.34, 0.06, 0.03), "Unsure, chiefly between KL 0 (29%) and KL 2 (34%)"),
    ],
)
def test_certainty_names_the_two_most_probable_grades(grade, probabilities, phrase):
    grading = Grading(
        file="x",
        grade=grade,
        name=GRADE_NAMES[grade],
        probabilities=probabilities,
        calibrated=False,
        expected_grade=0,
        model="m",
        revision="r",
        seconds=0.1,
        heatmap=np.zeros((5, 1, 1)),
    )
    assert grading.certainty == phrase


def test_percentages_never_claim_a_certainty_that_is_not_there():
    assert [percent(p) for p in (0.0, 0.001, 0.5, 0.999, 1.0)] == ["0%", "<1%", "50%", ">99%", "100%"]
