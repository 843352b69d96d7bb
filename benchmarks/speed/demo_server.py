"""`python app.py` as a process of its own, for benchmarks: how long until it serves a page, and how large it is."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from koa_hf.errors import KoaError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A demo that serves; `seconds_to_page` is from the start of its process to its first page."""

    url: str
    process: subprocess.Popen
    seconds_to_page: float

    @property
    def megabytes(self) -> float:
        """What it holds in memory now, its children included."""
        process = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


@contextlib.contextmanager
def serving(*options: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start the demo on a free port; yields with its first page, and stops it after the block.

    Args:
        environment: variables that it is given beside this process' own.

    Raises:
        KoaError: it ended by itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(port), *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while not _answers(url):
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()
                    raise KoaError(f"app.py ended by itself: {said[-1] if said else 'it said nothing'}")
                time.sleep(0.02)
            yield Server(url, process, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
