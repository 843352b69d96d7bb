"""Grades of validation knees after what people do to images: JPEG, noise, blur, few pixels, windows, strips and more.

    python benchmarks/studies/robustness.py --dataset data/knee-kl                       # the bundled model, all knees
    python benchmarks/studies/robustness.py --dataset data/knee-kl --model runs/strong-gpu runs/robust user/koa-xception
    python benchmarks/studies/robustness.py --dataset data/knee-kl --images 40 --only 'jpeg-*' webp-80   # a quick look
    python benchmarks/studies/robustness.py                                  # picture and README anew from the JSON

Each knee goes through the whole Grader, clean and disturbed (benchmarks/studies/disturbances.py; needs
requirements-dev.txt). Gradings are kept under runs/robustness/, so a run that was stopped goes on where it was.

Writes results/robustness/: robustness.json and robustness.csv (every model measured so far, one row for each
disturbance), robustness.png, README.md. With --images the results go to runs/robustness/N-images/ instead.
"""

import argparse
import csv
import hashlib
import io
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.reporting import RESULTS, ROOT, save_figure
from benchmarks.studies.disturbances import CLEAN, DISTURBANCES, Disturbance, chosen
from koa_hf import Grader
from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import replacing, write_text
from koa_hf.grading.examination import examine
from koa_hf.grading.metrics import bootstrap_mean, grade_metrics, roc_auc
from koa_hf.grading.result import Grading
from koa_hf.imaging import radiograph
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network.engine_names import ENGINES, PRECISIONS
from koa_hf.network.model_folder import BUNDLED_MODEL
from koa_hf.progress import progress_bar
from train.loop.knee_images import choose_split
from train.loop.run_record import command_line, git_commit, processor

WORK = ROOT / "runs" / "robustness"

FIGURES = ("accuracy", "quadratic_weighted_kappa", "macro_auc", "balanced_accuracy")
COLUMNS = (*FIGURES, "kept", "moved_by_two", "mean_shift", "coverage", "mean_set_size", "out_of_distribution")
KEY = ("name", "revision", "rules", "precision", "engine", "images", "dataset")
"""Key of a model's entry: a later measurement replaces an earlier one of the same key."""

_CLEAN = {"accuracy": 0.710, "quadratic_weighted_kappa": 0.842, "macro_auc": 0.905, "balanced_accuracy": 0.69}
_LIGHT = {"accuracy": 0.705, "quadratic_weighted_kappa": 0.838, "kept": 0.91, "moved_by_two": 0.01, "mean_shift": 0.03}
_MODERATE = {
    **{"accuracy": 0.695, "quadratic_weighted_kappa": 0.825},
    **{"kept": 0.86, "moved_by_two": 0.02, "mean_shift": 0.05},
}
_STRONG = {"accuracy": 0.675, "quadratic_weighted_kappa": 0.805, "kept": 0.82, "moved_by_two": 0.03, "mean_shift": 0.1}
GOALS: dict[str, dict[str, float]] = {
    CLEAN: _CLEAN,
    "jpeg-75": _LIGHT,
    **dict.fromkeys(("jpeg-50", "webp-80", "noise-8", "pixels-0.5"), _MODERATE),
    **dict.fromkeys(("jpeg-30", "pixels-0.4"), _STRONG),
}
"""Disturbance -> figure -> goal: least accuracy, agreement and share kept; most moved; largest shift either way."""


