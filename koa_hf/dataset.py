"""The public knee X-ray release -> a Hugging Face data set; and a check of either.

    python -m koa_hf.dataset build kneeKL224.zip data/knees
    python -m koa_hf.dataset verify data/knees

`build` takes the release as people have it: its zip, or the folder it was extracted to, complete or with some splits
only. It writes a folder that `datasets.load_dataset` loads and that can be uploaded to the Hub as it is: Parquet
shards that hold the original PNG bytes, and a card. `auto_test` shows patients of `test` a second time, so it becomes
a configuration of its own that nobody trains on by accident.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import datasets
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from datasets.table import InMemoryTable
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from PIL import Image
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from koa_hf import radiograph
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.grades import GRADE_NAMES, GRADES, NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.polarity import is_negative

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(GRADE_NAMES)),
        "patient_id": datasets.Value("string"),
        "side": datasets.Value("string"),
        "file_name": datasets.Value("string"),
    }
)

AUTO_TEST = "auto_test"
SPLIT_FOLDERS = {"train": "train", "val": "validation", "test": "test", AUTO_TEST: AUTO_TEST}
"""Folders of the release, and what their splits are called here (and on the Hub)."""

RELEASED_COUNTS = {
    "train": (2286, 1046, 1516, 757, 173),
    "validation": (328, 153, 212, 106, 27),
    "test": (639, 296, 447, 223, 51),
    AUTO_TEST: (604, 275, 403, 200, 44),
}
"""Images of each KL grade in the public release (the same in its 224 and 299 pixel editions)."""

IMAGES_PER_SHARD = 2000
"""About 50 MB of PNG: what `build` holds in memory at once, whatever the size of the release."""

MAX_FILE_BYTES = 64 * 2**20
"""No knee X-ray is larger; a zip member that claims to be is not unpacked."""

_SIDES = {"R": "right", "L": "left", "1": "right", "2": "left"}
_FILE_NAME = re.compile(r"(?P<patient>\d{7})(?P<side>[LR])\.png")
_AUTO_TEST_FILE_NAME = re.compile(r"(?P<patient>\d{7})_(?P<side>[12])\.png")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEARCH_DEPTH = 3  # how deep the release may lie in a folder or zip, e.g. KneeXrayData/ClsKLData/kneeKL224
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Knee:
    """One image of the release. `member` is its path within the source, for messages and for reading it."""

    split: str
    label: int
    patient_id: str
    side: str
    file_name: str
    member: str


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


# --- loading ------------------------------------------------------------------------------------------------------


def load(path_or_id: str | Path, configuration: str = "default", revision: str | None = None) -> datasets.DatasetDict:
    """Load a built data set.

    Args:
        path_or_id: a folder that `build` wrote, or the id of a data set on the Hub.
        configuration: `default` (train, validation, test), or `auto_test` by name.
        revision: branch, tag or commit on the Hub; nothing for a folder.

    Returns:
        The splits that are there, with the columns of `FEATURES`.

    Raises:
        KoaError: nothing there, the release itself instead of what `build` makes of it, no network, an unknown
            configuration, or columns missing.
    """
    path = Path(path_or_id)
    if path.exists():
        _check_built(path)
        # An absolute path can't be taken for a Hub id, nor for one of the loaders that `datasets` has by name.
        path_or_id = str(path.resolve())
    elif path.is_absolute() or str(path_or_id).startswith((".", "~")) or len(path.parts) > 2:
        raise KoaError(f"{path_or_id} doesn't exist; give a folder written by `python -m koa_hf.dataset build`.")
    name = str(path if path.exists() else path_or_id)
    try:
        loaded = datasets.load_dataset(str(path_or_id), configuration, revision=revision)
    except (ConnectionError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise KoaError(
            f"{name} is no folder here, and the Hugging Face Hub can't be reached to look for it there; "
            "check the path, or the network (and that HF_HUB_OFFLINE is not set)."
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise KoaError(
            f"{name} is neither a folder here nor a data set on the Hugging Face Hub that you may read"
            f"{f' at revision {revision}' if revision else ''}; check the spelling, or log in with `hf auth login`."
        ) from error
    except (FileNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise KoaError(f"{name} can't be loaded: {_first_line(error)}") from error
    except datasets.exceptions.DatasetsError as error:
        raise KoaError(
            f"{name} is damaged ({_first_line(error.__cause__ or error)}); build or download it again."
        ) from error
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise KoaError(f"{name} has no configuration {configuration!r}; its card lists those it has.") from error
    for split, part in loaded.items():
        _check_columns(part.column_names, f"split {split!r} of {name}")
    return loaded


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) over file name, label and image bytes of every row, in order.

    Unlike the fingerprint `datasets` keeps, it depends on nothing but the data: not on the path, the machine, or
    the version that wrote the Parquet. Nothing is decoded; the full training split takes about a second.
    """
    digest = hashlib.sha256()
    columns = ["file_name", "label", "image"]
    undecoded = dataset.select_columns(columns).cast_column("image", datasets.Image(decode=False))
    for batch in undecoded.iter(batch_size=256):
        for file_name, label, image in zip(*(batch[column] for column in columns), strict=True):
            data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            # Lengths first, so that no two different lists of rows run together into the same bytes.
            digest.update(f"{len(file_name)} {file_name} {label} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def _check_built(path: Path) -> None:
    if path.is_dir() and any(path.glob("data/*.parquet")):
        return
    if zipfile.is_zipfile(path) if path.is_file() else bool(_folder_roots(path)):
        raise KoaError(
            f"{path} is the release itself; run `python -m koa_hf.dataset build {path} OUT` first, then give OUT."
        )
    raise KoaError(
        f"{path} holds no data set (no data/*.parquet); give a folder written by `python -m koa_hf.dataset build`."
    )


def _check_columns(columns: Iterable[str], where: str) -> None:
    missing = [column for column in FEATURES if column not in columns]
    if missing:
        raise KoaError(
            f"{where} has no column {', '.join(missing)}; it needs {', '.join(FEATURES)}, "
            "as `python -m koa_hf.dataset build` writes them."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --- the release --------------------------------------------------------------------------------------------------


class _Release:
    """The release in a folder or a zip. A zip is read member by member and never unpacked to disk.

    `root` is where the split folders lie; `files` are the paths below it, with `/`, sorted, without what operating
    systems leave behind.
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

    def __enter__(self) -> "_Release":
        return self

    def __exit__(self, *_) -> None:
        if self._zip:
            self._zip.close()

    def read(self, member: str) -> bytes:
        """The bytes of a file; KoaError where the disk or the zip won't give them."""
        try:
            if not self._zip:
                return (self.source / self.root / member).read_bytes()
            info = self._members[member if self.root == "." else f"{self.root}/{member}"]
            if info.file_size > MAX_FILE_BYTES:
                raise KoaError(f"{member} claims {info.file_size} bytes, too many for a knee X-ray; remove it.")
            return self._zip.read(info)
        # A zip that is damaged, encrypted (RuntimeError) or packed in an unusual way (NotImplementedError).
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise KoaError(f"{member} in {self.source} can't be read ({error}); download the release again.") from error

    def scan(self) -> tuple[list[Knee], list[str]]:
        """All images, by split and file name, and what is wrong with the names and places of files."""
        knees, problems = [], []
        for member in self.files:
            try:
                knees.append(_knee(member))
            except KoaError as error:
                problems.append(str(error))
        found = Counter((knee.split, knee.label) for knee in knees)
        splits = {SPLIT_FOLDERS[name.split("/")[0]] for name in self.folders if name.split("/")[0] in SPLIT_FOLDERS}
        for folder, split in SPLIT_FOLDERS.items():
            empty = [grade for grade in range(NUM_GRADES) if not found[split, grade]]
            if split in splits and len(empty) == NUM_GRADES:
                problems.append(f"{folder} in {self.source} has no image in any grade folder; fill or remove it.")
            elif split in splits and empty:
                names = ", ".join(f"{folder}/{grade}" for grade in empty)
                problems.append(f"{names} is missing or empty in {self.source}; extract or download the release again.")
        order = list(SPLIT_FOLDERS.values())
        knees.sort(key=lambda knee: (order.index(knee.split), knee.file_name, knee.label))
        for one, other in itertools.pairwise(knees):
            if (one.split, one.file_name) == (other.split, other.file_name):
                problems.append(f"{one.member} and {other.member} give the same knee two grades; keep one of them.")
        return knees, problems + _patient_problems(knees)


def _folder_roots(source: Path) -> list[str]:
    """Folders within `source` that hold split folders with grade folders; nearest first."""
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


def _knee(member: str) -> Knee:
    """Read split, grade, patient and side off a path; KoaError where they aren't there."""
    folder, _, rest = member.partition("/")
    grade, _, file_name = rest.partition("/")
    if folder not in SPLIT_FOLDERS or grade not in map(str, range(NUM_GRADES)) or not file_name or "/" in file_name:
        raise KoaError(f"{member} doesn't belong in the release (<split>/<grade 0 to 4>/<image>.png); move it away.")
    pattern = _AUTO_TEST_FILE_NAME if folder == AUTO_TEST else _FILE_NAME
    match = pattern.fullmatch(file_name)
    if not match:
        example = "9000001_1.png" if folder == AUTO_TEST else "9000001R.png"
        raise KoaError(f"{member} is not named like an image of the release, such as {example}; rename or remove it.")
    return Knee(SPLIT_FOLDERS[folder], int(grade), match["patient"], _SIDES[match["side"]], file_name, member)


def _patient_problems(knees: Iterable[Knee]) -> list[str]:
    """Patients that would leak from one split into another."""
    patients = defaultdict(set)
    for knee in knees:
        patients[knee.split].add(knee.patient_id)
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    pairs += [("train", AUTO_TEST), ("validation", AUTO_TEST)]
    problems = []
    for one, other in pairs:
        if shared := sorted(patients[one] & patients[other]):
            problems.append(
                f"{_some(shared, 'patient')} in both {one} and {other}, which would leak from one into the other; "
                "keep each patient in one split."
            )
    if patients["test"] and (strangers := sorted(patients[AUTO_TEST] - patients["test"])):
        problems.append(
            f"{_some(strangers, 'patient')} in {AUTO_TEST} but not in test, whose knees it should show again."
        )
    return problems


def _some(names: Sequence[str], noun: str) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{noun}{'' if len(names) == 1 else 's'} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''} {verb}"


def _decode(data: bytes, where: str) -> tuple[str, radiograph.Radiograph]:
    """(format such as "224x224 L", X-ray), fully decoded; KoaError where that fails."""
    if not data.startswith(_PNG_SIGNATURE):
        raise KoaError(f"{where} is not a PNG file; download the release again.")
    xray = radiograph.read(data, name=where)
    with Image.open(io.BytesIO(data)) as image:
        return f"{image.width}x{image.height} {image.mode}", xray


# --- build --------------------------------------------------------------------------------------------------------


def build(source: str | Path, out: str | Path, overwrite: bool = False, progress: bool = False) -> Path:
    """Make a Hugging Face data set of the release.

    Args:
        source: folder or zip of the release; see the module's docstring.
        out: folder to write. It appears when it is complete, or not at all. The same source gives the same bytes.
        overwrite: replace `out` where it is a data set built before.
        progress: show a progress bar on stderr.

    Returns:
        `out`: `data/<split>-*.parquet`, `auto_test/test-*.parquet` where the source has it, and `README.md`.

    Raises:
        KoaError: anything amiss with source or out. Every image is decoded, so a file cut short is found here.
    """
    source, out = Path(source), Path(out)
    _check_out(source, out, overwrite)
    with _Release(source) as release:
        knees, problems = release.scan()
        if problems:
            more = len(problems) - 1
            raise KoaError(problems[0] + (f" (And {more} more: see `koa_hf.dataset verify`.)" if more else ""))
        if not any(knee.split != AUTO_TEST for knee in knees):
            raise KoaError(
                f"{source} holds {AUTO_TEST} only, which is not a data set by itself; add train, val or test."
            )
        scratch = out.parent / f".{out.name}.{os.getpid()}"
        try:
            scratch.mkdir(parents=True)
            with _progress("packing", len(knees), progress) as advance:
                splits = {
                    split: _write_split(release, [knee for knee in knees if knee.split == split], scratch, advance)
                    for split in dict.fromkeys(knee.split for knee in knees)
                }
            _card(knees, splits, scratch).save(scratch / "README.md")
            _put_in_place(scratch, out)
        except OSError as error:
            raise KoaError(f"{out} can't be written: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return out


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise KoaError(f"{out} lies within the release; name a folder outside {source}.")
    if not out.exists():
        return
    if not out.is_dir():
        raise KoaError(f"{out} is a file; name a folder.")
    if any(out.iterdir()):
        if not overwrite:
            raise KoaError(f"{out} exists and is not empty; name another folder, or give --overwrite.")
        if not any(out.glob("data/*.parquet")):
            raise KoaError(f"{out} is not a data set built before, so it is not overwritten; name another folder.")


def _put_in_place(scratch: Path, out: Path) -> None:
    if out.exists():
        old = scratch.with_suffix(".old")
        out.rename(old)
        try:
            scratch.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old)
    else:
        scratch.rename(out)


def _write_split(release: _Release, knees: list[Knee], out: Path, advance: Callable[[], None]) -> datasets.SplitInfo:
    """Write the shards of one split, one after another, and say what was written."""
    split = "test" if knees[0].split == AUTO_TEST else knees[0].split
    folder = out / (AUTO_TEST if knees[0].split == AUTO_TEST else "data")
    folder.mkdir(exist_ok=True)
    shards = -(-len(knees) // IMAGES_PER_SHARD)
    num_bytes = 0
    for shard in range(shards):
        part = knees[shard * len(knees) // shards : (shard + 1) * len(knees) // shards]
        images = []
        for knee in part:
            data = release.read(knee.member)
            _decode(data, knee.member)
            images.append({"bytes": data, "path": knee.file_name})
            advance()
        # Not Dataset.from_dict: its encoder drops the bytes where the working directory has a file of that name.
        columns = {"image": images}
        columns |= {name: [getattr(knee, name) for knee in part] for name in FEATURES if name != "image"}
        table = pa.table(columns, schema=FEATURES.arrow_schema)
        with _no_progress_bars():
            path = folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            datasets.Dataset(InMemoryTable(table)).to_parquet(path)
        num_bytes += table.nbytes
    return datasets.SplitInfo(name=split, num_bytes=num_bytes, num_examples=len(knees))


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence the bar that `datasets` shows for every shard."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _progress(what: str, total: int, show: bool) -> Iterator[Callable[[], None]]:
    """A progress bar with an estimate on stderr; yields a function to call once for every image."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


# --- the card -----------------------------------------------------------------------------------------------------

_EDITIONS = {
    "complete": "the complete public release",
    "partial": "a part of the public release (some splits only)",
    "other": "other data than the public release, in its shape",
}

_CARD = """\
# {title}

Anteroposterior X-rays of single knees, each with its Kellgren-Lawrence (KL) grade of osteoarthritis, 0 to 4.
This copy is {edition}.

> {notice}

```python
from datasets import load_dataset

knees = load_dataset("path/or/hub-id")
print(knees["{first}"].features["label"].names)
```

## Splits

{table}

No patient is in two splits. `load_dataset` gives these splits.{auto_test}

## Columns

| column | |
|---|---|
| `image` | the released PNG, byte for byte |
| `label` | KL grade: {grades} |
| `patient_id` | a number; the two knees of a patient share it, so split again by patient, never by image |
| `side` | `left` or `right` knee |
| `file_name` | the name in the release |

{source}"""

_CARD_SOURCE = """\
## Source

Pingjun Chen, *Knee Osteoarthritis Severity Grading Dataset*, Mendeley Data, 2018, licence CC BY 4.0; derived from the
Osteoarthritis Initiative (OAI). The images and labels are unchanged; only the packaging is new.

```bibtex
@misc{chen2018knee,
  author    = {Chen, Pingjun},
  title     = {Knee Osteoarthritis Severity Grading Dataset},
  year      = {2018},
  publisher = {Mendeley Data},
  version   = {V1},
  doi       = {10.17632/56rmx5bjcr.1}
}
```

## Known issues

- About 1.2 % of the images are photographic negatives (bone dark): roughly 70 in train, 14 in validation, 26 in test.
- The grades are far from balanced: 40 % are grade 0 and 3 % grade 4.
- Grade 1 ("doubtful") is noisy by nature; radiologists agree among themselves with a weighted kappa of 0.56 to 0.97,
  depending on the study.
- Both knees of a patient share their grade in about half of the pairs: splitting by image leaks.
- The release shows the test patients a second time, cropped by a detector (here the configuration `auto_test`, where
  it was packed). Never train on it and never pool it with `test`.
"""

_CARD_OTHER_SOURCE = """\
## Source

The number of images differs from the public release (Chen, 2018, doi 10.17632/56rmx5bjcr.1), so this is a selection
from it, or other data in its shape, such as drawn phantoms. Say here where it comes from before sharing it.
"""


def _edition(counts: dict[str, list[int]]) -> str:
    """`complete`, `partial` or `other`, judged by the number of images of each grade in each split."""
    if any(tuple(counts[split]) != RELEASED_COUNTS[split] for split in counts):
        return "other"
    return "complete" if set(RELEASED_COUNTS) - {AUTO_TEST} <= set(counts) else "partial"


def _count(knees: Iterable[Knee]) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    for knee in knees:
        counts.setdefault(knee.split, [0] * NUM_GRADES)[knee.label] += 1
    return counts


def _card(knees: list[Knee], splits: dict[str, datasets.SplitInfo], folder: Path) -> DatasetCard:
    """The card: YAML that `datasets` and the Hub read, then what a person wants to know."""
    counts = _count(knees)
    edition = _edition(counts)
    total = sum(map(sum, counts.values()))
    title = "Knee osteoarthritis X-rays with Kellgren-Lawrence grades"
    data = DatasetCardData(
        license="cc-by-4.0",
        pretty_name=title,
        task_categories=["image-classification"],
        size_categories=["n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"],
        tags=["medical", "radiology", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence"],
    )
    configurations = {"default": {split: info for split, info in splits.items() if split != AUTO_TEST}}
    if AUTO_TEST in splits:
        configurations[AUTO_TEST] = {"test": splits[AUTO_TEST]}
    infos, files = DatasetInfosDict(), MetadataConfigs()
    for name, parts in configurations.items():
        where = "data" if name == "default" else name
        infos[name] = datasets.DatasetInfo(
            features=FEATURES,
            splits=datasets.SplitDict({info.name: info for info in parts.values()}),
            dataset_size=sum(info.num_bytes for info in parts.values()),
            download_size=sum(path.stat().st_size for path in (folder / where).glob("*.parquet")),
        )
        files[name] = {"data_files": [{"split": split, "path": f"{where}/{split}-*"} for split in parts]}
    files.to_dataset_card_data(data)
    infos.to_dataset_card_data(data)

    patients = {split: len({knee.patient_id for knee in knees if knee.split == split}) for split in counts}
    rows = [f"| split | {' | '.join(f'{g.value} {g.name}' for g in GRADES)} | images | patients |", "|---" * 8 + "|"]
    for split, grades in counts.items():
        rows.append(f"| {split} | {' | '.join(map(str, grades))} | {sum(grades)} | {patients[split]} |")
    auto_test = (
        f" `load_dataset(..., {AUTO_TEST!r})` gives the patients of test a second time, cropped by a detector: "
        "never train on it, never pool it with test."
        if AUTO_TEST in splits
        else ""
    )
    body = _CARD.format(
        title=title,
        first=next(iter(counts)),
        edition=_EDITIONS[edition],
        notice=RESEARCH_USE_NOTICE,
        table="\n".join(rows),
        auto_test=auto_test,
        grades=", ".join(f"{grade.value} {grade.name}" for grade in GRADES),
        source=_CARD_OTHER_SOURCE if edition == "other" else _CARD_SOURCE,
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


# --- verify -------------------------------------------------------------------------------------------------------


def verify(source: str | Path, progress: bool = False) -> Report:
    """Check a release (folder or zip) or a data set that `build` wrote, image by image.

    Raises:
        KoaError: there is nothing to check. What is wrong with the data itself is in the report.
    """
    source = Path(source)
    built = source.is_dir() and any(source.glob("data/*.parquet"))
    with contextlib.ExitStack() as stack:
        if built:
            total, problems = _check_shards(source)
            images = _built_images(source)
        else:
            release = stack.enter_context(_Release(source))
            listed, problems = release.scan()
            total = len(listed)
            images = ((knee, functools.partial(release.read, knee.member)) for knee in listed)
        advance = stack.enter_context(_progress("checking", total, progress))
        knees, formats, negatives, same = [], Counter(), defaultdict(list), defaultdict(list)
        for knee, read in images:
            knees.append(knee)
            try:
                kind, xray = _decode(read(), knee.member)
            except KoaError as error:
                problems.append(str(error))
            else:
                formats[kind] += 1
                if is_negative(xray.pixels):
                    negatives[knee.split].append(knee.file_name)
                pixels = hashlib.blake2b(repr(xray.pixels.shape).encode() + xray.pixels.tobytes(), digest_size=16)
                same[pixels.digest()].append(f"{knee.split}/{knee.file_name}")
            advance()
    if built:
        problems += _patient_problems(knees)
    counts = _count(knees)
    report = Report(
        source=str(source),
        edition=_edition(counts),
        counts=counts,
        patients={split: len({knee.patient_id for knee in knees if knee.split == split}) for split in counts},
        formats=dict(formats.most_common()),
        negatives=dict(negatives),
        duplicates=sorted(names for names in same.values() if len(names) > 1),
        problems=problems,
    )
    report.problems += [f"{' and '.join(names)} have the same pixels; keep one." for names in report.duplicates]
    report.notes += _notes(report)
    return report


def _shards(folder: Path) -> list[tuple[str, Path]]:
    """(split, Parquet file) of a built data set, in the order of `SPLIT_FOLDERS`."""
    order = list(SPLIT_FOLDERS.values())
    found = [(path.name.partition("-")[0], path) for path in sorted(folder.glob("data/*.parquet"))]
    if unknown := [path for split, path in found if split not in order]:
        raise KoaError(f"{unknown[0]} is not named like a shard of {', '.join(order[:3])}; remove it or build again.")
    found += [(AUTO_TEST, path) for path in sorted(folder.glob(f"{AUTO_TEST}/*.parquet"))]
    return sorted(found, key=lambda shard: order.index(shard[0]))


def _check_shards(folder: Path) -> tuple[int, list[str]]:
    """(number of rows, problems): every shard there, readable, with its columns, and as many rows as the card says."""
    rows, seen, problems = Counter(), defaultdict(set), []
    for split, path in _shards(folder):
        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise KoaError(f"{path} is no readable Parquet file ({_first_line(error)}); build it again.") from error
        with parquet:
            _check_columns(parquet.schema_arrow.names, str(path))
            rows[split] += parquet.metadata.num_rows
        match = re.fullmatch(r".*-(\d{5})-of-(\d{5})", path.stem)
        if match:
            seen[split, int(match[2])].add(int(match[1]))
    for (split, shards), there in seen.items():
        if missing := set(range(shards)) - there:
            problems.append(f"{split} lacks {len(missing)} of its {shards} Parquet files; build or download it again.")
    try:
        infos = DatasetInfosDict.from_directory(folder)
    except Exception as error:  # YAML, or the Hub's checks of it, may fail in many ways
        problems.append(f"{folder}/README.md has no readable YAML ({_first_line(error)}); build it again.")
        infos = {}
    for configuration, info in infos.items():
        for name, split in (info.splits or {}).items():
            key = AUTO_TEST if configuration == AUTO_TEST else name
            if rows[key] != split.num_examples:
                problems.append(f"{key} has {rows[key]} images, its card says {split.num_examples}; build it again.")
    return sum(rows.values()), problems


def _built_images(folder: Path) -> Iterator[tuple[Knee, Callable[[], bytes]]]:
    """Every row of a built data set, read a few at a time."""
    for split, path in _shards(folder):
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=64, columns=list(FEATURES)):
                for row in batch.to_pylist():
                    image = row.pop("image")
                    knee = Knee(split=split, member=f"{split}/{row['file_name']}", **row)
                    yield knee, functools.partial(bytes, image["bytes"] or b"")


def _notes(report: Report) -> list[str]:
    notes = [f"This is {_EDITIONS[report.edition]}."]
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


# --- command line -------------------------------------------------------------------------------------------------


@exit_2_on_bad_input
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.dataset",
        description="Package the public knee X-ray release as a Hugging Face data set, or check it.",
        epilog="example: python -m koa_hf.dataset build kneeKL224.zip data/knees",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser(
        "build",
        help="release -> Parquet and card",
        description="Write a folder that datasets.load_dataset loads and that can be uploaded to the Hub as it is.",
        epilog="example: python -m koa_hf.dataset build kneeKL224.zip data/knees",
    )
    builder.add_argument("source", metavar="SOURCE", type=Path, help="the release: its folder or its zip")
    builder.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    builder.add_argument("--overwrite", action="store_true", help="replace OUT where it is a data set built before")
    checker = verbs.add_parser(
        "verify",
        help="check a release or what build made of it",
        description="Check every image: readable, counts, patients disjoint, duplicates, negatives. "
        "Exits 2 where something is wrong.",
        epilog="example: python -m koa_hf.dataset verify data/knees --json report.json",
    )
    checker.add_argument("source", metavar="SOURCE_OR_OUT", type=Path, help="a release, or a folder that build wrote")
    checker.add_argument("--json", metavar="FILE", type=Path, help="write the whole report here")
    args = parser.parse_args(arguments)

    if args.verb == "build":
        build(args.source, args.out, args.overwrite, progress=True)
        rows, _ = _check_shards(args.out)
        print(f"{args.out}: {rows} images; load with datasets.load_dataset({str(args.out)!r})")
        return 0
    report = verify(args.source, progress=True)
    print_report(report)
    if args.json:
        try:
            args.json.write_text(json.dumps({"ok": report.ok, **asdict(report)}, indent=2) + "\n")
        except OSError as error:
            raise KoaError(f"{args.json} can't be written: {error.strerror}.") from error
    return 0 if report.ok else 2


if __name__ == "__main__":
    raise SystemExit(main())
