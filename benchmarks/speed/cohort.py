"""Films and knees a second of `koa cohort grade`, beside the plain loop of `koa grade` and the network alone.

    python benchmarks/speed/cohort.py
    python benchmarks/speed/cohort.py --kinds crops --films 12 --memory-films 50 200      # a quick look

Drawn crops and composed films of two knees, about 2,500 pixels wide, as PNG and as DICOM in JPEG 2000. For each: the
plain loop, `koa cohort grade` in --processes processes under `accelerate launch`, all in one run; the ceiling, which is
the network alone in batches; and milliseconds of each step of one film. Peak memory of the command is measured at
--memory-films crops, with a small network, since a network takes the same memory for any number. The last table is on
paper: a million films on 1, 10 and 100 machines like this one, from these rates and file sizes.
Writes results/benchmarks/cohort.json and a plot.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEG2000Lossless, generate_uid

from benchmarks.reporting import RESULTS, ROOT, TEAL, print_table, save_figure, write_result
from benchmarks.studies.cohort_faults import small_model
from koa_hf import Grader
from koa_hf.cli.grade import grade_files
from koa_hf.cohort import BATCH_SIZE
from koa_hf.cohort.build import build_cohort
from koa_hf.cohort.results import Results, row_of
from koa_hf.cores import available_cores
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.examination import find, grade_found
from koa_hf.imaging import phantom, radiograph
from koa_hf.progress import progress_bar
from train.pictures.composites import Crop, compose

KNEE_ON_FILM = 900  # pixels; a film of two is then about 2,500 wide
GOALS = {"crops": "85 % of the ceiling", "films": "twice the plain loop"}
KINDS = ("crops", "films")
NODES = (1, 10, 100)
MILLION = 1_000_000


def pictures(kind: str, number: int) -> Iterator[np.ndarray]:
    """`number` different crops, or films of two knees: uint8 (height, width)."""
    for seed in range(number):
        knees = [
            Crop(phantom.draw_knee((seed + i) % 5, 2 * seed + i, side), side)
            for i, side in enumerate(("right", "left"))
        ]
        if kind == "crops":
            yield knees[0].pixels
        else:
            yield compose("bilateral", knees, np.random.default_rng(seed), KNEE_ON_FILM, varied=False).pixels


def as_dicom(pixels: np.ndarray) -> bytes:
    """A DICOM file of 12 bits in lossless JPEG 2000, as detectors write them."""
    xray = Dataset()
    xray.file_meta = FileMetaDataset()
    xray.file_meta.TransferSyntaxUID = JPEG2000Lossless
    xray.SOPClassUID, xray.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    xray.StudyInstanceUID, xray.PatientID, xray.Modality = generate_uid(), "drawn", "DX"
    xray.Rows, xray.Columns = pixels.shape
    xray.BitsAllocated, xray.BitsStored, xray.HighBit, xray.PixelRepresentation = 16, 12, 11, 0
    xray.SamplesPerPixel, xray.PhotometricInterpretation = 1, "MONOCHROME2"
    xray.WindowCenter, xray.WindowWidth, xray.VOILUTFunction = 2040, 4080, "LINEAR_EXACT"
    encoded = imagecodecs.jpeg2k_encode(pixels.astype(np.uint16) * 16, reversible=True, codecformat="j2k")
    xray.PixelData = encapsulate([encoded])
    file = io.BytesIO()
    xray.save_as(file, enforce_file_format=True)
    return file.getvalue()


ENCODINGS: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "PNG": (".png", phantom.as_png),
    "DICOM JPEG 2000": (".dcm", as_dicom),
}


def plain_loop(grader: Grader, folder: Path) -> float:
    """Seconds that `koa grade` takes for a folder, without its start."""
    files = sorted(folder.iterdir())
    began = time.perf_counter()
    for _ in grade_files(grader, files):
        pass
    return time.perf_counter() - began


def cohort(films: Path, out: Path, processes: int, model: str) -> dict[str, float]:
    """Films and seconds of `koa cohort grade`, as it says them itself, and its peak memory in MB."""
    command = ["-m", "koa_hf", "cohort", "grade", str(films), str(out), "--model", model, "--device", "cpu"]
    # Not --cpu, which starts one process whatever --num_processes says.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), *command]
    with tempfile.TemporaryFile("w+") as said:
        # The folder of the script, not that of the project, is what Python imports from.
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(max(1, available_cores() // processes)),
        }
        running = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=environment)
        peak = Peak(running.pid)
        code = running.wait()
        said.seek(0)
        text = said.read()
    if code:
        raise KoaError(f"`koa cohort grade` failed: {text[-2000:]}")
    graded = [
        (int(n), int(n) / float(rate))
        for n, rate in re.findall(r"graded (\d+) films, .*?, (\S+) films/s", text)
        if int(n)
    ]
    return {
        "films": sum(n for n, _ in graded),
        "seconds": max(seconds for _, seconds in graded),
        "peak_megabytes": peak.stop(),
    }


class Peak:
    """Peak memory of a process and its children, sampled: their proportional set sizes, so that pages count once."""

    def __init__(self, pid: int):
        self._process, self._most, self._over = psutil.Process(pid), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            try:
                all_of_them = [self._process, *self._process.children(recursive=True)]
                self._most = max(self._most, sum(one.memory_full_info().pss for one in all_of_them))
            except psutil.Error:
                continue

    def stop(self) -> int:
        """Megabytes."""
        self._over.set()
        self._thread.join()
        return round(self._most / 1e6)


def steps(grader: Grader, folder: Path, scratch: Path) -> dict[str, float]:
    """Milliseconds of each step of one film, one after the other in one process; the network in batches."""
    files = sorted(folder.iterdir())
    taken = dict.fromkeys(("decode", "find", "network", "write"), 0.0)

    def timed(step: str, work: Callable[[], object]):
        began = time.perf_counter()
        result = work()
        taken[step] += time.perf_counter() - began
        return result

    films = [timed("decode", lambda file=file: radiograph.read(file)) for file in files]
    found = [timed("find", lambda film=film: find(film)) for film in films]
    rows = []
    for first in range(0, len(found), BATCH_SIZE):
        batch = found[first : first + BATCH_SIZE]
        graded = timed("network", lambda batch=batch: grade_found(grader, batch))
        rows += [row_of(knee.grading, {}) for knees in graded for knee in knees]
    (scratch / "data").mkdir(parents=True)
    timed("write", lambda: Results(scratch, 1, {}).write(0, rows))
    return {step: round(1000 * seconds / len(files), 2) for step, seconds in taken.items()}


def network_alone(grader: Grader, knees: int) -> float:
    """Knees a second of the network on ready tensors in batches of `BATCH_SIZE`."""
    images = torch.zeros(BATCH_SIZE, 3, grader.preprocessing.image_size, grader.preprocessing.image_size)
    grader.forward(images)
    rounds = max(1, knees // BATCH_SIZE)
    began = time.perf_counter()
    for _ in range(rounds):
        grader.forward(images)
    return rounds * BATCH_SIZE / (time.perf_counter() - began)


def knees_in(out: Path) -> int:
    errors = [pq.read_table(shard, columns=["error"])["error"] for shard in (out / "data").glob("*.parquet")]
    return sum(one.null_count for one in errors)


def on_paper(row: dict, out: Path) -> list[dict]:
    """Hours and bytes for a million films on several machines that share the files, from one machine's rate."""
    written = sum(file.stat().st_size for file in (out / "data").glob("*.parquet"))
    return [
        {
            "what": row["what"],
            "machines": nodes,
            "hours": round(MILLION / (row["films_a_second"] * nodes) / 3600, 1),
            "read_megabytes_a_second": round(row["films_a_second"] * nodes * row["megabytes_a_film"], 1),
            "results_megabytes": round(MILLION * written / row["films"] / 1e6),
        }
        for nodes in NODES
    ]


