"""One X-ray, from the bytes of its file to its grade with heat map: by every engine, beside transformers' pipeline.

    python benchmarks/one_xray.py --dataset data/knee-kl
    python benchmarks/one_xray.py --dataset data/knee-kl --model runs/strong --images 100

Times are medians over --rounds rounds in which every way takes its turn, so that a busy moment hits all of them. Then
each engine grades --images knees of validation: how many grades differ from torch's in float32, and how many of those
are ties. The ceiling is this machine's own matrix product. Writes results/benchmarks/one_xray.json.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import transformers
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.ceiling import operations, peak
from benchmarks.recording import record
from koa_hf import Grader, dataset
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.grader import Grading
from koa_hf.model_folder import BUNDLED_MODEL, INT8_FILE
from koa_hf.progress import progress_bar
from train.data import choose_split

TIE = 0.01  # between the two most probable grades
BATCH = 16
ENGINES = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))


def milliseconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, all of them in turn."""
    taken = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def differences(found: list[Grading], expected: list[Grading]) -> dict:
    """How far gradings are from those expected."""
    theirs = np.array([one.probabilities for one in expected])
    changed = [i for i, (one, other) in enumerate(zip(found, expected, strict=True)) if one.grade != other.grade]
    low, high = np.sort(theirs)[:, -2:].T
    return {
        "grades_changed": len(changed),
        "of_these_ties": int((high - low < TIE)[changed].sum()),
        "largest_probability_change": float(np.abs(np.array([one.probabilities for one in found]) - theirs).max()),
        "familiarity_changed": sum(one.familiar != other.familiar for one, other in zip(found, expected, strict=True)),
    }


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--model", default=BUNDLED_MODEL, help="model folder (default: %(default)s)")
    parser.add_argument("--images", type=int, default=826, help="of validation (default: %(default)s, all)")
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks" / "one_xray.json")
    args = parser.parse_args()

    images = choose_split(dataset.load(args.dataset), "validation", args.dataset)["image"][: args.images]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG")
    file = buffer.getvalue()

    graders = {
        f"{engine} {precision}": Grader.from_pretrained(args.model, precision=precision, engine=engine, device="cpu")
        for engine, precision in ENGINES
        if precision != "int8" or Path(args.model, INT8_FILE).is_file()
    }
    pipeline = transformers.pipeline("image-classification", model=args.model, device="cpu")
    baseline = "transformers pipeline (one pass, no heat map)"
    ways = {baseline: lambda: pipeline(Image.open(io.BytesIO(file)), top_k=5)}
    ways |= {name: lambda grader=grader: grader.grade(file) for name, grader in graders.items()}
    single = milliseconds(ways, args.rounds)
    files = [file] * BATCH
    batched = milliseconds(
        {
            baseline: lambda: pipeline([Image.open(io.BytesIO(one)) for one in files], top_k=5, batch_size=BATCH),
            **{name: lambda grader=grader: grader.grade_batch(files) for name, grader in graders.items()},
        },
        max(2, args.rounds // 10),
    )

    gradings: dict[str, list[Grading]] = {name: [] for name in graders}
    with progress_bar("grading", len(images) * len(graders), show=True) as advance:
        for name, grader in graders.items():
            for i in range(0, len(images), BATCH):
                gradings[name] += grader.grade_batch(images[i : i + BATCH])
                for _ in images[i : i + BATCH]:
                    advance()

    reference = graders["torch fp32"]
    passes = 2 if reference.rules.flip_average else 1
    needed = operations(reference.model, reference.preprocessing.image_size)
    ceiling = {name: 1000 * needed / peak(reference.device, name) for name in ("fp32", "bf16")}
    result = {
        "what": "file to grade with heat map, ms an X-ray; medians",
        "model": args.model,
        "image_size": reference.preprocessing.image_size,
        "passes_through_the_network": {baseline: 1, **dict.fromkeys(graders, passes)},
        "milliseconds": {
            name: {"single": round(single[name], 1), f"in batches of {BATCH}": round(batched[name] / BATCH, 1)}
            for name in ways
        },
        "times_the_baseline": {name: round(single[baseline] / value, 2) for name, value in single.items()},
        "ceiling_milliseconds_a_pass": {name: round(value, 1) for name, value in ceiling.items()},
        "share_of_the_ceiling": {
            name: round(passes * ceiling[grader.precision] / single[name], 2)
            for name, grader in graders.items()
            if grader.precision in ceiling
        },
        "validation_images": len(images),
        "against_torch_fp32": {
            name: differences(gradings[name], gradings["torch fp32"]) for name in graders if name != "torch fp32"
        },
    }
    record(args.output, result)
    table = Table(title=result["what"])
    for column in ("way", "single", f"batch of {BATCH}", "times the baseline", "grades changed", "of these ties"):
        table.add_column(column, justify="right")
    for name, taken in result["milliseconds"].items():
        different = result["against_torch_fp32"].get(name, {})
        table.add_row(
            name,
            *map(str, taken.values()),
            str(result["times_the_baseline"][name]),
            *(str(different.get(key, "")) for key in ("grades_changed", "of_these_ties")),
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
