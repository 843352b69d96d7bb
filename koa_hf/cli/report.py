"""`koa report`: grade one radiograph and write the results as PDF, JSON or DICOM."""

import argparse
import sys
from pathlib import Path

from koa_hf.cli.options import add_model_options, check_input, check_output, describe, load_grader, write_output
from koa_hf.errors import KoaError
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import examine
from koa_hf.grading.result import Grading
from koa_hf.imaging import radiograph
from koa_hf.report import document
from koa_hf.report.document import Report

REPORT = """\
Find the knees on a radiograph, grade each, and write the results: as a PDF with a page for each knee, as JSON with an
object for each knee, or, if the radiograph is DICOM itself, as DICOM in its study: a secondary capture of each page, or
a structured report (TID 1500) on all knees. Of two knees, the captures are two files, named after their sides: OUT.dcm
becomes OUT-right.dcm and OUT-left.dcm."""


def define_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa report`."""
    describe(
        parser,
        REPORT,
        "koa report film.png --pdf report.pdf",
        "koa report film.png --model user/koa-xception --pdf report.pdf --json report.json",
        "koa report film.dcm --dicom report.dcm",
        "koa report knee.png --whole --pdf report.pdf",
    )
    parser.add_argument("xray", type=Path, metavar="FILE", help="radiograph of one or both knees")
    add_model_options(parser)
    parser.add_argument("--whole", action="store_true", help="grade the image as a whole, without finding knees in it")
    parser.add_argument("--pdf", type=Path, metavar="OUT", help="write the pages to OUT")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to OUT")
    parser.add_argument("--dicom", type=Path, metavar="OUT", help="write a secondary capture; FILE must be DICOM")
    parser.add_argument("--sr", type=Path, metavar="OUT", help="write a DICOM structured report; FILE must be DICOM")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    check_input(args.xray)
    outputs = [path for path in (args.pdf, args.json, args.dicom, args.sr) if path]
    if not outputs:
        raise KoaError("there is nothing to write; give --pdf, --json, --dicom or --sr with a file.")
    if len(set(outputs)) < len(outputs):
        raise KoaError("two outputs have the same file; give each its own.")
    for path in outputs:
        check_output(path)
        if path.exists() and path.samefile(args.xray):
            raise KoaError(f"{path} is the radiograph itself; write the report to another file.")
    film = radiograph.read(args.xray)
    if (args.dicom or args.sr) and film.dicom is None:
        raise KoaError(f"{args.xray} is not DICOM, which --dicom and --sr require; write a PDF.")

    grader = load_grader(args)
    examination = examine(grader, [film], as_it_is=args.whole)[0]
    reports = [Report(knee, examination.film) for knee in examination.knees]
    gradings = [knee.grading for knee in examination.knees]
    # Imported here: matplotlib and highdicom take seconds, which a bad path should not cost.
    from koa_hf.report import pdf_page
    from koa_hf.report.secondary_capture import secondary_capture
    from koa_hf.report.structured_report import structured_report

    made = {}
    if args.pdf:
        made[args.pdf] = pdf_page.pdf(*reports)
    if args.json:
        made[args.json] = document.json_of(reports).encode()
    if args.dicom:
        for path, report, grading in zip(_a_file_each(args.dicom, gradings), reports, gradings, strict=True):
            made[path] = secondary_capture(film.dicom, grading, pdf_page.picture(report))
    if args.sr:
        made[args.sr] = structured_report(film.dicom, gradings)
    for path, content in made.items():
        write_output(path, content)
    for grading in gradings:
        knee = f", {grading.side} knee" if grading.side else ""
        _say(f"{grading.file}{knee}: {grading.summary}")
        if grading.familiar is False:
            print("Not certain: this image is unlike the training knees.")
    for said in dict.fromkeys(said for grading in gradings for said in (*grading.cautions, *grading.notes)):
        print(said)
    _say(f"written to {', '.join(map(str, made))}")
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)


def _a_file_each(path: Path, gradings: list[Grading]) -> list[Path]:
    """The file of a single knee; of two, one each, named after their sides, or else numbered from the film's left."""
    if len(gradings) == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{grading.side or i}") for i, grading in enumerate(gradings, start=1)]


def _say(line: str) -> None:
    print(line.encode(errors="backslashreplace").decode())  # a file name may hold bytes that are not UTF-8
