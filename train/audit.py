"""Look hard at a model: where it errs worst, which grades it misses, and whether its heat maps show what it uses.

    python train/audit.py --model models/koa-xception --dataset data/knee-kl --results results/strong

Deletion test (Samek et al. 2017, https://arxiv.org/abs/1509.06321): the tenth of the X-ray that the heat map calls
hottest is blurred away, and, for comparison, a tenth of the same cells taken at random, and the tenth that is hottest
in another knee's map: all knees lie alike, so that a map of nothing but the usual place would pass the first
comparison. If the map is true, its own tenth costs the grade more of its probability than either. Reads
predictions.csv, which `train/validate.py` left in --results, and writes audit.json, recall.png and deletion.png there.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.calibration import expected_grade
from koa_hf.grading.metrics import bootstrap_mean
from koa_hf.network.engine_names import PRECISIONS
from koa_hf.network.preprocess import normalise
from koa_hf.progress import progress_bar
from train.loop import plots
from train.loop.knee_images import KneeImages, choose_split
from train.loop.predictions import Predictions

WORST = 20
DELETED = 0.1
BLURRED_TO = 4  # pixels a side, and up again: no joint space is left in that
BATCH_SIZE = 16

WHOLE, HOTTEST = "whole", "without the hottest tenth"
CONTROLS = ("without a random tenth", "without another knee's hottest tenth")


def worst_mistakes(found: Predictions) -> list[dict]:
    """The knees that were graded furthest from the reader's grade, by the mean squared distance it was given."""
    apart = np.arange(NUM_GRADES) - found.grades[:, None]
    distance = (found.probabilities * apart**2).sum(1)
    expected = expected_grade(found.probabilities)
    return [
        {
            "file_name": found.file_names[i],
            "reader": int(found.grades[i]),
            "predicted": int(found.predicted[i]),
            "probability_of_readers": round(float(found.probabilities[i, found.grades[i]]), 4),
            "expected_grade": round(float(expected[i]), 3),
            "mean_squared_distance": round(float(distance[i]), 3),
        }
        for i in np.argsort(-distance, kind="stable")[:WORST]
    ]


def hottest(maps: torch.Tensor, size: int) -> torch.Tensor:
    """The hottest `DELETED` of the cells of each map, as a mask: float (n, height, width) -> bool (n, size, size)."""
    flat = maps.flatten(1)
    cells = max(1, round(DELETED * flat.shape[1]))
    mask = torch.zeros_like(flat).scatter_(1, flat.topk(cells).indices, 1.0).view_as(maps)
    return functional.interpolate(mask[:, None], (size, size))[:, 0] > 0.5


def deletion(grader: Grader, images: KneeImages) -> dict[str, np.ndarray]:
    """Probability of each knee's grade, whole, without its hottest tenth and by each of `CONTROLS`; float (n,) each."""
    found: dict[str, list] = {name: [] for name in (WHOLE, HOTTEST, *CONTROLS)}
    generator = torch.Generator().manual_seed(0)
    size = grader.preprocessing.image_size

    def probabilities(pixels: torch.Tensor) -> np.ndarray:
        return grader.rules.probabilities(grader.forward(pixels).logits.cpu().numpy())

    with progress_bar("deleting", len(images), show=True) as advance:
        for batch in DataLoader(images, BATCH_SIZE):
            pixels = normalise(batch["pixels"])
            output = grader.forward(pixels)
            whole = grader.rules.probabilities(output.logits.cpu().numpy())
            grade = grader.rules.grades(whole)
            rows = np.arange(len(grade))
            maps = output.maps.cpu()[rows, grade]
            # Blurred beyond recognition: no new edges, unlike a black patch, and the brightness stays.
            blurred = functional.interpolate(
                functional.adaptive_avg_pool2d(pixels, BLURRED_TO), (size, size), mode="bilinear"
            )
            found[WHOLE].append(whole[rows, grade])
            # Half a batch away: next to a knee is the same patient's other one.
            scores = (maps, torch.rand(maps.shape, generator=generator), maps.roll(len(maps) // 2, 0))
            for name, score in zip((HOTTEST, *CONTROLS), scores, strict=True):
                changed = torch.where(hottest(score, size)[:, None], blurred, pixels)
                found[name].append(probabilities(changed)[rows, grade])
            for _ in rows:
                advance()
    return {name: np.concatenate(values) for name, values in found.items()}


def summary(found: dict[str, np.ndarray], patients: np.ndarray) -> dict:
    """Mean loss of probability for each deletion, and how much more the hottest tenth costs than each of `CONTROLS`.

    Intervals are of 95 %, by patient.
    """
    lost = {name: found[WHOLE] - found[name] for name in (HOTTEST, *CONTROLS)}
    more = {name: lost[HOTTEST] - lost[name] for name in CONTROLS}
    return {
        "knees": len(patients),
        "deleted_share": DELETED,
        "mean_probability": {name: float(values.mean()) for name, values in found.items()},
        "mean_loss": {name: float(values.mean()) for name, values in lost.items()},
        "hottest_costs_more_than": {
            name: {
                "difference": float(values.mean()),
                "difference_95_by_patient": list(bootstrap_mean(values, patients)),
                "share_of_knees": float((values > 0).mean()),
            }
            for name, values in more.items()
        },
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or an id on the Hub")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument("--results", required=True, type=Path, help="where train/validate.py wrote predictions.csv")
    parser.add_argument("--split", default="validation", help="the split of those predictions")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 where it is the faster")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    graded = Predictions.read(args.results)
    grader = Grader.from_pretrained(args.model, precision=args.precision, engine="torch")
    split = choose_split(load_dataset(args.dataset, revision=args.revision), args.split, args.dataset)
    if list(split["file_name"]) != graded.file_names:
        raise KoaError(f"predictions.csv in {args.results} is not about the {args.split} split of {args.dataset}.")
    found = deletion(grader, KneeImages(split, grader.preprocessing, grader.rules))
    audit = {
        "model": args.model,
        "model_revision": grader.revision,
        "precision": grader.precision,
        "split": args.split,
        "deletion": summary(found, np.array(split["patient_id"])),
        "worst_mistakes": worst_mistakes(graded),
    }
    write_text(args.results / "audit.json", json.dumps(audit, indent=2) + "\n")
    plots.deletion(found, args.results / "deletion.png")
    plots.recall(graded.grades, graded.predicted, args.results / "recall.png")

    console = Console()
    table = Table(title="worst mistakes")
    for column in audit["worst_mistakes"][0]:
        table.add_column(column.replace("_", " "))
    for row in audit["worst_mistakes"]:
        table.add_row(*map(str, row.values()))
    console.print(table)
    lost = ", ".join(f"{name} {loss:.3f}" for name, loss in audit["deletion"]["mean_loss"].items())
    console.print(f"probability lost {lost}; written to {args.results}")


if __name__ == "__main__":
    sys.exit(main())
