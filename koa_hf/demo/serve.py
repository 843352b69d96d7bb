"""Serving the page: command-line options, start, and an end that leaves nothing behind."""

import argparse
import math
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import gradio as gr
from gradio.tunneling import CURRENT_TUNNELS

from koa_hf.demo import page
from koa_hf.demo.batch import Limits
from koa_hf.demo.disagreements import Disagreements
from koa_hf.demo.examples import Examples, drawn_examples, examples_in
from koa_hf.demo.starting import ON_ZERO_GPU, StartingGrader
from koa_hf.demo.theme import THEME
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import delete_older
from koa_hf.network import model_folder
from koa_hf.network.engine_names import ENGINE_HELP, ENGINES, PRECISIONS

SWEEP_SECONDS = 60
MAX_SESSIONS = 100  # Gradio keeps the last page of each session in memory, pictures included
# Gradio confines its `css` to the inside of the page; the margins around it are set from the head.
HEAD = "<style>@media (max-width: 640px) { .gradio-container .main { padding: 12px !important; } }</style>"

BuildDemo = Callable[[StartingGrader, Examples, Limits, Path, Disagreements | None], gr.Blocks]


def options(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU if there is one")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=ENGINE_HELP)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="default: the fastest worth having here"
    )
    # A Space sets Gradio's own two variables.
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT", "7860")
    parser.add_argument("--host", default=host, help="0.0.0.0 admits other machines (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="default: %(default)s")
    parser.add_argument("--root-path", metavar="/PATH", help="path at which a reverse proxy serves the page")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's relay")
    parser.add_argument("--examples", type=Path, help="folder of X-rays to offer; by default drawn knees")
    usual = Limits()
    for name, default, meaning in (
        ("--max-megabytes", usual.megabytes, "largest file that may be uploaded"),
        ("--max-megapixels", usual.megapixels, "largest image that is read"),
        ("--timeout", usual.seconds, "seconds after which a batch ends with the rows it has"),
    ):
        parser.add_argument(name, type=positive, default=default, metavar="N", help=f"{meaning} (default: {default:g})")
    parser.add_argument(
        "--disagreements", type=Path, metavar="FOLDER", help="let readers record their own grades, in this folder"
    )
    parser.add_argument("--disagreements-repo", metavar="USER/NAME", help="push that folder to a private Hub data set")
    parsed = parser.parse_args(arguments)
    if parsed.disagreements_repo and not parsed.disagreements:
        parser.error("--disagreements-repo needs --disagreements with a folder")
    return parsed


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def file_seconds(limits: Limits) -> float:
    """Age at which a file is deleted: a batch finds its files for as long as it may take."""
    return limits.seconds + 60


def minutes_kept(limits: Limits) -> int:
    """Minutes within which every file is deleted, for the page to state."""
    return math.ceil((file_seconds(limits) + SWEEP_SECONDS) / 60)


@exit_2_on_bad_input
def serve(build_demo: BuildDemo, description: str, arguments: list[str] | None = None) -> None:
    """Serve the page until a signal ends it.

    Args:
        build_demo: makes the page of a grader, examples, limits, a folder for files and, if they are collected, the
            readers' disagreements.
        description: text of `--help`.

    Raises:
        KoaError: a bad option, no such model, or a port that is taken.
    """
    given = options(description, arguments)
    grader = StartingGrader(model_folder.find_model(given.model, given.revision))
    examples = examples_in(given.examples) if given.examples else drawn_examples()
    disagreements = Disagreements(given.disagreements, given.disagreements_repo) if given.disagreements else None
    limits = Limits(given.max_megabytes, given.max_megapixels, given.timeout)

    # A handler that raised could be swallowed by whatever it interrupts; a queue may be filled at any moment.
    stop = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.put(number))
    files = Path(tempfile.mkdtemp(prefix="koa-demo-"))  # readable by this user only
    os.environ["GRADIO_TEMP_DIR"] = str(files)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing about visitors leaves the machine
    demo = None
    try:
        demo = build_demo(grader, examples, limits, files, disagreements)
        if ON_ZERO_GPU:
            load(grader, given, examples, stop)
            launch(demo, given, examples)
        else:
            launch(demo, given, examples)
            # The page is there; uploads wait until the model is, too.
            threading.Thread(target=load, args=(grader, given, examples, stop), daemon=True).start()
        while (reason := reason_to_stop(stop)) is None:
            # Gradio's `delete_cache` knows the files of finished browser uploads only: it leaves what comes over MCP,
            # unfinished uploads and copies of reports.
            delete_older(files, file_seconds(limits))
        if isinstance(reason, Exception):
            raise reason
    finally:
        if demo:
            demo.close(verbose=False)
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()
        shutil.rmtree(files, ignore_errors=True)
        if disagreements:
            disagreements.close()


def launch(demo: gr.Blocks, given: argparse.Namespace, examples: Examples) -> None:
    """Start the server; returns once it answers."""
    try:
        demo.launch(
            server_name=given.host,
            server_port=given.port,
            root_path=given.root_path,
            share=given.share,
            theme=THEME,
            css=page.style([film for _, film in examples.films]),
            head=HEAD,
            footer_links=["api"],
            ssr_mode=False,
            mcp_server=True,
            max_file_size=int(given.max_megabytes * 1e6),
            state_session_capacity=MAX_SESSIONS,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise KoaError(
            f"can't serve at {given.host}:{given.port}: the port is taken or the host isn't this machine's; "
            "give another --port or --host."
        ) from error


def load(grader: StartingGrader, given: argparse.Namespace, examples: Examples, stop: queue.SimpleQueue) -> None:
    """Load the grader; an error there stops the demo."""
    try:
        loaded = grader.load(given.device, given.precision, given.engine, warm_up=examples.films[0][1])
    except Exception as error:  # a thread of its own would end without anybody noticing
        stop.put(error)
    else:
        print(
            f"grading with {loaded.model_id}, version {loaded.revision[:12]}, computed by {loaded.engine} in "
            f"{loaded.precision}",
            flush=True,
        )


def reason_to_stop(stop: queue.SimpleQueue) -> int | Exception | None:
    """Wait `SWEEP_SECONDS` for a signal, or for an error in the background."""
    try:
        return stop.get(timeout=SWEEP_SECONDS)
    except queue.Empty:
        return None


def exit_now(code: int) -> NoReturn:
    """End the process; an ordinary exit would wait for threads that wait for requests."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
