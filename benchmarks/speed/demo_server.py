"""`python app.py` as a process of its own: seconds until it serves a page, and its memory."""

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

import psutil

from benchmarks.reporting import ROOT
from koa_hf.errors import KoaError


@dataclass(frozen=True)
class Server:
    """A running demo; `seconds_to_page` is the time from process start to the first page."""

    url: str
    process: subprocess.Popen
    seconds_to_page: float

    @property
    def megabytes(self) -> float:
        """Resident memory, children included, MB."""
        process = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


@contextlib.contextmanager
def serving(*options: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start the demo on a free port, yield when it serves its first page, stop it after the block.

    Args:
        options: command-line options of app.py.
        environment: environment variables added to this process's own.

    Raises:
        KoaError: app.py exited before it served a page.
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
                    raise KoaError(f"app.py exited with code {process.returncode}: {said[-1] if said else 'no output'}")
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
