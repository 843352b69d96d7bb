"""Many X-rays at once: files and zips in, table rows out as they are graded. A bad file never stops the others."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.grading.examination import examine
from koa_hf.grading.result import Grading, KneeGrader, NotGraded
from koa_hf.imaging import archive
from koa_hf.imaging.radiograph import MAX_PIXELS, Radiograph, read
from koa_hf.report import csv_table

BATCH_FILES = 4  # a larger batch gains nothing on CPUs, and the table should fill visibly
BATCH_BYTES = 100_000_000  # of films in memory at a time
KEPT_BYTES = 300_000_000  # of files kept so that their rows can be opened; later rows have none

TABLE_COLUMNS = ("#", "File", "Knee", "Grade", "Range", "Expected", "Remarks")


@dataclass(frozen=True)
class Limits:
    """Limits of one request: megabytes of a file, millions of pixels of an image, seconds of a batch."""

    megabytes: float = 200
    megapixels: float = MAX_PIXELS / 1e6
    seconds: float = 300

    @property
    def pixels(self) -> int:
        """Largest image in pixels."""
        return int(self.megapixels * 1e6)


@dataclass(frozen=True)
class Row:
    """One row of the table: a graded knee, or a file that could not be graded.

    Attributes:
        data: the file itself; empty where there is no grading, or after `KEPT_BYTES` of files.
    """

    outcome: Grading | NotGraded
    data: bytes = b""

    @property
    def file(self) -> str:
        return self.outcome.file

    @property
    def grading(self) -> Grading | None:
        return self.outcome if isinstance(self.outcome, Grading) else None

    @property
    def error(self) -> str:
        return "" if isinstance(self.outcome, Grading) else self.outcome.error

    @property
    def cells(self) -> list:
        """The cells under `TABLE_COLUMNS` after the number."""
        if (grading := self.grading) is None:
            return [self.file, "", "", "", "", self.error]
        low, high = grading.grade_set or ("", "")
        span = f"{low}" if low == high else f"{low} to {high}"
        expected, remarks = f"{grading.expected_grade:.1f}", " · ".join(grading.remarks)
        return [self.file, grading.side or "", f"KL {grading.grade} {grading.name}", span, expected, remarks]


def count(paths: Sequence[Path]) -> int:
    """Number of files, including those in zips; an unreadable zip counts as one."""
    return sum(map(archive.count, paths))


def contents(paths: Sequence[Path]) -> Iterator[tuple[str, bytes | KoaError]]:
    """Every file with its bytes, zips unpacked, or with the reason why it can't be read; one at a time."""
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


def grade_all(grader: KneeGrader, paths: Sequence[Path], limits: Limits) -> Iterator[list[Row]]:
    """Rows in order, a few files at a time, as they are graded; a file that isn't graded in time gets a row, too."""
    end = time.monotonic() + limits.seconds
    batch: list[tuple[Radiograph, bytes] | NotGraded] = []
    kept = 0
    for name, content in contents(paths):
        if isinstance(content, KoaError):
            batch.append(NotGraded(file=name, error=str(content)))
        elif time.monotonic() > end:
            over = f"the {limits.seconds:g} seconds for one batch were over; upload fewer files at once."
            batch.append(NotGraded(file=name, error=f"{name} was left out: {over}"))
        else:
            try:
                film = read(content, name, limits.pixels)
                kept += len(content)
                batch.append((film, content if kept <= KEPT_BYTES else b""))
            except KoaError as error:
                batch.append(NotGraded(file=name, error=str(error)))
        held = sum(one[0].size for one in batch if not isinstance(one, NotGraded))
        if len(batch) >= BATCH_FILES or held >= BATCH_BYTES:
            yield _rows(grader, batch)
            batch = []
    if batch:
        yield _rows(grader, batch)


def _rows(grader: KneeGrader, batch: Sequence[tuple[Radiograph, bytes] | NotGraded]) -> list[Row]:
    examinations = iter(examine(grader, [one[0] for one in batch if not isinstance(one, NotGraded)]))
    rows = []
    for one in batch:
        if isinstance(one, NotGraded):
            rows.append(Row(one))
        else:
            rows += [Row(knee.grading, data=one[1]) for knee in next(examinations).knees]
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as a CSV document (see `koa_hf.report.csv_table`)."""
    return csv_table.as_csv(row.outcome for row in rows)
