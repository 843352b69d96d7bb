"""Many X-rays at once: files and zips in, table rows out as they are done. One bad file never stops the others."""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.grading.examination import examine
from koa_hf.grading.grader import Grader, Grading
from koa_hf.imaging import archive
from koa_hf.imaging.radiograph import MAX_PIXELS, Radiograph, read
from koa_hf.report.document import COLUMNS, as_row

BATCH_FILES = 4  # a larger batch gains nothing on CPUs, and the table should be seen to fill
BATCH_BYTES = 100_000_000  # of films in memory at a time
KEPT_BYTES = 300_000_000  # of files, so that a row can be looked at; further rows are without theirs

TABLE_COLUMNS = ("#", "File", "Knee", "Grade", "Range", "Expected", "Remarks")


@dataclass(frozen=True)
class Limits:
    """What one request may cost: megabytes of a file, millions of pixels of an image, seconds of a batch."""

    megabytes: float = 200
    megapixels: float = MAX_PIXELS / 1e6
    seconds: float = 300

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return int(self.megapixels * 1e6)


@dataclass(frozen=True)
class Row:
    """One knee of one file, or one file that could not be graded.

    Attributes:
        file: its name, with its folder in the zip.
        grading: None where `error` says why there is none.
        box: where the knee is in the film, as in `Report`; None where the whole image was graded.
        side: of a knee in a film, `right`, `left`, or None where it can't be told.
        data: the file itself; empty where there is no grading, or too much came before it.
    """

    file: str
    grading: Grading | None = None
    box: tuple[int, int, int, int] | None = None
    side: str | None = None
    error: str = ""
    data: bytes = b""

    @property
    def cells(self) -> list:
        """For the table: what `TABLE_COLUMNS` names after the number."""
        if self.grading is None:
            return [self.file, "", "", "", None, self.error]
        grading = self.grading
        low, high = grading.grade_set or ("", "")
        span = f"{low}" if low == high else f"{low} to {high}"
        expected, said = round(grading.expected_grade, 1), "; ".join(grading.remarks)
        return [self.file, self.side or "", f"KL {grading.grade} {grading.name}", span, expected, said]

    def to_dict(self) -> dict:
        """For programs: everything but `data` and the heat map."""
        return {
            "file": self.file,
            "side": self.side,
            "box": self.box,
            "error": self.error or None,
            **(self.grading.to_dict() if self.grading else {}),
        }


def count(paths: Sequence[Path]) -> int:
    """How many files there are, those in zips counted; an unreadable zip is one."""
    total = 0
    for path in paths:
        try:
            total += len(archive.names(path.read_bytes(), path.name)) if archive.is_archive(path) else 1
        except (KoaError, OSError):
            total += 1
    return total


def contents(paths: Sequence[Path]) -> Iterator[tuple[str, bytes | KoaError]]:
    """Every file with what is in it, zips unpacked, or with the reason why it isn't read; one at a time."""
    for path in paths:
        try:
            if archive.is_archive(path):
                yield from archive.unpack(path.read_bytes(), path.name)
            else:
                yield path.name, path.read_bytes()
        except KoaError as error:
            yield path.name, error
        except OSError as error:
            yield path.name, KoaError(f"{path.name} can't be read: {error.strerror or error}.")


def grade_all(grader: Grader, paths: Sequence[Path], limits: Limits) -> Iterator[list[Row]]:
    """Rows as they are done, a few files at a time, in order; what isn't graded in time gets a row that says so."""
    end = time.monotonic() + limits.seconds
    batch: list[tuple[str, bytes, Radiograph] | Row] = []
    kept = 0
    for name, content in contents(paths):
        if isinstance(content, KoaError):
            batch.append(Row(name, error=str(content)))
        elif time.monotonic() > end:
            over = f"the {limits.seconds:g} seconds for one batch were over; upload fewer files at once."
            batch.append(Row(name, error=f"{name} was left out: {over}"))
        else:
            try:
                film = read(content, name, limits.pixels)
                kept += len(content)
                batch.append((name, content if kept <= KEPT_BYTES else b"", film))
            except KoaError as error:
                batch.append(Row(name, error=str(error)))
        held = sum(one[2].size for one in batch if not isinstance(one, Row))
        if len(batch) >= BATCH_FILES or held >= BATCH_BYTES:
            yield _rows(grader, batch)
            batch = []
    if batch:
        yield _rows(grader, batch)


def _rows(grader: Grader, batch: Sequence[tuple[str, bytes, Radiograph] | Row]) -> list[Row]:
    examinations = iter(examine(grader, [one[2] for one in batch if not isinstance(one, Row)]))
    rows = []
    for one in batch:
        if isinstance(one, Row):
            rows.append(one)
            continue
        name, content, _ = one
        for report in next(examinations).reports:
            side = report.xray.side if report.box else None
            rows.append(Row(name, report.grading, report.box, side, data=content))
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as a CSV document with `koa_hf.report.document.COLUMNS`, as `koa_hf.cli.grade` writes it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(as_row(Path(row.file), row.grading or row.error, row.side, row.box) for row in rows)
    return text.getvalue()
