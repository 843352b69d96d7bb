"""A check, image by image, of the release or of the data set that was built from it."""

import contextlib
import functools
import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from koa_hf.data.release import (
    EDITIONS,
    RELEASED_COUNTS,
    Knee,
    Release,
    count_grades,
    count_patients,
    decode,
    edition_of,
    patient_problems,
)
from koa_hf.data.shards import check_shards, images_of, is_built
from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grades import GRADES
from koa_hf.imaging.polarity import is_negative
from koa_hf.progress import progress_bar


@dataclass
class Report:
    """What `verify` found. `problems` make the data unfit for use; `notes` are things to know."""

    source: str
    edition: str
    counts: dict[str, list[int]]  # split -> images of each grade
    patients: dict[str, int]
    formats: dict[str, int]  # such as "224x224 L" -> images
    negatives: dict[str, list[str]]  # split -> file names of photographic negatives
    duplicates: list[list[str]]  # groups of images with the same pixels
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(source: str | Path, progress: bool = False) -> Report:
    """Check a release (folder or zip) or a data set that `build` wrote, image by image.

    Raises:
        KoaError: there is nothing to check. What is wrong with the data itself is in the report.
    """
    source = Path(source)
    built = is_built(source)
    with contextlib.ExitStack() as stack:
        if built:
            total, problems = check_shards(source)
            images = images_of(source)
        else:
            release = stack.enter_context(Release(source))
            listed, problems = release.scan()
            total = len(listed)
            images = ((knee, functools.partial(release.read, knee.member)) for knee in listed)
        advance = stack.enter_context(progress_bar("checking", total, progress))
        knees, formats, negatives = [], Counter(), defaultdict(list)
        first_with, others_with = {}, defaultdict(list)  # the same pixels; few lists, as they would fill the memory
        for knee, read in images:
            knees.append(knee)
            try:
                kind, xray = decode(read(), knee.member)
            except KoaError as error:
                problems.append(str(error))
            else:
                formats[kind] += 1
                if is_negative(xray.pixels):
                    negatives[knee.split].append(knee.file_name)
                pixels = hashlib.blake2b(repr(xray.pixels.shape).encode() + xray.pixels.tobytes(), digest_size=16)
                if (first := first_with.setdefault(pixels.digest(), knee)) is not knee:
                    others_with[first].append(knee)
            advance()
    if built:
        problems += patient_problems(knees)
    counts = count_grades(knees)
    report = Report(
        source=str(source),
        edition=edition_of(counts),
        counts=counts,
        patients=count_patients(knees),
        formats=dict(formats.most_common()),
        negatives=dict(negatives),
        duplicates=sorted([_name(first), *map(_name, others)] for first, others in others_with.items()),
        problems=problems,
    )
    report.problems += [f"{' and '.join(names)} have the same pixels; keep one." for names in report.duplicates]
    report.notes += _notes(report)
    return report


def print_report(report: Report) -> None:
    """Print a report for a person: a table, then notes and problems."""
    console = Console()
    console.print(report.source, style="bold", markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, show_edge=False, pad_edge=False)
    table.add_column("split", no_wrap=True)
    for heading in (*(f"KL {grade.value}" for grade in GRADES), "images", "release", "patients", "negative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split, counts in report.counts.items():
        released = sum(RELEASED_COUNTS.get(split, ()))
        negatives = len(report.negatives.get(split, ()))
        cells = [*counts, sum(counts), released, report.patients[split], negatives]
        table.add_row(split, *map(str, cells))
    console.print(table)
    for kind, number in report.formats.items():
        console.print(f"{number} images of {kind}", markup=False)
    for note in report.notes:
        console.print(note, markup=False)
    for problem in report.problems[:20]:
        console.print(f"problem: {problem}", style="red", markup=False)
    if len(report.problems) > 20:
        console.print(f"... and {len(report.problems) - 20} more problems (--json has them all)", style="red")
    console.print("nothing wrong" if report.ok else f"{len(report.problems)} problem(s)", style="bold")


def write_report(report: Report, path: Path) -> None:
    """Write a report as JSON: `ok`, and every field of `Report`.

    Raises:
        KoaError: the file can't be written.
    """
    text = json.dumps({"ok": report.ok, **asdict(report)}, indent=2) + "\n"
    try:
        write_text(path, text)
    except OSError as error:
        raise KoaError(f"{path} can't be written: {error.strerror}.") from error


def _name(knee: Knee) -> str:
    return f"{knee.split}/{knee.file_name}"


def _notes(report: Report) -> list[str]:
    notes = [f"This is {EDITIONS[report.edition]}."]
    if report.edition == "other":
        for split, counts in report.counts.items():
            if tuple(counts) != RELEASED_COUNTS.get(split):
                notes.append(
                    f"{split} has {sum(counts)} images; the release has {sum(RELEASED_COUNTS.get(split, ()))}."
                )
    if len(report.formats) > 1:
        notes.append(
            f"The images are not all alike: {', '.join(f'{n} are {kind}' for kind, n in report.formats.items())}."
        )
    elif any(not kind.endswith(" L") for kind in report.formats):
        notes.append(f"The images are {next(iter(report.formats))}, not 8-bit greyscale (L) as in the release.")
    if report.negatives:
        counts = ", ".join(f"{len(names)} in {split}" for split, names in report.negatives.items())
        notes.append(f"Photographic negatives (bone dark): {counts}.")
    return notes
