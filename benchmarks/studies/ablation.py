"""Ablation: one change at a time to a recipe, on small images and few epochs.

    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation
    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation --only as_it_is no_ema

The rows are listed in benchmarks/studies/ablation.yaml. Each is a run of train/run.py, whose recipe, log, record and
predictions are kept in results/ablation/; rows found there are not trained again, and an interrupted row resumes from
its checkpoint in the output folder. ablation.json and ablation.png are rewritten after every row, with each row's
cross-entropy relative to the recipe itself on the same knees. "The recipe itself" is the mean of its own runs (other
seeds, float32), whose spread is what chance does. Intervals are over patients, for one training per row.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from benchmarks import reporting
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.calibration import read_grades
from koa_hf.grading.metrics import bootstrap_mean, grade_metrics
from train.fitting.cross_fit import cross_fit
from train.loop import predictions, recipe, run_record
from train.loop.plots import plot_differences
from train.loop.predictions import Predictions
from train.loop.recipe import POWERS, load_recipe

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = reporting.RESULTS / "ablation"
BY_READ_OUT = ("accuracy", "quadratic_weighted_kappa", "mean_absolute_error")
KEPT = ("recipe.yaml", "metrics.jsonl", predictions.FILE, "run.json")  # run.json last: it marks a finished row


def settings_of(plan: dict, name: str) -> list[str]:
    """Settings of a row, as `train/run.py --set` takes them."""
    return [*plan["small"], *plan["rows"][name]]


def options_of(plan: dict, name: str) -> list[str]:
    """Further options of train/run.py for a row."""
    return plan.get("options", {}).get(name, [])


def train(plan: dict, name: str, dataset: str, folder: Path) -> None:
    """Train a row, or resume it.

    Raises:
        KoaError: the training failed; its own message is on stderr.
    """
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
    grades = found.grades
    fitted = cross_fit(found.logits, grades, found.patients, "most_probable", coverage=0.9)
    tempered = fitted["probabilities"]
    figures = {name: value for name, value in fitted["figures"].items() if name != "expected_calibration_error"}
    read = {name: grade_metrics(tempered, grades, read_grades(tempered, power=power)) for name, power in POWERS.items()}
    figures["recall_by_grade"] = read["most_probable"]["recall_by_grade"]
    figures["by_read_out"] = {name: {key: one[key] for key in BY_READ_OUT} for name, one in read.items()}
    return figures, -np.log(tempered[np.arange(len(grades)), grades])


def is_finished(name: str) -> bool:
    return run_record.is_complete(RESULTS / name / "run.json")


def keep(run: Path, name: str) -> None:
    """Copy the record of a finished run to the results."""
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    run_record.copy_files(run, KEPT, RESULTS / name)


def own_runs(plan: dict, finished: list[str]) -> list[str]:
    """Finished rows that train the recipe itself; they differ by chance alone."""
    return [name for name in finished if all(setting.startswith("seed=") for setting in plan["rows"][name])]


def _training(plan: recipe.Recipe) -> dict:
    """The part of a recipe that determines the weights."""
    return plan.model_dump(exclude={"description", "note", "grading"})


def processor_seconds(seconds: dict) -> float | None:
    """Processor seconds of a run; None for a resumed run, whose earlier processes did not record them."""
    if seconds["epochs"] > seconds.get("this_process", 0):
        return None
    return seconds.get("this_process_of_processors")


def check_the_first(plan: dict, rows: list[str]) -> None:
    """Raise KoaError unless the plan's first row is finished or about to be trained."""
    first = next(iter(plan["rows"]))
    if first not in rows and not is_finished(first):
        raise KoaError(f"all rows are compared with {first!r}; train that one first.")


def report(plan: dict) -> None:
    """Write figures and plot of the finished rows; the first row must be among them."""
    check_the_first(plan, [])
    finished = [name for name in plan["rows"] if is_finished(name)]
    predicted = {name: Predictions.read(RESULTS / name) for name in finished}
    of_first = predicted[finished[0]]
    for name, one in predicted.items():
        if one.file_names != of_first.file_names:
            raise KoaError(f"the row {name} has other knees than {finished[0]}; train it again.")
    figures, losses = {}, {}
    for name, one in predicted.items():
        figures[name], losses[name] = figures_of(one)
    own = own_runs(plan, finished)
    of_itself = np.mean([losses[name] for name in own], axis=0)
    rows = []
    for name in finished:
        run = json.loads((RESULTS / name / "run.json").read_text())
        trained = load_recipe(RESULTS / name / "recipe.yaml")
        if _training(trained) != _training(load_recipe(plan["recipe"], settings_of(plan, name))):
            raise KoaError(f"the row {name} was trained by another recipe than {PLAN.name} has today; train it again.")
        more = losses[name] - of_itself
        rows.append(
            {
                "row": name,
                "changes": [*plan["rows"][name], *filter(None, [" ".join(options_of(plan, name))])],
                "epochs": sum(stage.epochs for stage in trained.stages),
                "seed": trained.seed,
                **figures[name],
                "is_the_recipe_itself": name in own,
                "cross_entropy_more": float(more.mean()),
                "cross_entropy_more_95": bootstrap_mean(more, of_first.patients),
                "seconds": run["seconds"]["epochs"],
                "processor_seconds": processor_seconds(run["seconds"]),
                "trained_on": run["machine"],
                "git_commit_of_run": run["git_commit"],
            }
        )
    reporting.write_result(
        RESULTS / "ablation.json",
        {"what": "one change at a time", "recipe": plan["recipe"], "small": plan["small"], "rows": rows},
    )
    by_chance = [row["cross_entropy_more"] for row in rows if row["is_the_recipe_itself"]]
    label = "cross-entropy relative to the mean of the recipe's own runs, same knees (right is worse)"
    band = (min(by_chance), max(by_chance))
    plot_differences(rows, "cross_entropy_more", label, RESULTS / "ablation.png", band)
    shown = ("accuracy", "quadratic_weighted_kappa", "macro_auc", "cross_entropy", "cross_entropy_more")
    reporting.print_table(
        f"{plan['recipe']}, small", [{"row": row["row"], **{key: round(row[key], 3) for key in shown}} for row in rows]
    )


def read_plan() -> dict:
    return yaml.safe_load(PLAN.read_text())


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    plan = read_plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder of the runs, one subfolder per row")
    parser.add_argument("--only", nargs="+", choices=list(plan["rows"]), metavar="ROW", help="train only these rows")
    args = parser.parse_args(argv)
    wanted = [name for name in plan["rows"] if not args.only or name in args.only]
    check_the_first(plan, wanted)
    for name in wanted:
        folder = args.output_dir / name
        if not is_finished(name):
            if not run_record.is_complete(folder / "run.json"):
                train(plan, name, args.dataset, folder)
            keep(folder, name)
        report(plan)


if __name__ == "__main__":
    sys.exit(main())
