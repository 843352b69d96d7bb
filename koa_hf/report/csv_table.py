"""Gradings as a CSV file: one row a knee, or one row with an error a file that could not be graded.

The columns are the fields of `Grading`, with the probabilities and the prediction set in a column for each number.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.files import replacing
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.result import Grading, NotGraded

SPREAD = {
    "probabilities": {f"p{grade}": f"probability of KL {grade}" for grade in range(NUM_GRADES)},
    "grade_set": {
        "grade_low": "lowest grade of the prediction set",
        "grade_high": "highest grade of the prediction set; equal to grade_low for a set of one grade",
    },
}
"""Fields whose numbers have a column each."""

COLUMNS: dict[str, str] = {
    column: text
    for name, description in {**Grading.descriptions(), **NotGraded.descriptions()}.items()
    if name not in Grading.model_computed_fields
    for column, text in SPREAD.get(name, {name: description}).items()
}
"""Every column in order, with its description. Cells are empty where the description says null."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""


def row_of(outcome: Grading | NotGraded) -> dict[str, str]:
    """The cells of one row by column; a file that could not be graded has `file` and `error` only."""
    row: dict[str, str] = {}
    for name, value in outcome.to_dict().items():
        if name in SPREAD:
            row |= dict(zip(SPREAD[name], map(_cell, value or [None] * len(SPREAD[name])), strict=True))
        elif name in COLUMNS:
            row[name] = _cell(value)
    return row


def as_csv(outcomes: Iterable[Grading | NotGraded]) -> str:
    """A CSV document with a header."""
    text = io.StringIO(newline="")
    writer = _writer(text)
    writer.writerows(map(row_of, outcomes))
    return text.getvalue()


@contextmanager
def csv_writer(path: Path | None) -> Iterator[csv.DictWriter | None]:
    """A writer of `row_of`'s rows, None without a path. The file appears, or is replaced, once the block ends.

    Raises:
        KoaError: the file can't be written.
    """
    if path is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            if path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            partial = stack.enter_context(replacing(path))
            # A file name may hold bytes that are not UTF-8; they are written as \udc.. and don't stop the others.
            opened = stack.enter_context(partial.open("w", newline="", encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise KoaError(f"{path} can't be written: {error.strerror or error}.") from error
        yield _writer(opened)


def _writer(opened: io.TextIOBase) -> csv.DictWriter:
    writer = csv.DictWriter(opened, list(COLUMNS), restval="")
    writer.writeheader()
    return writer


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6f}"
        case list() if all(isinstance(item, int) for item in value):
            return " ".join(map(str, value))
        case list():
            return harmless(" ".join(value))
        case str():
            return harmless(value)
    return str(value)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula; what may be one gets a quote in front."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