@dataclass(frozen=True)
class Gradings:
    """A model's gradings of the same knees in one state.

    Attributes:
        grades: int (n,), 0 to 4, as told.
        probabilities: float (n, 5).
        sets: int (n, 2), lowest and highest grade of the prediction sets; None where the model states none.
        unfamiliarity: float (n,), over 1 is out of distribution; None where the model can't tell.
    """

    grades: np.ndarray
    probabilities: np.ndarray
    sets: np.ndarray | None
    unfamiliarity: np.ndarray | None

    def save(self, path: Path, file_names: list[str]) -> None:
        """Write them, with the knees' names, whole or not at all."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as opened:
            np.savez_compressed(opened, file_names=np.array(file_names), **arrays)

    @classmethod
    def load(cls, path: Path, file_names: list[str]) -> "Gradings | None":
        """Read what `save` wrote; None if that is missing or shows other knees."""
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            if arrays["file_names"].tolist() != file_names:
                return None
            return cls(*(arrays.get(name) for name in ("grades", "probabilities", "sets", "unfamiliarity")))


def graded(grader: Grader, knees: list[Radiograph], search: bool) -> list[tuple]:
    """Grade some knees in one forward pass: (grade, probabilities, prediction set, unfamiliarity) of each.

    Args:
        search: find the knee in each image first, as on a film. Of several, the largest counts.
    """
    if search:
        found = [max((knee.grading for knee in film.knees), key=_area) for film in examine(grader, knees)]
    else:
        found = grader.grade_batch(knees)
    return [(one.grade, one.probabilities, one.grade_set, one.unfamiliarity) for one in found]


def _area(grading: Grading) -> int:
    left, top, right, bottom = grading.box or (0, 0, 0, 0)
    return (right - left) * (bottom - top)


def grade_disturbed(
    grader: Grader, knees: list[Radiograph], disturbance: Disturbance, batch_size: int, advance
) -> Gradings:
    """Disturb and grade every knee; `advance` is called with the number of knees after each batch."""
    rows = []
    for start in range(0, len(knees), batch_size):
        batch = knees[start : start + batch_size]
        disturbed = [Radiograph(disturbance(knee.pixels, knee.name), knee.name) for knee in batch]
        rows += graded(grader, disturbed, disturbance.search)
        advance(len(batch))
    grades, probabilities, sets, unfamiliarity = zip(*rows, strict=True)
    return Gradings(
        np.array(grades),
        np.array(probabilities),
        None if sets[0] is None else np.array(sets),
        None if unfamiliarity[0] is None else np.array(unfamiliarity),
    )


def figures(gradings: Gradings, clean: Gradings, labels: np.ndarray, patients: np.ndarray) -> dict:
    """The figures of one disturbance.

    accuracy, quadratic_weighted_kappa, macro_auc, balanced_accuracy: against the reader's grades `labels`, int (n,).
    kept, moved_by_two: shares of knees with the model's own clean grade, and with one at least two away from it.
    mean_shift: mean of grade minus clean grade.
    coverage, mean_set_size: share of prediction sets that hold the reader's grade, and grades in them.
    out_of_distribution: share of knees that are called so.
    {accuracy,kept}_95: intervals, resampling `patients`.

    A figure that the model's rules do not give is None.
    """
    against_reader = grade_metrics(gradings.probabilities, labels, gradings.grades)
    right, moved = gradings.grades == labels, gradings.grades - clean.grades
    found = {name: against_reader[name] for name in FIGURES} | {
        "kept": float((moved == 0).mean()),
        "moved_by_two": float((np.abs(moved) >= 2).mean()),
        "mean_shift": float(moved.mean()),
        "coverage": None,
        "mean_set_size": None,
        "out_of_distribution": None,
    }
    if gradings.sets is not None:
        found["coverage"] = float(_holds(gradings.sets, labels).mean())
        found["mean_set_size"] = float(np.ptp(gradings.sets, axis=1).mean() + 1)
    if gradings.unfamiliarity is not None:
        found["out_of_distribution"] = float((gradings.unfamiliarity > 1).mean())
    found["accuracy_95"] = bootstrap_mean(right, patients)
    found["kept_95"] = bootstrap_mean(moved == 0, patients)
    return found


def _holds(sets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (sets[:, 0] <= labels) & (labels <= sets[:, 1])


def errors_told_by_distance(states: list[Gradings], labels: np.ndarray) -> dict[str, float] | None:
    """AUROC of the distance from the training knees for errors, over all disturbances together (0.5: not).

    wrong_by_two: the grade is at least two away from the reader's. set_misses: the prediction set doesn't hold it.
    None where the model can't tell what is out of distribution.
    """
    if any(state.unfamiliarity is None for state in states):
        return None
    errors = {"wrong_by_two": [np.abs(state.grades - labels) >= 2 for state in states]}
    if all(state.sets is not None for state in states):
        errors["set_misses"] = [~_holds(state.sets, labels) for state in states]
    distance = np.concatenate([state.unfamiliarity for state in states])[:, None]
    areas = {name: float(roc_auc(np.concatenate(wrong)[:, None], distance)[0]) for name, wrong in errors.items()}
    return {name: area for name, area in areas.items() if np.isfinite(area)}


def entry_of(grader: Grader, model: str, images: int, dataset: str) -> dict:
    """The keys of `KEY` for a loaded model: folders by their last name, and rules by a digest of what they do."""
    rules = grader.rules.model_dump(mode="json", exclude={"fitted_on", "held_out"})
    return {
        "name": Path(model).resolve().name if Path(model).is_dir() else model,
        "revision": grader.revision,
        "rules": hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:8],
        "precision": grader.precision,
        "engine": grader.engine,
        "images": images,
        "dataset": dataset,
        "image_size": grader.preprocessing.image_size,
        "coverage": grader.rules.sets.coverage if grader.rules.sets else None,
    }


def merged(models: list[dict], entry: dict) -> list[dict]:
    """The models with this one's entry added, or in the place of one with the same `KEY`; other rows of it are kept."""
    for i, earlier in enumerate(models):
        if _key(earlier) == _key(entry):
            return [*models[:i], {**entry, "rows": {**earlier["rows"], **entry["rows"]}}, *models[i + 1 :]]
    return [*models, dict(entry)]


