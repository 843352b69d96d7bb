"""Tables of docs/results.md: accuracy, calibration and rules of the bundled model, from the files in results/.

python benchmarks/tables/results_tables.py
"""

import csv
import json
import sys

from benchmarks.reporting import RESULTS
from benchmarks.studies.disturbances import DISTURBANCES
from benchmarks.studies.robustness import GOALS as GOALS_DISTURBED
from benchmarks.studies.robustness import labels_of, steadiness_cell, steadiness_goal
from benchmarks.tables.pages import replace_block, run_script, table, with_interval
from koa_hf.grades import GRADE_NAMES

PAGE = "results.md"
FIGURES = {
    "accuracy": "accuracy",
    "quadratic_weighted_kappa": "QWK",
    "mean_absolute_error": "MAE",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
}
GOALS = {
    "accuracy": "0.710",
    "quadratic_weighted_kappa": "0.842",
    "balanced_accuracy": "0.69",
    "macro_auc": "0.905",
    "expected_calibration_error": "0.03",
    "set_coverage": "0.90",
}
SHOWN = {
    **FIGURES,
    "within_one_grade": "within one grade",
    "macro_f1": "macro F1",
    "cross_entropy": "cross-entropy",
    "expected_calibration_error": "expected calibration error",
    "set_coverage": "coverage of the prediction sets",
    "mean_set_size": "mean size of the prediction sets",
    "called_unfamiliar": "flagged out of distribution",
}
PUBLISHED = (  # on the official test split, as their authors report it: work, then `FIGURES`
    ("the paper (Xception, head and last block)", "0.550", "", "", "", ""),
    ("Xception, fine-tuned (a public demo)", "", "", "", "0.67", ""),
    ("EfficientNet-B0, CORAL head", "", "0.809", "", "", ""),
    ("DenseNet-121, CORAL, 224 px (KneeVision)", "0.638", "0.823", "0.393", "", ""),
    ("DenseNet-121, 384 px", "0.661 to 0.670", "0.818 to 0.831", "", "", "0.899"),
    ("ConvNeXt hybrid (Knee-xRAI 2026)", "", "0.844", "", "", "0.902"),
    ("VGG-19, ordinal loss (Chen et al. 2019)", "0.697", "", "0.344", "", ""),
    ("KneeXNet 2024, single networks; ensemble of ten", "0.69 to 0.70; 0.72", "", "", "", ""),
    ("OsteoHRNet 2021", "0.717", "", "0.311", "", ""),
    ("KL-FuseNet 2026 (own patient split of the same images)", "0.703", "0.881", "", "", ""),
)


def read(path: str) -> dict:
    return json.loads((RESULTS / path).read_text())


def accuracy() -> str:
    """Figures on validation with intervals, those of the same knees as people upload them, and the goals."""
    metrics = read("bundle/metrics.json")
    uploaded = read("bundle/calibration.json")["figures_held_out"]["as uploaded"]
    figures, intervals = metrics["figures"], metrics["intervals_95_by_patient"]
    rows = []
    for name, label in SHOWN.items():
        interval = None if name == "expected_calibration_error" else intervals.get(name)
        value = with_interval(figures[name], interval) if interval else f"{figures[name]:.3f}"
        rows.append([label, value, f"{uploaded[name]:.3f}" if name in uploaded else "", GOALS.get(name, "")])
    for grade, label in enumerate(GRADE_NAMES):
        recall = with_interval(figures["recall_by_grade"][grade], intervals["recall_by_grade"][grade])
        rows.append([f"recall of KL {grade}, {label}", recall, "", ""])
    return table(["figure", f"validation, {figures['images']:,} knees", "the same as uploaded", "goal"], rows)


def published() -> str:
    """Published results beside ours, all on the official test split."""
    paper = read("official_test/paper.json")["figures"]
    ours = [["**here**: the paper's recipe", *(f"{paper[figure]:.3f}" for figure in FIGURES)]]
    with (RESULTS / "official_test" / "models.csv").open() as opened:
        for row in csv.DictReader(opened):
            passes = "one pass" if row["passes"] == "1" else "mirror image averaged"
            ours.append([f"**here**: {row['model']}, {passes}", *(row[figure] for figure in FIGURES)])
    return table(["work", *FIGURES.values()], [*map(list, PUBLISHED), *ours])


