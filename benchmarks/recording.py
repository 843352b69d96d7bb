"""What every benchmark does with its result: say where it was measured, write it, show it."""

import contextlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from koa_hf.files import write_text
from train.loop.record import command, git_commit, processor

PACKAGES = (
    "torch",
    "timm",
    "transformers",
    "accelerate",
    "openvino",
    "onnxruntime",
    "gradio",
    "datasets",
    "numpy",
    "pillow",
)


def _versions() -> dict[str, str]:
    """Of the packages that are here."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def record(path: Path, result: dict) -> None:
    """Write a result as JSON, with command, machine, versions and commit."""
    measured_on = {
        "command": command("python"),
        "machine": processor(),
        "packages": _versions(),
        "git_commit": git_commit(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result | measured_on, indent=2) + "\n")


def show(title: str, rows: Sequence[dict]) -> None:
    """Print rows as a table; their keys are the columns."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
