"""Time per X-ray, from file bytes to grade with heat map, by engine, beside transformers' pipeline.

    python benchmarks/speed/one_xray.py --dataset data/knee-kl
    python benchmarks/speed/one_xray.py --dataset data/knee-kl --model runs/strong --images 100

Times are medians over --rounds rounds in which the engines alternate. Each engine then grades --images validation
knees, and its grades are compared with torch's in float32. Memory is that of a process that uses one engine alone. The
ceiling is this machine's own matrix product. torch.compile and ONNX Runtime, which the Grader does not offer, are
measured where a C++ compiler or requirements-bench.txt is installed, bfloat16 where this CPU is faster with it. Writes
results/benchmarks/one_xray.json and a plot.
"""

import argparse
import io
import multiprocessing
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import transformers
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.reporting import RESULTS, TEAL, print_table, save_figure, write_result
from benchmarks.speed import other_engines
from benchmarks.speed.ceiling import limits, operations, peak
from benchmarks.speed.other_engines import COMPILED, ONNX
from benchmarks.speed.timing import median_seconds_in_turn
from koa_hf import Grader
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.result import Grading
from koa_hf.network.model_folder import BUNDLED_MODEL
from koa_hf.network.precision import choose_precision
from koa_hf.progress import progress_bar
from train.loop.knee_images import choose_split

