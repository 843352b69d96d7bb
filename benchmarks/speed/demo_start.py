"""How fast the demo is: from `python app.py` to a page, to the first grade, and every grade after; and its imports.

    python benchmarks/speed/demo_start.py

Starts the demo as a process of its own, --starts times, and asks it as gradio_client does; before them once, counted
apart, as if it were the first time ever, with nothing of the model converted and cached yet. Then measures in this
process what the server does for one X-ray, from the file's bytes to the page's HTML with the heat maps in it. The X-ray
is a drawn knee: a network takes as long for that as for any other. Needs a machine with nothing else to do. Writes
results/demo/demo.json and a plot of it. Under load: `benchmarks/speed/demo_load.py`.
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

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as app.py has it, for what is measured in this process

from gradio_client import Client, handle_file
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.recording import record, show
from benchmarks.speed.demo_server import serving
from koa_hf.demo import page
from koa_hf.errors import exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grading.examination import examine
from koa_hf.grading.grader import Grader
from koa_hf.imaging import phantom, radiograph

ROOT = Path(__file__).resolve().parents[2]

PACKAGES_SHOWN = 15
TARGET_SECONDS = 5  # from the start to a page, on two cores


def started(knee: Path, times: int, cache: str) -> dict[str, float]:
    """Seconds of one start: to the first page, to the first grade, and of later grades, by a client."""
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
    """What `python -X importtime app.py --help` spends, in seconds: in all, and for the packages that take most.

    `itself` is what the package's own modules take; `with_what_it_imports` is from the beginning of its first import
    to its end.
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


def at_the_server(knee: bytes, times: int) -> list[float]:
    """Seconds from the bytes of a file to the HTML of its result, heat maps for all grades included."""
    grader = Grader.from_pretrained(precision="auto")
    seconds = []
    for _ in range(times + 3):
        began = time.perf_counter()
        examined = examine(grader, [radiograph.read(knee, "knee.png")])[0]
        for i, graded in enumerate(examined.knees):
            page.knee_html(graded, i, examined.film)
        seconds.append(time.perf_counter() - began)
    return seconds[3:]


def plot(seconds: dict[str, float], found: dict, path: Path) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    times, packages = figure.subplots(1, 2)
    most = {name: taken["itself"] for name, taken in found["packages"].items()}
    most = dict(sorted(most.items(), key=lambda item: item[1])[-8:])
    for axes, values, title in (
        (times, dict(reversed(seconds.items())), "seconds"),
        (packages, most, "seconds of imports, by package"),
    ):
        bars = axes.barh([name.replace("_", " ") for name in values], list(values.values()), color="#0d9488")
        axes.bar_label(bars, padding=3, fmt="%.2f")
        axes.set_title(title, fontsize="medium")
        axes.margins(x=0.15)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=40, help="grades to measure (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "demo" / "demo.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        knee = Path(folder, "knee.png")
        Image.fromarray(phantom.draw_knee(2, seed=1)).save(knee)
        first_ever = started(knee, 1, cache=folder)
        starts = [started(knee, args.rounds, cache=folder) for _ in range(args.starts)]
        steady = at_the_server(knee.read_bytes(), args.rounds)
    seconds = {
        **{name: round(statistics.median(start[name] for start in starts), 3) for name in starts[0]},
        "start_to_first_grade_when_nothing_is_converted_yet": round(first_ever["start_to_first_grade"], 3),
        "at_the_server_file_to_html": round(statistics.median(steady), 4),
        "at_the_server_slowest_of_twenty": round(statistics.quantiles(steady, n=20)[-1], 4),
    }
    found = imports()
    record(
        args.output,
        {
            "what": f"seconds; medians of {args.starts} starts and {args.rounds} grades; one start with nothing cached",
            "seconds": seconds,
            "target_start_to_page": TARGET_SECONDS,
            "each_start_to_page": [round(start["start_to_page"], 2) for start in starts],
            "imports": found,
        },
    )
    plot(seconds, found, args.output.with_suffix(".png"))
    show("The demo, seconds", [{"what": name.replace("_", " "), "seconds": value} for name, value in seconds.items()])
    show(
        f"Imports until the page: {found['all']} s",
        [{"package": name, **values} for name, values in found["packages"].items()],
    )


if __name__ == "__main__":
    sys.exit(main())
