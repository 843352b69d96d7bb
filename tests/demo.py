"""`python app.py` as a process of its own, for tests."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Demo:
    url: str
    log: Path  # what it wrote so far
    process: subprocess.Popen

    def written(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, text: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while text not in self.written():
            assert time.monotonic() < end, f"it didn't say {text!r}, but:\n{self.written()}"
            time.sleep(0.1)


@contextlib.contextmanager
def running_demo(*options: str, folder: Path = REPOSITORY, env: dict[str, str] | None = None) -> Iterator[Demo]:
    """Serve the app.py of `folder` on a free port, until the block ends; yields when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        command = [sys.executable, "app.py", "--port", str(port), *options]
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        demo = Demo(f"http://127.0.0.1:{port}/", Path(log.name), server)
        try:
            for _ in range(480):
                try:
                    urllib.request.urlopen(demo.url, timeout=5).close()
                    break
                except OSError:
                    if server.poll() is not None:
                        pytest.fail(f"app.py ended with exit code {server.returncode}:\n{demo.written()}")
                    time.sleep(0.25)
            else:
                pytest.fail(f"app.py didn't answer within two minutes:\n{demo.written()}")
            yield demo
        finally:
            server.terminate()
            server.wait(timeout=20)
