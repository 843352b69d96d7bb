"""Fit what a trained network's output means, and write it into its model folder (grading.json).

    python train/calibrate.py --model runs/strong --dataset data/knee-kl --output-dir results/strong/calibration

On the validation split, by the `grading` section of the run's recipe: the temperature of the probabilities, how the
grade is read from them, the level of the grade sets, and the distance at which an image stops being familiar. What
they are worth is measured by cross-fitting: fitted on nine tenths of the patients, measured on the last tenth, for
each tenth. The way of measuring familiarity is chosen by the share of unfamiliar images that it catches, and what it is
worth for a kind of image is also said for the choice made without that kind.
Written: grading.json into the model folder; calibration.json, reliability.png and familiarity.png into --output-dir.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from rich.console import Console
from rich.table import Table

from koa_hf import Grader, checksums
from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grading.calibration import probabilities_of
from koa_hf.grading.metrics import expected_calibration_error, grade_metrics
from koa_hf.grading.rules import GradeSets, Righted, Rules
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network import xception
from koa_hf.network.engine_names import PRECISIONS
from koa_hf.network.model_folder import INT8_FILE
from train.fitting import familiarity_search
from train.fitting.cross_fit import FIGURES, FOLDS, Fitted, calibration_errors_by_chance, cross_fit
from train.fitting.measure import Measured, measure
from train.loop import plots, recipe
from train.loop.knee_images import KneeImages, choose_split

TRAINING_KNEES = 2000
IMAGES_PER_KIND = 40


def calibrate(
    grader: Grader,
    how: recipe.Grading,
    data: DatasetDict,
    data_name: str,
    training_knees: int = TRAINING_KNEES,
    images_per_kind: int = IMAGES_PER_KIND,
) -> tuple[Rules, dict]:
    """The rules for a model, and the report of what they and the alternatives are worth.

    Args:
        grader: of the plain network.
        how: of its recipe.
        data: with the splits train and validation; `data_name` is for messages and the record.
        training_knees: how many to learn familiarity from; they are drawn at random, always the same.
        images_per_kind: of every kind of unfamiliar image.
    """
    try:
        from train.pictures import not_knees  # here, because only this needs the pictures that some packages bring
    except ModuleNotFoundError as error:
        raise KoaError(
            f"the unfamiliar images come with packages that aren't here ({error.name}); "
            "run `pip install -r requirements-dev.txt`."
        ) from error
    righting = Rules(right_negatives=how.right_negatives, right_upside_down=how.right_upside_down)
    network, preprocessing = xception.folded(grader.model), grader.preprocessing

    def as_seen(kind: str) -> list[Righted]:
        # As the Grader would see them: it doesn't know yet that they are no knees.
        return [righting.righted(Radiograph(image, kind)) for image in not_knees.images(kind, crops, images_per_kind)]

    def pixels(images: list[Righted]) -> list[dict]:
        return [{"pixels": torch.from_numpy(preprocessing.to_uint8(image.xray))} for image in images]

    def measured(images, what: str, mirror: bool = False) -> Measured:
        return measure(network, grader.precision, images, what, mirror)

    validation, train = (choose_split(data, split, data_name) for split in ("validation", "train"))
    some = np.random.default_rng(0).permutation(len(train))[:training_knees]
    training = train.select(np.sort(some))
    crops = [np.asarray(image.convert("L")) for image in validation["image"]]
    knees = measured(KneeImages(validation, preprocessing, righting), "validation knees", mirror=True)
    on_films = [righting.righted(Radiograph(knee, "knee")) for knee in familiarity_search.as_on_films(crops)]
    varied = measured(pixels(on_films), "validation knees as on films")
    known = measured(KneeImages(training, preprocessing, righting), "training knees")
    seen = {kind: as_seen(kind) for kind in not_knees.KINDS}
    others = {kind: measured(pixels(images), kind) for kind, images in seen.items()}
    turned = {not_knees.UPSIDE_DOWN: np.array([image.turned for image in seen[not_knees.UPSIDE_DOWN]])}
    fitted_on = {
        "dataset": data_name,
        "split": "validation",
        "knees": len(validation),
        "fingerprint": dataset_fingerprint(validation),
        "training_knees": len(training),
        "precision": grader.precision,
    }
    grades, patients = np.array(validation["label"]), np.array(validation["patient_id"])
    return fit(how, knees, varied, known, others, turned, grades, patients, fitted_on)


def fit(
    how: recipe.Grading,
    knees: Measured,
    varied: Measured,
    training: Measured,
    others: dict[str, Measured],
    caught_before: dict[str, np.ndarray],
    grades: np.ndarray,
    patients: np.ndarray,
    fitted_on: dict,
) -> tuple[Rules, dict]:
    """As `calibrate`, from what the network put out.

    Args:
        knees, grades, patients: the validation split.
        varied: its knees once more, as on films.
        training: training knees.
        others: by kind, images that are no ordinary knees.
        caught_before: see `train.fitting.familiarity_search.worth`.
        fitted_on: for the record.
    """
    averaged = (knees.logits + knees.mirrored) / 2
    compared = {
        (flip, read_out): cross_fit(averaged if flip else knees.logits, grades, patients, read_out, how.coverage)
        for flip in (False, True)
        for read_out in recipe.READ_OUTS
    }
    logits = averaged if how.flip_average else knees.logits
    raw, chosen = probabilities_of(logits), compared[how.flip_average, how.read_out]
    final = Fitted.to(logits, grades, how.read_out, how.coverage)

    ways, ordinary = familiarity_search.ways(training), knees.with_more(varied)
    tried = [familiarity_search.worth(way, ordinary, others, caught_before, how.unfamiliar) for way in ways]
    usable = [i for i, way in enumerate(ways) if way.familiarity]
    best = familiarity_search.best([tried[i] for i in usable])
    way = ways[usable[best]]
    left_out = familiarity_search.with_each_kind_left_out([tried[i] for i in usable])

    flagged = familiarity_search.flagged_by_fold(way, ordinary, np.tile(patients, 2), how.unfamiliar)

    held_out = {
        "expected_calibration_error": chosen["figures"]["expected_calibration_error"],
        "set_coverage": chosen["sets"]["coverage"],
        "mean_set_size": chosen["sets"]["mean_size"],
        "called_unfamiliar": float(flagged[: len(grades)].mean()),
        "called_unfamiliar_as_on_films": float(flagged[len(grades) :].mean()),
        "unfamiliar_caught": float(np.mean([kind["caught"] for kind in left_out.values()])),
        "unfamiliar_auroc": float(np.mean([kind["auroc"] for kind in left_out.values()])),
    }
    rules = Rules(
        flip_average=how.flip_average,
        right_negatives=how.right_negatives,
        right_upside_down=how.right_upside_down,
        temperature=final.temperature,
        power=final.power,
        thresholds=final.thresholds,
        sets=GradeSets(coverage=how.coverage, level=final.level),
        familiarity=way.familiarity.with_limit(familiarity_search.limit_for(way.distance(ordinary), how.unfamiliar)),
        fitted_on=fitted_on,
        held_out=held_out,
    )
    report = {
        "fitted_on": fitted_on,
        "folds": FOLDS,
        "calibration": {
            "temperature": final.temperature,
            "error_before": expected_calibration_error(raw, grades),
            "error_held_out": held_out["expected_calibration_error"],
            "error_by_chance": float(calibration_errors_by_chance(chosen["probabilities"]).mean()),
            "cross_entropy_before": grade_metrics(raw, grades)["cross_entropy"],
            "cross_entropy_held_out": chosen["figures"]["cross_entropy"],
            "bins_before": plots.reliability_bins(raw, grades),
            "bins_held_out": plots.reliability_bins(chosen["probabilities"], grades),
        },
        "sets": {"stated_coverage": how.coverage, "level": final.level, **chosen["sets"]},
        "power": final.power,
        "thresholds": final.thresholds,
        "read_outs": [
            {
                "flip_average": flip,
                "read_out": read_out,
                "chosen": (flip, read_out) == (how.flip_average, how.read_out),
                **one["figures"],
                "set_coverage": one["sets"]["coverage"],
                "mean_set_size": one["sets"]["mean_size"],
            }
            for (flip, read_out), one in compared.items()
        ],
        "familiarity": {
            "righted": {kind: float(rows.mean()) for kind, rows in caught_before.items()},
            "limit_set_for": how.unfamiliar,
            "called_unfamiliar_held_out": held_out["called_unfamiliar"],
            "called_unfamiliar_as_on_films_held_out": held_out["called_unfamiliar_as_on_films"],
            "chosen": tried[usable[best]],
            "left_out": left_out,
            "tried": tried,
        },
    }
    return rules, report


def write_calibration(rules: Rules, report: dict, model_folder: Path, out: Path) -> None:
    """Write grading.json into the model folder, the report and its pictures into `out`, and print the tables.

    What the folder has for int8 goes, since it was fitted to the rules before: train/quantise.py makes it anew.
    """
    rules.save(model_folder)
    (model_folder / INT8_FILE).unlink(missing_ok=True)
    checksums.write_checksums(model_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "calibration.json", json.dumps(report, indent=2) + "\n")
    plots.reliability(report["calibration"], out / "reliability.png")
    plots.familiarity(report["familiarity"]["chosen"], out / "familiarity.png")
    print_report(report)


def print_report(report: dict) -> None:
    console, errors = Console(), report["calibration"]
    table = Table(title="read-outs, held-out folds of the validation split")
    columns = ("flip_average", "read_out", *FIGURES, "set_coverage", "mean_set_size")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in report["read_outs"]:
        cells = [f"{row[c]:.4f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        table.add_row(*cells, style="bold" if row["chosen"] else None)
    console.print(table)
    console.print(
        f"temperature {errors['temperature']:.3f}: calibration error {errors['error_before']:.4f} before, "
        f"{errors['error_held_out']:.4f} held out ({errors['error_by_chance']:.4f} is what chance leaves of perfect "
        f"probabilities)\nsets: coverage {report['sets']['coverage']:.3f}, mean size {report['sets']['mean_size']:.2f}"
    )
    chosen = report["familiarity"]["chosen"]
    table = Table(title=f"unfamiliar images: {chosen['method']}")
    left_out = report["familiarity"]["left_out"]
    for column in ("kind", "AUROC", "caught", "caught, chosen without it"):
        table.add_column(column)
    for kind, area in chosen["auroc"].items():
        table.add_row(kind, f"{area:.3f}", f"{chosen['caught'][kind]:.0%}", f"{left_out[kind]['caught']:.0%}")
    table.add_row("mean", f"{chosen['mean_auroc']:.3f}", f"{chosen['mean_caught']:.0%}", style="bold")
    for what, key in (("validation knees", ""), ("the same, as on films", "_as_on_films")):
        table.add_row(f"{what}, held out", "", f"{report['familiarity'][f'called_unfamiliar{key}_held_out']:.1%}")
    console.print(table)


def grading_of(model_folder: Path) -> recipe.Grading:
    """The `grading` section of a run's recipe.

    Raises:
        KoaError: the folder isn't that of a finished run.
    """
    if not (model_folder / "recipe.yaml").is_file():
        raise KoaError(f"{model_folder} is not the folder of a finished run: it has no recipe.yaml.")
    return recipe.load(model_folder / "recipe.yaml").grading


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command which calibrates has."""
    parser.add_argument("--training-knees", type=int, default=TRAINING_KNEES, metavar="N",
                        help="to learn familiarity from (default: %(default)s)")  # fmt: skip
    parser.add_argument("--images-per-kind", type=int, default=IMAGES_PER_KIND, metavar="N",
                        help="of unfamiliar images (default: %(default)s)")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="fp32 is what the Grader serves")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a finished run's folder; gets grading.json")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--output-dir", type=Path, help="for report and pictures (default: the model folder)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    add_options(parser)
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    how = grading_of(args.model)
    grader = Grader.from_pretrained(
        args.model, device=args.device, precision=args.precision, plain=True, engine="torch"
    )
    data = load_dataset(args.dataset, revision=args.revision)
    rules, report = calibrate(grader, how, data, args.dataset, args.training_knees, args.images_per_kind)
    # Fitted by another command (train/fit_small_knees.py), to logits, which nothing here changes.
    rules = rules.model_copy(update={"small_knees": Rules.load(args.model).small_knees})
    out = args.output_dir or args.model
    write_calibration(rules, report, args.model, out)
    print(f"rules written to {args.model}, report to {out}")


if __name__ == "__main__":
    sys.exit(main())
