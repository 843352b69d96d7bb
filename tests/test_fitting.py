"""Rules fitted on a network's logits, checked on knees that they were not fitted to."""

import numpy as np
import pytest
import torch

from koa_hf.grading.calibration import grade_sets, probabilities_of
from koa_hf.grading.familiarity import Familiarity
from koa_hf.grading.metrics import expected_calibration_error
from train.fitting.cross_fit import cross_fit, fit_set_level, fit_temperature


def knees(n: int, seed: int, sharpness: float = 3.0):
    """Logits that are `sharpness` times too sure, and grades drawn from what they should have said."""
    random = np.random.default_rng(seed)
    severity = random.uniform(-0.5, 4.5, (n, 1))
    logits = -((np.arange(5) - severity) ** 2) + random.normal(0, 0.3, (n, 5))
    grades = (random.random((n, 1)) > probabilities_of(logits).cumsum(1)[:, :-1]).sum(1)
    return logits * sharpness, grades


def test_the_temperature_undoes_what_made_the_network_too_sure():
    logits, grades = knees(4000, seed=0)
    temperature = fit_temperature(logits, grades)
    assert temperature == pytest.approx(3, rel=0.1)
    fresh, fresh_grades = knees(4000, seed=1)
    assert expected_calibration_error(probabilities_of(fresh), fresh_grades) > 0.1
    assert expected_calibration_error(probabilities_of(fresh, temperature), fresh_grades) < 0.03


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_are_ranges_around_the_grade_that_hold_the_readers_as_often_as_stated(coverage):
    logits, grades = knees(3000, seed=3)
    probabilities = probabilities_of(logits)
    level = fit_set_level(probabilities, grades, coverage)
    fresh, fresh_grades = knees(3000, seed=4)
    fresh = probabilities_of(fresh)
    low, high = grade_sets(fresh, level).T
    assert np.mean((low <= fresh_grades) & (fresh_grades <= high)) == pytest.approx(coverage, abs=0.02)
    assert np.all((low <= fresh.argmax(1)) & (fresh.argmax(1) <= high))


def test_cross_fitting_never_measures_a_patient_by_rules_fitted_to_them():
    logits, grades = knees(60, seed=5)
    patients = np.repeat(np.arange(30), 2)
    found, _ = cross_fit(logits, grades, patients, 0.9)
    # One patient's fold has another temperature once another patient's grades are changed, but not by its own.
    wrong = grades.copy()
    wrong[:2] = 4 - wrong[:2]
    changed, _ = cross_fit(logits, wrong, patients, 0.9)
    assert np.array_equal(found[:2], changed[:2])
    assert not np.array_equal(found, changed)


def test_distance_is_mahalanobis_and_survives_the_file():
    random = np.random.default_rng(0)
    features = random.normal(5, 1, (400, 12)) @ np.diag(np.linspace(0.2, 3, 12))
    fitted = Familiarity.fit("block8", features, components=11)
    centred = features[:20] - features.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(features.T)), centred) / 12)
    again = Familiarity.model_validate_json(fitted.model_dump_json())
    found = again.measure()(torch.from_numpy(features[:20])).numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02)
    np.testing.assert_allclose(again.with_limit(2.0).measure()(torch.from_numpy(features[:20])), found / 2, rtol=1e-5)
