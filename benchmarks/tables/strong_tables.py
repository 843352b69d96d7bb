"""What the bundled model is worth, from results/strong/: for the README, and results/strong/tables.md.

python benchmarks/tables/strong_tables.py
"""

import json
import sys
from pathlib import Path

from benchmarks.tables import readme
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grading.calibration import READ_OUTS as BY_POWER
from koa_hf.grading.metrics import table_rows
from koa_hf.network.engine_names import from_accelerate
from train.loop import recipe as recipes

ROOT = Path(__file__).resolve().parents[2]

RESULTS = ROOT / "results"
BUNDLED, BASE = "strong", "strong-start"  # the bundled model, and the run of the recipe that all are compared with
# Keys of a recipe that say nothing of the training, or that have a column of their own.
NOT_COMPARED = ("name", "description", "note", "grading", "weights", "image_size", "image_sizes", "epochs", "seed")
STARTS = {"1f1bfd74076f": BASE}  # by the beginning of the sha256 of its weights, as it was bundled
READ_OUTS = {name: BY_POWER[power] for name, power in recipes.POWERS.items()} | {
    "tuned": "expected grade, thresholds fitted for QWK on other patients",
}
GOALS_OF_A_GPU = {  # set for a model trained on one; `scrutiny` has those for CPUs
    "accuracy": 0.70,
    "quadratic_weighted_kappa": 0.84,
    "mean_absolute_error": 0.37,
    "balanced_accuracy": 0.69,
    "macro_auc": 0.90,
}
GOAL_OF_CALIBRATION = 0.03
FIGURES = {
    "accuracy": "accuracy",
    "quadratic_weighted_kappa": "QWK",
    "mean_absolute_error": "MAE",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
}
PUBLISHED = (  # on the test split of the same release, as their authors report it: work, then `FIGURES`
    ("the paper that this work starts from (Xception, head and last block)", "0.550", "", "", "", ""),
    ("Xception, fine-tuned (a public demo)", "", "", "", "0.67", ""),
    ("DenseNet-121, 384 px", "0.661 to 0.670", "0.818 to 0.831", "", "", "0.899"),
    ("EfficientNet-B0, CORAL head", "", "0.809", "", "", ""),
    ("Chen et al. 2019, VGG-19, ordinal loss", "0.697", "", "0.344", "", ""),
    ("KneeXNet 2024, single networks; ensemble", "0.69 to 0.70; 0.72", "", "", "", ""),
    ("OsteoHRNet 2021", "0.717", "", "0.311", "", ""),
    ("KL-FuseNet 2026", "0.703", "0.881", "", "", ""),
)


def read(path: str) -> dict:
    return json.loads((RESULTS / path).read_text())


def recipe_of(folder: Path) -> dict:
    """A run's recipe, with the defaults of keys that came later."""
    return recipes.load(folder / "recipe.yaml").model_dump(mode="json")


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def with_interval(value: float, interval: list[float], sign: str = "") -> str:
    return f"{value:{sign}.3f} ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def computed_on(machine: dict) -> str:
    """A run's machine, and the precision that it computed in."""
    return f"{machine['processor']}, {from_accelerate(machine['precision'])}"


def flat(value: object, name: str = "") -> dict[str, object]:
    """A recipe's keys with dots, in one level."""
    if isinstance(value, dict):
        parts = {f"{name}.{key}".lstrip("."): part for key, part in value.items() if key not in NOT_COMPARED}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = {f"{name}.{i}": part for i, part in enumerate(value)} if len(value) > 1 else {name: value[0]}
    else:
        return {name: value}
    return {key: end for path, part in parts.items() for key, end in flat(part, path).items()}


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def changes(recipe: dict, from_recipe: dict) -> str:
    """In which keys a recipe differs from another, where both have the same stages; otherwise its stages."""
    if [stage["train"] for stage in recipe["stages"]] != [stage["train"] for stage in from_recipe["stages"]]:
        return "; ".join(
            f"{stage['train'].replace('_', ' ')} {stage['epochs']} epochs, {stage['loss'].replace('_', ' ')}"
            for stage in recipe["stages"]
        )
    before, after = flat(from_recipe), flat(recipe)
    different = [
        f"{key.removeprefix('stages.').removeprefix('augmentation.')} {_said(value)} (was {_said(before[key])})"
        for key, value in after.items()
        if value != before[key]
    ]
    return "; ".join(different) or "as in the recipe"


