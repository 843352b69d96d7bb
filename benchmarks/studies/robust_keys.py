"""Ablation of the disturbances in the recipe robust-polish, on small images: grades kept on disturbed knees.

    python benchmarks/studies/robust_keys.py --dataset data/knee-kl --start-from runs/small --output-dir runs/keys
    python benchmarks/studies/robust_keys.py ... --only as_it_is none        # train only these rows

The rows, and how --start-from was trained, are in benchmarks/studies/robust_keys.yaml. Each is a run of train/run.py;
finished rows are not trained or graded again. Every row then grades validation's knees, clean and disturbed, as a plain
network. After every row, results/robustness/keys.json gets the rows so far. `benchmarks/tables/recipe_tables.py` makes
a table of them.
"""

import json
import sys
from pathlib import Path

import yaml

from benchmarks import reporting
from benchmarks.studies import ablation
from benchmarks.studies.disturbances import CLEAN, chosen
from benchmarks.studies.robustness import Gradings, Knees, figures, grade_disturbed
from koa_hf import Grader
from koa_hf.checksums import sha256
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.metrics import bootstrap_mean
from koa_hf.network.model_folder import WEIGHTS_FILE
from koa_hf.progress import progress_bar

PLAN = Path(__file__).with_suffix(".yaml")
RESULT = reporting.RESULTS / "robustness" / "keys.json"
START = "start"  # the row of the network that all others continue
FIGURES = ("accuracy", "kept", "moved_by_two", "mean_shift")


def graded_figures(model: Path, knees: Knees, states: list[str]) -> dict[str, dict]:
    """A plain network's `FIGURES` in each state, and over the disturbed ones the share of grades kept, with its
    interval. Gradings are kept in the model's folder.
    """
    grader, found, disturbances = None, {}, chosen(states)
    with progress_bar(f"grading by {model.name}", len(disturbances) * len(knees.names)) as advance:
        for disturbance in disturbances:
            path = model / "gradings" / f"{disturbance.name}.npz"
            if (state := Gradings.load(path, knees.names)) is None:
                grader = grader or Grader.from_pretrained(str(model), device="cpu", plain=True)
                state = grade_disturbed(grader, knees.radiographs, disturbance, 16, advance)
                state.save(path, knees.names)
            else:
                advance(len(knees.names))
            found[disturbance.name] = state
    clean = found[CLEAN]
    rows = {name: figures(state, clean, knees.labels, knees.patients) for name, state in found.items()}
    kept = sum((found[name].grades == clean.grades) / len(states) for name in states)
    return {
        "states": {name: {figure: row[figure] for figure in FIGURES} for name, row in rows.items()},
        "kept": float(kept.mean()),
        "kept_95": bootstrap_mean(kept, knees.patients),
    }


def report(plan: dict, start: Path, folder: Path, knees: Knees) -> None:
    """Write the figures of the start and of every finished row.

    Raises:
        KoaError: a row was trained by another recipe than the plan has today, or continues another network.
    """
    revision = sha256(start / WEIGHTS_FILE)[:12]
    rows = {START: graded_figures(start, knees, plan["states"])}
    for name, changes in plan["rows"].items():
        if ablation.is_finished(folder / name):
            ablation.check_row(plan, name, folder / name)
            if json.loads((folder / name / "run.json").read_text())["started_from"]["revision"] != revision:
                raise KoaError(f"the row {name} continues another network than {start}; train it again.")
            rows[name] = {"changes": changes, **graded_figures(folder / name, knees, plan["states"])}
    reporting.write_result(RESULT, {"start_revision": revision, "dataset": knees.fingerprint, "rows": rows})


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    plan = yaml.safe_load(PLAN.read_text())
    parser = ablation.parser_of(plan, __doc__)
    parser.add_argument("--start-from", required=True, type=Path, help="finished run that every row continues")
    args = parser.parse_args(argv)
    plan["common"] += ["--start-from", str(args.start_from)]
    knees = Knees.of(args.dataset, None)
    for name in args.only or plan["rows"]:
        ablation.train(plan, name, args.dataset, args.output_dir / name)
        report(plan, args.start_from, args.output_dir, knees)


if __name__ == "__main__":
    sys.exit(main())
