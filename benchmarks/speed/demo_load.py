"""The demo under load: 1, 4, 16 and 64 clients at once, two minutes each.

    python benchmarks/speed/demo_load.py
    python benchmarks/speed/demo_load.py --clients 1 4 --seconds 10

Starts the demo as a process of its own, and the clients as another (`benchmarks/speed/load_clients.py`): each asks for one
grade after the other, without pause, as gradio_client does. The baseline is a single client; the ceiling is what the
grader reaches with no server around it, in batches of the best size, measured in the same run, on the whole machine;
the clients share the machine with the demo, and `clients_share_of_the_processor` is what they took of it. The X-rays
are drawn knees, asked for as `/grade`, which takes an image as one knee: a network takes as long for these as for any
other. Needs a machine with nothing else to do. Writes results/demo/load.json and a plot of it.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from gradio_client import Client, handle_file
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.recording import record, show
from benchmarks.speed.demo_server import Server, serving
from koa_hf import Grader
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import phantom

ROOT = Path(__file__).resolve().parents[2]

CLIENTS = (1, 4, 16, 64)
BATCHES = (1, 2, 4, 8, 16)
DIFFERENT = 4  # drawn knees of each grade
LEAST_GAIN = 1.1  # of the best batch, for batches of waiting requests to be worth their waiting


def batches(grader: Grader, files: list[Path], rounds: int) -> dict:
    """Milliseconds an image by the size of the batch, all sizes in turn; medians."""
    data = [file.read_bytes() for file in files]
    taken: dict[int, list[float]] = {size: [] for size in BATCHES}
    for _ in range(rounds + 1):
        for size in BATCHES:
            began = time.perf_counter()
            grader.grade_batch([data[i % len(data)] for i in range(size)])
            taken[size].append((time.perf_counter() - began) / size * 1000)
    found = {size: statistics.median(values[1:]) for size, values in taken.items()}
    best = min(found, key=found.get)
    gain = found[1] / found[best]
    return {
        "milliseconds_an_image": {str(size): round(value, 1) for size, value in found.items()},
        "best": best,
        "gain_of_the_best": round(gain, 2),
        "worth_it": gain >= LEAST_GAIN,
    }


class Watch:
    """A server's memory while a block runs, in MB: `start`, `peak` and `end`."""

    def __init__(self, server: Server):
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self.start = self.peak = self._server.megabytes
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()
        self.end = self._server.megabytes

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self.peak = max(self.peak, self._server.megabytes)


def loaded(server: Server, folder: Path, clients: int, seconds: float) -> dict:
    """One row: so many clients for so long."""
    command = [sys.executable, str(ROOT / "benchmarks" / "load_clients.py"), server.url, str(folder)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    with Watch(server) as watch:
        asked = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if asked.returncode:
        raise KoaError("the clients failed, for the reason above; a demo that can't be reached can't be measured.")
    found = json.loads(asked.stdout)
    in_time = sum(one <= seconds for one in found["finished"])
    middle, late = np.percentile(found["took"], [50, 95]) if found["took"] else (None, None)
    return {
        "clients": clients,
        "grades": len(found["took"]),
        "grades_a_second": round(in_time / seconds, 2),
        "p50_seconds": middle and round(float(middle), 3),
        "p95_seconds": late and round(float(late), 3),
        "errors": sum(found["errors"].values()),
        "what_errors": found["errors"],
        "megabytes_start": round(watch.start),
        "megabytes_peak": round(watch.peak),
        "megabytes_end": round(watch.end),
        "clients_share_of_the_processor": round(
            found["processor_seconds"] / max([seconds, *found["finished"]]) / psutil.cpu_count(), 2
        ),
    }


def plot(rows: list[dict], ceiling: float, path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rate, wait = figure.subplots(1, 2)
    clients = [str(row["clients"]) for row in rows]
    rate.bar(clients, [row["grades_a_second"] for row in rows], color="#0d9488")
    rate.axhline(ceiling, color="black", linestyle="--", label="the grader without a server, in batches")
    rate.set(xlabel="clients", ylabel="grades a second")
    rate.legend()
    for name, style in (("p50_seconds", "o-"), ("p95_seconds", "s--")):
        wait.plot(clients, [row[name] for row in rows], style, color="#0d9488", label=name.split("_")[0])
    wait.set(xlabel="clients", ylabel="seconds from upload to grade", ylim=(0, None))
    wait.legend()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="at once (default: 1 4 16 64)")
    parser.add_argument("--seconds", type=float, default=120, help="of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="of the measurement of batches (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "demo" / "load.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for i in range(NUM_GRADES * DIFFERENT):
            Image.fromarray(phantom.draw_knee(i % NUM_GRADES, seed=i)).save(folder / f"knee-{i}.png")
        files = sorted(folder.iterdir())
        grader = Grader.from_pretrained(precision="auto")
        together, engine = batches(grader, files, args.rounds), f"{grader.engine} {grader.precision}"
        ceiling = 1000 / together["milliseconds_an_image"][str(together["best"])]
        del grader
        gc.collect()
        with serving() as server:
            Client(server.url, verbose=False).predict(handle_file(files[0]), api_name="/grade")
            rows = [loaded(server, folder, clients, args.seconds) for clients in args.clients]
    for row in rows:
        row["times_one_client"] = round(row["grades_a_second"] / (rows[0]["grades_a_second"] or 1), 2)
        row["share_of_the_ceiling"] = round(row["grades_a_second"] / ceiling, 2)
    record(
        args.output,
        {
            "what": f"clients asking for grades without pause, {args.seconds:g} seconds; upload and queue included",
            "rows": rows,
            "ceiling_grades_a_second": round(ceiling, 2),
            "batches": together,
            "engine": engine,
        },
    )
    plot(rows, ceiling, args.output.with_suffix(".png"))
    show("The demo under load", [{key: row[key] for key in row if key != "what_errors"} for row in rows])
    show("Several X-rays in one forward pass, ms an image", [together["milliseconds_an_image"]])


if __name__ == "__main__":
    sys.exit(main())