def runs() -> str:
    """The ablation: every run on the whole release, what it was, and its figures on validation (plain, argmax)."""
    rows = []
    base = recipe_of(RESULTS / BASE)
    for folder in sorted(path.parent for path in RESULTS.glob("*/run.json")):
        recipe = recipe_of(folder)
        run = json.loads((folder / "run.json").read_text())
        metrics_file = folder / "plain.json"
        metrics = json.loads((metrics_file if metrics_file.is_file() else folder / "metrics.json").read_text())
        sizes = [size for stage in recipe["stages"] for size in stage.get("image_sizes") or [recipe["image_size"]]]
        size = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        epochs = sum(stage["epochs"] for stage in recipe["stages"])
        machine = run["machine"]
        minutes = f"{run['seconds']['this_process'] / 60:.0f} min, {computed_on(machine)}"
        figures = [f"{metrics['figures'][name]:.3f}" for name in FIGURES]
        different = changes(recipe, base)
        if start := run.get("started_from"):
            different = f"continues {STARTS.get(start['revision'], start['model'])}; {different}"
        name = f"{folder.name} (bundled)" if folder.name == BUNDLED else folder.name
        rows.append([name, recipe["name"], different, str(epochs), size, str(recipe["seed"]), minutes, *figures])
    header = ["run", "recipe", f"what differs from `{BASE}`", "epochs", "px", "seed", "time, device", *FIGURES.values()]
    return table(header, rows)


def one_at_a_time() -> list[str]:
    """The ablation on small images: what each change does, and what each read-out does on average over its networks."""
    found = read("ablation/ablation.json")
    rows, small = found["rows"], ", ".join(found["small"])
    changed = [
        [
            row["row"].replace("_", " "),
            f"`{'; '.join(row['changes'])}`" if row["changes"] else "",
            *(str(row[name]) for name in ("epochs", "seed")),
            f"{row['seconds'] / 60:.0f}",
            f"{row['processor_seconds'] / 60:.0f}" if row["processor_seconds"] else "",
            computed_on(row["trained_on"]),
            *(f"{row[name]:.3f}" for name in FIGURES),
            f"{row['cross_entropy']:.3f}",
            with_interval(row["cross_entropy_more"], row["cross_entropy_more_95"], "+"),
        ]
        for row in rows
    ]
    own = [row for row in rows if row["is_the_recipe_itself"]]
    by_chance = [row["cross_entropy_more"] for row in own]
    read_as = [
        [
            READ_OUTS[way],
            *(
                f"{sum(row['by_read_out'][way][name] for row in rows) / len(rows):.3f}"
                for name in ("accuracy", "quadratic_weighted_kappa", "mean_absolute_error")
            ),
        ]
        for way in recipes.POWERS
    ]
    header = [
        "row",
        "changed",
        "epochs",
        "seed",
        "minutes",
        "processor minutes",
        "trained on",
        *FIGURES.values(),
        "cross-entropy",
    ]
    header.append("more than the recipe itself (95 %, same knees)")
    return [
        f"**One change at a time** to `{found['recipe']}` on small images (`{small}`), {len(rows)} runs; "
        "most probable grade, no mirror image, temperature fitted on other patients. The recipe itself is "
        f"the mean of its {len(own)} own runs ({', '.join(row['row'].replace('_', ' ') for row in own)}), which lie "
        f"{min(by_chance):+.3f} to {max(by_chance):+.3f} from it by chance alone. The intervals are over patients, for "
        "one training of each row; minutes are with other work beside it:",
        table(header, changed),
        f"**The same {len(rows)} networks read in four ways**, means:",
        table(["read as", "accuracy", "QWK", "MAE"], read_as),
    ]


def beside_what_is_published(figures: dict) -> list[str]:
    ours = ["**this model, on validation**", *(f"**{figures[name]:.3f}**" for name in FIGURES)]
    return [
        "**Beside what is published** for this release, five grades, from the image alone. The others' figures are on "
        "its test split, as their authors report them; ours are on validation, since the test split stays sealed for "
        "this project's owners:",
        table(["work", *FIGURES.values()], [*map(list, PUBLISHED), ours]),
    ]


