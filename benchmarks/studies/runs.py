"""results/runs.csv: one row for each training run so far, with its recipe, cost and validation figures.

    python benchmarks/studies/runs.py runs/robust-polish        # add a finished run

The figures are the plain network's on validation: one pass, uncalibrated, most probable grade. Rows of the ablation
(benchmarks/studies/ablation.py) also have their cross-entropy relative to the recipe's own runs.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.reporting import RESULTS
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.network.engine_names import from_accelerate
from train.loop import recipe as recipes

FILE = RESULTS / "runs.csv"
FIGURES = ("accuracy", "quadratic_weighted_kappa", "mean_absolute_error", "balanced_accuracy", "macro_auc")
COLUMNS = (
    *("run", "recipe", "changes", "continues", "epochs", "pixels", "seed", "device", "precision", "minutes"),
    *("started", "git_commit", *FIGURES),
    *("cross_entropy_more", "cross_entropy_more_low", "cross_entropy_more_high", "is_the_recipe_itself"),
)
"""`changes`: settings that differ from the recipe, as `--set` takes them. The last four: the ablation's."""


def read_runs() -> list[dict[str, str]]:
    """All rows."""
    return list(csv.DictReader(io.StringIO(FILE.read_text())))


def keep_runs(rows: Iterable[dict]) -> None:
    """Add rows, each in place of an earlier one of the same run."""
    known = {row["run"]: row for row in read_runs()} if FILE.is_file() else {}
    known |= {row["run"]: row for row in rows}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in known.values():
        writer.writerow({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(FILE, text.getvalue())


def row_of(folder: Path, figures: dict | None = None) -> dict:
    """The row of a finished run.

    Args:
        figures: of the plain network; by default those in the run's metrics.json.

    Raises:
        KoaError: not the folder of a finished run.
    """
    try:
        run = json.loads((folder / "run.json").read_text())
        figures = figures or json.loads((folder / "metrics.json").read_text())["figures"]
    except (OSError, ValueError, KeyError) as error:
        raise KoaError(f"{folder} is not the folder of a finished run ({error}).") from error
    recipe = recipes.load_recipe(folder / "recipe.yaml")
    sizes = [recipe.size_in(stage, epoch) for stage in recipe.stages for epoch in range(stage.last_epoch)]
    machine, seconds, options = run["machine"], run.get("seconds", {}), run["options"]
    changes = [*options["overrides"]]
    for key, what in (("taught_by", "taught by"), ("averaged_with", "mean with")):
        if others := run.get(key):
            changes.append(f"{what} {', '.join(Path(other['model']).name for other in others)}")
    return {
        "run": folder.resolve().name,
        "recipe": recipe.name,
        "changes": "; ".join(changes),
        "continues": Path(run.get("started_from", {}).get("model", "")).name,
        "epochs": sum(stage.last_epoch for stage in recipe.stages),
        "pixels": f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else sizes[0],
        "seed": recipe.seed,
        "device": machine.get("device_name") or machine["processor"],
        "precision": from_accelerate(machine["precision"]),
        "minutes": round(seconds["this_process"] / 60) if "this_process" in seconds else "",
        "started": run.get("started", "")[:10],
        "git_commit": (run["git_commit"] or "")[:12],
        **{name: figures[name] for name in FIGURES},
    }


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="a finished run's folder")
    args = parser.parse_args(argv)
    keep_runs([row_of(folder) for folder in args.folders])
    print(f"{len(args.folders)} run(s) written to {FILE}")


if __name__ == "__main__":
    sys.exit(main())
