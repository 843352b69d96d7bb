"""The report on one knee: its grading, the film that it comes from, and the time.

`Report.json` is for programs, `koa_hf.report.pdf_page` draws the page for people. No patient identity is read or shown:
the input file is identified by its name and its SHA-256. One report always gives the same bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.examination import GradedKnee
from koa_hf.grading.result import SCHEMA
from koa_hf.imaging.radiograph import Radiograph


@dataclass(frozen=True)
class Report:
    """One graded knee, to be kept.

    Attributes:
        knee: the grading, and the knee as it was read.
        film: the image that the knee was cropped from; the knee's own where the whole image was graded.
        time: when the report was made, with a time zone.
    """

    knee: GradedKnee
    film: Radiograph
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_dict(self) -> dict:
        """`Grading.to_dict`, preceded by its `schema`, the `time` (ISO 8601, UTC) and the research-use `notice`."""
        return {
            "schema": SCHEMA,
            "time": self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notice": RESEARCH_USE_NOTICE,
            **self.knee.grading.to_dict(),
        }

    def json(self) -> str:
        """`to_dict` as a JSON document. Pure ASCII, so that a file name with stray bytes in it can't break it."""
        return _document(self.to_dict())


def json_of(reports: Sequence[Report]) -> str:
    """The reports on all knees of a film as one JSON document: a list with `Report.to_dict` of each."""
    return _document([report.to_dict() for report in reports])


def _document(value: dict | list) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
