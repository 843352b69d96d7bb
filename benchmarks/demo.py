"""How fast the demo is: from `python app.py` to a page, to the first grade, and every grade after.

    python benchmarks/demo.py

Starts the demo as a process of its own, --starts times, and asks it as gradio_client does; then measures in this
process what the server does for one X-ray, from the file's bytes to the page's HTML with the heat maps in it. The X-ray
is a drawn knee: a network takes as long for that as for any other. Needs a machine with nothing else to do. Writes
results/demo/demo.json.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gradio_client import Client, handle_file
from PIL import Image

from koa_hf import page, phantom
from koa_hf.examination import examine, read
from koa_hf.files import write_text
from koa_hf.grader import Grader
from train.record import processor

RESULT = ROOT / "results" / "demo" / "demo.json"


def started(knee: Path, times: int) -> dict[str, float]:
    """Seconds of one start: to the first page, to the first grade after that, and of later grades, by a client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit("app.py ended by itself; run it to see why.") from None
                time.sleep(0.05)
        seconds = {"start_to_page": time.perf_counter() - began}
        client = Client(url, verbose=False)
        for name, rounds in (("first_grade", 1), ("later_grade_with_upload_and_queue", times)):
            took = []
            for _ in range(rounds):
                asked = time.perf_counter()
                client.predict(handle_file(knee), api_name="/grade")
                took.append(time.perf_counter() - asked)
            seconds[name] = statistics.median(took)
        return seconds
    finally:
        server.terminate()
        server.wait(timeout=30)


def at_the_server(knee: bytes, times: int) -> list[float]:
    """Seconds from the bytes of a file to the HTML of its result, heat maps for all grades included."""
    grader = Grader.from_pretrained()
    seconds = []
    for _ in range(times + 3):
        began = time.perf_counter()
        examined = examine(grader, [read(knee, "knee.png")])[0]
        for i, report in enumerate(examined.reports):
            page.knee_html(report, i, examined.film.xray)
        seconds.append(time.perf_counter() - began)
    return seconds[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=40, help="grades to measure (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        knee = Path(folder, "knee.png")
        Image.fromarray(phantom.draw(2, seed=1)).save(knee)
        starts = [started(knee, args.rounds) for _ in range(args.starts)]
        steady = at_the_server(knee.read_bytes(), args.rounds)
    result = {
        "what": f"seconds; medians of {args.starts} starts and of {args.rounds} grades",
        "seconds": {
            **{name: round(statistics.median(start[name] for start in starts), 3) for name in starts[0]},
            "at_the_server_file_to_html": round(statistics.median(steady), 4),
            "at_the_server_slowest_of_twenty": round(statistics.quantiles(steady, n=20)[-1], 4),
        },
        "each_start_to_page": [round(start["start_to_page"], 2) for start in starts],
        "machine": processor(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_text(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
