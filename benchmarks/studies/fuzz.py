"""Hostile files by the thousand: results/hostile/fuzz.json.

    python benchmarks/studies/fuzz.py --minutes 10            # through the reader, and some through a running demo
    python benchmarks/studies/fuzz.py --minutes 2 --reader    # through the reader only
    python benchmarks/studies/fuzz.py --minutes 2 --add       # counted together with what fuzz.json has

Hypothesis changes good files of every format that is read: bytes are cut, overwritten, repeated and spliced, lengths
and dimensions lied about, DICOM elements swapped, zips nested. Each file must end in an X-ray or in one sentence,
within `SECONDS`; memory must stay flat, nothing be left on disk, and the demo answer afterwards. What does not is kept
in --keep, as small as Hypothesis can make it, and the exit code is 1. Needs requirements-dev.txt.
"""

import argparse
import base64
import io
import json
import multiprocessing
import os
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import imagecodecs
import numpy as np
import psutil
import pydicom
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from benchmarks.reporting import RESULTS, write_result
from benchmarks.speed.demo_server import serving
from koa_hf.errors import KoaError
from koa_hf.imaging import archive, phantom, radiograph
from tests.helpers import zipped
from tests.test_dicom import ENCODE, WINDOW, table, written

RESULT = RESULTS / "hostile" / "fuzz.json"
SECONDS = 20  # for one file; far more than any takes, as the machine may be busy
MEGAPIXELS = 5  # largest image that is read
PATIENT = {"timeout": 60}  # seconds, while the demo imports torch
FILES = {"reader": 1000, "server": 100}  # in a process of its own; memory is compared after a fifth of them
FLAT = {"reader": 50, "server": 100}  # MB that memory may grow over the rest

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ELEMENTS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "PlanarConfiguration", "WindowCenter", "WindowWidth"),
    *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "Modality", "ViewPosition", "ImageLaterality"),
    *("PixelSpacing", "PixelAspectRatio", "PatientOrientation", "VOILUTFunction", "SOPClassUID", "PixelData"),
)
VALUES = (
    None,
    "",
    0,
    1,
    -1,
    3,
    8,
    12,
    16,
    17,
    32,
    255,
    65535,
    "RGB",
    "PALETTE COLOR",
    "MONOCHROME1",
    "NaN",
    [0, 0],
    b"",
)


