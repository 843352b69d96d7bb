"""The public knee X-ray release: its zip, or the folder it was extracted to.

    <split>/<grade>/<patient><L|R>.png        splits train, val, test; the release may lie some folders deep
    auto_test/<grade>/<patient>_<1|2>.png     patients of test a second time, cropped by a detector; 1 right, 2 left

This module reads and checks; it writes nothing.
"""

import contextlib
import io
import itertools
import os
import re
import sys
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES
from koa_hf.imaging import radiograph

AUTO_TEST = "auto_test"
SPLIT_FOLDERS = {"train": "train", "val": "validation", "test": "test", AUTO_TEST: AUTO_TEST}
"""Folder of the release -> name of the split, here and on the Hub."""

RELEASED_COUNTS = {
    "train": (2286, 1046, 1516, 757, 173),
    "validation": (328, 153, 212, 106, 27),
    "test": (639, 296, 447, 223, 51),
    AUTO_TEST: (604, 275, 403, 200, 44),
}
"""Images of each KL grade in the public release (the same in its 224 and 299 pixel editions)."""

EDITIONS = {
    "complete": "the complete public release",
    "partial": "a part of the public release (some splits only)",
    "other": "other data than the public release, in its shape",
}
"""Result of `edition_of` -> its wording after "This is"."""

MAX_FILE_BYTES = 64 * 2**20
"""Larger zip members are not unpacked: no knee X-ray is that large."""

_SIDES = {"R": "right", "L": "left", "1": "right", "2": "left"}
_PATIENT_DIGITS = 7
_FILE_NAME = re.compile(r"(?P<patient>\d{7})(?P<side>[LR])\.png")
_AUTO_TEST_FILE_NAME = re.compile(r"(?P<patient>\d{7})_(?P<side>[12])\.png")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEARCH_DEPTH = 3  # how deep the release may lie in a folder or zip, e.g. KneeXrayData/ClsKLData/kneeKL224
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class ReleaseImage:
    """One image of the release.

    Attributes:
        split: `train`, `validation`, `test` or `auto_test`.
        label: KL grade, 0 to 4.
        patient_id: seven digits.
        side: `left` or `right`.
        file_name: name of the PNG file.
        member: path within the source, for reading and for messages.
    """

    split: str
    label: int
    patient_id: str
    side: str
    file_name: str
    member: str


def release_image(split: str, label: int, patient_id: str, side: str, file_name: str, member: str) -> ReleaseImage:
    """Make a `ReleaseImage` whose repeated strings are interned, which saves memory with thousands of them."""
    return ReleaseImage(sys.intern(split), label, sys.intern(patient_id), sys.intern(side), file_name, member)


def patient_of(file_name: str) -> str:
    """Patient id (seven digits) at the start of a file name of the release."""
    return file_name[:_PATIENT_DIGITS]


