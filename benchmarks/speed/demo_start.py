"""Speed of the demo: start to first page, to first grade, later grades, where their time goes, and import times.

    python benchmarks/speed/demo_start.py

Starts the demo --starts times as a process of its own and asks it for grades with gradio_client; one more start, first
and reported apart, has an empty cache, so that the model is converted. In-process, it then times the steps of the
server's work, from file bytes to the parts of the page, on a crop and on a film of two knees. The X-rays are drawn. Run
it on an otherwise idle machine. Writes results/demo/demo.json and a plot. For load, see
`benchmarks/speed/demo_load.py`.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in app.py, for the in-process part

import numpy as np
from gradio_client import Client, handle_file
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.reporting import RESULTS, ROOT, TEAL, print_table, save_figure, write_result
from benchmarks.speed.cohort import pictures
from benchmarks.speed.demo_server import serving
from koa_hf.demo import page
from koa_hf.demo.components import film_update
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grading.examination import find, grade_found
from koa_hf.grading.grader import Grader
from koa_hf.imaging import phantom, radiograph

PACKAGES_SHOWN = 15
TARGETS = {"start_to_page": 3, "page_to_first_grade": 8, "crop": 0.1, "film": 0.35}
"""Seconds, on two cores with AVX512-BF16; the last two at the server alone."""


def started(knee: Path, times: int, cache: str) -> dict[str, float]:
    """Seconds of one start to the first page, to the first grade, and per later grade, as a client sees them."""
    with serving(environment={"KOA_CACHE": cache}) as server:
        seconds = {"start_to_page": server.seconds_to_page}
        # Unverified, for the reason that load_clients.py gives.
        client = Client(server.url, verbose=False, ssl_verify=False)
        for name, rounds in (("page_to_first_grade", 1), ("later_grade_with_upload_and_queue", times)):
            took = []
            for _ in range(rounds):
                asked = time.perf_counter()
                client.predict(handle_file(knee), api_name="/grade")
                took.append(time.perf_counter() - asked)
            seconds[name] = statistics.median(took)
        seconds["start_to_first_grade"] = seconds["start_to_page"] + seconds["page_to_first_grade"]
        return seconds


def imports() -> dict:
    """Import times of `python -X importtime app.py --help`, seconds: total, and the slowest packages.

    `itself` counts the package's own modules; `with_what_it_imports` is the longest import of one of them, nested
    imports included.
    """
    command = [sys.executable, "-X", "importtime", str(ROOT / "app.py"), "--help"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    itself, whole = Counter(), Counter()
    for line in said.stderr.splitlines():
        found = re.fullmatch(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)", line)
        if found:
            package = found[3].partition(".")[0]
            itself[package] += int(found[1]) / 1e6
            whole[package] = max(whole[package], int(found[2]) / 1e6)
    return {
        "all": round(sum(itself.values()), 3),
        "packages": {
            package: {"with_what_it_imports": round(seconds, 3), "itself": round(itself[package], 3)}
            for package, seconds in whole.most_common(PACKAGES_SHOWN)
        },
    }


def at_the_server(grader: Grader, file: bytes, times: int, knees: int) -> dict[str, float]:
    """Median seconds of each step from a file to the parts of the page that show its knees; `all`: of the whole.

    Raises:
        KoaError: there are not so many knees on it.
    """
    rows = []
    for _ in range(times + 3):
        at = [time.perf_counter()]
        film = radiograph.read(file, "x-ray.png")
        at.append(time.perf_counter())
        found = find(film)
        at.append(time.perf_counter())
        (graded,) = grade_found(grader, [found])
        at.append(time.perf_counter())
        if found.boxes:
            film_update(film, found.boxes)
        at.append(time.perf_counter())
        for i, knee in enumerate(graded):
            page.knee_html(knee, i, film)
            page.heat_map_layers(knee)
        at.append(time.perf_counter())
        rows.append([*np.diff(at), at[-1] - at[0]])
        if len(graded) != knees:
            raise KoaError(f"{len(graded)} knees were found on a film of {knees}; nothing was measured.")
    steps = ("read", "find_knees", "grade", "film_for_the_page", "html_and_heat_maps", "all")
    return dict(zip(steps, np.median(rows[3:], axis=0).round(4).tolist(), strict=True))


def plot(seconds: dict[str, float], found: dict, path: Path) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    times, packages = figure.subplots(1, 2)
    most = {name: taken["itself"] for name, taken in found["packages"].items()}
    most = dict(sorted(most.items(), key=lambda item: item[1])[-8:])
    for axes, values, title in (
        (times, dict(reversed(seconds.items())), "seconds"),
        (packages, most, "seconds of imports, by package"),
    ):
        bars = axes.barh([name.replace("_", " ") for name in values], list(values.values()), color=TEAL)
        axes.bar_label(bars, padding=3, fmt="%.2f")
        axes.set_title(title, fontsize="medium")
        axes.margins(x=0.15)
    save_figure(figure, path)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="starts to time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="grades to time (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "demo" / "demo.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        knee = Path(folder, "knee.png")
        Image.fromarray(phantom.draw_knee(2, seed=1)).save(knee)
        first_ever = started(knee, 1, cache=folder)
        starts = [started(knee, args.rounds, cache=folder) for _ in range(args.starts)]
        grader = Grader.from_pretrained(precision="auto")
        film = next(pictures("films", 1))
        server = {
            "crop": at_the_server(grader, knee.read_bytes(), args.rounds, knees=1),
            "film": at_the_server(grader, phantom.as_png(film), args.rounds, knees=2),
        }
    seconds = {
        **{name: round(statistics.median(start[name] for start in starts), 3) for name in starts[0]},
        "start_to_first_grade_when_nothing_is_converted_yet": round(first_ever["start_to_first_grade"], 3),
    }
    found = imports()
    write_result(
        args.output,
        {
            "what": f"seconds; medians of {args.starts} starts and {args.rounds} grades; one start with an empty cache",
            "seconds": seconds,
            "at_the_server": server,
            "film_pixels": film.shape,
            "engine": f"{grader.engine} {grader.precision}",
            "targets": TARGETS,
            "each_start_to_page": [round(start["start_to_page"], 2) for start in starts],
            "imports": found,
        },
    )
    plot(seconds, found, args.output.with_suffix(".png"))
    print_table(
        "The demo, seconds", [{"what": name.replace("_", " "), "seconds": value} for name, value in seconds.items()]
    )
    print_table("At the server, seconds", [{"x-ray": name, **steps} for name, steps in server.items()])
    print_table(
        f"Imports before the first page: {found['all']} s",
        [{"package": name, **values} for name, values in found["packages"].items()],
    )


if __name__ == "__main__":
    sys.exit(main())
