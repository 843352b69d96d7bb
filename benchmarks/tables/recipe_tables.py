"""Tables of docs/training.md on recipes: whole runs, and the ablation on small images, from the JSON in results/.

python benchmarks/tables/recipe_tables.py
"""

import json
import sys
from pathlib import Path

import yaml

from benchmarks.reporting import RESULTS
from benchmarks.tables.pages import replace_block, run_script, table, with_interval
from benchmarks.tables.results_tables import FIGURES, READ_OUTS, read
from koa_hf.network.engine_names import from_accelerate
from train.loop import recipe as recipes
from train.loop.recipe import load_recipe

PAGE = "training.md"
BUNDLED, BASE = "strong", "strong-start"  # the bundled model's run, and the run that the others are compared with
# Keys of a recipe that do not change the training, or that have a column of their own.
NOT_COMPARED = ("name", "description", "note", "grading", "weights", "image_size", "image_sizes", "epochs", "seed")
STARTS = {"1f1bfd74076f": BASE}  # beginning of the sha256 of the bundled weights -> run


def recipe_of(folder: Path) -> dict:
    """A run's recipe, with the defaults of keys added since."""
    return load_recipe(folder / "recipe.yaml").model_dump(mode="json")


def flat(value: object, name: str = "") -> dict[str, object]:
    """A recipe's keys, dotted, in one level."""
    if isinstance(value, dict):
        parts = {f"{name}.{key}".lstrip("."): part for key, part in value.items() if key not in NOT_COMPARED}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = {f"{name}.{i}": part for i, part in enumerate(value)} if len(value) > 1 else {name: value[0]}
    else:
        return {name: value}
    return {key: end for path, part in parts.items() for key, end in flat(part, path).items()}


def changes(recipe: dict, from_recipe: dict) -> str:
    """Differing keys of two recipes with the same stages; otherwise the recipe's stages."""
    if [stage["train"] for stage in recipe["stages"]] != [stage["train"] for stage in from_recipe["stages"]]:
        return "; ".join(
            f"{stage['train'].replace('_', ' ')} {stage['epochs']} epochs, {stage['loss'].replace('_', ' ')}"
            for stage in recipe["stages"]
        )
    before, after = flat(from_recipe), flat(recipe)
    different = {key: value for key, value in after.items() if value != before[key]}
    names = ", ".join(key.removeprefix("stages.").removeprefix("augmentation.") for key in different)
    return names or "as in the recipe"


def runs() -> str:
    """Runs on the whole release: recipe, cost, and validation figures of the plain network."""
    rows = []
    base = recipe_of(RESULTS / BASE)
    for folder in sorted(path.parent for path in RESULTS.glob("*/run.json")):
        recipe, run = recipe_of(folder), json.loads((folder / "run.json").read_text())
        metrics_file = folder / "plain.json"
        metrics = json.loads((metrics_file if metrics_file.is_file() else folder / "metrics.json").read_text())
        sizes = [size for stage in recipe["stages"] for size in stage.get("image_sizes") or [recipe["image_size"]]]
        size = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        epochs, machine = sum(stage["epochs"] for stage in recipe["stages"]), run["machine"]
        cost = f"{run['seconds']['this_process'] / 60:.0f} min, {machine['processor']}, "
        cost += from_accelerate(machine["precision"])
        different = changes(recipe, base)
        if start := run.get("started_from"):
            different = f"continues {STARTS.get(start['revision'], start['model'])}; {different}"
        name = f"[{folder.name}](../results/{folder.name})" + (" (bundled)" if folder.name == BUNDLED else "")
        figures = [f"{metrics['figures'][name]:.3f}" for name in FIGURES]
        rows.append([name, recipe["name"], different, str(epochs), size, str(recipe["seed"]), cost, *figures])
    header = ["run", "recipe", f"changes from `{BASE}`", "epochs", "px", "seed", "cost", *FIGURES.values()]
    return table(header, rows)


def _setting(change: str) -> str:
    """A setting as `--set` takes it; whole stages are summarised."""
    name, _, value = change.partition("=")
    if name != "stages":
        return f"`{change}`"
    stages = (f"{stage['train']} {stage['epochs']}" for stage in yaml.safe_load(value))
    return f"stages, in epochs: {', then '.join(stages)}"


def ablation() -> str:
    """Rows of the ablation, by cross-entropy relative to the recipe itself."""
    found = read("ablation/ablation.json")
    rows = [
        [
            row["row"].replace("_", " "),
            "; ".join(map(_setting, row["changes"])),
            from_accelerate(row["trained_on"]["precision"]),
            *(f"{row[name]:.3f}" for name in FIGURES),
            with_interval(row["cross_entropy_more"], row["cross_entropy_more_95"], "+"),
        ]
        for row in sorted(found["rows"], key=lambda row: -row["cross_entropy_more"])
        if not row["is_the_recipe_itself"]
    ]
    own = [row for row in found["rows"] if row["is_the_recipe_itself"]]
    low, *_, high = sorted(row["cross_entropy_more"] for row in own)
    means = [f"{sum(row[name] for row in own) / len(own):.3f}" for name in FIGURES]
    rows.append([f"**the recipe itself**, {len(own)} runs", "", "", *means, f"{low:+.3f} to {high:+.3f}"])
    return table(["row", "change", "precision", *FIGURES.values(), "cross-entropy, difference (95 %)"], rows)


def ablation_read_outs() -> str:
    """Read-outs of the grade, averaged over all networks of the ablation."""
    rows = read("ablation/ablation.json")["rows"]
    shown = ("accuracy", "quadratic_weighted_kappa", "mean_absolute_error")
    means = [
        [READ_OUTS[way], *(f"{sum(row['by_read_out'][way][name] for row in rows) / len(rows):.3f}" for name in shown)]
        for way in recipes.POWERS
    ]
    return table([f"read-out, mean of {len(rows)} networks", *(FIGURES[name] for name in shown)], means)


def update() -> None:
    """Rewrite the blocks of the page."""
    replace_block(PAGE, "runs", runs())
    replace_block(PAGE, "ablation", ablation())
    replace_block(PAGE, "ablation read-outs", ablation_read_outs())


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