class Release:
    """The release in a folder or a zip. A zip is read member by member and never unpacked to disk.

    Attributes:
        source: the folder or zip.
        root: path within `source` of the folder that holds the split folders.
        folders: paths below `root` of the grade folders, and of empty folders of a zip.
        files: paths below `root`, with `/`, sorted, without the hidden files of operating systems.

    Raises:
        KoaError: nothing there, no readable zip, no release in it, or several.
    """

    def __init__(self, source: str | Path):
        self.source = Path(source)
        self._zip: zipfile.ZipFile | None = None
        if not self.source.exists():
            raise KoaError(f"{source} doesn't exist; give the release's folder or its zip.")
        if self.source.is_dir():
            self.root = _one_root(self.source, _folder_roots(self.source))
            base = self.source / self.root
            files = (
                Path(folder, name).relative_to(base).as_posix() for folder, _, names in os.walk(base) for name in names
            )
            folders = (path.relative_to(base).as_posix() for path in base.glob("*/*/") if path.is_dir())
            self.folders = set(folders)
        else:
            try:
                self._zip = zipfile.ZipFile(self.source)
            except (zipfile.BadZipFile, OSError) as error:
                raise KoaError(
                    f"{source} is neither a folder nor a zip that can be read; download the release again."
                ) from error
            # Some Windows programs write backslashes.
            self._members = {info.filename.replace("\\", "/"): info for info in self._zip.infolist()}
            self.root = _one_root(self.source, _zip_roots(self._members))
            prefix = "" if self.root == "." else f"{self.root}/"
            inside = [name.removeprefix(prefix) for name in self._members if name.startswith(prefix)]
            files = (name for name in inside if name and not name.endswith("/"))
            self.folders = {"/".join(name.split("/")[:2]) for name in inside if name.count("/") > 1}
            self.folders |= {name.rstrip("/") for name in inside if name.endswith("/")}
        self.files = sorted(name for name in files if not _is_litter(name))

    def __enter__(self) -> "Release":
        return self

    def __exit__(self, *_) -> None:
        if self._zip:
            self._zip.close()

    def read(self, member: str) -> bytes:
        """Read the bytes of one of `files`; KoaError if the disk or the zip fails."""
        try:
            if not self._zip:
                return (self.source / self.root / member).read_bytes()
            info = self._members[member if self.root == "." else f"{self.root}/{member}"]
            if info.file_size > MAX_FILE_BYTES:
                raise KoaError(f"{member} claims {info.file_size} bytes, too many for a knee X-ray; remove it.")
            return self._zip.read(info)
        # RuntimeError: an encrypted zip, or (NotImplementedError) an unknown compression.
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise KoaError(f"{member} in {self.source} can't be read ({error}); download the release again.") from error

    def scan(self) -> tuple[list[ReleaseImage], list[str]]:
        """List all images by split and file name, and the problems with file names and folders, one sentence each."""
        images, problems = [], []
        for member in self.files:
            try:
                images.append(_parse_path(member))
            except KoaError as error:
                problems.append(str(error))
        found = Counter((image.split, image.label) for image in images)
        splits = {SPLIT_FOLDERS[name.split("/")[0]] for name in self.folders if name.split("/")[0] in SPLIT_FOLDERS}
        for folder, split in SPLIT_FOLDERS.items():
            empty = [grade for grade in range(NUM_GRADES) if not found[split, grade]]
            if split in splits and len(empty) == NUM_GRADES:
                problems.append(f"{folder} in {self.source} has no image in any grade folder; fill or remove it.")
            elif split in splits and empty:
                names = ", ".join(f"{folder}/{grade}" for grade in empty)
                problems.append(f"{names} is missing or empty in {self.source}; extract or download the release again.")
        order = list(SPLIT_FOLDERS.values())
        images.sort(key=lambda image: (order.index(image.split), image.file_name, image.label))
        for one, other in itertools.pairwise(images):
            if (one.split, one.file_name) == (other.split, other.file_name):
                problems.append(f"{one.member} and {other.member} give the same knee two grades; keep one of them.")
        return images, problems + patient_problems(images)


def is_release(path: Path) -> bool:
    """True if `path` is a folder that holds the release, or any zip."""
    return zipfile.is_zipfile(path) if path.is_file() else bool(_folder_roots(path))


def patient_problems(images: Iterable[ReleaseImage]) -> list[str]:
    """One sentence for each pair of splits that share patients."""
    patients = defaultdict(set)
    for image in images:
        patients[image.split].add(image.patient_id)
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    pairs += [("train", AUTO_TEST), ("validation", AUTO_TEST)]
    problems = []
    for one, other in pairs:
        if shared := sorted(patients[one] & patients[other]):
            problems.append(
                f"{_some(shared, 'patient')} in both {one} and {other}, which leaks one split into the other; "
                "keep each patient in one split."
            )
    if patients["test"] and (strangers := sorted(patients[AUTO_TEST] - patients["test"])):
        problems.append(
            f"{_some(strangers, 'patient')} in {AUTO_TEST} but not in test, whose patients it should show again."
        )
    return problems