def _key(entry: dict) -> list:
    return [entry[name] for name in KEY]


def labels_of(models: list[dict]) -> list[str]:
    """Names of the models in tables: name and revision, and whatever else tells one from the others."""
    short = [f"{one['name']} {one['revision'][:12]}" for one in models]
    return [
        f"{label} ({one['precision']}, {one['engine']}, rules {one['rules'][:4]})" if short.count(label) > 1 else label
        for label, one in zip(short, models, strict=True)
    ]


def write(models: list[dict], folder: Path) -> None:
    """robustness.json, and the same as robustness.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {"disturbances": {one.name: f"{one.group}: {one.label}".lstrip(": ") for one in DISTURBANCES}}
    write_text(folder / "robustness.json", json.dumps({**text, "goals": GOALS, "models": models}, indent=1) + "\n")
    table = io.StringIO()
    names = ("disturbance", *KEY, *COLUMNS, "accuracy_95_low", "accuracy_95_high")
    writer = csv.DictWriter(table, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for one in models:
        for name, row in _in_order(one["rows"]):
            low, high = row["accuracy_95"]
            between = {"accuracy_95_low": low, "accuracy_95_high": high}
            values = {**one, **row, **between, "disturbance": name}  # the row's coverage, not the nominal one
            writer.writerow(
                {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in values.items()}
            )
    write_text(folder / "robustness.csv", table.getvalue())


def _in_order(rows: dict[str, dict]) -> list[tuple[str, dict]]:
    return [(one.name, rows[one.name]) for one in DISTURBANCES if one.name in rows]


def _percent(share: float | None, digits: int = 0) -> str:
    return "" if share is None else f"{share * 100:.{digits}f} %"


def steadiness_cell(row: dict | None) -> str:
    """Accuracy (grades kept, moved by two or more, mean shift); empty where it wasn't measured."""
    if row is None:
        return ""
    moved = f"{_percent(row['kept'])}, {_percent(row['moved_by_two'], 1)}, {row['mean_shift']:+.2f}"
    return f"{row['accuracy']:.3f} ({moved})"


def steadiness_goal(goal: dict | None) -> str:
    """A goal as `steadiness_cell` writes what was measured."""
    if not goal:
        return ""
    if "kept" not in goal:
        return f"{goal['accuracy']:.3f}"
    return f"{goal['accuracy']:.3f} ({_percent(goal['kept'])}, {_percent(goal['moved_by_two'])}, ±{goal['mean_shift']})"


