"""Tables of docs/results.md: accuracy, calibration and rules of the bundled model, from the JSON in results/.

python benchmarks/tables/results_tables.py
"""

import json
import sys

from benchmarks.reporting import RESULTS
from benchmarks.tables.pages import replace_block, run_script, table, with_interval
from koa_hf.grades import GRADE_NAMES
from koa_hf.grading.calibration import READ_OUTS as READ_OUT_OF_POWER
from train.loop.recipe import POWERS

PAGE = "results.md"
FIGURES = {
    "accuracy": "accuracy",
    "quadratic_weighted_kappa": "QWK",
    "mean_absolute_error": "MAE",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
}
GOALS = {  # for a model trained on a GPU
    "accuracy": "0.70",
    "quadratic_weighted_kappa": "0.84",
    "mean_absolute_error": "0.37",
    "balanced_accuracy": "0.69",
    "macro_auc": "0.90",
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
READ_OUTS = {name: READ_OUT_OF_POWER[power] for name, power in POWERS.items()} | {
    "tuned": "expected grade, thresholds fitted for QWK on other patients",
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
    """Figures on validation and on the official test split, each with its interval, and the goals."""

    def cell(metrics: dict, name: str, digits: int = 3) -> str:
        interval = None if name == "expected_calibration_error" else metrics["intervals_95_by_patient"].get(name)
        value = metrics["figures"][name]
        return with_interval(value, interval) if interval else f"{value:.{digits}f}"

    both = [read("strong/metrics.json"), read("official_test/bundle.json")]
    rows = [[label, *(cell(one, name) for one in both), GOALS.get(name, "")] for name, label in SHOWN.items()]
    for grade, label in enumerate(GRADE_NAMES):
        recalls = [
            with_interval(*(one[part]["recall_by_grade"][grade] for part in ("figures", "intervals_95_by_patient")))
            for one in both
        ]
        rows.append([f"recall of KL {grade}, {label}", *recalls, ""])
    counts = [f"{one['figures']['images']:,} knees" for one in both]
    return table(["figure", f"validation, {counts[0]}", f"official test, {counts[1]}", "goal"], rows)


def published() -> str:
    """Published results beside ours, all on the official test split."""
    figures = {name: read(f"official_test/{name}.json")["figures"] for name in ("paper", "bundle")}
    ours = [
        [title, *(f"{figures[name][figure]:.3f}" for figure in FIGURES)]
        for name, title in (("paper", "**here**: the paper's recipe"), ("bundle", "**here**: the bundled model"))
    ]
    return table(["work", *FIGURES.values()], [*map(list, PUBLISHED), *ours])


def read_outs() -> str:
    """Read-outs of the grade from the probabilities, with and without flip TTA."""
    rows = [
        [
            READ_OUTS[row["read_out"]] + (" (bundled)" if row["chosen"] else ""),
            "yes" if row["flip_average"] else "no",
            *(f"{row[name]:.3f}" for name in FIGURES),
            f"{row['mean_set_size']:.2f}",
        ]
        for row in read("strong/calibration.json")["read_outs"]
    ]
    return table(["read-out", "flip TTA", *FIGURES.values(), "mean set size"], rows)


def calibration() -> str:
    """Temperature, calibration error and cross-entropy, before and after, on held-out patients."""
    found = read("strong/calibration.json")["calibration"]
    rows = [
        [
            "expected calibration error",
            f"{found['error_before']:.3f}",
            f"{found['error_held_out']:.3f}",
            f"{found['error_by_chance']:.3f}",
            GOALS["expected_calibration_error"],
        ],
        [
            "cross-entropy",
            f"{found['cross_entropy_before']:.3f}",
            f"{found['cross_entropy_held_out']:.3f}",
            "",
            "",
        ],
    ]
    temperature = f"temperature {found['temperature']:.3f}"
    return table(["", "uncalibrated", temperature, "perfect probabilities, by chance", "goal"], rows)


def calibration_by_grade() -> str:
    """Mean probability and frequency of each grade, and the coverage of its prediction sets."""
    covered = read("strong/calibration.json")["sets"]["coverage_by_grade"]
    rows = [
        [
            f"KL {row['grade']}",
            *(f"{row[name]:.3f}" for name in ("mean_probability", "frequency")),
            with_interval(row["difference"], row["difference_95"], "+"),
            f"{covered[row['grade']]:.0%}",
        ]
        for row in read("strong/scrutiny.json")["calibration_by_grade"]
    ]
    return table(["grade", "mean probability", "frequency", "difference (95 %)", "coverage of its sets"], rows)


def prediction_sets() -> str:
    """Coverage by size of the prediction set."""
    sizes = read("strong/scrutiny.json")["sets"]["by_size"]
    sets = read("strong/calibration.json")["sets"]
    rows = [[str(row["size"]), str(row["knees"]), f"{row['coverage']:.1%}"] for row in sizes]
    rows.append([f"all ({sets['mean_size']:.2f} on average)", str(sum(row["knees"] for row in sizes)),
                 f"{sets['coverage']:.1%} (goal {sets['stated_coverage']:.0%})"])  # fmt: skip
    return table(["grades in the set", "knees", "coverage"], rows)


def resampled_goals() -> str:
    """Share of bootstrap resamples that reach the CPU goals, and the figures of a read-out chosen on other patients."""
    found = read("strong/scrutiny.json")
    held, least = found["targets"]["held_in_share_of_resamples"], found["targets"]["least"]
    goals = [[f"{FIGURES[name]} {least[name]:g}", f"{held[name]:.0%}"] for name in least]
    goals.append(["all three", f"{held['all of them']:.0%}"])
    chosen = [
        [row["chosen by"].replace("quadratic_weighted_kappa", "QWK"),
         f"{row['accuracy']:.3f}", f"{row['quadratic_weighted_kappa']:.3f}"]
        for row in found["read_out_chosen_elsewhere"]
    ]  # fmt: skip
    return "\n\n".join(
        [
            table(["goal for a model trained on CPUs", "resamples that reach it"], goals),
            table(["read-out chosen on other patients by", "accuracy", "QWK"], chosen),
        ]
    )


def small_knees() -> str:
    """Knees that keep their grade at fewer pixels, by the network alone and with the rule for small knees."""
    rows = [
        [
            str(row["width"]),
            f"{row['before']['grade_kept']:.1%}",
            f"{row['held_out']['grade_kept']:.1%}",
            f"{row['before']['expected_grade_moved']:+.2f}",
            f"{row['held_out']['expected_grade_moved']:+.2f}",
        ]
        for row in read("strong/resolution.json")["widths"]
    ]
    header = ["width, px", "same grade, network alone", "with the rule", "shift of the expected grade, network alone"]
    return table([*header, "with the rule"], rows)


def out_of_distribution() -> str:
    """Detection of images that are no ordinary knee crop, by kind."""
    found = read("strong/calibration.json")["familiarity"]
    chosen, left_out = found["chosen"], found["left_out"]
    alike: dict[tuple[str, ...], list[str]] = {}
    for kind, detected in chosen["caught"].items():
        cells = (f"{chosen['auroc'][kind]:.3f}", f"{detected:.0%}", f"{left_out[kind]['caught']:.0%}")
        alike.setdefault(cells, []).append(kind)
    rows = [[", ".join(kinds), *cells] for cells, kinds in alike.items()]
    false_alarms = [
        ["knees on films (false alarms)", "", f"{found['called_unfamiliar_as_on_films_held_out']:.1%}", ""],
        ["knee crops (false alarms)", "", f"{found['called_unfamiliar_held_out']:.1%}", ""],
    ]
    return table(["kind of image", "AUROC", "detected", "detected, kind left out"], [*rows, *false_alarms])


def heat_maps() -> str:
    """Deletion test of the class activation maps."""
    deletion = read("strong/audit.json")["deletion"]
    losses = deletion["mean_loss"].items()
    hottest, *controls = [[name.removeprefix("without "), f"{loss:.3f}"] for name, loss in losses]
    for row, more in zip(controls, deletion["hottest_costs_more_than"].values(), strict=True):
        row += [with_interval(more["difference"], more["difference_95_by_patient"]), f"{more['share_of_knees']:.0%}"]
    header = ["blurred", "probability lost", "the hottest tenth costs more by", "in this share of knees"]
    return table(header, [[*hottest, "", ""], *controls])


BLOCKS = {
    "accuracy": accuracy,
    "published": published,
    "read-outs": read_outs,
    "calibration": calibration,
    "calibration by grade": calibration_by_grade,
    "prediction sets": prediction_sets,
    "resampled goals": resampled_goals,
    "small knees": small_knees,
    "out of distribution": out_of_distribution,
    "heat maps": heat_maps,
}


def update() -> None:
    """Rewrite the blocks of the page."""
    for name, render in BLOCKS.items():
        replace_block(PAGE, name, render())


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