def disturbed() -> str:
    """Accuracy and steadiness of each model on the disturbances that have goals."""
    models = read("robustness/robustness.json")["models"]
    labels = {one.name: one.label for one in DISTURBANCES}
    rows = [
        [labels[name], steadiness_goal(goal), *(steadiness_cell(model["rows"].get(name)) for model in models)]
        for name, goal in GOALS_DISTURBED.items()
        if any(name in model["rows"] for model in models)
    ]
    return table(["", "goal", *labels_of(models)], rows)


def calibration() -> str:
    """Calibration error and cross-entropy, before and after, on held-out patients."""
    found = read("bundle/calibration.json")
    rows = []
    for name, label in (
        ("expected_calibration_error", "expected calibration error"),
        ("cross_entropy", "cross-entropy"),
    ):
        for half in ("as they are", "as uploaded"):
            before, after = (found[part][half] for part in ("figures_before", "figures_held_out"))
            error = name == "expected_calibration_error"
            chance = f"{after['calibration_error_by_chance']:.3f}" if error else ""
            goal = GOALS[name] if error else ""
            rows.append([f"{label}, knees {half}", f"{before[name]:.3f}", f"{after[name]:.3f}", chance, goal])
    temperature = f"temperature {found['calibration']['temperature']:.3f}"
    return table(["", "uncalibrated", temperature, "perfect probabilities, by chance", "goal"], rows)


def prediction_sets() -> str:
    """Coverage of the prediction sets by size and by grade."""
    sets = read("bundle/calibration.json")["sets"]
    crops, uploaded = sets["as they are"], sets["as uploaded"]
    rows = []
    for size in sorted({*crops["sizes"], *uploaded["sizes"]}):
        cells = [
            f"{part['coverage_by_size'][size]:.1%} of {part['sizes'][size]}" if size in part["sizes"] else ""
            for part in (crops, uploaded)
        ]
        rows.append([f"{size} grade{'s' if size != '1' else ''} in the set", *cells])
    for grade in range(len(GRADE_NAMES)):
        covered = (part["coverage_by_grade"][grade] for part in (crops, uploaded))
        rows.append([f"the reader's grade is KL {grade}", *(f"{share:.1%}" for share in covered)])
    means = (f"{part['coverage']:.1%}, {part['mean_size']:.2f} grades" for part in (crops, uploaded))
    rows.append([f"all (goal {sets['stated_coverage']:.0%})", *means])
    return table(["", "knees as they are", "knees as uploaded"], rows)


def out_of_distribution() -> str:
    """Detection of images that are no ordinary knee crop, by kind."""
    found = read("bundle/calibration.json")["familiarity"]
    chosen, left_out = found["chosen"], found["left_out"]
    alike: dict[tuple[str, ...], list[str]] = {}
    for kind, detected in chosen["caught"].items():
        cells = (f"{chosen['auroc'][kind]:.3f}", f"{detected:.0%}", f"{left_out[kind]['caught']:.0%}")
        alike.setdefault(cells, []).append(kind)
    rows = [[", ".join(kinds), *cells] for cells, kinds in alike.items()]
    false_alarms = [
        ["knees as uploaded (false alarms)", "", f"{found['called_unfamiliar_as_uploaded_held_out']:.1%}", ""],
        ["knee crops (false alarms)", "", f"{found['called_unfamiliar_held_out']:.1%}", ""],
    ]
    return table(["kind of image", "AUROC", "detected", "detected, kind left out"], [*rows, *false_alarms])


def heat_maps() -> str:
    """Deletion test of the class activation maps."""
    deletion = read("heat_maps/audit.json")["deletion"]
    losses = deletion["mean_loss"].items()
    hottest, *controls = [[name.removeprefix("without "), f"{loss:.3f}"] for name, loss in losses]
    for row, more in zip(controls, deletion["hottest_costs_more_than"].values(), strict=True):
        row += [with_interval(more["difference"], more["difference_95_by_patient"]), f"{more['share_of_knees']:.0%}"]
    header = ["blurred", "probability lost", "the hottest tenth costs more by", "in this share of knees"]
    return table(header, [[*hottest, "", ""], *controls])


BLOCKS = {
    "accuracy": accuracy,
    "published": published,
    "disturbed": disturbed,
    "calibration": calibration,
    "prediction sets": prediction_sets,
    "out of distribution": out_of_distribution,
    "heat maps": heat_maps,
}


def update() -> None:
    """Rewrite the blocks of the page."""
    for name, render in BLOCKS.items():
        replace_block(PAGE, name, render())


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
