"""Photographic negatives among the X-rays of the release.

    python benchmarks/studies/negatives.py --data kneeKL224
    python benchmarks/studies/negatives.py                      # the folder in KOA_DATA

Writes results/polarity/polarity.json: file names of the negatives, and how far both kinds are from the threshold. The
visual check of them is described in results/polarity/README.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.reporting import RESULTS
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.imaging import radiograph
from koa_hf.imaging.polarity import polarity
from koa_hf.progress import progress_bar

SPLITS = ("train", "val")
NEAREST = 5


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("KOA_DATA"), help="the release (default: $KOA_DATA)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "polarity" / "polarity.json")
    args = parser.parse_args()
    if args.data is None:
        raise KoaError("name the release's folder with --data PATH or the environment variable KOA_DATA.")
    files = {split: sorted(Path(args.data, split).glob("*/*.png")) for split in SPLITS}
    if missing := [split for split in SPLITS if not files[split]]:
        raise KoaError(f"{args.data} has no X-rays in {missing[0]}/; give the folder that contains train and val.")
    found = {}
    with progress_bar("reading", sum(map(len, files.values())), show=True) as advance:
        for split in SPLITS:
            values = {}
            for file in files[split]:
                values[file.name] = polarity(radiograph.read(file).pixels)
                advance()
            names, scores = np.array(list(values)), np.array(list(values.values()))
            order = scores.argsort()
            negatives = int((scores < 0).sum())
            found[split] = {
                "images": len(scores),
                "negatives": negatives,
                "least_negative_of_them": round(float(scores[order[negatives - 1]]), 3) if negatives else None,
                "nearest_of_the_others": {
                    str(names[i]): round(float(scores[i]), 3) for i in order[negatives : negatives + NEAREST]
                },
                "negative_files": sorted(names[order[:negatives]].tolist()),
            }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, json.dumps(found, indent=2) + "\n")
    for split, row in found.items():
        print(f"{split}: {row['negatives']} of {row['images']} are negatives (score below 0); highest score among them "
              f"{row['least_negative_of_them']}, lowest of the others {row['nearest_of_the_others']}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
