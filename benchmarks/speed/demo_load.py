"""The demo under load: 1, 4, 16 and 64 concurrent clients, two minutes each.

    python benchmarks/speed/demo_load.py
    python benchmarks/speed/demo_load.py --clients 1 4 --seconds 10

The demo runs as one process and the clients as another (`benchmarks/speed/load_clients.py`) on the same machine;
`clients_share_of_the_processor` is what the clients use of it. The baseline is one client; the ceiling is the Grader
without a server, at its best batch size, measured in the same run. The X-rays are phantoms sent to `/grade`, since a
network takes equally long for any image. Run it on an otherwise idle machine. Writes results/demo/load.json and a plot.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from gradio_client import Client, handle_file
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.reporting import RESULTS, ROOT, TEAL, print_table, save_figure, write_result
from benchmarks.speed.demo_server import Server, serving
from benchmarks.speed.timing import median_seconds_in_turn
from koa_hf import Grader
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import phantom

CLIENTS = (1, 4, 16, 64)
BATCHES = (1, 2, 4, 8, 16)
PHANTOMS_PER_GRADE = 4
LEAST_GAIN = 1.1  # of the best batch size, for dynamic batching to be worth its wait


def batches(grader: Grader, files: list[Path], rounds: int) -> dict:
    """Milliseconds per image by batch size; medians."""
    data = [file.read_bytes() for file in files]
    inputs = {size: [data[i % len(data)] for i in range(size)] for size in BATCHES}
    taken = median_seconds_in_turn({size: partial(grader.grade_batch, inputs[size]) for size in BATCHES}, rounds)
    found = {size: seconds / size * 1000 for size, seconds in taken.items()}
    best = min(found, key=found.get)
    gain = found[1] / found[best]
    return {
        "milliseconds_an_image": {str(size): round(value, 1) for size, value in found.items()},
        "best": best,
        "gain_of_the_best": round(gain, 2),
        "worth_it": gain >= LEAST_GAIN,
    }


class MemoryWatch:
    """Memory of a server in a block, MB: at its start and end, at its peak, and under way.

    `after_a_minute` is the median of five seconds then, and `last` that of the last five; None in a shorter block.
    """

    def __init__(self, server: Server):
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._seen: list[tuple[float, float]] = []  # seconds since the start, MB

    def __enter__(self) -> "MemoryWatch":
        self._began = time.monotonic()
        self.start = self._server.megabytes
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()
        self.end = self._server.megabytes
        self.peak = max([self.start, self.end, *(seen for _, seen in self._seen)])
        length = time.monotonic() - self._began
        self.after_a_minute, self.last = (self._median(at, at + 5) if length > 70 else None for at in (60, length - 5))

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self._seen.append((time.monotonic() - self._began, self._server.megabytes))

    def _median(self, begin: float, end: float) -> float:
        return float(np.median([seen for at, seen in self._seen if begin <= at <= end]))


def loaded(server: Server, folder: Path, clients: int, seconds: float) -> dict:
    """A row of the result: that many clients for that many seconds."""
    command = [sys.executable, str(ROOT / "benchmarks" / "speed" / "load_clients.py"), server.url, str(folder)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    with MemoryWatch(server) as watch:
        asked = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if asked.returncode:
        raise KoaError("the clients failed, see above; nothing was measured.")
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
        "megabytes_after_a_minute": watch.after_a_minute and round(watch.after_a_minute),
        "megabytes_last": watch.last and round(watch.last),
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
    rate.bar(clients, [row["grades_a_second"] for row in rows], color=TEAL)
    rate.axhline(ceiling, color="black", linestyle="--", label="Grader without a server, in batches")
    rate.set(xlabel="clients", ylabel="grades a second")
    rate.legend()
    for name, style in (("p50_seconds", "o-"), ("p95_seconds", "s--")):
        wait.plot(clients, [row[name] for row in rows], style, color=TEAL, label=name.split("_")[0])
    wait.set(xlabel="clients", ylabel="seconds from upload to grade", ylim=(0, None))
    wait.legend()
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="concurrent (default: 1 4 16 64)")
    parser.add_argument("--seconds", type=float, default=120, help="per number of clients (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="for the batch sizes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "demo" / "load.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for i in range(NUM_GRADES * PHANTOMS_PER_GRADE):
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
    write_result(
        args.output,
        {
            "what": f"concurrent clients for {args.seconds:g} seconds each; upload and queue included",
            "rows": rows,
            "ceiling_grades_a_second": round(ceiling, 2),
            "batches": together,
            "engine": engine,
        },
    )
    plot(rows, ceiling, args.output.with_suffix(".png"))
    print_table("The demo under load", [{key: row[key] for key in row if key != "what_errors"} for row in rows])
    print_table("Milliseconds per image by batch size", [together["milliseconds_an_image"]])


if __name__ == "__main__":
    sys.exit(main())
