"""Check a release, or the data set built from it, image by image."""

import contextlib
import functools
import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from koa_hf.data.release import (
    EDITIONS,
    RELEASED_COUNTS,
    Release,
    ReleaseImage,
    count_grades,
    count_patients,
    decode,
    edition_of,
    patient_problems,
)
from koa_hf.data.shards import check_shards, is_built, read_shards
from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.imaging.polarity import is_negative
from koa_hf.progress import progress_bar


@dataclass
class Verification:
    """Findings of `verify`. `problems` make the data unfit for use; `notes` do not."""

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
        """True if there is no problem."""
        return not self.problems

    def released(self, split: str) -> int:
        """Number of images that the public release has in a split."""
        return sum(RELEASED_COUNTS.get(split, ()))


def verify(source: str | Path, progress: bool = False) -> Verification:
    """Check a release (folder or zip) or a data set that `build_dataset` wrote, image by image.

    Raises:
        KoaError: there is nothing to check. Problems with the data itself are returned.
    """
    source = Path(source)
    built = is_built(source)
    with contextlib.ExitStack() as stack:
        if built:
            total, problems = check_shards(source)
            images = read_shards(source)
        else:
            release = stack.enter_context(Release(source))
            listed, problems = release.scan()
            total = len(listed)
            images = ((image, functools.partial(release.read, image.member)) for image in listed)
        advance = stack.enter_context(progress_bar("checking", total, progress))
        seen, formats, negatives = [], Counter(), defaultdict(list)
        first_with, others_with = {}, defaultdict(list)  # by pixels; a list only for duplicates, to save memory
        for image, read in images:
            seen.append(image)
            try:
                image_format, xray = decode(read(), image.member)
            except KoaError as error:
                problems.append(str(error))
            else:
                formats[image_format] += 1
                if is_negative(xray.pixels):
                    negatives[image.split].append(image.file_name)
                pixels = hashlib.blake2b(repr(xray.pixels.shape).encode() + xray.pixels.tobytes(), digest_size=16)
                if (first := first_with.setdefault(pixels.digest(), image)) is not image:
                    others_with[first].append(image)
            advance()
    if built:
        problems += patient_problems(seen)
    counts = count_grades(seen)
    found = Verification(
        source=str(source),
        edition=edition_of(counts),
        counts=counts,
        patients=count_patients(seen),
        formats=dict(formats.most_common()),
        negatives=dict(negatives),
        duplicates=sorted([_name(first), *map(_name, others)] for first, others in others_with.items()),
        problems=problems,
    )
    found.problems += [f"{' and '.join(names)} have the same pixels; keep one." for names in found.duplicates]
    found.notes += _notes(found)
    return found


def write_verification(found: Verification, path: Path) -> None:
    """Write JSON: `ok`, and every field of `Verification`.

    Raises:
        KoaError: the file can't be written.
    """
    text = json.dumps({"ok": found.ok, **asdict(found)}, indent=2) + "\n"
    try:
        write_text(path, text)
    except OSError as error:
        raise KoaError(f"{path} can't be written: {error.strerror}.") from error


def _name(image: ReleaseImage) -> str:
    return f"{image.split}/{image.file_name}"


def _notes(found: Verification) -> list[str]:
    notes = [f"This is {EDITIONS[found.edition]}."]
    if found.edition == "other":
        for split, counts in found.counts.items():
            if tuple(counts) != RELEASED_COUNTS.get(split):
                notes.append(f"{split} has {sum(counts)} images; the release has {found.released(split)}.")
    if len(found.formats) > 1:
        notes.append(f"The images differ in format: {', '.join(f'{n} are {one}' for one, n in found.formats.items())}.")
    elif any(not one.endswith(" L") for one in found.formats):
        notes.append(f"The images are {next(iter(found.formats))}, not 8-bit greyscale (L) as in the release.")
    if found.negatives:
        counts = ", ".join(f"{len(names)} in {split}" for split, names in found.negatives.items())
        notes.append(f"Photographic negatives (bone dark): {counts}.")
    return notes
