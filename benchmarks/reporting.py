"""Result files, figures and terminal tables of the benchmarks."""

import contextlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from koa_hf.files import replacing, write_text
from train.loop.run_record import command_line, git_commit, processor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
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
TEAL = "#0d9488"  # the page's colour


def _versions() -> dict[str, str]:
    """Versions of those `PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def write_result(path: Path, result: dict) -> None:
    """Write a result as JSON, with the command, machine, package versions and commit that it was measured with."""
    measured_on = {
        "command": command_line("python"),
        "machine": processor(),
        "packages": _versions(),
        "git_commit": git_commit(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result | measured_on, indent=2) + "\n")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def print_table(title: str, rows: Sequence[dict]) -> None:
    """Print rows as a table; the keys of the first row are the columns."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
