"""Fill the trunk cache of both stages of the paper's recipe for every image of a data set.

    python benchmarks/speed/fill_trunk_cache.py data/knee-kl --folder a-folder-with-room

About 1 MB per image. `benchmarks/speed/growth.py` times this as a process of its own, always with the engine that a
full release would use.
"""

import argparse
import sys
from pathlib import Path

from accelerate import Accelerator

from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.network import model_folder, xception
from koa_hf.network.engine_names import for_accelerate
from koa_hf.network.precision import choose_precision
from koa_hf.network.preprocess import Preprocessing
from train.loop import trunk
from train.loop.knee_images import KneeImages
from train.loop.recipe import load_recipe
from train.loop.trunk_cache import TrunkCache


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a built data set")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the cache; it is kept")
    args = parser.parse_args()
    trunk.WORTH_CONVERTING, plan = 0, load_recipe("paper")
    precision = choose_precision("auto")
    accelerator = Accelerator(cpu=True, mixed_precision=for_accelerate(precision))
    preprocessing = Preprocessing(plan.image_size)
    images = {split: KneeImages(part, preprocessing) for split, part in load_dataset(args.dataset).items()}
    fingerprints = {split: dataset_fingerprint(part.split) for split, part in images.items()}
    # The time does not depend on the weights.
    model, _ = xception.load_model(model_folder.find_model().folder)
    cuts = {xception.TRAINABLE_PARTS[stage.train].cut for stage in plan.stages}
    TrunkCache(args.folder, accelerator).open(model, images, fingerprints, list(cuts))


if __name__ == "__main__":
    sys.exit(main())
