"""Test-time image sizes, alone and averaged, for a trained model on validation.

    python benchmarks/studies/sizes.py --model models/koa-xception --dataset data/knee-kl

The network is fully convolutional and takes any size; its own is the one it was trained at. Each size is averaged over
the flip; combinations average the logits over sizes. The temperature is cross-fitted over patients, the read-out is
the model's. Negatives and upside-down X-rays are corrected as in grading. Differences in cross-entropy are to the
model's own size on the same knees, with intervals over patients. Writes results/strong/sizes.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.reporting import RESULTS, print_table, write_result
from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.metrics import bootstrap_mean
from koa_hf.network import xception
from koa_hf.network.engine_names import PRECISIONS
from koa_hf.network.engines import SMALLEST
from koa_hf.network.model_folder import BUNDLED_MODEL
from koa_hf.network.precision import choose_precision
from koa_hf.network.preprocess import Preprocessing
from train.fitting.cross_fit import FIGURES, cross_fit
from train.fitting.layer_features import extract_features
from train.loop.knee_images import KneeImages, choose_split
from train.loop.recipe import POWERS

SIZES = (192, 224, 256, 288)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUNDLED_MODEL, help="model folder or Hub id (default: %(default)s)")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pixels, in addition to the model's own")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS / "strong" / "sizes.json")
    args = parser.parse_args(argv)
    if min(args.sizes) < SMALLEST:
        raise KoaError(f"the network needs images of at least {SMALLEST} pixels; choose larger --sizes.")
    grader = Grader.from_pretrained(args.model)
    read_out = next((name for name, power in POWERS.items() if power == grader.rules.power), "most_probable")
    precision, own = choose_precision(args.precision, grader.device), grader.preprocessing.image_size
    validation = choose_split(load_dataset(args.dataset), "validation", args.dataset)
    grades, patients = np.array(validation["label"]), np.array(validation["patient_id"])
    network, logits = xception.folded(grader.model), {}
    for size in (own, *(size for size in sorted(set(args.sizes)) if size != own)):
        images = KneeImages(validation, Preprocessing(size), grader.rules)
        found = extract_features(network, precision, images, f"knees at {size} px", mirror=True)
        logits[f"{size} px"] = (found.logits + found.mirrored) / 2
    first = f"{own} px"
    beside = [name for name in logits if name != first]
    ways = {name: [name] for name in logits} | {f"{first} and {name}": [first, name] for name in beside}
    if len(beside) > 1:
        ways["all together"] = [first, *beside]

    rows, losses = [], {}
    for way, sizes in ways.items():
        fitted = cross_fit(np.mean([logits[size] for size in sizes], axis=0), grades, patients, read_out, 0.9)
        losses[way] = -np.log(fitted["probabilities"][np.arange(len(grades)), grades])
        more = losses[way] - losses[first]
        rows.append(
            {"way": way, "passes": 2 * len(sizes)}
            | {name: fitted["figures"][name] for name in (*FIGURES, "cross_entropy")}
            | {
                "cross_entropy_more": float(more.mean()),
                "cross_entropy_more_95": bootstrap_mean(more, patients) if way != first else [0.0, 0.0],
            }
        )
    what = "test-time image sizes, alone and averaged, with flip TTA"
    about = {"what": what, "model": str(args.model), "image_size": own, "read_out": read_out, "precision": precision}
    write_result(args.output, {**about, "knees": len(grades), "rows": rows})
    short = [{key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    shown = [{key: value for key, value in row.items() if not isinstance(value, list | tuple)} for row in short]
    print_table(what, shown)


if __name__ == "__main__":
    sys.exit(main())
