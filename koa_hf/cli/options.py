"""Options, checks and wording that several commands share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from koa_hf.errors import KoaError
from koa_hf.files import replacing
from koa_hf.network.engine_names import ENGINE_HELP, ENGINES, PRECISIONS

if TYPE_CHECKING:
    from koa_hf.grading.grader import Grader


def describe(parser: argparse.ArgumentParser, description: str, *examples: str) -> None:
    """Set the text above and below the options in `--help`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    parser.epilog = "\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {line}" for line in examples)])


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_grader` reads."""
    parser.add_argument("--model", help="model folder or Hub id (default: KOA_MODEL, else the bundled model)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=ENGINE_HELP)


def load_grader(args: argparse.Namespace) -> "Grader":
    """Load the model that the options of `add_model_options` name.

    Raises:
        KoaError: as `Grader.from_pretrained`.
    """
    # Imported here: torch takes seconds, which `--help` or a bad path should not cost.
    from koa_hf.grading.grader import Grader

    return Grader.from_pretrained(args.model, args.revision, args.device, args.precision, engine=args.engine)


def check_input(path: Path) -> None:
    """Check that a file exists, before any work is done for it.

    Raises:
        KoaError: it does not exist.
    """
    if not path.exists():
        raise KoaError(f"{path} does not exist; check the path.")


def check_output(path: Path) -> None:
    """Check that a file can be written, before any work is done for it.

    Raises:
        KoaError: `path` is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise KoaError(f"{path} can't be written: it is a folder; name a file.")
    if not path.parent.is_dir():
        raise KoaError(f"{path} can't be written: {path.parent} is not a folder that exists.")


def make_folder(path: Path) -> None:
    """Make a folder for results, unless it exists.

    Raises:
        KoaError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KoaError(f"{path} can't be made a folder: {error.strerror or error}.") from error


def write_output(path: Path, content: bytes) -> None:
    """Write a file of results as a whole.

    Raises:
        KoaError: it can't be written.
    """
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
