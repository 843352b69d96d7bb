"""Python processes that start in a moment: forks of a server that imported the heavy libraries and did little else.

A test that needs a real process (a command line, a signal, a process group, or a client with a cache of its own) starts
it here. Importing torch, transformers and datasets costs a new interpreter ten seconds or more, and a fork nothing. The
server has nothing of koa_hf or train, so that a fork is also what somebody runs who has only the stock libraries.

The libraries read the Hub's address and their cache's folder once, at import. Both are therefore fixed for the session:
`HUB_PORT`, which the fake Hub listens on, and `HOME`, a link that is set to each process' own folder when it starts.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

PRELOADED = [
    "tests.no_garbage_collection",
    *("gradio", "torch", "torchvision", "torch.utils.tensorboard", "timm", "transformers", "transformers.pipelines"),
    *("huggingface_hub", "datasets", "evaluate", "accelerate", "sklearn.metrics", "scipy.optimize", "pandas"),
    *("matplotlib.pyplot", "PIL.Image", "pydicom", "rich.table", "pydantic", "safetensors.torch"),
]


_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Other ports for each of up to eight workers, and none that Linux gives to outgoing connections (from 32,768).
_candidates = iter(random.SystemRandom().sample(range(20_000 + _worker % 8, 32_768, 8), 1500))


def free_port() -> int:
    """A port that nothing listens on, and that no other call in this session returned."""
    for port in _candidates:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


HUB_PORT = free_port()
_FOLDER = Path(tempfile.gettempdir(), f"koa-tests-homes-{os.getpid()}")
HOME = _FOLDER / "current"
FIXED = {
    "HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT}",
    "HF_HOME": str(HOME),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}
"""Variables of the server's environment; every fork has the same values."""

_REMOVED = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_OFFLINE", "TRANSFORMERS_CACHE")

_context = multiprocessing.get_context("forkserver")


def client_environment(home: Path | None = None, **variables: str) -> dict[str, str]:
    """The environment of a process that knows only the fake Hub and has no token there.

    Args:
        home: its HF_HOME; by default one that all such processes share.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED)}
    return kept | FIXED | {"HF_HOME": str(home or _FOLDER / "shared")} | variables


def start_server() -> None:
    """Start the server, unless it runs; its imports go on in the background."""
    before, its = dict(os.environ), client_environment(HOME)
    os.environ.clear()
    os.environ.update(its)
    try:
        _context.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


class Process:
    """A forked process that behaves as `subprocess.Popen` does."""

    def __init__(
        self,
        script: str,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ):
        """Start a Python script, a module (`-m`, then its name), or code (`-c`, then the code), as `python` would.

        Args:
            env: its environment, by default `client_environment()`.
            stdout, stderr: files to write to; by default nothing is kept. One file for both takes both.
        """
        start_server()
        env = dict(client_environment() if env is None else env)
        _point_home_at(Path(env.get("HF_HOME", _FOLDER / "shared")))
        files = [os.devnull if file is None else str(file) for file in (stdout, stderr)]
        command = [script, *map(str, arguments)]
        self._process = _context.Process(target=_child, args=(command, env | FIXED, str(cwd), files))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    script: str, *arguments: object, check: bool = True, timeout: float = 900, **options
) -> subprocess.CompletedProcess:
    """Run a script to its end and return what it wrote. Options: see `Process`.

    Raises:
        AssertionError: it failed, though `check`; says what it wrote.
    """
    (done,) = run_together([(script, *arguments)], [{}], check=check, timeout=timeout, **options)
    return done


def run_in_two(script: str, *arguments: object, env: Mapping[str, str] | None = None, **options):
    """Run a script as the two processes of one group, as torchrun starts them; returns what the first one wrote."""
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    group["OMP_NUM_THREADS"] = "1"
    own = [{"env": {**(env or client_environment()), **group, "RANK": r, "LOCAL_RANK": r}} for r in ("0", "1")]
    return run_together([(script, *arguments)] * 2, own, **options)[0]


def run_together(
    commands: Sequence[tuple], own: Sequence[dict], *, check: bool = True, timeout: float = 900, **options
) -> list[subprocess.CompletedProcess]:
    """Run several at a time, each with options of its own."""
    with tempfile.TemporaryDirectory(prefix="koa-tests-") as folder:
        files = [(Path(folder, f"{i}.out"), Path(folder, f"{i}.err")) for i in range(len(commands))]
        running = [
            Process(*command, stdout=out, stderr=err, **options, **its)
            for command, (out, err), its in zip(commands, files, own, strict=True)
        ]
        try:
            codes = [process.wait(timeout) for process in running]
        finally:
            for process in running:
                process.kill()
        done = [
            subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())
            for command, code, (out, err) in zip(commands, codes, files, strict=True)
        ]
    for one in done:
        assert not check or one.returncode == 0, f"exit code {one.returncode}\n{one.stdout}\n{one.stderr[-3000:]}"
    return done


def _point_home_at(folder: Path) -> None:
    if not _FOLDER.exists():
        _FOLDER.mkdir()
        atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    HOME.unlink(missing_ok=True)
    HOME.symlink_to(folder)


def _child(command: list[str], env: dict[str, str], cwd: str, files: list[str]) -> None:
    """Run a command line in a fork as `python` would in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None  # by the environment
    gc.freeze()  # collections neither scan nor write to the half a million objects of the server
    gc.enable()
    for number, file in enumerate(files, start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    script, *arguments = command
    try:
        if script == "-c":
            sys.argv = ["-c", *arguments[1:]]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(arguments[0], "<string>", "exec"), main.__dict__)
        elif script == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(script, run_name="__main__")
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()
