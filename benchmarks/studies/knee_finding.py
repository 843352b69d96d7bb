"""Accuracy of the localiser on films composed of the validation split's crops.

    python benchmarks/studies/knee_finding.py --dataset data/knee-kl
    python benchmarks/studies/knee_finding.py --dataset data/knee-kl --films 10 --knees 40 --output-dir runs/localiser
    python benchmarks/studies/knee_finding.py --dataset data/knee-kl --only grades         # for another bundled model

Measured: recall, false finds, box errors, laterality and time by kind of film; the release's own crops, which must be
left whole; pictures without a knee; and the share of knees that keep the grade of their crop on a film, in the box
found and in the true box (the latter shows the effect of resampling alone). Writes localiser.json, tables.md and
localiser.png, none of which contains an X-ray.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors import safe_open

from benchmarks.reporting import RESULTS, save_figure
from benchmarks.tables import pages
from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import localiser, orientation, phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.progress import progress_bar
from train.fitting.localiser_films import OTHER_KINDS, KneePair, knee_pairs
from train.loop.run_record import git_commit, processor
from train.pictures import not_knees
from train.pictures.composites import BOTH, KINDS, Composite, compose

RELEASE = 224  # width of the release's crops, pixels
SCALES = (0.4, 1.5)  # crop size on the film, relative to the release
FOUND = 0.5  # least intersection over union of a find and its knee
GRADED_KINDS = ("single", "bilateral", "full leg", "collimated")
"""Kinds that show whole crops; strips, which cut off much of them, are reported apart."""

TARGET = "larger films"
PARTS = ("films", "crops", "grades", "other_pictures")
"""Parts of the report."""


def scale(rng: np.random.Generator) -> float:
    low, high = np.log(SCALES)
    return float(np.exp(rng.uniform(low, high)))


def film(kind: str, pair: KneePair, number: int, varied: bool, negative: bool = False) -> tuple[Composite, list[int]]:
    """Film of that number, and the indices of the pair's knees on it."""
    rng = np.random.default_rng((KINDS.index(kind), number, varied, negative))
    shown = [0, 1] if kind in BOTH or (kind == "collimated" and number % 2) else [number // 2 % 2]
    size = round(RELEASE * scale(rng))
    return compose(kind, [pair[i] for i in shown], rng, size, varied, negative), shown


def turned(composite: Composite) -> Composite:
    """The film upside down, with its boxes."""
    boxes = tuple(localiser.turned_box(box, composite.pixels.shape) for box in composite.boxes)
    return dataclasses.replace(composite, pixels=orientation.rotated_180(composite.pixels), boxes=boxes)


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    shared = np.prod([max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


def matched(knees: Sequence[localiser.KneeBox], boxes: Sequence[Sequence[float]]) -> list[localiser.KneeBox | None]:
    """The find that matches each true box, or None."""
    best = [max(knees, key=lambda knee: overlap(knee.box, box), default=None) for box in boxes]
    return [knee if knee and overlap(knee.box, box) >= FOUND else None for knee, box in zip(best, boxes, strict=True)]


def finds(pairs: Sequence[KneePair], films: int) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """Figures by kind of film; and overlap, centre error and width error of every find."""
    kinds = {kind: (kind, False, False) for kind in KINDS}
    kinds |= {"negative, bilateral": ("bilateral", True, False), "upside down, bilateral": ("bilateral", False, True)}
    table, errors = {}, {}
    for name, (kind, negative, upside_down) in kinds.items():
        rows, false, seconds, sides = [], 0, [], []
        for number in _progress(f"films: {name}", range(films)):
            composite, _ = film(kind, pairs[number % len(pairs)], number, varied=True, negative=negative)
            composite = turned(composite) if upside_down else composite
            xray = Radiograph(composite.pixels, "film")
            began = time.process_time()
            knees = localiser.find_knees(xray)
            seconds.append(time.process_time() - began)
            partners = matched(knees, composite.boxes)
            false += len(knees) - len({id(knee) for knee in partners if knee})
            for knee, box, side in zip(partners, composite.boxes, composite.sides, strict=True):
                rows.append(_errors(knee.box, box) if knee else (0.0, np.nan, np.nan))
                sides += [knee.side and knee.side == side] if knee else []
        found = np.array(rows)
        hit = found[:, 0] >= FOUND
        errors[name] = found[hit]
        table[name] = {
            "films": films,
            "knees": len(found),
            "recall": float(hit.mean()),
            "false_finds_a_film": false / films,
            "overlap_median": float(np.median(found[hit, 0])),
            "overlap_5th_percentile": float(np.percentile(found[hit, 0], 5)),
            "centre_error_median": float(np.median(found[hit, 1])),
            "centre_error_95th_percentile": float(np.percentile(found[hit, 1], 95)),
            "width_error_median": float(np.median(np.abs(found[hit, 2]))),
            "width_error_95th_percentile": float(np.percentile(np.abs(found[hit, 2]), 95)),
            **_laterality(sides),
            "milliseconds_median": 1000 * float(np.median(seconds)),
            "milliseconds_95th_percentile": 1000 * float(np.percentile(seconds, 95)),
        }
    return table, errors


def _laterality(sides: Sequence[bool | None]) -> dict[str, float]:
    """Shares of knees with right, wrong and unknown laterality."""
    return {
        "side_right": sides.count(True) / len(sides),
        "side_wrong": sides.count(False) / len(sides),
        "side_not_told": sides.count(None) / len(sides),
    }


def _errors(box: Sequence[float], true: Sequence[float]) -> tuple[float, float, float]:
    """Overlap, distance of the centres in true widths, relative width error."""
    width = true[2] - true[0]
    away = [(box[i] + box[i + 2] - true[i] - true[i + 2]) / 2 for i in (0, 1)]
    return overlap(box, true), float(np.hypot(*away)) / width, (box[2] - box[0]) / width - 1


def crops_as_they_are(pairs: Sequence[KneePair]) -> dict[str, dict]:
    """Figures for images that are crops already."""
    crops = [crop for pair in pairs for crop in pair]
    drawn = [
        (phantom.draw_knee(seed % NUM_GRADES, seed, side), side) for seed in range(100) for side in ("right", "left")
    ]
    sets = {
        "crops of the release": [(crop.pixels, crop.side) for crop in crops],
        "the same, inverted": [(255 - crop.pixels, crop.side) for crop in crops],
        "the same, upside down": [(orientation.rotated_180(crop.pixels), crop.side) for crop in crops],
        "drawn knees": drawn,
    }
    table = {}
    for name, images in sets.items():
        found, sides, seconds = [], [], []
        for pixels, side in _progress(name, images):
            began = time.process_time()
            knees = localiser.find_knees(Radiograph(pixels, "crop"))
            seconds.append(time.process_time() - began)
            found.append("nothing" if not knees else "whole" if knees[0].whole else "cut")
            sides += [knees[0].side and knees[0].side == side] if knees else []
        table[name] = {
            "images": len(images),
            **{what: found.count(what) / len(found) for what in ("whole", "cut", "nothing")},
            **_laterality(sides),
            "milliseconds_median": 1000 * float(np.median(seconds)),
        }
    return table


def other_pictures(pairs: Sequence[KneePair], images: int) -> dict[str, dict]:
    """Finds in pictures other than an ordinary film of a knee."""
    knees = [crop.pixels for pair in pairs for crop in pair]
    table = {}
    for kind in _progress("other pictures", not_knees.KINDS):
        found = [localiser.find_knees(Radiograph(p, kind)) for p in not_knees.images(kind, knees, images, seed=1)]
        whole = [len(one) == 1 and one[0].whole for one in found]
        table[kind] = {
            "images": images,
            "fitted_on": kind in OTHER_KINDS,
            "nothing": float(np.mean([not one for one in found])),
            "whole": float(np.mean(whole)),
            "one_box": float(np.mean([len(one) == 1 and not w for one, w in zip(found, whole, strict=True)])),
            "two_boxes": float(np.mean([len(one) == 2 for one in found])),
        }
    return table


def grades(grader: Grader, pairs: Sequence[KneePair], knees: int) -> tuple[dict[str, dict], str]:
    """Share of knees that keep the grade of their crop, by kind of film and by scale; and the model's id."""
    rows = []
    kinds = (*GRADED_KINDS, "strip", "strip of both")
    with progress_bar("grading", knees, show=True) as advance:
        for number, pair in enumerate(pairs):
            if len(rows) >= knees:
                break
            for row in graded(grader, pair, kinds[number % len(kinds)], number):
                rows.append(row)
                advance()
    larger = [row for row in rows if row["kind"] in GRADED_KINDS]
    groups = {TARGET: larger}
    for low, high in ((0.4, 0.6), (0.6, 1.0), (1.0, 1.5)):
        groups[f"{TARGET}, scale {low} to {high}"] = [r for r in larger if low <= r["scale"] < high + 1e-9]
    groups |= {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    return {name: _kept(group) for name, group in groups.items() if group}, grader.model_id


def graded(grader: Grader, pair: KneePair, kind: str, number: int) -> Iterator[dict]:
    """Gradings of each knee on a film: as a crop, in the true box, in the box found; and of the whole film."""
    composite, shown = film(kind, pair, number, varied=False)
    xray = Radiograph(composite.pixels, "film")
    partners = matched(localiser.find_knees(xray), composite.boxes)
    for i, box, knee in zip(shown, composite.boxes, partners, strict=True):
        views = [Radiograph(pair[i].pixels, "crop"), localiser.crop(xray, box), xray]
        views += [xray if knee.whole else localiser.crop(xray, knee.box)] if knee else []
        crop, true, film_itself, *found = grader.grade_batch(views)
        yield {
            "kind": kind,
            "scale": (box[2] - box[0]) / RELEASE,
            "crop": crop,
            "true box": true,
            "found box": found[0] if found else None,
            "film as it is": film_itself,
        }


def _kept(rows: Sequence[dict]) -> dict:
    table: dict = {"knees": len(rows), "found": float(np.mean([row["found box"] is not None for row in rows]))}
    for how in ("true box", "found box", "film as it is"):
        pairs = [(row["crop"], row[how]) for row in rows]
        there = [(crop, other) for crop, other in pairs if other]
        same = [other is not None and crop.grade == other.grade for crop, other in pairs]
        near = [other is not None and abs(crop.grade - other.grade) <= 1 for crop, other in pairs]
        moved = [abs(crop.expected_grade - other.expected_grade) for crop, other in there]
        table[how] = {
            "same_grade": float(np.mean(same)),
            "within_one_grade": float(np.mean(near)),
            "expected_grade_moved": float(np.mean(moved)) if moved else None,
            "familiar": float(np.mean([bool(other.familiar) for _, other in there])) if there else None,
        }
    return table


def tables(report: dict) -> str:
    """Markdown tables of the report."""
    films = [
        [
            name,
            str(row["knees"]),
            f"{row['recall']:.1%}",
            f"{row['false_finds_a_film']:.3f}",
            f"{row['overlap_median']:.3f} ({row['overlap_5th_percentile']:.3f})",
            f"{row['centre_error_median']:.1%} ({row['centre_error_95th_percentile']:.1%})",
            f"{row['width_error_median']:.1%} ({row['width_error_95th_percentile']:.1%})",
            *_laterality_and_time(row),
        ]
        for name, row in report["films"].items()
    ]
    crops = [
        [
            name,
            str(row["images"]),
            *(f"{row[key]:.1%}" for key in ("whole", "cut", "nothing")),
            *_laterality_and_time(row),
        ]
        for name, row in report["crops"].items()
    ]
    kept = [
        [
            name,
            str(row["knees"]),
            *(
                f"{row[box][figure]:.1%}"
                for figure in ("same_grade", "within_one_grade")
                for box in ("true box", "found box", "film as it is")
            ),
        ]
        for name, row in report["grades"].items()
    ]
    others = [
        [
            name,
            "yes" if row["fitted_on"] else "no",
            *(f"{row[key]:.0%}" for key in ("nothing", "whole", "one_box", "two_boxes")),
        ]
        for name, row in report["other_pictures"].items()
    ]
    last = ["laterality right / wrong / unknown", "ms on one core"]
    parts = ["<!-- written by benchmarks/studies/knee_finding.py -->", "## Knees on films"]
    header = ["film", "knees", "recall", "false finds per film", "IoU, median (5th percentile)"]
    header += ["centre error, median (95th)", "width error, median (95th)", *last]
    parts += [pages.table(header, films), "## Images that are crops already"]
    parts.append(pages.table(["images", "number", "left whole", "cut", "nothing found", *last], crops))
    if kept:
        header = ["film", "knees", "same grade: true box", "found box", "whole film"]
        header += ["within one grade: true box", "found box", "whole film"]
        parts += [f"## Knees that keep the grade of their crop, {report['model']}", pages.table(header, kept)]
    header = ["kind", "fitted on", "nothing found", "left whole", "one box", "two boxes"]
    parts += ["## Other pictures", pages.table(header, others)]
    return "\n\n".join(parts) + "\n"


def write(report: dict, folder: Path) -> None:
    """Write localiser.json and tables.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "localiser.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "tables.md", tables(report))
    print(tables(report))


def _laterality_and_time(row: dict) -> list[str]:
    sides = " / ".join(f"{row[name]:.1%}" for name in ("side_right", "side_wrong", "side_not_told"))
    return [sides, f"{row['milliseconds_median']:.0f}"]


def plot(errors: dict[str, np.ndarray], path: Path) -> None:
    """Plot the distributions of overlap, centre error and width error."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    labels = ("intersection over union", "centre error, knee widths", "relative width error")
    for column, (axis, label) in enumerate(zip(axes, labels, strict=True)):
        for name, found in errors.items():
            values = np.sort(np.abs(found[:, column]))
            axis.plot(values, np.linspace(0, 1, len(values)), label=name, lw=1.3)
        axis.set(xlabel=label, ylabel="cumulative share of knees", ylim=(0, 1))
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _progress(what: str, items: Sequence) -> Iterator:
    with progress_bar(what, len(items), show=True) as advance:
        for item in items:
            yield item
            advance()


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--model", help="model folder or Hub id (default: the bundled model)")
    parser.add_argument("--films", type=int, default=200, help="films of each kind (default: %(default)s)")
    parser.add_argument("--knees", type=int, default=1000, help="knees to grade, 0 for none (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART",
                        help=f"measure only some of {', '.join(PARTS)}; keep the other results")  # fmt: skip
    parser.add_argument("--images-per-kind", type=int, default=40, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, default=RESULTS / "localiser")
    args = parser.parse_args(argv)

    pairs = knee_pairs(load_dataset(args.dataset), "validation", args.dataset)
    earlier, parts = args.output_dir / "localiser.json", args.only or PARTS
    if args.only and not earlier.is_file():
        raise KoaError(f"{earlier} does not exist, so there is nothing to update; leave out --only.")
    with safe_open(localiser.WEIGHTS_FILE, "numpy") as opened:
        fitted_on = json.loads(opened.metadata()["fitted_on"])
    report = {
        **(json.loads(earlier.read_text()) if args.only else {"grades": {}, "model": "", "git_commits": {}}),
        "what": f"films composed of crops of the validation split of {args.dataset}, {len(pairs)} patients",
        "fitted_on": fitted_on,
        "found_from_overlap": FOUND,
        "scales": SCALES,
        "processor": processor(),
    }
    report["git_commits"] = report["git_commits"] | dict.fromkeys(parts, git_commit())
    if "films" in parts:
        report["films"], errors = finds(pairs, args.films)
        plot(errors, args.output_dir / "localiser.png")
    if "crops" in parts:
        report["crops"] = crops_as_they_are(pairs)
    if "grades" in parts and args.knees:
        report["grades"], report["model"] = grades(Grader.from_pretrained(args.model), pairs, args.knees)
    if "other_pictures" in parts:
        report["other_pictures"] = other_pictures(pairs, args.images_per_kind)
    write(report, args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