def claims_cell(row: dict | None) -> str:
    """QWK (coverage of the prediction set, called out of distribution)."""
    if row is None:
        return ""
    claims = ", ".join(_percent(row[name]) or "none" for name in ("coverage", "out_of_distribution"))
    kappa = row["quadratic_weighted_kappa"]
    return f"{'undefined' if kappa is None else f'{kappa:.3f}'} ({claims})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_disturbance(models: list[dict], cell, goal) -> str:
    rows, group = [], ""
    for one in DISTURBANCES:
        found = [model["rows"].get(one.name) for model in models]
        if not any(found):
            continue
        if one.group != group:
            group = one.group
            rows.append([f"**{group}**", *[""] * (len(models) + 1)])
        rows.append([one.label, goal(GOALS.get(one.name)), *map(cell, found)])
    return _table(["", "goal", *labels_of(models)], rows)


def _clean_table(models: list[dict]) -> str:
    def told(model: dict, name: str) -> str:
        row = model["rows"][CLEAN]
        value = "undefined" if row[name] is None else f"{row[name]:.3f}"
        return value + (" ({:.3f} to {:.3f})".format(*row["accuracy_95"]) if name == "accuracy" else "")

    def area(model: dict, name: str) -> str:
        value = (model.get("errors_told_by_distance") or {}).get(name)
        return "" if value is None else f"{value:.2f}"

    rows = [[name.replace("_", " "), str(_CLEAN[name]), *(told(one, name) for one in models)] for name in FIGURES]
    for name, label in (("wrong_by_two", "grade wrong by two or more"), ("set_misses", "prediction set misses")):
        rows.append([f"AUROC of the distance for: {label}", "", *(area(one, name) for one in models)])
    return _table(["", "goal", *labels_of(models)], rows)


def _measured_table(models: list[dict]) -> str:
    rows = []
    for label, one in zip(labels_of(models), models, strict=True):
        computed = f"{one['precision']}, {one['engine']}, {one['image_size']} px"
        last = one["measured"][-1]
        minutes = f"{sum(part['minutes'] for part in one['measured']):.0f}"
        command_line, machine = f"`{last['command']}`", last["machine"]
        rows.append([label, str(one["images"]), computed, last["date"], minutes, machine, command_line])
    return _table(["", "knees", "computed in", "date", "minutes", "machine", "command"], rows)


README = """\
# Grades that hold: validation knees, clean and disturbed

Each knee of the validation split is graded by the whole Grader: clean, and disturbed as files, consoles and people do
it (`benchmarks/studies/disturbances.py`, which shares no code with the training's augmentation). The disturbed grade is
compared with the reader's, and with the same model's grade of the clean crop. `robustness.csv` has every figure, and
`robustness.json` also where it was measured. Written by `benchmarks/studies/robustness.py`; `keys.json` by
`benchmarks/studies/robust_keys.py`.

![Accuracy, grades kept, moves and shift by disturbance](robustness.png)

## Clean

In brackets the 95 % interval, resampling patients. The distance is that from the training knees, by which an image is
called out of distribution; its area under the ROC curve is over all disturbances together, and 0.5 says nothing.

{clean}

## Grades

Accuracy (grades kept, grades moved by two or more, mean shift of the grade). Goals are the least accuracy and share
kept, the most moved, and the largest shift either way.

{steadiness}

## Agreement and claims

Quadratic weighted kappa (share of prediction sets that hold the reader's grade, share called out of distribution).
{nominal}

{claims}

## Measured

{measured}
"""