TIE = 0.01  # largest probability difference of the two most probable grades
BATCH = 16
BASELINE = "transformers pipeline (one pass, no heat map)"
ENGINES = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    (COMPILED, "fp32"),
    (COMPILED, "bf16"),
    (ONNX, "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


class GradingCalls:
    """Calls from file bytes to grades: the baseline pipeline, and a Grader for each engine that this machine has.

    Args:
        model: model folder.
        only: name of the one call to set up, to measure its memory.
    """

    def __init__(self, model: str, only: str | None = None):
        self.graders: dict[str, Grader] = {}
        for engine, precision in ENGINES:
            name = f"{engine} {precision}"
            if only in (None, name):
                try:
                    if precision == "bf16" and only is None and choose_precision() == "fp32":
                        raise KoaError("this CPU is no faster with bfloat16.")
                    self.graders[name] = _grader(model, engine, precision)
                except Exception as error:  # compilers and exporters raise anything
                    print(f"{name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
        self.single = {name: grader.grade for name, grader in self.graders.items()}
        self.batched = {name: grader.grade_batch for name, grader in self.graders.items()}
        if only in (None, BASELINE):
            pipeline = transformers.pipeline("image-classification", model=model, device="cpu")

            def several(files: list[bytes]) -> object:
                return pipeline([Image.open(io.BytesIO(one)) for one in files], top_k=5, batch_size=BATCH)

            self.single = {BASELINE: lambda file: pipeline(Image.open(io.BytesIO(file)), top_k=5), **self.single}
            self.batched = {BASELINE: several, **self.batched}


def _grader(model: str, engine: str, precision: str) -> Grader:
    if engine not in (COMPILED, ONNX):
        return Grader.from_pretrained(model, precision=precision, engine=engine, device="cpu")
    if engine == COMPILED and not shutil.which("c++"):
        raise KoaError("no C++ compiler was found.")
    return other_engines.with_engine(_grader(model, "torch", precision), engine)


def megabytes(model: str, name: str, file: bytes) -> int:
    """Memory of a fresh process after a few X-rays graded by one engine, MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_held, model, name, file).result()


def _held(model: str, name: str, file: bytes) -> int:
    call = GradingCalls(model, name).single[name]
    for _ in range(3):
        call(file)
    return round(psutil.Process().memory_info().rss / 1e6)


def milliseconds(calls: dict[str, Callable[[object], object]], given: object, rounds: int) -> dict[str, float]:
    """Median milliseconds of each call on the same input."""
    timed = median_seconds_in_turn({name: partial(call, given) for name, call in calls.items()}, rounds)
    return {name: 1000 * seconds for name, seconds in timed.items()}


def differences(found: list[Grading], expected: list[Grading]) -> dict:
    """Differences of gradings from the expected ones."""
    theirs = np.array([one.probabilities for one in expected])
    changed = [i for i, (one, other) in enumerate(zip(found, expected, strict=True)) if one.grade != other.grade]
    low, high = np.sort(theirs)[:, -2:].T
    return {
        "grades_changed": len(changed),
        "of_these_ties": int((high - low < TIE)[changed].sum()),
        "largest_probability_change": float(np.abs(np.array([one.probabilities for one in found]) - theirs).max()),
        "familiarity_changed": sum(one.familiar != other.familiar for one, other in zip(found, expected, strict=True)),
    }


def plot(result: dict, path: Path) -> None:
    taken, ceilings = result["milliseconds"], result["ceiling_milliseconds_a_pass"]
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(taken)), layout="constrained")
    axes = figure.subplots()
    names, label = list(taken)[::-1], "ceiling (matrix product)"
    bars = axes.barh(names, [taken[name]["single"] for name in names], color=TEAL)
    axes.bar_label(bars, padding=3, fmt="%.0f")
    for i, name in enumerate(names):
        precision = name.rsplit(" ", 1)[-1]
        if precision in ceilings:
            at = ceilings[precision]
            axes.plot([at, at], [i - 0.4, i + 0.4], "k--", label=label)
            label = None
    axes.set(xlabel="ms per X-ray, from file to grade with heat map")
    axes.margins(x=0.1)
    figure.legend(loc="outside lower right")
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the built release")
    parser.add_argument("--model", default=BUNDLED_MODEL, help="model folder (default: %(default)s)")
    parser.add_argument("--images", type=int, default=826, help="validation knees to grade (default: %(default)s, all)")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "one_xray.json")
    args = parser.parse_args()

    images = choose_split(load_dataset(args.dataset), "validation", args.dataset)["image"][: args.images]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG")
    file = buffer.getvalue()

    calls = GradingCalls(args.model)
    graders = calls.graders
    single = milliseconds(calls.single, file, args.rounds)
    batched = milliseconds(calls.batched, [file] * BATCH, max(2, args.rounds // 10))
    reference = graders["torch fp32"]
    peaks = {name: peak(reference.device, name) for name in sorted({grader.precision for grader in graders.values()})}
    held = {name: megabytes(args.model, name, file) for name in calls.single}

    gradings: dict[str, list[Grading]] = {name: [] for name in graders}
    with progress_bar("grading", len(images) * len(graders), show=True) as advance:
        for name, grader in graders.items():
            for i in range(0, len(images), BATCH):
                gradings[name] += grader.grade_batch(images[i : i + BATCH])
                for _ in images[i : i + BATCH]:
                    advance()

    needed = operations(reference.model, reference.preprocessing.image_size)
    ceiling = {name: 1000 * needed / value for name, value in peaks.items()}
    result = {
        "what": "ms per X-ray from file to grade with heat map; medians",
        "model": args.model,
        "image_size": reference.preprocessing.image_size,
        "milliseconds": {
            name: {"single": round(single[name], 1), f"in batches of {BATCH}": round(batched[name] / BATCH, 1)}
            for name in single
        },
        "process_megabytes": held,
        "times_the_baseline": {name: round(single[BASELINE] / value, 2) for name, value in single.items()},
        "ceiling_milliseconds_a_pass": {name: round(value, 1) for name, value in ceiling.items()},
        "share_of_the_ceiling": {
            name: round(ceiling[grader.precision] / single[name], 2) for name, grader in graders.items()
        },
        "validation_images": len(images),
        "against_torch_fp32": {
            name: differences(gradings[name], gradings["torch fp32"]) for name in graders if name != "torch fp32"
        },
    }
    write_result(args.output, result | limits(reference.device, peaks))
    plot(result, args.output.with_suffix(".png"))
    rows = []
    for name, taken in result["milliseconds"].items():
        different = result["against_torch_fp32"].get(name, {})
        changed = {key: different.get(key) for key in ("grades_changed", "of_these_ties")}
        rows.append(
            {"way": name, **taken, "times the baseline": result["times_the_baseline"][name], "MB": held.get(name)}
            | changed
        )
    print_table(result["what"], rows)


if __name__ == "__main__":
    sys.exit(main())
