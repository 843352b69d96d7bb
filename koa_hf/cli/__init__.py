"""The command line: `koa COMMAND ...`, also as `python -m koa_hf COMMAND ...`.

- `grade`: `koa grade`
- `report`: `koa report`
- `dataset`: `koa dataset build`, `koa dataset verify` and `koa phantom`
- `cohort`: `koa cohort build`, `koa cohort grade` and `koa cohort report`
- `push`: `koa push`, `koa card` and `koa checksums`
- `options`: what several commands share

A command's module is imported when the command is named, so that `koa --help` needs none of them.
"""

import argparse
import pkgutil
import sys
from collections.abc import Sequence

from koa_hf import __version__
from koa_hf.errors import exit_2_on_bad_input

__all__ = ["COMMANDS", "cohort", "dataset", "grade", "main", "options", "push", "report"]

COMMANDS = {
    "grade": ("koa_hf.cli.grade:define_grade", "grade radiographs, to a table, CSV or JSON"),
    "report": ("koa_hf.cli.report:define_report", "grade one radiograph and write a PDF, JSON or DICOM report"),
    "cohort": ("koa_hf.cli.cohort:define_cohort", "grade tens of thousands of films, in one process or many"),
    "dataset": ("koa_hf.cli.dataset:define_dataset", "package the public release as a data set, or check it"),
    "phantom": ("koa_hf.cli.dataset:define_phantom", "draw a release of phantom knees"),
    "push": ("koa_hf.cli.push:define_push", "publish a data set, a model or the demo on the Hugging Face Hub"),
    "card": ("koa_hf.cli.push:define_card", "write the card of a trained model"),
    "checksums": ("koa_hf.cli.push:define_checksums", "check or record the checksums of a model folder"),
}
"""Name of a command -> (function that adds its options to a parser, one line of help)."""


@exit_2_on_bad_input
def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command.

    Args:
        arguments: the command and its options; by default those of the process.

    Returns:
        Exit code: 0; 2 for bad input, said in one sentence on stderr; 130 after Ctrl-C.

    Raises:
        SystemExit: after --help or --version, and with code 2 for options that do not parse.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="koa",
        description="Grade knee osteoarthritis on radiographs, and publish data sets and models.",
        epilog="example: koa grade knee.png\n`koa COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"koa-hf {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (define, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in arguments[:1]:
            pkgutil.resolve_name(define)(command)
    args = parser.parse_args(arguments)
    return args.run(args)
