import evaluate
import numpy as np
import pytest
from sklearn import metrics as sk

from koa_hf.errors import KoaError
from koa_hf.grading.metrics import (
    KneeGradeMetrics,
    bootstrap_intervals,
    bootstrap_mean,
    expected_calibration_error,
    grade_metrics,
    roc_auc,
)


@pytest.fixture(scope="module")
def graded() -> tuple[np.ndarray, np.ndarray]:
    """300 random probability rows that know something about the grade."""
    random = np.random.default_rng(0)
    grades = random.choice(5, 300, p=(0.4, 0.18, 0.26, 0.13, 0.03))
    logits = random.normal(size=(300, 5)) - np.abs(np.arange(5) - grades[:, None])
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), grades


def test_figures_agree_with_scikit_learn(graded):
    probabilities, grades = graded
    predicted, one_hot = probabilities.argmax(1), np.eye(5)[grades]
    figures = grade_metrics(probabilities, grades)
    expected = {
        "accuracy": sk.accuracy_score(grades, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(grades, predicted),
        "quadratic_weighted_kappa": sk.cohen_kappa_score(grades, predicted, weights="quadratic"),
        "mean_absolute_error": sk.mean_absolute_error(grades, predicted),
        "macro_precision": sk.precision_score(grades, predicted, average="macro"),
        "macro_recall": sk.recall_score(grades, predicted, average="macro"),
        "macro_f1": sk.f1_score(grades, predicted, average="macro"),
        "macro_auc": sk.roc_auc_score(grades, probabilities, multi_class="ovr", average="macro"),
        "keras_auc": sk.roc_auc_score(one_hot, probabilities, average="micro"),
        "keras_precision": sk.precision_score(one_hot, probabilities > 0.5, average="micro"),
        "keras_recall": sk.recall_score(one_hot, probabilities > 0.5, average="micro"),
        "cross_entropy": sk.log_loss(grades, probabilities),
        "within_one_grade": np.mean(np.abs(predicted - grades) <= 1),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["recall_by_grade"] == pytest.approx(sk.recall_score(grades, predicted, average=None))
    assert figures["confusion_matrix"] == sk.confusion_matrix(grades, predicted).tolist()


def test_the_area_under_the_curve_counts_ties_as_scikit_learn_does(graded):
    probabilities, grades = graded
    one_hot, coarse = grades[:, None] == np.arange(6), np.hstack([probabilities.round(1), np.zeros((len(grades), 1))])
    found = roc_auc(one_hot, coarse)
    assert found[:5] == pytest.approx([sk.roc_auc_score(one_hot[:, g], coarse[:, g]) for g in range(5)])
    assert np.isnan(found[5])  # no image has it


def test_probabilities_that_are_no_numbers_are_refused():
    with pytest.raises(KoaError, match="lower learning rate"):
        grade_metrics(np.full((2, 5), np.nan), np.array([0, 1]))


def test_keras_figures_count_only_grades_over_one_half():
    # Counted by hand: rows 1 and 2 claim a grade (one right), row 3 claims none although its top grade is right.
    probabilities = np.array([[0.7, 0.3, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0.4, 0.3, 0.3, 0, 0]])
    figures = grade_metrics(probabilities, np.array([0, 1, 0]))
    assert figures["keras_precision"] == pytest.approx(1 / 2)
    assert figures["keras_recall"] == pytest.approx(1 / 3)
    assert figures["accuracy"] == pytest.approx(2 / 3)


def test_keras_auc_is_one_curve_over_all_cells():
    # Three positive cells (0.7, 0.4, 0.4) against twelve others (0.6, 0.3, 0.3, 0.3, eight zeros): of the 36 pairs,
    # only (0.4, 0.6), twice, is in the wrong order.
    probabilities = np.array([[0.7, 0.3, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0.4, 0.3, 0.3, 0, 0]])
    assert grade_metrics(probabilities, np.array([0, 1, 0]))["keras_auc"] == pytest.approx(34 / 36)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    always_sure = np.tile([0.9, 0.1, 0, 0, 0], (10, 1))
    assert expected_calibration_error(always_sure, np.array([0] * 6 + [1] * 4)) == pytest.approx(0.3)


def test_figures_that_are_undefined_are_none_instead_of_failing():
    figures = grade_metrics(np.tile([0.6, 0.4, 0, 0, 0], (4, 1)), np.zeros(4, int))
    assert figures["macro_auc"] is None
    assert figures["quadratic_weighted_kappa"] is None
    assert figures["recall_by_grade"] == [1.0, None, None, None, None]


def test_the_metric_is_an_evaluate_metric_and_needs_no_network(graded):
    probabilities, grades = graded
    metric = KneeGradeMetrics()
    assert isinstance(metric, evaluate.Metric)
    for half in np.array_split(np.arange(300), 2):
        metric.add_batch(predictions=probabilities[half], references=grades[half])
    assert metric.compute()["accuracy"] == grade_metrics(probabilities, grades)["accuracy"]


def test_intervals_hold_the_figure_and_widen_when_both_knees_of_a_patient_agree(graded):
    probabilities, grades = graded
    twice = np.repeat(np.arange(150), 2)
    doubled, doubled_grades = probabilities[twice], grades[twice]
    as_patients = bootstrap_intervals(doubled, doubled_grades, [str(p) for p in twice], repeats=200)
    as_images = bootstrap_intervals(doubled, doubled_grades, np.arange(300), repeats=200)
    low, high = as_patients["accuracy"]
    assert low < grade_metrics(doubled, doubled_grades)["accuracy"] < high
    assert high - low > 1.2 * np.diff(as_images["accuracy"])[0]


def test_the_interval_of_a_mean_is_wider_where_both_knees_of_a_patient_are_alike():
    values = np.random.default_rng(0).normal(size=200)
    twice, patients = np.tile(values, 2), np.tile(np.arange(200), 2)
    by_patient, by_knee = bootstrap_mean(twice, patients), bootstrap_mean(twice, np.arange(400))
    error = values.std() / np.sqrt(200)
    assert by_patient == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.02)
    assert by_patient[1] - by_patient[0] > 1.3 * (by_knee[1] - by_knee[0])