def scrutiny() -> list[str]:
    """How far the figures carry (benchmarks/studies/scrutiny.py)."""
    found = read("strong/scrutiny.json")
    held = found["targets"]["held_in_share_of_resamples"]
    least = found["targets"]["least"]
    sizes = [[str(row["size"]), str(row["knees"]), f"{row['coverage']:.1%}"] for row in found["sets"]["by_size"]]
    grades = [
        [
            f"KL {row['grade']}",
            *(f"{row[name]:.3f}" for name in ("mean_probability", "frequency")),
            with_interval(row["difference"], row["difference_95"], "+"),
        ]
        for row in found["calibration_by_grade"]
    ]
    elsewhere = "; ".join(
        f"by {row['chosen by'].replace('quadratic_weighted_kappa', 'QWK')} {row['accuracy']:.3f} and "
        f"{row['quadratic_weighted_kappa']:.3f} (accuracy and QWK)"
        for row in found["read_out_chosen_elsewhere"]
    )
    return [
        "**How far these figures carry** (`results/strong/scrutiny.json`). Of samples of as many patients, drawn with "
        "replacement, these shares reach the targets that were set for a model trained on CPUs: "
        + ", ".join(f"{FIGURES[name]} {least[name]:g} in {held[name]:.0%}" for name in least)
        + f", all at once in {held['all of them']:.0%}. The read-out was chosen on the same knees; chosen on nine "
        f"tenths of the patients, it has these figures on the others: {elsewhere}. How often the reader's grade is in "
        "the stated range, on held-out patients, by the size of the range:",
        table(["grades in the range", "knees", "hold the reader's"], sizes),
        "The mean probability of each grade on held-out patients, and how often it is the reader's:",
        table(["grade", "mean probability", "frequency", "difference (95 %)"], grades),
    ]


def against_goals_of_a_gpu(figures: dict) -> str:
    reached = {name: figures[name] >= goal for name, goal in GOALS_OF_A_GPU.items()}
    reached["mean_absolute_error"] = figures["mean_absolute_error"] <= GOALS_OF_A_GPU["mean_absolute_error"]

    def those(which: bool) -> str:
        shown = [
            f"{FIGURES[name]} {goal:g} ({figures[name]:.3f})"
            for name, goal in GOALS_OF_A_GPU.items()
            if reached[name] is which
        ]
        return ", ".join(shown) or "none"

    return (
        f"Of the targets that were set for a model trained on a GPU, which nobody had, it reaches {those(True)} and "
        f"misses {those(False)}; what limited it: [results/strong/README.md](results/strong/README.md)."
    )