@cache
def good_files() -> dict[str, list[bytes]]:
    """Files of every format that is read, by format."""
    knee = np.asarray(Image.fromarray(phantom.draw_knee(3, seed=1)).resize((72, 64)))
    grey, deep = Image.fromarray(knee), Image.fromarray(knee.astype(np.uint16) * 16)
    colour = grey.convert("RGB")

    def encoded(image: Image.Image, kind: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    files = {
        "PNG": [
            *(encoded(image, "PNG") for image in (grey, deep, colour, colour.convert("RGBA"), grey.convert("P"))),
            imagecodecs.png_encode(np.repeat(knee[..., None], 3, axis=2).astype(np.uint16) * 16),
        ],
        "JPEG": [
            encoded(grey, "JPEG"),
            encoded(colour, "JPEG", progressive=True),
            encoded(colour.convert("CMYK"), "JPEG"),
        ],
        "TIFF": [
            *(encoded(grey, "TIFF", compression=how) for how in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
            *(encoded(image, "TIFF") for image in (deep, Image.fromarray(knee.astype(np.float32)), grey.convert("1"))),
            encoded(grey, "TIFF", save_all=True, append_images=[grey]),
        ],
        "WebP": [encoded(grey, "WEBP"), encoded(grey, "WEBP", lossless=True)],
        "BMP": [encoded(grey, "BMP"), encoded(colour, "BMP")],
        "GIF": [encoded(grey, "GIF"), encoded(grey, "GIF", save_all=True, append_images=[grey.rotate(3)])],
        "JPEG 2000": [encoded(grey, "JPEG2000")],
        "PPM": [encoded(grey, "PPM")],
        "DICOM": [
            written(knee),
            written(knee.astype(np.uint16) * 16, **WINDOW, RescaleSlope="1", RescaleIntercept="0"),
            written(knee.astype(np.uint16), VOILUTSequence=table(np.arange(256) * 16)),
            written(np.stack([knee, knee])),
            written(np.repeat(knee[..., None], 3, axis=2)),
            *(
                written(knee.astype(np.uint16) * 16, syntax)
                for syntax in (
                    *(uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian),
                    *(uid.RLELossless, *(syntax for syntax in ENCODE if syntax != uid.JPEGBaseline8Bit)),
                )
            ),
            written(knee, uid.JPEGBaseline8Bit),
        ],
    }
    files["zip"] = [
        zipped(dict(zip(("knee.png", "visit/knee.dcm"), (files["PNG"][0], files["DICOM"][0]), strict=True)))
    ]
    return files


# Hypothesis draws what is to be done before anything is done: what is drawn must not depend on the files.

Change = Callable[[bytes], bytes]
PLACES = st.tuples(st.booleans(), st.integers(0, 100_000))


def changes(function: Callable[..., bytes], *drawn: st.SearchStrategy) -> st.SearchStrategy[Change]:
    """Changes by a function of the drawn values and a file's content."""
    return st.tuples(*drawn).map(lambda values: partial(function, *values))


def _at(place: tuple[bool, int], data: bytes) -> int:
    """A position in a file, or in its first bytes."""
    in_header, number = place
    return number % (min(len(data), 256 if in_header else len(data)) + 1)


def _cut(place: tuple, data: bytes) -> bytes:
    return data[: _at(place, data)]


def _overwritten(place: tuple, put: bytes, data: bytes) -> bytes:
    start = _at(place, data)
    return data[:start] + put + data[start + len(put) :]


def _lying(place: tuple, kind: str, number: int, data: bytes) -> bytes:
    return _overwritten(place, struct.pack(kind, number & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)), data)


def _repeated(place: tuple, length: int, times: int, data: bytes) -> bytes:
    start = _at(place, data)
    return data[:start] + data[start : start + length] * times + data[start:]


def _spliced(place: tuple, kind: str, number: int, other_place: tuple, data: bytes) -> bytes:
    other = good_files()[kind][number % len(good_files()[kind])]
    return data[: _at(place, data)] + other[_at(other_place, other) :]


def _zipped(names: list[str], data: bytes) -> bytes:
    """In a zip, for each of the names, from the inside out."""
    for name in names:
        data = zipped({name: data})
    return data


def _with_other_dimensions(sizes: list[int | None], data: bytes) -> bytes:
    """A PNG whose header says something else, with a correct checksum."""
    if not data.startswith(b"\x89PNG"):
        return data
    header = bytearray(data[12:29])
    fields = ((4, 4), (8, 4), (12, 1), (13, 1), (16, 1))  # width, height, depth, colour, interlacing
    for (start, length), size in zip(fields, sizes, strict=True):
        if size is not None:
            header[start : start + length] = (size % 256**length).to_bytes(length, "big")
    return data[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _with_other_elements(edits: list[tuple], data: bytes) -> bytes:
    """A DICOM file with elements deleted, changed or swapped; as it was if it is none, or pydicom can't write that."""
    if data[128:132] != b"DICM":
        return data
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        for one, other, value in edits:
            if other:
                dataset[one].value, dataset[other].value = dataset[other].value, dataset[one].value
            elif value is None:
                del dataset[one]
            else:
                setattr(dataset, one, value)
        buffer = io.BytesIO()
        dataset.save_as(buffer)
    except Exception:  # it raises many kinds for such values
        return data
    return buffer.getvalue()


KINDS = st.sampled_from(
    ("PNG", "JPEG", "TIFF", "WebP", "BMP", "GIF", "JPEG 2000", "PPM", "DICOM", "DICOM", "DICOM", "zip")
)
SIZES = st.none() | st.sampled_from((0, 1, 2, 3, 4, 6, 8, 16, 72, 1000, 20_000, 0x7FFFFFFF, 0xFFFFFFFF))
EDITS = st.tuples(st.sampled_from(ELEMENTS), st.none() | st.sampled_from(ELEMENTS), st.sampled_from(VALUES))
WHOLE = st.none() | changes(_with_other_elements, st.lists(EDITS, min_size=1, max_size=3))
WHOLE |= changes(_with_other_dimensions, st.lists(SIZES, min_size=5, max_size=5))
BYTES = st.one_of(
    changes(_cut, PLACES),
    changes(_overwritten, PLACES, st.binary(min_size=1, max_size=8)),
    changes(_lying, PLACES, st.sampled_from(("<H", ">H", "<I", ">I")), st.sampled_from(EXTREMES)),
    changes(_repeated, PLACES, st.integers(1, 64), st.integers(2, 50)),
    changes(_spliced, PLACES, KINDS, st.integers(0, 30), PLACES),
)
NESTED = changes(_zipped, st.lists(st.sampled_from(("a.png", "a.zip", "../a.dcm", "b\\a.png")), max_size=3))


@st.composite
def hostile_files(draw: Callable) -> tuple[str, bytes]:
    """The format that a file began as, and its content."""
    kind, number = draw(KINDS), draw(st.integers(0, 30))
    drawn = [draw(WHOLE), *draw(st.lists(BYTES, max_size=3)), draw(st.none() | st.none() | NESTED)]
    data = good_files()[kind][number % len(good_files()[kind])]
    for change in filter(None, drawn):
        data = change(data)
    return kind, data


def through_reader(data: bytes, file: Path) -> str:
    """`read`, or `refused` in one sentence; of a zip, `read` if one of its files is."""
    if not archive.is_archive(file):
        return _outcome(lambda: radiograph.read(data, file.name, MEGAPIXELS * 1_000_000))

    def read_one(name: str, content: bytes | KoaError) -> None:
        if isinstance(content, KoaError):
            raise content
        radiograph.read(content, name, MEGAPIXELS * 1_000_000)

    def read_all() -> None:
        for name, content in archive.unpack(data, file.name):
            outcomes.append(_outcome(partial(read_one, name, content)))

    outcomes: list[str] = []
    if _outcome(read_all) == "refused" or "read" not in outcomes:
        return "refused"
    return "read"


def _outcome(read: Callable) -> str:
    try:
        read()
    except (KoaError, AppError) as error:
        said = str(error)
        assert said.endswith(".") and "\n" not in said and len(said) < 400, f"not one sentence: {said}"  # noqa: PT018
        return "refused"
    return "read"


def run_some(where: str, number: int, until: float, folder: Path, url: str | None, answers) -> None:
    """Send up to `FILES` hostile files, in a process of its own; the outcomes go to the queue `answers`."""
    (folder / "temporary").mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "temporary")
    client = Client(url, verbose=False, download_files=False, httpx_kwargs=PATIENT) if url else None
    current, counts, sizes = folder / "current", defaultdict(Counter), []
    watched = psutil.Process(number if url else None)

    def through_server(data: bytes, file: Path) -> str:
        if not archive.is_archive(file):
            return _outcome(lambda: client.predict(handle_file(file), api_name="/grade_film"))
        rows: list[dict] = []
        _outcome(lambda: rows.extend(client.predict([handle_file(file)], api_name="/grade_many")))
        return "refused" if all("error" in row for row in rows) else "read"

    @seed(time.time_ns())
    @settings(
        max_examples=FILES[where],
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_files())
    def each_ends_well(made: tuple[str, bytes]) -> None:
        kind, data = made
        if time.monotonic() > until:
            return
        current.write_bytes(data)
        signal.alarm(SECONDS)  # ends the process, also within a decoder
        outcome = (through_server if url else through_reader)(data, current)
        signal.alarm(0)
        counts[kind][outcome] += 1
        sizes.append(watched.memory_info().rss)

    problem = ""
    try:
        each_ends_well()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if left := [path.name for path in (folder / "temporary").iterdir() if not path.name.startswith("gradio")]:
        problem = problem or f"left on disk: {left}"
    grown = (sizes[-1] - sizes[len(sizes) // 5]) / 1e6 if sizes else 0
    if len(sizes) == FILES[where] and grown > FLAT[where]:
        problem = problem or f"memory grew by {grown:.0f} MB"
    answers.put((dict(counts), grown, problem))


def fuzz(where: str, until: float, keep: Path, url: str | None = None, pid: int = 0) -> list[str]:
    """Send files until the time is over or something goes wrong, and record the outcomes; returns what went wrong."""
    problems: list[str] = []
    while time.monotonic() < until and not problems:
        with tempfile.TemporaryDirectory(prefix="koa-fuzz-") as folder:
            context = multiprocessing.get_context("spawn" if url else "fork")  # clients have threads; those can't fork
            answers = context.SimpleQueue()
            process = context.Process(target=run_some, args=(where, pid, until, Path(folder), url, answers))
            process.start()
            process.join()
            counts, grown = {}, 0.0
            if process.exitcode:
                problems.append(
                    f"ended by {signal.Signals(-process.exitcode).name if process.exitcode < 0 else 'error'}"
                )
            else:
                counts, grown, problem = answers.get()
                problems += [problem] if problem else []
            if problems and (current := Path(folder, "current")).exists():
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{where}-{time.strftime('%H%M%S')}"
                kept.write_bytes(current.read_bytes())
                problems[-1] += f" ({kept})"
        record(where, counts, grown, problems)
    return problems


def record(where: str, counts: dict[str, Counter], grown: float, problems: list[str]) -> None:
    """Add the outcomes of some files to the result."""
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    before = result.get(where, {"files": 0, "largest_growth_mb": 0, "by_format": {}, "problems": []})
    formats = {kind: Counter(outcomes) for kind, outcomes in before["by_format"].items()}
    for kind, outcomes in counts.items():
        formats[kind] = formats.get(kind, Counter()) + outcomes
    result[where] = {
        "files": sum(map(Counter.total, formats.values())),
        "largest_growth_mb": max(before["largest_growth_mb"], round(grown)),
        "by_format": {kind: dict(sorted(formats[kind].items())) for kind in sorted(formats)},
        "problems": before["problems"] + problems,
    }
    write_result(RESULT, result)
    print(f"{where}: {result[where]['files']} files, memory +{grown:.0f} MB {'; '.join(problems)}", flush=True)


def through_demo(until: float, keep: Path) -> list[str]:
    """As `fuzz`, through a running demo, which must answer a good file afterwards and leave no file behind."""
    with tempfile.TemporaryDirectory(prefix="koa-fuzz-server-") as folder:
        with serving("--max-megapixels", str(MEGAPIXELS), environment={"TMPDIR": folder}) as server:
            client = Client(server.url, verbose=False, httpx_kwargs=PATIENT)
            good = "data:;base64," + base64.b64encode(good_files()["PNG"][0]).decode()
            before = client.predict(good, api_name="/grade")  # returns once the model is loaded
            problems = fuzz("server", until, keep, server.url, server.process.pid)
            if client.predict(good, api_name="/grade")["probabilities"] != before["probabilities"]:
                problems.append("the demo answers otherwise afterwards")
        if left := [str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file()]:
            problems.append(f"the demo left {left}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="duration (default: %(default)s)")
    parser.add_argument("--reader", action="store_true", help="start no demo")
    parser.add_argument("--add", action="store_true", help=f"add to the counts of {RESULT.name}")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for what went wrong")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # pydicom's, about values that are wrong on purpose
    end = time.monotonic() + 60 * args.minutes - (time.time() - psutil.Process().create_time())  # imports included
    if not args.add:
        RESULT.unlink(missing_ok=True)
    problems = fuzz("reader", end if args.reader else end - 30 * args.minutes, args.keep)
    if not args.reader:
        problems += through_demo(end, args.keep)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
