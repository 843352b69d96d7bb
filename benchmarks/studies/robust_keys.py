"""What each key of the recipe robust-polish brings to the grades of disturbed knees, on small images.

    python benchmarks/studies/robust_keys.py --dataset data/knee-kl --start-from runs/small --output-dir runs/keys
    python benchmarks/studies/robust_keys.py --dataset data/knee-kl --start-from runs/small --output-dir runs/keys --only none

The rows, and how --start-from was trained, are in benchmarks/studies/robust_keys.yaml. Each is a run of train/run.py;
finished rows are not trained or graded again. Every row then grades validation's knees, clean and disturbed, as a plain
network. Writes results/robustness/keys.csv (the rows so far) and the table of docs/training.md comes from it.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
import yaml

from benchmarks import reporting
from benchmarks.studies import ablation
from benchmarks.studies.disturbances import CLEAN, chosen
from benchmarks.studies.robustness import Gradings, Knees, figures, grade_disturbed
from koa_hf import Grader
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.progress import progress_bar

PLAN = Path(__file__).with_suffix(".yaml")
RESULT = reporting.RESULTS / "robustness" / "keys.csv"
START = "start"  # the row of the network that all others continue
FIGURES = ("accuracy", "quadratic_weighted_kappa", "kept", "moved_by_two", "mean_shift")
COLUMNS = ("row", "change", "state", *FIGURES)


def grade(model: Path, knees: Knees, states: list[str], folder: Path) -> list[dict]:
    """Figures of a plain network in each state, graded once and kept in the folder."""
    grader, found = None, {}
    with progress_bar(f"grading {folder.name}", len(states) * len(knees.names)) as advance:
        for disturbance in chosen(states):
            path = folder / f"{disturbance.name}.npz"
            if (state := Gradings.load(path, knees.names)) is None:
                grader = grader or Grader.from_pretrained(str(model), device="cpu", plain=True)
                state = grade_disturbed(grader, knees.radiographs, disturbance, 16, advance)
                state.save(path, knees.names)
            else:
                advance(len(knees.names))
            found[disturbance.name] = state
    return [
        {"state": name, **figures(state, found[CLEAN], knees.labels, knees.patients)} for name, state in found.items()
    ]


def write(rows: list[dict]) -> None:
    """The rows so far, and for each one the mean of every figure over the disturbed states."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == name]
        disturbed = [row for row in own if row["state"] != CLEAN]
        mean = {figure: float(np.mean([row[figure] for row in disturbed])) for figure in FIGURES}
        for row in [*own, {**own[0], "state": "mean of the disturbed", **mean}]:
            writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(RESULT, text.getvalue())


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    plan = yaml.safe_load(PLAN.read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--start-from", required=True, type=Path, help="finished run that every row continues")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder of the runs, one subfolder per row")
    parser.add_argument("--only", nargs="+", choices=list(plan["rows"]), metavar="ROW", help="train only these rows")
    args = parser.parse_args(argv)
    plan["common"] += ["--start-from", str(args.start_from)]
    knees = Knees.of(args.dataset, None)
    for name in args.only or plan["rows"]:
        ablation.train(plan, name, args.dataset, args.output_dir / name)
        grade(args.output_dir / name, knees, plan["states"], args.output_dir / name / "gradings")
    finished = [name for name in plan["rows"] if (args.output_dir / name / "gradings" / f"{plan['states'][-1]}.npz").exists()]
    models = {START: args.start_from, **{name: args.output_dir / name for name in finished}}
    rows = [
        {"row": name, "change": "; ".join(plan["rows"].get(name, [])), **row}
        for name, model in models.items()
        for row in grade(model, knees, plan["states"], model / "gradings")
    ]
    write(rows)


if __name__ == "__main__":
    sys.exit(main())
