"""`python app.py` as a process of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import REPOSITORY, Process, free_port


@dataclass(frozen=True)
class Demo:
    url: str
    log: Path  # what it wrote so far
    process: Process | subprocess.Popen

    def written(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, text: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while text not in self.written():
            assert time.monotonic() < end, f"it didn't say {text!r}, but:\n{self.written()}"
            time.sleep(0.1)

    def refusal(self, endpoint: str, inputs: list) -> str:
        """The error of an endpoint for `inputs` that it refuses, over plain HTTP."""
        address, headers = f"{self.url}gradio_api/call/{endpoint}", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, json.dumps({"data": inputs}).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{address}/{event}") as events:
            kind, content = (line.split(": ", 1)[1] for line in events.read().decode().strip().splitlines()[-2:])
        assert kind == "error", content
        return json.loads(content)["error"]


@contextlib.contextmanager
def running_demo(
    *options: str, folder: Path = REPOSITORY, env: dict[str, str] | None = None, fresh: bool = False
) -> Iterator[Demo]:
    """Serve the app.py of `folder` on a free port, until the block ends; yields when it answers.

    Args:
        fresh: start a new interpreter instead of a fork: where it matters what is imported, or HF_HUB_OFFLINE is set.
    """
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        file = Path(log.name)
        command = ("app.py", "--port", str(port), *options)
        if fresh:
            server = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=log, stderr=log)
        else:
            server = Process(*command, cwd=folder, env=env, stdout=file, stderr=file)
        demo = Demo(f"http://127.0.0.1:{port}/", file, server)
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