def plot(rows: list[dict], path: Path) -> None:
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [f"{row['what']}, {row['way']}" for row in rows[::-1]],
        [row["knees_a_second"] for row in rows[::-1]],
        color=TEAL,
    )
    axes.bar_label(bars, padding=3, fmt="%.1f")
    axes.set(xlabel="knees a second")
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/koa-xception", help="model folder (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="default: crops films")
    parser.add_argument("--films", type=int, default=96, metavar="N", help="of each kind (default: %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    parser.add_argument(
        "--memory-films", type=int, nargs="*", default=[1000, 16000], metavar="N", help="default: 1000 16000"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks" / "cohort.json")
    args = parser.parse_args()
    grader = Grader.from_pretrained(args.model, device="cpu")
    rows, paper, memory, milliseconds = [], [], [], {}
    with tempfile.TemporaryDirectory() as name, progress_bar("measuring", len(args.kinds) * len(ENCODINGS)) as advance:
        work = Path(name)
        for kind in args.kinds:
            for encoding, (suffix, encode) in ENCODINGS.items():
                what = f"{kind}, {encoding}"
                folder = work / what
                folder.mkdir()
                for number, pixels in enumerate(pictures(kind, args.films)):
                    (folder / f"{number:05d}{suffix}").write_bytes(encode(pixels))
                size = sum(file.stat().st_size for file in folder.iterdir()) / args.films / 1e6
                build_cohort(folder, work / f"{what} films", films_per_shard=max(1, args.films // 8))
                ceiling = network_alone(grader, args.films)
                loop = plain_loop(grader, folder)
                milliseconds[what] = steps(grader, folder, work / f"{what} steps")
                ways = {"plain loop": (args.films, loop)}
                for processes in args.processes:
                    out = work / f"{what} {processes}"
                    took = cohort(work / f"{what} films", out, processes, args.model)
                    ways[f"{processes} process{'es' if processes > 1 else ''}"] = (took["films"], took["seconds"])
                knees = knees_in(out)
                for way, (films, seconds) in ways.items():
                    rate = knees / seconds
                    rows.append(
                        {
                            "what": what,
                            "way": way,
                            "films": films,
                            "megabytes_a_film": round(size, 3),
                            "films_a_second": round(films / seconds, 3),
                            "knees_a_second": round(rate, 3),
                            "times_the_plain_loop": round(loop / seconds, 2),
                            "share_of_the_ceiling": round(rate / ceiling, 3),
                        }
                    )
                best = max(rows[1 - len(ways) :], key=lambda row: row["films_a_second"])
                paper += on_paper(best, out)
                advance()
        small = str(small_model(work / "small model"))
        for films in args.memory_films:
            folder = work / f"memory {films}"
            folder.mkdir()
            several = sorted((work / f"{args.kinds[0]}, {next(iter(ENCODINGS))}").iterdir())
            for number in range(films):
                os.link(several[number % len(several)], folder / f"{number:06d}.png")
            build_cohort(folder, work / f"memory films {films}")
            took = cohort(work / f"memory films {films}", work / f"memory grades {films}", 1, small)
            memory.append({"films": films, "peak_megabytes": took["peak_megabytes"]})
    write_result(
        args.output,
        {
            "what": f"{args.films} films of each kind by {args.model} ({grader.engine}, {grader.precision})",
            "goals": GOALS,
            "rows": rows,
            "milliseconds_a_film_in_one_process": milliseconds,
            "memory": memory,
            "a_million_films_on_paper": paper,
        },
    )
    plot(rows, args.output.with_suffix(".png"))
    print_table("cohort", rows)
    print_table("milliseconds a film", [{"what": what, **each} for what, each in milliseconds.items()])
    if memory:
        print_table("peak memory", memory)
    print_table("a million films, on paper", paper)


if __name__ == "__main__":
    sys.exit(main())
