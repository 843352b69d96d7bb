"""`koa push dataset`, `koa push cohort`, `koa push model`, `koa push space`, `koa card` and `koa checksums`."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from koa_hf import checksums
from koa_hf.cli.options import check_input, check_output, describe
from koa_hf.hub import contents
from koa_hf.hub.contents import Contents
from koa_hf.hub.publish import KINDS, check_id, publish

PUSH = """\
Publish a data set, a model or the demo on the Hugging Face Hub, in one commit: all of it is there, or nothing.
Private unless --public is given. Log in first with `hf auth login`, or set HF_TOKEN. After an interruption, the same
command sends only what is missing."""


def define_push(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa push`."""
    describe(
        parser,
        PUSH,
        "koa push dataset data/knees user/knee-kl",
        "koa push model runs/strong user/koa-xception --tag v1.0",
        "koa push space user/koa-demo --model user/koa-xception",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)

    dataset = kinds.add_parser("dataset", help="publish a folder written by `koa dataset build`")
    describe(dataset, PUSH, "koa push dataset data/knees user/knee-kl --tag v1.0")
    dataset.add_argument("folder", metavar="DIR", type=Path, help="written by `koa dataset build`")
    _add_push_options(dataset)
    dataset.set_defaults(collect=lambda args: contents.of_dataset(args.folder, args.repo_id))

    cohort = kinds.add_parser("cohort", help="publish the films or the grades of a cohort")
    describe(cohort, PUSH, "koa push cohort data/grades user/knee-grades")
    cohort.add_argument("folder", metavar="DIR", type=Path, help="of `koa cohort build --embed` or `koa cohort grade`")
    _add_push_options(cohort)
    cohort.set_defaults(collect=lambda args: contents.of_cohort(args.folder, args.repo_id))

    model = kinds.add_parser("model", help="publish a model folder")
    describe(model, PUSH, "koa push model runs/strong user/koa-xception --dataset user/knee-kl --tag v1.0")
    model.add_argument("folder", metavar="DIR", type=Path, help="written by train/run.py")
    _add_push_options(model)
    model.add_argument("--dataset", metavar="USER/NAME", help="data set it was trained on, for the card")
    model.set_defaults(collect=lambda args: contents.of_model(args.folder, args.repo_id, args.dataset))

    space = kinds.add_parser("space", help="publish the demo as a Space")
    describe(
        space,
        PUSH,
        "koa push space user/koa-demo --model user/koa-xception --public",
        "koa push space user/koa-demo --model user/koa-xception --hardware zero",
    )
    _add_push_options(space)
    space.add_argument("--model", metavar="USER/NAME", required=True, help="model to serve, already on the Hub")
    space.add_argument("--model-revision", metavar="REVISION", help="branch, tag or commit of it (default: newest)")
    space.add_argument("--dataset", metavar="USER/NAME", help="data set the model was trained on, for the card")
    space.add_argument(
        "--hardware",
        choices=contents.HARDWARE,
        default="cpu-basic",
        help="what it runs on: zero is ZeroGPU, which free accounts may use (default: %(default)s)",
    )
    space.set_defaults(
        collect=lambda args: contents.of_space(
            args.repo_id, args.model, args.model_revision, args.hardware, args.dataset
        )
    )


def _add_push_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo_id", metavar="USER/NAME", help="repository on the Hub, created if it does not exist")
    parser.add_argument("--public", action="store_true", help="make the repository visible to everybody")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, created if missing (default: main)")
    parser.add_argument("--tag", metavar="VERSION", help="name of this version, such as v1.0")
    parser.add_argument("--message", help="commit message")
    parser.add_argument("--dry-run", action="store_true", help="check, list files and sizes, and send nothing")
    parser.set_defaults(run=run_push)


def define_card(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa card`."""
    describe(
        parser,
        "Write the card of a trained model from the files of its run folder.",
        "koa card runs/paper",
        "koa card models/koa-xception --output model_card.md",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a finished run")
    parser.add_argument("--output", metavar="FILE", type=Path, help="file to write (default: README.md in DIR)")
    parser.set_defaults(run=run_card)


def define_checksums(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa checksums`."""
    describe(
        parser,
        f"Check the files of a model folder against its {checksums.CHECKSUMS_FILE}, as `koa push model` does.",
        "koa checksums runs/paper",
        "koa checksums runs/paper --record    # after an intended change",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a model folder")
    parser.add_argument("--record", action="store_true", help=f"write {checksums.CHECKSUMS_FILE} from the files")
    parser.set_defaults(run=run_checksums)


def run_push(args: argparse.Namespace) -> None:
    check_id(args.repo_id)
    collected = args.collect(args)
    if args.dry_run:
        print_contents(collected, args.repo_id)
        return
    options = {name: getattr(args, name) for name in ("public", "revision", "tag", "message")}
    published = publish(collected, args.repo_id, **options)
    seen_by = "private" if published.private else "public"
    print(f"{published.url}  ({seen_by}, commit {published.commit[:12]})")
    if args.public and published.private:
        print("The repository existed and is private; make it public on its settings page.")


def run_card(args: argparse.Namespace) -> None:
    check_input(args.folder)
    output = args.output or args.folder / "README.md"
    check_output(output)
    # Imported here: it needs torch and `datasets`, seconds that the other commands of this module should not wait.
    from koa_hf.hub import model_card

    model_card.write(args.folder, output)


def run_checksums(args: argparse.Namespace) -> None:
    if args.record:
        checksums.write_checksums(args.folder)
    checksums.check(args.folder)
    print(f"{args.folder}: files match {checksums.CHECKSUMS_FILE}")


def print_contents(collected: Contents, repo_id: str) -> None:
    """List the files of a push with their sizes."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    sizes = collected.sizes()
    for path, size in sizes.items():
        table.add_row(path, _readable(size))
    Console(soft_wrap=True).print(table)
    print(f"{len(sizes)} files, {_readable(sum(sizes.values()))}, for the {KINDS[collected.kind]} {repo_id}.")


def _readable(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
