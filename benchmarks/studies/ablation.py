"""What each part of a recipe is worth: one change at a time, on small images and few epochs.

    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation
    python benchmarks/studies/ablation.py --dataset data/knee-kl --output-dir runs/ablation --only as_it_is no_ema

Rows and sizes are in benchmarks/ablation.yaml. Each row is a run of train/run.py, whose settings, log and predictions
are kept in results/ablation/; what is there isn't trained again, and an interrupted row goes on from its checkpoint in
the output folder. After every row ablation.json and ablation.png are written anew: figures, and by how much each row's
cross-entropy is over that of the recipe itself on the same knees. The recipe itself is the mean of its own runs (the
first row, those with another seed, the one in float32); how far these lie from their mean is what chance does. The
intervals of the differences are over patients, for one training of each row.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from benchmarks import recording
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.calibration import read_grades
from koa_hf.grading.metrics import bootstrap_mean, grade_metrics
from train.fitting.cross_fit import cross_fit
from train.loop import plots, predictions, recipe, record
from train.loop.predictions import Predictions
from train.loop.recipe import POWERS

ROOT = Path(__file__).resolve().parents[2]

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = ROOT / "results" / "ablation"
BY_READ_OUT = ("accuracy", "quadratic_weighted_kappa", "mean_absolute_error")
KEPT = ("recipe.yaml", "metrics.jsonl", predictions.FILE, "run.json")  # the last one says that it is finished


def settings_of(plan: dict, name: str) -> list[str]:
    """What a row sets, as `train/run.py --set` takes it."""
    return [*plan["small"], *plan["rows"][name]]


def options_of(plan: dict, name: str) -> list[str]:
    """What train/run.py is told for a row besides."""
    return plan.get("options", {}).get(name, [])


def train(plan: dict, name: str, dataset: str, folder: Path) -> None:
    """Train a row from its beginning, or from where it was interrupted.

    Raises:
        KoaError: the training failed; it has said why.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += [str(ROOT / "train" / "run.py"), "--recipe", plan["recipe"], "--dataset", dataset]
    for setting in settings_of(plan, name):
        command += ["--set", setting]
    command += options_of(plan, name)
    command += ["--output-dir", str(folder), *(["--resume"] if (folder / "recipe.yaml").exists() else [])]
    if subprocess.run(command, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode:
        raise KoaError(f"the row {name} failed; its settings: {' '.join(plan['rows'][name]) or 'none'}.")


def figures_of(found: Predictions) -> tuple[dict, np.ndarray]:
    """A row's figures on validation, and its cross-entropy on each knee, float (n,).

    The temperature is fitted on other patients first: losses with soft targets leave a network too modest, which one
    number mends, and would otherwise lose to cross-entropy in cross-entropy by that alone.
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
    return record.is_finished(RESULTS / name / "run.json")


def keep(run: Path, name: str) -> None:
    """Keep of a finished run what the report and a reader need."""
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    record.keep(run, KEPT, RESULTS / name)


def own_runs(plan: dict, finished: list[str]) -> list[str]:
    """The finished rows that train the recipe itself: what differs between them is chance."""
    return [name for name in finished if all(setting.startswith("seed=") for setting in plan["rows"][name])]


def _training(plan: recipe.Recipe) -> dict:
    """All of a recipe that decides what is learned."""
    return plan.model_dump(exclude={"description", "note", "grading"})


def processor_seconds(seconds: dict) -> float | None:
    """Of a run whose one process did all epochs; of one that was interrupted they are not known."""
    if seconds["epochs"] > seconds.get("this_process", 0):
        return None
    return seconds.get("this_process_of_processors")


def check_the_first(plan: dict, rows: list[str]) -> None:
    """Refuse to go on where the plan's first row is neither finished nor among those that are trained now."""
    first = next(iter(plan["rows"]))
    if first not in rows and not is_finished(first):
        raise KoaError(f"the other rows are compared with {first!r}; train that one first.")


def report(plan: dict) -> None:
    """Write the figures and the picture from the rows that are finished; the first row must be among them."""
    check_the_first(plan, [])
    finished = [name for name in plan["rows"] if is_finished(name)]
    predicted = {name: Predictions.read(RESULTS / name) for name in finished}
    of_first = predicted[finished[0]]
    for name, one in predicted.items():
        if one.file_names != of_first.file_names:
            raise KoaError(f"the row {name} is not about the same knees as {finished[0]}; train it anew.")
    figures, losses = {}, {}
    for name, one in predicted.items():
        figures[name], losses[name] = figures_of(one)
    own = own_runs(plan, finished)
    of_itself = np.mean([losses[name] for name in own], axis=0)
    rows = []
    for name in finished:
        run = json.loads((RESULTS / name / "run.json").read_text())
        trained = recipe.load(RESULTS / name / "recipe.yaml")
        if _training(trained) != _training(recipe.load(plan["recipe"], settings_of(plan, name))):
            raise KoaError(f"the row {name} was trained by another recipe than {PLAN.name} has today; train it anew.")
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
    recording.record(
        RESULTS / "ablation.json",
        {"what": "one change at a time", "recipe": plan["recipe"], "small": plan["small"], "rows": rows},
    )
    by_chance = [row["cross_entropy_more"] for row in rows if row["is_the_recipe_itself"]]
    label = "cross-entropy over the mean of the recipe's own runs, on the same knees (right is worse)"
    band = (min(by_chance), max(by_chance))
    plots.differences(rows, "cross_entropy_more", label, RESULTS / "ablation.png", band)
    shown = ("accuracy", "quadratic_weighted_kappa", "macro_auc", "cross_entropy", "cross_entropy_more")
    recording.show(
        f"{plan['recipe']}, small", [{"row": row["row"], **{key: round(row[key], 3) for key in shown}} for row in rows]
    )


def read_plan() -> dict:
    return yaml.safe_load(PLAN.read_text())


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    plan = read_plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--output-dir", required=True, type=Path, help="where the runs are, a folder each")
    parser.add_argument("--only", nargs="+", choices=list(plan["rows"]), metavar="ROW", help="train these rows alone")
    args = parser.parse_args(argv)
    wanted = [name for name in plan["rows"] if not args.only or name in args.only]
    check_the_first(plan, wanted)
    for name in wanted:
        folder = args.output_dir / name
        if not is_finished(name):
            if not record.is_finished(folder / "run.json"):
                train(plan, name, args.dataset, folder)
            keep(folder, name)
        report(plan)


if __name__ == "__main__":
    sys.exit(main())
