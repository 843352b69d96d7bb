"""A smaller network beside the bundle: grades that both give, grades that it keeps on disturbed knees, and time.

    accelerate launch train/run.py --recipe robust-polish --start-from runs/koa-xception --teacher runs/koa-xception \\
      --dataset data/knee-kl --output-dir runs/student-160 --set image_size=160 --set batch_size=32 \\
      --set stages.0.epochs=2 --set stages.0.distillation=1 --set best_metric=last --precision fp32
    python benchmarks/speed/student.py --dataset data/knee-kl --student runs/student-160 \\
      --model models/koa-xception runs/koa-xception

All are graded as plain networks: one pass, most probable grade. The time is that of one X-ray, from file bytes to grade
with heat map. Writes results/benchmarks/student.json.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.reporting import RESULTS, print_table, write_result
from benchmarks.speed.timing import median_seconds_in_turn
from benchmarks.studies.disturbances import CLEAN, chosen
from benchmarks.studies.robustness import Gradings, Knees, figures, grade_disturbed
from koa_hf import Grader
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.grading.metrics import bootstrap_mean
from koa_hf.imaging import phantom
from koa_hf.network.model_folder import BUNDLED_MODEL
from koa_hf.progress import progress_bar

STATES = ["jpeg-50", "webp-80", "noise-8"]
BATCH = 16


def plain(model: Path | str) -> Grader:
    return Grader.from_pretrained(str(model), device="cpu", plain=True)


def gradings(grader: Grader, knees: Knees, states: list[str]) -> dict[str, Gradings]:
    """Gradings of the knees as they are and in these states, by name."""
    disturbances = chosen(states)
    with progress_bar(f"grading by {grader.model_id}", len(disturbances) * len(knees.names)) as advance:
        return {one.name: grade_disturbed(grader, knees.radiographs, one, BATCH, advance) for one in disturbances}


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--student", required=True, type=Path, help="folder of the smaller network")
    parser.add_argument(
        "--model", nargs="+", default=[BUNDLED_MODEL], help="what it is compared with (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, metavar="N", help="so many validation knees (default: all)")
    parser.add_argument("--rounds", type=int, default=30, help="timed X-rays (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "student.json")
    args = parser.parse_args()
    knees, student = Knees.of(args.dataset, args.images), plain(args.student)
    models = {name: plain(name) for name in args.model}

    file = phantom.as_png(phantom.draw_knee(2, seed=1))
    calls = {name: partial(grader.grade, file) for name, grader in models.items()}
    seconds = median_seconds_in_turn({"student": partial(student.grade, file), **calls}, args.rounds)

    own = gradings(student, knees, STATES)
    grades = own[CLEAN].grades
    agreement = {}
    for name, grader in models.items():
        theirs = gradings(grader, knees, [])[CLEAN].grades
        same = grades == theirs
        agreement[name] = {
            "revision": grader.revision,
            "same_grade": float(same.mean()),
            "same_grade_95": bootstrap_mean(same, knees.patients),
            "accuracy": float((theirs == knees.labels).mean()),
            "times_its_speed": round(seconds[name] / seconds["student"], 2),
        }
    result = {
        "what": "one pass, most probable grade, validation; times its speed: one X-ray to grade with heat map",
        "student": args.student.name,
        "revision": student.revision,
        "image_size": student.preprocessing.image_size,
        "knees": len(knees.names),
        "milliseconds": {name: round(1000 * value, 1) for name, value in seconds.items()},
        "agreement": agreement,
        "states": {name: figures(state, own[CLEAN], knees.labels, knees.patients) for name, state in own.items()},
    }
    write_result(args.output, result)
    print_table(result["what"], [{"model": name, **row} for name, row in agreement.items()])
    columns = ("accuracy", "kept", "moved_by_two", "mean_shift")
    print_table(
        "the student in each state",
        [{"state": name} | {column: row[column] for column in columns} for name, row in result["states"].items()],
    )


if __name__ == "__main__":
    sys.exit(main())