def decode(data: bytes, where: str) -> tuple[str, radiograph.Radiograph]:
    """Decode a PNG file of the release fully.

    Args:
        data: the file's bytes.
        where: its path, for messages.

    Returns:
        (format such as "224x224 L", radiograph).

    Raises:
        KoaError: not a PNG file, or damaged.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise KoaError(f"{where} is not a PNG file; download the release again.")
    xray = radiograph.read(data, name=where)
    with Image.open(io.BytesIO(data)) as image:
        return f"{image.width}x{image.height} {image.mode}", xray


def count_grades(images: Iterable[ReleaseImage]) -> dict[str, list[int]]:
    """Split -> number of images of each KL grade."""
    counts: dict[str, list[int]] = {}
    for image in images:
        counts.setdefault(image.split, [0] * NUM_GRADES)[image.label] += 1
    return counts


def count_patients(images: Iterable[ReleaseImage]) -> dict[str, int]:
    """Split -> number of patients."""
    patients: dict[str, set[str]] = {}
    for image in images:
        patients.setdefault(image.split, set()).add(image.patient_id)
    return {split: len(ids) for split, ids in patients.items()}


def edition_of(counts: dict[str, list[int]]) -> str:
    """Key of `EDITIONS` that fits the number of images of each grade in each split."""
    if any(tuple(counts[split]) != RELEASED_COUNTS[split] for split in counts):
        return "other"
    return "complete" if set(RELEASED_COUNTS) - {AUTO_TEST} <= set(counts) else "partial"


def _folder_roots(source: Path) -> list[str]:
    """Folders within `source` that hold split folders with grade folders, at the smallest depth."""
    roots, level = [], [source]
    for _ in range(_SEARCH_DEPTH + 1):
        roots += [f for f in level if any((f / s / str(g)).is_dir() for s in SPLIT_FOLDERS for g in range(NUM_GRADES))]
        if roots:
            break
        with contextlib.suppress(OSError):
            level = [
                child for f in level for child in sorted(f.iterdir()) if child.is_dir() and not _is_litter(child.name)
            ]
    if not roots and any((source / split).is_dir() for split in SPLIT_FOLDERS):
        roots = [source]
    return [root.relative_to(source).as_posix() for root in roots]


def _zip_roots(members: Iterable[str]) -> list[str]:
    grades = {str(grade) for grade in range(NUM_GRADES)}
    roots, splits = set(), set()
    for member in members:
        parts = PurePosixPath(member).parts
        for depth, part in enumerate(parts[: _SEARCH_DEPTH + 1]):
            if part in SPLIT_FOLDERS and not _is_litter(member):
                splits.add("/".join(parts[:depth]) or ".")
                if len(parts) > depth + 1 and parts[depth + 1] in grades:
                    roots.add("/".join(parts[:depth]) or ".")
    return sorted(roots or splits, key=lambda root: (root.count("/"), root))


def _one_root(source: Path, roots: list[str]) -> str:
    if len(roots) > 1:
        # The archive at Mendeley holds both editions; the smaller one is the one that everybody reports on.
        roots = [root for root in roots if PurePosixPath(root).name == "kneeKL224"] or roots
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise KoaError(f"{source} holds several releases ({', '.join(roots)}); extract it and give one of them.")
    if source.is_dir() and any((source / str(grade)).is_dir() for grade in range(NUM_GRADES)):
        raise KoaError(f"{source} is a single split; give the folder above it, which holds train, val and test.")
    raise KoaError(f"{source} is not the release: it has no folder train, val or test with grade folders 0 to 4.")


def _is_litter(name: str) -> bool:
    return any(part.startswith(".") or part in _LITTER for part in name.split("/"))


def _parse_path(member: str) -> ReleaseImage:
    """Parse split, grade, patient and side from a path below the root; KoaError if it isn't one of the release."""
    folder, _, rest = member.partition("/")
    grade, _, file_name = rest.partition("/")
    if folder not in SPLIT_FOLDERS or grade not in map(str, range(NUM_GRADES)) or not file_name or "/" in file_name:
        raise KoaError(f"{member} does not belong in the release (<split>/<grade 0 to 4>/<image>.png); remove it.")
    pattern = _AUTO_TEST_FILE_NAME if folder == AUTO_TEST else _FILE_NAME
    match = pattern.fullmatch(file_name)
    if not match:
        example = "9000001_1.png" if folder == AUTO_TEST else "9000001R.png"
        raise KoaError(f"{member} is not named like an image of the release, such as {example}; rename or remove it.")
    return release_image(SPLIT_FOLDERS[folder], int(grade), match["patient"], _SIDES[match["side"]], file_name, member)


def _some(names: Sequence[str], noun: str) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{noun}{'' if len(names) == 1 else 's'} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''} {verb}"