def write_page(models: list[dict], folder: Path) -> None:
    """README.md and robustness.png, of the models whose clean knees were graded."""
    if not (models := [one for one in models if CLEAN in one["rows"]]):
        return
    nominal = sorted({one["coverage"] for one in models} - {None})
    stated = f"The sets are built to hold {' or '.join(map(_percent, nominal))} on clean knees." if nominal else ""
    text = README.format(
        clean=_clean_table(models),
        steadiness=_by_disturbance(models, steadiness_cell, steadiness_goal),
        claims=_by_disturbance(models, claims_cell, lambda goal: str(goal["quadratic_weighted_kappa"]) if goal else ""),
        nominal=stated,
        measured=_measured_table(models),
    )
    write_text(folder / "README.md", text.replace("\n\n\n", "\n\n"))
    save_figure(picture(models), folder / "robustness.png")


PANELS = (
    ("accuracy", "accuracy", 1, None),
    ("kept", "grades kept, %", 100, None),
    ("moved_by_two", "moved by two or more, %", 100, 0),
    ("mean_shift", "mean shift, grades", 1, None),
)


def picture(models: list[dict]) -> Figure:
    """Four panels side by side, one row for each disturbance, one colour for each model, goals as dark marks."""
    places, headings, place = {}, [], 0.0
    for one in DISTURBANCES:
        if not any(one.name in model["rows"] for model in models):
            continue
        if one.group not in ("", *(heading for heading, _ in headings)):
            headings.append((one.group, place + 0.4))
            place += 1.2
        places[one.name] = place
        place += 1
    labels = {one.name: one.label for one in DISTURBANCES}
    figure = Figure(figsize=(15, 1.6 + 0.27 * place), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    offsets = (np.arange(len(models)) - (len(models) - 1) / 2) * min(0.22, 0.6 / len(models))
    for axis, (name, title, scale, least) in zip(axes, PANELS, strict=True):
        for i, (model, called) in enumerate(zip(models, labels_of(models), strict=True)):
            rows = _in_order(model["rows"])
            at = np.array([places[row] for row, _ in rows]) + offsets[i]
            values = np.array([row[name] for _, row in rows]) * scale
            if f"{name}_95" in rows[0][1]:
                ends = np.array([row[f"{name}_95"] for _, row in rows]).T * scale
                axis.hlines(at, *ends, color=f"C{i}", lw=1.2, alpha=0.45)
            axis.plot(values, at, "o", ms=5, color=f"C{i}", label=called)
        goals = [(places[row], goal[name] * scale) for row, goal in GOALS.items() if row in places and name in goal]
        for sign in (1, -1) if name == "mean_shift" else (1,):
            marks = axis.plot(
                [sign * goal for _, goal in goals], [at for at, _ in goals], "|", color="0.15", ms=11, mew=2, zorder=1
            )[0]
        marks.set_label("goal")
        if name == "mean_shift":
            axis.axvline(0, color="0.6", lw=1)
        axis.set_xlim(left=least)
        axis.set_xlabel(title)
        axis.grid(alpha=0.3, axis="x")
        axis.set_yticks(list(places.values()), [labels[row] for row in places])
        axis.set_ylim(place - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        for at in list(places.values())[1::2]:
            axis.axhspan(at - 0.5, at + 0.5, color="0.965", zorder=0)
    for heading, at in headings:
        axes[0].text(
            -0.02, at, heading, transform=axes[0].get_yaxis_transform(), ha="right", va="center", weight="bold"
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


@dataclass(frozen=True)
class Knees:
    """Validation knees, and what is known of them: the reader's grades, int (n,), and the patients' ids."""

    radiographs: list[Radiograph]
    labels: np.ndarray
    patients: np.ndarray
    fingerprint: str

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.radiographs]

    @classmethod
    def of(cls, dataset: str, number: int | None) -> "Knees":
        """The validation knees of a built data set, or so many of them, evenly spaced over the grades."""
        split = choose_split(load_dataset(dataset), "validation", dataset)
        if number and number < len(split):
            split = split.select(np.linspace(0, len(split) - 1, number).round().astype(int).tolist())
        pairs = zip(split["image"], split["file_name"], strict=True)
        radiographs = [radiograph.read(image, name) for image, name in pairs]
        fingerprint = dataset_fingerprint(split)[:12]
        return cls(radiographs, np.array(split["label"]), np.array(split["patient_id"]), fingerprint)


def measure(args: argparse.Namespace, folder: Path, models: list[dict]) -> list[dict]:
    """Grade what wasn't graded yet, write results after each disturbance, and return the entries of all models."""
    knees, disturbances = Knees.of(args.dataset, args.images), chosen(args.only)
    with progress_bar("grading", len(args.model) * len(disturbances) * len(knees.radiographs)) as advance:
        for model in args.model:
            device = "cpu" if args.cpu else None
            grader = Grader.from_pretrained(
                model, device=device, precision=args.precision, plain=args.plain, engine=args.engine
            )
            entry = entry_of(grader, model, len(knees.radiographs), knees.fingerprint)
            earlier = next((one["measured"] for one in models if _key(one) == _key(entry)), [])
            at = "-".join(str(entry[name]) for name in ("name", "revision", "rules", "precision", "engine"))
            gradings = WORK / "gradings" / at.replace("/", "--")
            on_gpu = grader.device.type == "cuda"
            machine = torch.cuda.get_device_name(grader.device) if on_gpu else processor()
            began, here = time.perf_counter(), {"command": command_line("python"), "machine": machine}
            here |= {"git_commit": git_commit()}
            for disturbance in disturbances:
                path = gradings / f"{disturbance.name}.npz"
                state = None if args.overwrite else Gradings.load(path, knees.names)
                if graded_before := state is not None:
                    advance(len(knees.radiographs))
                else:
                    state = grade_disturbed(grader, knees.radiographs, disturbance, args.batch_size, advance)
                    state.save(path, knees.names)
                    minutes = round((time.perf_counter() - began) / 60, 2)
                    here |= {"date": datetime.now(UTC).date().isoformat(), "minutes": minutes}
                clean = Gradings.load(gradings / f"{CLEAN}.npz", knees.names)
                row = figures(state, clean, knees.labels, knees.patients)
                entry |= {"measured": [*earlier, here] if "date" in here else earlier, "rows": {disturbance.name: row}}
                models = merged(models, entry)
                write(models, folder)
                if not graded_before:
                    _log(f"{at} {disturbance.name}: {steadiness_cell(row)}, {len(knees.names)} knees, {minutes} min")
            paths = [gradings / f"{one.name}.npz" for one in DISTURBANCES]
            states = [state for path in paths if (state := Gradings.load(path, knees.names))]
            models = merged(models, {**entry, "errors_told_by_distance": errors_told_by_distance(states, knees.labels)})
            write(models, folder)
            write_page(models, folder)
    return models


def _log(line: str) -> None:
    with (WORK / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", help="a built data set's folder, or its id on the Hub; without it nothing is graded"
    )
    parser.add_argument(
        "--model", nargs="+", default=[BUNDLED_MODEL], help="model folders or Hub ids (default: the bundled model)"
    )
    parser.add_argument(
        "--plain", action="store_true", help="networks without their rules: argmax of softmax, one pass"
    )
    parser.add_argument("--images", type=int, metavar="N", help="so many knees, evenly spaced (default: all)")
    names = ", ".join(one.name for one in DISTURBANCES)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"these, by name or pattern, and the clean knees: {names}"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what computes (default: as the demo)")
    parser.add_argument("--cpu", action="store_true", help="grade on the CPU even where there is a GPU")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="grade anew, as after a change of the Grader's code")
    parser.add_argument("--output-dir", type=Path, help="default: results/robustness, or runs/ for part of the knees")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    folder = args.output_dir or (WORK / f"{args.images}-images" if args.images else RESULTS / "robustness")
    found = folder / "robustness.json"
    models = json.loads(found.read_text())["models"] if found.is_file() else []
    if args.dataset:
        models = measure(args, folder, models)
    else:
        write(models, folder)
        write_page(models, folder)
    print(f"written to {folder}: {len(models)} model{'s' if len(models) != 1 else ''}")


if __name__ == "__main__":
    sys.exit(main())
