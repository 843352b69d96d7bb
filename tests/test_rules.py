"""A model folder's grading.json: what it changes in a grading."""

import json
import shutil

import numpy as np
import pytest
import torch

from koa_hf import Grader
from koa_hf.errors import KoaError
from koa_hf.grading.familiarity import Familiarity
from koa_hf.grading.rules import GradeSets, Rules
from koa_hf.imaging import phantom, radiograph
from koa_hf.network import xception

LAYER = "block8"


@pytest.fixture(scope="module")
def ruled_folder(grader, model_folder, tmp_path_factory):
    """`model_folder` with every rule there is; familiar is what looks like the drawn knees."""
    knees = [radiograph.read(phantom.draw_knee(grade, seed=seed)) for grade in range(5) for seed in range(6)]
    pixels = torch.stack([grader.preprocessing(knee) for knee in knees])
    features = xception.features(grader.model, pixels, LAYER)[1].detach().numpy()
    rules = Rules(
        right_negatives=True,
        right_upside_down=True,
        temperature=2.0,
        sets=GradeSets(coverage=0.9, level=0.15),
        familiarity=Familiarity.fit(LAYER, features, components=8, least_familiar=2.4),
    )
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("ruled") / "model")
    rules.save(folder)
    return folder


@pytest.fixture(scope="module")
def ruled(ruled_folder) -> Grader:
    return Grader.from_pretrained(ruled_folder, engine="torch")


def test_what_is_saved_is_what_is_loaded(ruled_folder):
    rules = Rules.load(ruled_folder)
    assert rules.sets == GradeSets(coverage=0.9, level=0.15)
    rules.save(ruled_folder)
    assert Rules.load(ruled_folder) == rules


def test_without_rules_or_with_plain_the_network_is_taken_at_its_word(grader, ruled_folder, knee_png):
    plain = Grader.from_pretrained(ruled_folder, plain=True, engine="torch")
    one, other = grader.grade(knee_png), plain.grade(knee_png)
    assert one.probabilities == other.probabilities
    assert (other.grade_set, other.familiar, other.calibrated, other.inverted) == (None, None, False, False)
    assert other.range_in_words == ""


def test_a_photographic_negative_is_righted_and_said_to_have_been(ruled):
    pixels = phantom.draw_knee(1, seed=3)
    one, negative = ruled.grade(pixels), ruled.grade(255 - pixels)
    assert (one.inverted, negative.inverted) == (False, True)
    assert one.probabilities == negative.probabilities


def test_an_upside_down_x_ray_is_turned_and_said_to_have_been_and_the_heat_map_lies_on_it_as_it_is(ruled):
    pixels = phantom.draw_knee(3, seed=4)
    turned = np.ascontiguousarray(pixels[::-1, ::-1])
    one, other, negative = ruled.grade_batch([pixels, turned, 255 - turned])
    assert [grading.turned for grading in (one, other, negative)] == [False, True, True]
    assert (other.inverted, negative.inverted) == (False, True)
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    assert one.probabilities == pytest.approx(negative.probabilities, abs=1e-6)
    np.testing.assert_allclose(other.heatmap, one.heatmap[:, ::-1, ::-1], atol=1e-4)


def test_a_file_of_before_a_rule_was_there_is_read_without_it(ruled_folder, tmp_path):
    values = json.loads((ruled_folder / "grading.json").read_text())
    del values["right_upside_down"]
    (tmp_path / "grading.json").write_text(json.dumps(values))
    assert not Rules.load(tmp_path).right_upside_down


def test_probabilities_grade_and_set_follow_the_rules(ruled, ruled_folder):
    pixels = phantom.draw_knee(4, seed=9)
    grading = ruled.grade(pixels)
    xray = ruled.rules.righted(radiograph.read(pixels)).xray
    logits = ruled.forward(ruled.preprocessing(xray).unsqueeze(0)).logits[0].double()
    assert grading.probabilities == pytest.approx((logits / 2).softmax(0).tolist(), abs=1e-6)
    assert grading.calibrated
    assert grading.grade == np.argmax(grading.probabilities)
    low, high = grading.grade_set
    assert low <= grading.grade <= high
    assert all(p < 0.15 for g, p in enumerate(grading.probabilities) if not low <= g <= high)
    assert grading.coverage == 0.9
    assert grading.range_in_words in (f"could be KL {low} to {high}", "the only grade in its range")


def test_a_drawn_knee_is_familiar_and_noise_is_not(ruled):
    noise = np.random.default_rng(0).integers(0, 256, (224, 224), np.uint8)
    knee, other = ruled.grade_batch([phantom.draw_knee(2, seed=50), noise])
    assert knee.familiar
    assert knee.unfamiliarity <= 1 < other.unfamiliarity
    assert not other.familiar


def test_damaged_rules_are_refused_in_one_sentence(ruled_folder, tmp_path):
    folder = shutil.copytree(ruled_folder, tmp_path / "model")
    for text in ('{"version": 2, "temperature": -1}', "{", '{"version": 99}', '{"surprise": 1}'):
        (folder / "grading.json").write_text(text)
        with pytest.raises(KoaError, match=r"grading\.json is damaged or from another version"):
            Grader.from_pretrained(folder)
