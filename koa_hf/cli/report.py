"""Grade one X-ray and keep the result: as a one-page PDF, as JSON, or as a DICOM secondary capture.

    python -m koa_hf.cli.report knee.png --pdf report.pdf
    python -m koa_hf.cli.report knee.png --model user/koa-xception --pdf report.pdf --json report.json
    python -m koa_hf.cli.report knee.dcm --dicom report.dcm

With --dicom, the page becomes a secondary capture in the study of an X-ray that is itself DICOM.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import replacing
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.grader import Grader
from koa_hf.imaging import radiograph
from koa_hf.report import pdf_page
from koa_hf.report.document import Report
from koa_hf.report.secondary_capture import secondary_capture


@exit_2_on_bad_input
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.cli.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("xray", type=Path, metavar="FILE", help="one knee X-ray")
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    parser.add_argument("--pdf", type=Path, metavar="OUT", help="write the page there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there")
    parser.add_argument("--dicom", type=Path, metavar="OUT", help="write a secondary capture there; FILE must be DICOM")
    options = parser.parse_args(arguments)
    outputs = [path for path in (options.pdf, options.json, options.dicom) if path]
    if not outputs:
        raise KoaError("say what to write: --pdf, --json or --dicom, each with a file.")
    if len(set(outputs)) < len(outputs):
        raise KoaError("two outputs can't go to one file; give each its own.")
    for path in outputs:  # before the model is loaded: a bad path shouldn't cost that wait
        if path.is_dir() or not path.parent.is_dir():
            raise KoaError(f"{path} can't be written: it is a folder, or its folder doesn't exist.")
        if path.exists() and options.xray.exists() and path.samefile(options.xray):
            raise KoaError(f"{path} is the X-ray itself; write the report somewhere else.")

    xray = radiograph.read(options.xray)
    if options.dicom and xray.dicom is None:
        raise KoaError(f"{options.xray} is not DICOM, which --dicom needs; write a PDF.")
    grader = Grader.from_pretrained(options.model, options.revision, options.device)
    grading = grader.grade(xray)
    report = Report(GradedKnee(grading, xray), xray)
    made = {}
    if options.pdf:
        made[options.pdf] = pdf_page.pdf(report)
    if options.json:
        made[options.json] = report.json().encode()
    if options.dicom:
        made[options.dicom] = secondary_capture(xray.dicom, grading, pdf_page.picture(report))
    for path, content in made.items():
        try:
            with replacing(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
    said = f"{grading.file}: {grading.summary}; written to {', '.join(map(str, made))}"
    print(said.encode(errors="backslashreplace").decode())  # a file name may hold bytes that are no UTF-8
    if grading.familiar is False:
        print("Not certain: this image is unlike the training knees.")
    for remark in filter(None, (grader.note, RESEARCH_USE_NOTICE)):
        print(remark, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
