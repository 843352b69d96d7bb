"""Options, checks and wording that several commands share."""

import argparse
from pathlib import Path

from koa_hf.errors import KoaError


def describe(parser: argparse.ArgumentParser, description: str, *examples: str) -> None:
    """Set the text above and below the options in `--help`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    parser.epilog = "\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {line}" for line in examples)])


def check_output(path: Path) -> None:
    """Check that a file can be written, before any work is done for it.

    Raises:
        KoaError: `path` is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise KoaError(f"{path} can't be written: it is a folder; name a file.")
    if not path.parent.is_dir():
        raise KoaError(f"{path} can't be written: {path.parent} is not a folder that exists.")
