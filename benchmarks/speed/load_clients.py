"""Concurrent gradio_client clients, each asking a running demo for one grade after the other.

    python benchmarks/speed/load_clients.py http://127.0.0.1:7860 my-xrays/ --clients 4 --seconds 10

Prints JSON: `finished` (seconds since the start) and `took` (latency in seconds, upload and queue included) of each
grade, `errors` (message -> count) and `processor_seconds` used by the clients themselves. Run as a process of its own
by `benchmarks/speed/demo_load.py`.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file

from koa_hf.errors import KoaError, exit_2_on_bad_input


def drive(url: str, files: list[Path], clients: int, seconds: float) -> dict:
    """Run the clients for that many seconds, then wait for the pending requests."""
    try:
        with ThreadPoolExecutor(4) as pool:
            # Unverified: the library would load the certificate store for every request, which plain http never
            # uses and which would be most of the clients' processor time.
            ready = list(pool.map(lambda _: Client(url, verbose=False, ssl_verify=False), range(clients)))
    except Exception as error:  # the library raises its HTTP client's errors, and ValueError
        raise KoaError(f"no demo answers at {url} ({error}); start one with `python app.py`.") from error
    finished, took, errors = [], [], Counter()
    lock = threading.Lock()
    before, began = time.process_time(), time.perf_counter()

    def ask(number: int) -> None:
        for file in itertools.islice(itertools.cycle(files), number % len(files), None):
            asked = time.perf_counter()
            if asked - began >= seconds:
                return
            try:
                ready[number].predict(handle_file(file), api_name="/grade")
            except Exception as error:  # of any kind: errors are counted
                with lock:
                    errors[f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                done = time.perf_counter()
                with lock:
                    finished.append(round(done - began, 4))
                    took.append(round(done - asked, 4))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "finished": finished,
        "took": took,
        "errors": dict(errors),
        "processor_seconds": round(time.process_time() - before, 2),
    }


@exit_2_on_bad_input
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the demo")
    parser.add_argument("folder", type=Path, help="X-rays to send in turn")
    parser.add_argument("--clients", type=int, default=1, help="concurrent clients (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="default: %(default)s")
    args = parser.parse_args()
    files = sorted(path for path in args.folder.glob("*") if path.is_file())
    if not files:
        raise KoaError(f"{args.folder} contains no files; give a folder of X-rays.")
    print(json.dumps(drive(args.url, files, args.clients, args.seconds)))


if __name__ == "__main__":
    sys.exit(main())
