"""Ablation: one change at a time to a recipe, on small images and few epochs.

    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation
    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation --only as_it_is no_ema

The rows are listed in benchmarks/studies/ablation.yaml. Each is a run of train/run.py in the output folder; finished
rows are not trained again, and an interrupted row resumes from its checkpoint. After every row, results/runs.csv gets
the rows so far and results/ablation.png is drawn anew, with each row's cross-entropy relative to the recipe itself on
the same knees. "The recipe itself" is the mean of its own runs (other
seeds, float32), whose spread is what chance does. Intervals are over patients, for one training per row.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from benchmarks import reporting
from benchmarks.studies.runs import FIGURES, keep_runs, row_of
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.metrics import bootstrap_mean, grade_metrics
from train.fitting.cross_fit import cross_fit
from train.loop import recipe, run_record
from train.loop.plots import plot_differences
from train.loop.predictions import Predictions
from train.loop.recipe import load_recipe

PLAN = Path(__file__).with_suffix(".yaml")
PICTURE = reporting.RESULTS / "ablation.png"


def settings_of(plan: dict, name: str) -> list[str]:
    """Settings of a row, as `train/run.py --set` takes them."""
    return [*plan["small"], *plan["rows"][name]]


def options_of(plan: dict, name: str) -> list[str]:
    """Further options of train/run.py for a row: those of all rows, and its own."""
    return [*plan.get("common", []), *plan.get("options", {}).get(name, [])]


def train(plan: dict, name: str, dataset: str, folder: Path) -> None:
    """Train a row, or resume it; a finished one is left alone.

    Raises:
        KoaError: the training failed; its own message is on stderr.
    """
    if is_finished(folder):
        return
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += [str(reporting.ROOT / "train" / "run.py"), "--recipe", plan["recipe"], "--dataset", dataset]
    for setting in settings_of(plan, name):
        command += ["--set", setting]
    command += options_of(plan, name)
    command += ["--output-dir", str(folder), *(["--resume"] if (folder / "recipe.yaml").exists() else [])]
    if subprocess.run(command, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode:
        raise KoaError(f"the row {name} failed; its settings: {' '.join(plan['rows'][name]) or 'none'}.")


def figures_of(found: Predictions) -> tuple[dict, np.ndarray]:
    """A row's figures on validation, and its cross-entropy on each knee, float (n,).

    A temperature is cross-fitted over patients first: soft targets leave a network under-confident, which one number
    corrects and which would otherwise dominate the comparison of cross-entropies.
    """
    tempered, _ = cross_fit(found.logits, found.grades, found.patients, coverage=0.9)
    loss = -np.log(tempered[np.arange(len(found.grades)), found.grades])
    return grade_metrics(tempered, found.grades), loss


def is_finished(folder: Path) -> bool:
    return run_record.is_complete(folder / "run.json")


def own_runs(plan: dict, finished: list[str]) -> list[str]:
    """Finished rows that train the recipe itself; they differ by chance alone."""
    return [name for name in finished if all(setting.startswith("seed=") for setting in plan["rows"][name])]


def _training(plan: recipe.Recipe) -> dict:
    """The part of a recipe that determines the weights."""
    return plan.model_dump(exclude={"description", "note", "grading"})


def check_the_first(plan: dict, folder: Path, rows: list[str]) -> None:
    """Raise KoaError unless the plan's first row is finished or about to be trained."""
    first = next(iter(plan["rows"]))
    if first not in rows and not is_finished(folder / first):
        raise KoaError(f"all rows are compared with {first!r}; train that one first.")


def check_row(plan: dict, name: str, folder: Path) -> None:
    """Raise KoaError if a row's folder holds a run of another recipe than the plan has for it today."""
    trained, planned = load_recipe(folder / "recipe.yaml"), load_recipe(plan["recipe"], settings_of(plan, name))
    if _training(trained) != _training(planned):
        raise KoaError(f"the row {name} was trained by another recipe than its plan has today; train it again.")


def report(plan: dict, folder: Path) -> None:
    """Write the rows of the finished runs, and the plot; the first row must be among them."""
    check_the_first(plan, folder, [])
    finished = [name for name in plan["rows"] if is_finished(folder / name)]
    predicted = {name: Predictions.read(folder / name) for name in finished}
    of_first = predicted[finished[0]]
    for name, one in predicted.items():
        if one.file_names != of_first.file_names:
            raise KoaError(f"the row {name} has other knees than {finished[0]}; train it again.")
    measured = {name: figures_of(one) for name, one in predicted.items()}
    own = own_runs(plan, finished)
    of_itself = np.mean([measured[name][1] for name in own], axis=0)
    rows = []
    for name in finished:
        check_row(plan, name, folder / name)
        figures, loss = measured[name]
        more = loss - of_itself
        low, high = bootstrap_mean(more, of_first.patients)
        row = row_of(folder / name, figures) | {
            "run": f"ablation/{name}",
            "changes": "; ".join([*plan["rows"][name], *filter(None, [" ".join(options_of(plan, name))])]),
            "cross_entropy_more": float(more.mean()),
            "cross_entropy_more_low": low,
            "cross_entropy_more_high": high,
            "is_the_recipe_itself": "yes" if name in own else "",
        }
        rows.append(row)
    keep_runs(rows)
    plotted = [
        {**row, "row": name, "cross_entropy_more_95": (row["cross_entropy_more_low"], row["cross_entropy_more_high"])}
        for name, row in zip(finished, rows, strict=True)
    ]
    by_chance = [row["cross_entropy_more"] for row in rows if row["is_the_recipe_itself"]]
    label = "cross-entropy relative to the mean of the recipe's own runs, same knees (right is worse)"
    plot_differences(plotted, "cross_entropy_more", label, PICTURE, (min(by_chance), max(by_chance)))
    shown = (*FIGURES, "cross_entropy_more")
    reporting.print_table(
        f"{plan['recipe']}, small", [{"row": row["run"], **{key: round(row[key], 3) for key in shown}} for row in rows]
    )


def parser_of(plan: dict, description: str) -> argparse.ArgumentParser:
    """The command line of an ablation by a plan."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder of the runs, one subfolder per row")
    parser.add_argument("--only", nargs="+", choices=list(plan["rows"]), metavar="ROW", help="train only these rows")
    return parser


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    plan = yaml.safe_load(PLAN.read_text())
    parser = parser_of(plan, __doc__)
    args = parser.parse_args(argv)
    wanted = [name for name in plan["rows"] if not args.only or name in args.only]
    check_the_first(plan, args.output_dir, wanted)
    for name in wanted:
        train(plan, name, args.dataset, args.output_dir / name)
        report(plan, args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
