"""Fit the detector of upside-down knees, and measure it.

    python train/fit_orientation.py --dataset data/knee-kl
    python train/fit_orientation.py --dataset data/knee-kl --output runs/o.safetensors --results runs/orientation

Takes half a minute. Fitted on the train split, every knee together with its mirror image; measured on the validation
split, on knees as they are and degraded in several ways, and on images that are no knees. Writes the weights and
orientation.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from koa_hf.data.load import load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import replacing, write_text
from koa_hf.imaging import orientation
from koa_hf.imaging.orientation import LEAST, reduced, uprightness
from koa_hf.progress import ProgressBar
from train.loop.knee_images import choose_split
from train.pictures import not_knees

PENALTY = 0.1  # C of scikit-learn's logistic regression
IMAGES_PER_KIND = 40
RESULTS = Path(__file__).resolve().parents[1] / "results" / "orientation"


def _rotated(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda knee: np.asarray(Image.fromarray(knee).rotate(degrees, Image.Resampling.BILINEAR))


def _middle(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def cut(knee: np.ndarray) -> np.ndarray:
        rows, columns = (round((1 - share) / 2 * length) for length in knee.shape)
        return np.ascontiguousarray(knee[rows : len(knee) - rows, columns : knee.shape[1] - columns])

    return cut


def _padded(knee: np.ndarray) -> np.ndarray:
    return np.pad(knee, [(length // 4, length // 4) for length in knee.shape])


def _small(knee: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(knee).resize((60, 60), Image.Resampling.LANCZOS))


DEGRADATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda knee: knee,
    "a negative": lambda knee: 255 - knee,
    "rotated by 15 degrees": _rotated(15),
    "rotated by 30 degrees": _rotated(30),
    "its middle 70 %": _middle(0.7),
    "a quarter of black around": _padded,
    "60 pixels wide": _small,
}
"""Degradations of the validation knees."""


def read_crops(split: Dataset, what: str) -> list[np.ndarray]:
    """Every image of a split, uint8 (height, width)."""
    return [np.asarray(image.convert("L")) for image in ProgressBar(split["image"], f"reading {what}")]


def fit_weights(knees: list[np.ndarray]) -> np.ndarray:
    """Weights, float32 (cells, cells, bins), from upright knees, uint8 (height, width)."""
    upright = np.stack([reduced(knee) for knee in knees])
    features = np.concatenate([uprightness(upright), uprightness(upright[:, :, ::-1])])
    rows = features.reshape(len(features), -1)
    model = LogisticRegression(C=PENALTY, fit_intercept=False, max_iter=1000)
    model.fit(np.concatenate([rows, -rows]), np.repeat([False, True], len(rows)))
    return model.coef_[0].reshape(features.shape[1:]).astype(np.float32)


def error_rates(weights: np.ndarray, knees: list[np.ndarray]) -> dict:
    """Counts of upright knees, of the same knees turned, and of other images that are called upside down."""

    def scores(images: list[np.ndarray]) -> np.ndarray:
        return uprightness(np.stack([reduced(image) for image in images])).reshape(len(images), -1) @ weights.ravel()

    changed = {}
    for name, degrade in DEGRADATIONS.items():
        found = scores([degrade(knee) for knee in knees])
        changed[name] = {
            "called_upside_down": int((found > LEAST).sum()),
            "found_when_turned": int((-found > LEAST).sum()),
            "score_nearest_the_limit": round(float(found.max()), 3),
        }
    others = {}
    for kind in not_knees.KINDS:
        found = scores(not_knees.images(kind, knees, IMAGES_PER_KIND))
        others[kind] = float((found > LEAST).mean())
    return {"knees": len(knees), "least": LEAST, "knees_changed": changed, "other_images_called_upside_down": others}


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument(
        "--output", type=Path, default=orientation.WEIGHTS_FILE, help="default: the file that koa_hf uses"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="for orientation.json (default: %(default)s)")
    args = parser.parse_args(argv)
    data = load_dataset(args.dataset, revision=args.revision)
    train, validation = (choose_split(data, split, args.dataset) for split in ("train", "validation"))
    weights = fit_weights(read_crops(train, "training knees"))
    found = {"fitted_on": len(train), **error_rates(weights, read_crops(validation, "validation knees"))}
    with replacing(args.output) as partial:
        save_file({"weights": weights}, partial)
    args.results.mkdir(parents=True, exist_ok=True)
    write_text(args.results / "orientation.json", json.dumps(found, indent=2) + "\n")
    table = Table(title=f"{found['knees']} validation knees")
    for column in ("knee", "upright, called upside down", "upside down, found"):
        table.add_column(column)
    for name, row in found["knees_changed"].items():
        table.add_row(name, str(row["called_upside_down"]), str(row["found_when_turned"]))
    Console().print(table)
    print(f"weights written to {args.output}, figures to {args.results}")


if __name__ == "__main__":
    sys.exit(main())