def render() -> str:
    metrics, found = read("strong/metrics.json"), read("strong/calibration.json")
    audit, half = read("strong/audit.json"), read("strong/float16.json")
    small = read("strong/resolution.json")
    calibration, sets, familiarity = found["calibration"], found["sets"], found["familiarity"]
    figures = table_rows(metrics["figures"], metrics["intervals_95_by_patient"])
    read_outs = [
        [
            READ_OUTS[row["read_out"]] + (" (the model's)" if row["chosen"] else ""),
            "yes" if row["flip_average"] else "no",
            *(f"{row[name]:.3f}" for name in FIGURES),
            f"{row['set_coverage']:.3f}",
            f"{row['mean_set_size']:.2f}",
        ]
        for row in found["read_outs"]
    ]
    kinds = [
        [
            kind,
            f"{familiarity['chosen']['auroc'][kind]:.3f}",
            f"{caught:.0%}",
            f"{familiarity['left_out'][kind]['caught']:.0%}",
        ]
        for kind, caught in familiarity["chosen"]["caught"].items()
    ]
    righted = ", ".join(f"{share:.0%} of {kind}s" for kind, share in familiarity["righted"].items())
    best = max(familiarity["tried"], key=lambda row: row["mean_auroc"])
    deletion = audit["deletion"]
    lost = deletion["mean_loss"]
    hottest, *controls = [[name.removeprefix("without "), f"{loss:.3f}"] for name, loss in lost.items()]
    for row, more in zip(controls, deletion["hottest_costs_more_than"].values(), strict=True):
        row += [with_interval(more["difference"], more["difference_95_by_patient"]), f"{more['share_of_knees']:.0%}"]
    parts = [
        "**On the 826 validation knees**, by the model's own rules (intervals by bootstrap over patients):",
        table(["figure", "value", "95 % interval"], [list(row) for row in figures]),
        against_goals_of_a_gpu(metrics["figures"]),
        *beside_what_is_published(metrics["figures"]),
        "**Runs so far**, the plain network on validation (no mirror image, no calibration, most probable grade):",
        runs(),
        *one_at_a_time(),
        "**How the grade is read from the probabilities** (temperature, thresholds and sets fitted on nine tenths of "
        "the patients, measured on the last tenth, for each tenth):",
        table(["read as", "mirror image too", *FIGURES.values(), "set coverage", "mean set size"], read_outs),
        f"**Probabilities.** Temperature {calibration['temperature']:.3f}. Expected calibration error "
        f"{calibration['error_before']:.3f} before, {calibration['error_held_out']:.3f} on held-out patients (the "
        "first table's is by the temperature fitted on all of these knees, which does not make it less: bins of so few "
        f"knees jump); goal {GOAL_OF_CALIBRATION:g}, missed by "
        f"{calibration['error_held_out'] - GOAL_OF_CALIBRATION:.3f}, and "
        f"{calibration['error_by_chance']:.3f} is what chance alone leaves of perfect probabilities on so many knees. "
        f"Cross-entropy {calibration['cross_entropy_before']:.3f} before, "
        f"{calibration['cross_entropy_held_out']:.3f} held out. Sets stated at {sets['stated_coverage']:.0%} hold the "
        f"reader's grade in {sets['coverage']:.1%} of held-out knees ("
        + ", ".join(f"KL {grade} {value:.0%}" for grade, value in enumerate(sets["coverage_by_grade"]))
        + f"), {sets['mean_size']:.2f} grades on average.",
        *scrutiny(),
        f"**Small knees.** Knees reduced to fewer pixels than the release's crops, as on whole films: the share that "
        f"keeps the grade it has in full, on held-out ones of {small['patients']} patients.",
        table(
            ["width, px", "as the network says", "by the rule for small knees", "expected grade moved", "by the rule"],
            [
                [
                    str(row["width"]),
                    f"{row['before']['grade_kept']:.1%}",
                    f"{row['held_out']['grade_kept']:.1%}",
                    f"{row['before']['expected_grade_moved']:+.2f}",
                    f"{row['held_out']['expected_grade_moved']:+.2f}",
                ]
                for row in small["widths"]
            ],
        ),
        f"**Familiarity.** {familiarity['chosen']['method']}, chosen among {len(familiarity['tried'])} ways by the "
        "share of the images below that it catches (last column: the choice made without that kind), with a limit that "
        f"{familiarity['limit_set_for']:.0%} of crops, as they are and as on films, exceed. Called unfamiliar are "
        f"{familiarity['called_unfamiliar_held_out']:.1%} of held-out knees, and "
        f"{familiarity['called_unfamiliar_as_on_films_held_out']:.1%} of the same in the sizes, frames and grey levels "
        f"of knees on films. Images that a rule before recognises and rights count as caught: {righted}. Highest mean "
        f"AUROC of all ways: {best['mean_auroc']:.3f} ({best['method']}).",
        table(["kind of image", "AUROC", "caught", "caught, left out of the choice"], kinds),
        "**float16.** The shipped weights change the most probable grade of "
        f"{half['grades_changed']} of {half['knees']} knees ({half['of_these_ties']} of them ties under "
        f"{half['tie_below']}); largest change of a probability {half['largest_probability_change']:.4f}.",
        f"**Heat maps.** What blurring a tenth of the X-ray away costs the grade of its probability, in "
        f"{deletion['knees']} knees. Another knee's hottest tenth is the test of whether a map says more than where "
        "knees usually show their grade:",
        table(
            ["blurred away", "probability lost", "the hottest costs more by", "in this share of knees"],
            [[*hottest, "", ""], *controls],
        ),
    ]
    return "\n\n".join(parts)


@exit_2_on_bad_input
def main() -> None:
    text = render()
    write_text(RESULTS / "strong" / "tables.md", text + "\n")
    readme.put("strong tables", text)


if __name__ == "__main__":
    sys.exit(main())
