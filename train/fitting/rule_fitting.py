"""Grading rules fitted to a model: temperature, prediction sets and the out-of-distribution limit.

They are fitted to the validation knees as they are and as people upload them, one of each. Every figure in the report
is cross-fitted: rules fitted on nine tenths of the patients are measured on the last tenth, for each tenth.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset as HubDataset
from datasets import DatasetDict
from rich.console import Console
from rich.table import Table

from koa_hf import Grader, checksums
from koa_hf.data.load import dataset_fingerprint
from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grading.calibration import probabilities_of
from koa_hf.grading.rules import GradeSets, Righted, Rules
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network import xception
from koa_hf.network.engine_names import PRECISIONS
from train.fitting.cross_fit import FIGURES, FOLDS, Fitted, cross_fit, figures_of, set_figures
from train.fitting.familiarity_search import (
    as_uploaded,
    best_detector,
    candidate_detectors,
    detector_figures,
    flagged_by_fold,
    limit_for,
    with_each_kind_left_out,
)
from train.fitting.layer_features import LayerFeatures, extract_features
from train.loop import recipe
from train.loop.knee_images import KneeImages, choose_split
from train.loop.plots import plot_familiarity, plot_reliability, reliability_bins
from train.loop.recipe import load_recipe
from train.loop.settings import check_finished_run

TRAINING_KNEES = 2000  # that the out-of-distribution detector is fitted to
IMAGES_PER_KIND = 40  # of every kind of out-of-distribution image


def fit_rules(
    grader: Grader,
    options: recipe.GradingOptions,
    data: DatasetDict,
    data_name: str,
    training_knees: int = TRAINING_KNEES,
    images_per_kind: int = IMAGES_PER_KIND,
) -> tuple[Rules, dict]:
    """Fit grading rules to a model on the validation split, and measure them and their alternatives.

    Args:
        grader: of the plain network, without rules.
        options: of its recipe.
        data: with the splits train and validation; `data_name` is for messages and the record.
        training_knees: number that the out-of-distribution detector is fitted to, drawn with a fixed seed.
        images_per_kind: of every kind of out-of-distribution image.

    Returns:
        The rules, and the report as in calibration.json.

    Raises:
        KoaError: packages of requirements-dev.txt are missing.
    """
    try:
        from train.pictures import not_knees  # here, because only this needs the packages that bring the pictures
    except ModuleNotFoundError as error:
        raise KoaError(
            f"the out-of-distribution images need packages that are not installed ({error.name}); "
            "run `pip install -r requirements-dev.txt`."
        ) from error
    corrections = Rules(right_negatives=options.right_negatives, right_upside_down=options.right_upside_down)
    network, preprocessing = xception.folded(grader.model), grader.preprocessing

    def as_seen(kind: str) -> list[Righted]:
        # Corrected first, as the Grader does before it can tell that an image is no knee.
        return [corrections.righted(Radiograph(one, kind)) for one in not_knees.images(kind, crops, images_per_kind)]

    def pixels(images: list[Righted]) -> list[dict]:
        return [{"pixels": torch.from_numpy(preprocessing.to_uint8(image.xray))} for image in images]

    def features(images, what: str) -> LayerFeatures:
        return extract_features(network, grader.precision, images, what)

    def both(split: HubDataset, crops: list[np.ndarray], what: str) -> tuple[LayerFeatures, LayerFeatures]:
        righted = [corrections.righted(Radiograph(knee, "knee")) for knee in as_uploaded(crops)]
        as_they_are = features(KneeImages(split, preprocessing, corrections), what)
        return as_they_are, features(pixels(righted), f"{what} as uploaded")

    validation, train = (choose_split(data, split, data_name) for split in ("validation", "train"))
    some = np.random.default_rng(0).permutation(len(train))[:training_knees]
    training = train.select(np.sort(some))
    crops, of_training = (
        [np.asarray(image.convert("L")) for image in split["image"]] for split in (validation, training)
    )
    knees, uploaded = both(validation, crops, "validation knees")
    known = LayerFeatures.concatenated(*both(training, of_training, "training knees"))
    seen = {kind: as_seen(kind) for kind in not_knees.KINDS}
    others = {kind: features(pixels(images), kind) for kind, images in seen.items()}
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
    return _fit_to_features(options, knees, uploaded, known, others, turned, grades, patients, fitted_on)


def _fit_to_features(
    options: recipe.GradingOptions,
    knees: LayerFeatures,
    uploaded: LayerFeatures,
    training: LayerFeatures,
    others: dict[str, LayerFeatures],
    caught_before: dict[str, np.ndarray],
    grades: np.ndarray,
    patients: np.ndarray,
    fitted_on: dict,
) -> tuple[Rules, dict]:
    """`fit_rules`, from the network's output.

    Args:
        knees, grades, patients: the validation split.
        uploaded: the same knees as uploaded.
        others: by kind, out-of-distribution images.
        caught_before: see `train.fitting.familiarity_search.detector_figures`.
        fitted_on: for the record.
    """
    ordinary = knees.concatenated(uploaded)
    halves = {"as they are": slice(len(grades)), "as uploaded": slice(len(grades), None)}
    grades, patients = np.tile(grades, 2), np.tile(patients, 2)
    raw = probabilities_of(ordinary.logits)
    probabilities, sets = cross_fit(ordinary.logits, grades, patients, options.coverage)
    final = Fitted.to(ordinary.logits, grades, options.coverage)
    before = {name: figures_of(raw[half], grades[half]) for name, half in halves.items()}
    held = {name: figures_of(probabilities[half], grades[half]) for name, half in halves.items()}
    of_sets = {name: set_figures(sets[half], grades[half]) for name, half in halves.items()}
    crops = halves["as they are"]

    detectors = candidate_detectors(training)
    tried = [detector_figures(one, ordinary, others, caught_before, options.unfamiliar) for one in detectors]
    usable = [i for i, one in enumerate(detectors) if one.familiarity]
    best = best_detector([tried[i] for i in usable])
    detector = detectors[usable[best]]
    left_out = with_each_kind_left_out([tried[i] for i in usable])

    flagged = flagged_by_fold(detector, ordinary, patients, options.unfamiliar)

    held_out = {
        "expected_calibration_error": held["as they are"]["expected_calibration_error"],
        "set_coverage": of_sets["as they are"]["coverage"],
        "set_coverage_as_uploaded": of_sets["as uploaded"]["coverage"],
        "mean_set_size": of_sets["as they are"]["mean_size"],
        "called_unfamiliar": float(flagged[crops].mean()),
        "called_unfamiliar_as_uploaded": float(flagged[halves["as uploaded"]].mean()),
        "unfamiliar_caught": float(np.mean([kind["caught"] for kind in left_out.values()])),
        "unfamiliar_auroc": float(np.mean([kind["auroc"] for kind in left_out.values()])),
    }
    rules = Rules(
        right_negatives=options.right_negatives,
        right_upside_down=options.right_upside_down,
        temperature=final.temperature,
        sets=GradeSets(coverage=options.coverage, level=final.level),
        familiarity=detector.familiarity.with_limit(limit_for(detector.distance(ordinary), options.unfamiliar)),
        fitted_on=fitted_on,
        held_out=held_out,
    )
    report = {
        "fitted_on": fitted_on,
        "folds": FOLDS,
        "figures_before": before,
        "figures_held_out": held,
        "calibration": {
            "temperature": final.temperature,
            "error_before": before["as they are"]["expected_calibration_error"],
            "error_held_out": held["as they are"]["expected_calibration_error"],
            "error_by_chance": held["as they are"]["calibration_error_by_chance"],
            "bins_before": reliability_bins(raw[crops], grades[crops]),
            "bins_held_out": reliability_bins(probabilities[crops], grades[crops]),
        },
        "sets": {"stated_coverage": options.coverage, "level": final.level, **of_sets},
        "familiarity": {
            "righted": {kind: float(rows.mean()) for kind, rows in caught_before.items()},
            "limit_set_for": options.unfamiliar,
            "called_unfamiliar_held_out": held_out["called_unfamiliar"],
            "called_unfamiliar_as_uploaded_held_out": held_out["called_unfamiliar_as_uploaded"],
            "chosen": tried[usable[best]],
            "left_out": left_out,
            "tried": tried,
        },
    }
    return rules, report


def write_calibration(rules: Rules, report: dict, model_folder: Path, out: Path) -> None:
    """Write grading.json into the model folder, the report and its figures into `out`, and print the tables."""
    rules.save(model_folder)
    checksums.write_checksums(model_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "calibration.json", json.dumps(report, indent=2) + "\n")
    plot_reliability(report["calibration"], out / "reliability.png")
    plot_familiarity(report["familiarity"]["chosen"], out / "familiarity.png")
    _print_calibration(report)


def _print_calibration(report: dict) -> None:
    console = Console()
    table = Table(title="held-out folds of the validation split")
    columns = (*FIGURES, "expected_calibration_error", "calibration_error_by_chance")
    for column in ("knees", *columns, "set coverage", "mean set size"):
        table.add_column(column.replace("_", " "))
    for name, row in report["figures_held_out"].items():
        sets = report["sets"][name]
        numbers = (*(row[column] for column in columns), sets["coverage"], sets["mean_size"])
        table.add_row(name, *(f"{number:.4f}" for number in numbers))
    console.print(table)
    chosen = report["familiarity"]["chosen"]
    table = Table(title=f"out-of-distribution images: {chosen['method']}")
    left_out = report["familiarity"]["left_out"]
    for column in ("kind", "AUROC", "caught", "caught, chosen without it"):
        table.add_column(column)
    for kind, area in chosen["auroc"].items():
        table.add_row(kind, f"{area:.3f}", f"{chosen['caught'][kind]:.0%}", f"{left_out[kind]['caught']:.0%}")
    table.add_row("mean", f"{chosen['mean_auroc']:.3f}", f"{chosen['mean_caught']:.0%}", style="bold")
    for what, key in (("validation knees flagged", ""), ("the same as uploaded", "_as_uploaded")):
        table.add_row(f"{what}, held out", "", f"{report['familiarity'][f'called_unfamiliar{key}_held_out']:.1%}")
    console.print(table)


def grading_options_of(model_folder: Path) -> recipe.GradingOptions:
    """The `grading` section of a run's recipe.

    Raises:
        KoaError: not the folder of a finished run.
    """
    check_finished_run(model_folder, ["recipe.yaml"])
    return load_recipe(model_folder / "recipe.yaml").grading


def add_fitting_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that fits rules."""
    parser.add_argument("--training-knees", type=int, default=TRAINING_KNEES, metavar="N",
                        help="fit the out-of-distribution detector to them (default: %(default)s)")  # fmt: skip
    parser.add_argument("--images-per-kind", type=int, default=IMAGES_PER_KIND, metavar="N",
                        help="out-of-distribution images (default: %(default)s)")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
