"""Tables of docs/training.md on recipes: whole runs, the ablation of strong, and that of robust-polish's keys.

python benchmarks/tables/recipe_tables.py
"""

import json
import sys

import yaml

from benchmarks.studies import robust_keys
from benchmarks.studies.disturbances import CLEAN, DISTURBANCES
from benchmarks.studies.robustness import steadiness_cell
from benchmarks.studies.runs import FIGURES, read_runs
from benchmarks.tables.pages import replace_block, run_script, table, with_interval
from benchmarks.tables.results_tables import FIGURES as NAMES
from koa_hf.errors import KoaError

PAGE = "training.md"
ABLATION = "ablation/"  # beginning of its rows' names


def _figures(row: dict[str, str]) -> list[str]:
    return [f"{float(row[name]):.3f}" if row[name] else "" for name in FIGURES]


def runs() -> str:
    """Runs on the whole release: recipe, cost, and validation figures of the plain network."""
    rows = []
    for row in read_runs():
        if row["run"].startswith(ABLATION):
            continue
        continues = f"continues {row['continues']}" if row["continues"] else ""
        changes = "; ".join(
            filter(None, [continues, row["changes"].replace("stages.0.", "").replace("augmentation.", "")])
        )
        minutes = f"{row['minutes']} min, " if row["minutes"] else ""
        cost = f"{minutes}{row['device']}, {row['precision']}"
        rows.append(
            [row["run"], row["recipe"], changes, row["epochs"], row["pixels"], row["seed"], cost, *_figures(row)]
        )
    header = ["run", "recipe", "changes", "epochs", "px", "seed", "cost", *(NAMES[name] for name in FIGURES)]
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
    found = [row for row in read_runs() if row["run"].startswith(ABLATION)]
    rows = []
    for row in sorted(found, key=lambda row: -float(row["cross_entropy_more"])):
        if row["is_the_recipe_itself"]:
            continue
        more, low, high = (float(row[f"cross_entropy_more{end}"]) for end in ("", "_low", "_high"))
        changes = "; ".join(map(_setting, row["changes"].split("; ")))
        name = row["run"].removeprefix(ABLATION).replace("_", " ")
        rows.append([name, changes, row["precision"], *_figures(row), with_interval(more, (low, high), "+")])
    own = [row for row in found if row["is_the_recipe_itself"]]
    low, *_, high = sorted(float(row["cross_entropy_more"]) for row in own)
    means = [f"{sum(float(row[name]) for row in own) / len(own):.3f}" for name in FIGURES]
    rows.append([f"**the recipe itself**, {len(own)} runs", "", "", *means, f"{low:+.3f} to {high:+.3f}"])
    names = [NAMES[name] for name in FIGURES]
    return table(["row", "change", "precision", *names, "cross-entropy, difference (95 %)"], rows)


def keys() -> str:
    """Rows of the ablation of robust-polish's keys: clean accuracy, the disturbed states, and all of those together."""
    if not robust_keys.RESULT.is_file():
        raise KoaError(f"{robust_keys.RESULT} is not there; run benchmarks/studies/robust_keys.py first.")
    found = json.loads(robust_keys.RESULT.read_text())["rows"]
    names = {one.name: f"{one.group}: {one.label}" for one in DISTURBANCES}
    disturbed = [name for name in found[robust_keys.START]["states"] if name != CLEAN]
    rows = []
    for name, row in found.items():
        changes = "; ".join(f"`{one}`" for one in row.get("changes", ()))
        cells = [steadiness_cell(row["states"][state]) for state in disturbed]
        kept = with_interval(row["kept"], row["kept_95"])
        rows.append([name.replace("_", " "), changes, f"{row['states'][CLEAN]['accuracy']:.3f}", *cells, kept])
    return table(["row", "change", "clean", *(names[state] for state in disturbed), "kept, mean (95 %)"], rows)


def update() -> None:
    """Rewrite the blocks of the page."""
    replace_block(PAGE, "runs", runs())
    replace_block(PAGE, "ablation", ablation())
    replace_block(PAGE, "keys", keys())


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
