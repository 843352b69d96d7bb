"""`koa report`: grade one radiograph and write the result as PDF, JSON or DICOM."""

import argparse
import sys
from pathlib import Path

from koa_hf.cli.options import add_model_options, check_input, check_output, describe, load_grader
from koa_hf.errors import KoaError
from koa_hf.files import replacing
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import GradedKnee
from koa_hf.imaging import radiograph
from koa_hf.report.document import Report

REPORT = """\
Grade one radiograph of a knee and write the result: as a one-page PDF, as JSON, or as a DICOM secondary capture of
that page in the study of a radiograph that is DICOM itself."""


def define_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of `koa report`."""
    describe(
        parser,
        REPORT,
        "koa report knee.png --pdf report.pdf",
        "koa report knee.png --model user/koa-xception --pdf report.pdf --json report.json",
        "koa report knee.dcm --dicom report.dcm",
    )
    parser.add_argument("xray", type=Path, metavar="FILE", help="radiograph of one knee")
    add_model_options(parser)
    parser.add_argument("--pdf", type=Path, metavar="OUT", help="write the page to OUT")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to OUT")
    parser.add_argument("--dicom", type=Path, metavar="OUT", help="write a secondary capture; FILE must be DICOM")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    check_input(args.xray)
    outputs = [path for path in (args.pdf, args.json, args.dicom) if path]
    if not outputs:
        raise KoaError("there is nothing to write; give --pdf, --json or --dicom with a file.")
    if len(set(outputs)) < len(outputs):
        raise KoaError("two outputs have the same file; give each its own.")
    for path in outputs:
        check_output(path)
        if path.exists() and path.samefile(args.xray):
            raise KoaError(f"{path} is the radiograph itself; write the report to another file.")
    xray = radiograph.read(args.xray)
    if args.dicom and xray.dicom is None:
        raise KoaError(f"{args.xray} is not DICOM, which --dicom requires; write a PDF.")

    grader = load_grader(args)
    grading = grader.grade(xray)
    report = Report(GradedKnee(grading, xray), xray)
    # Imported here: matplotlib and highdicom take seconds, which a bad path should not cost.
    from koa_hf.report import pdf_page
    from koa_hf.report.secondary_capture import secondary_capture

    made = {}
    if args.pdf:
        made[args.pdf] = pdf_page.pdf(report)
    if args.json:
        made[args.json] = report.json().encode()
    if args.dicom:
        made[args.dicom] = secondary_capture(xray.dicom, grading, pdf_page.picture(report))
    for path, content in made.items():
        try:
            with replacing(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
    said = f"{grading.file}: {grading.summary}; written to {', '.join(map(str, made))}"
    print(said.encode(errors="backslashreplace").decode())  # a file name may hold bytes that are not UTF-8
    if grading.familiar is False:
        print("Not certain: this image is unlike the training knees.")
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)
