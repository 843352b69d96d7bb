"""The files in a zip of X-rays, read in memory; nothing is written to disk.

Limits on number, size and compression ratio are checked before anything is unpacked by Python's zipfile. An upload is
unpacked by `unpack`, an archive of a hospital, of any number of films, by `members` and `read_member`.
"""

import functools
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from koa_hf.errors import KoaError

MAX_FILES = 500
MAX_FILE_BYTES = 250_000_000
"""A full-leg film of `koa_hf.imaging.radiograph.MAX_PIXELS` at 16 bits, with room for its header."""

MAX_TOTAL_BYTES = 2_000_000_000
MAX_RATIO = 150
"""Unpacked over packed size. A film that is mostly air reaches 50, a zip bomb 1000."""

_HARMLESS_BYTES = 1_000_000  # smaller files may exceed MAX_RATIO: blank pictures do
MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # zip with files, empty zip
_SYMBOLIC_LINK = 0o120000


def is_archive(path: Path) -> bool:
    """True if a file starts with a zip signature.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as opened:
        return opened.read(4) in MAGIC


def count(path: Path) -> int:
    """Number of X-rays in a file: those in a zip; 1 for any other file, and for a zip that can't be read."""
    try:
        return len(names(path, path.name)) if is_archive(path) else 1
    except (KoaError, OSError):
        return 1


def names(source: bytes | Path, name: str) -> list[str]:
    """Names of the files in an archive, in its order, without folders, hidden files, `__MACOSX` and DICOMDIR.

    Raises:
        KoaError: the zip is damaged, empty, or over the limits above.
    """
    with _opened(source, name) as opened:
        return [info.filename for info in _entries(opened, name)]


def unpack(source: bytes | Path, name: str) -> Iterator[tuple[str, bytes | KoaError]]:
    """Yield each of `names` with its content, or with the error that says why it was skipped.

    Args:
        source: the archive, or its path.
        name: what to call it in messages.

    Raises:
        KoaError: as `names`.
    """
    with _opened(source, name) as opened:
        for info in _entries(opened, name):
            try:
                yield info.filename, _content(opened, info)
            except KoaError as error:
                yield info.filename, error


def members(path: Path) -> Iterator[tuple[str, bytes | KoaError]]:
    """Yield every file of a zip on disk, one at a time, hidden ones too, with its content or the error that says why it
    was skipped. Number and total size are not limited.

    Raises:
        KoaError: the zip is damaged.
    """
    with _opened(path, path.name) as opened:
        for info in opened.infolist():
            if not info.is_dir():
                try:
                    yield info.filename, _content(opened, info)
                except KoaError as error:
                    yield info.filename, error


def read_member(path: str, name: str) -> bytes:
    """Read one file of a zip on disk, which stays open for the next.

    Raises:
        KoaError: the zip or the file in it is missing, damaged or refused.
    """
    opened = _kept_open(path)
    try:
        info = opened.getinfo(name)
    except KeyError as error:
        raise KoaError(f"{name} is no longer in {path}; build the cohort again.") from error
    return _content(opened, info)


@functools.lru_cache(maxsize=1)
def _kept_open(path: str) -> zipfile.ZipFile:
    return _opened(Path(path), path)


def _opened(source: bytes | Path, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source))
    except FileNotFoundError as error:
        raise KoaError(f"{name} does not exist; check the path.") from error
    except PermissionError as error:
        raise KoaError(f"{name} can't be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise KoaError(f"{name} is a damaged zip, or was cut short; make it again.") from error


def _entries(opened: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    entries = [info for info in opened.infolist() if not info.is_dir() and _is_worth_a_look(_path(info))]
    if not entries:
        raise KoaError(f"{name} holds no files; zip the X-rays themselves.")
    if len(entries) > MAX_FILES:
        raise KoaError(f"{name} holds {len(entries)} files; at most {MAX_FILES} at a time, so make several zips.")
    if sum(info.file_size for info in entries) > MAX_TOTAL_BYTES:
        raise KoaError(f"{name} would unpack to over {MAX_TOTAL_BYTES / 1e9:.0f} GB; make several smaller zips.")
    return entries


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(info.filename.replace("\\", "/"))  # as some programs on Windows write them


def _is_worth_a_look(path: PurePosixPath) -> bool:
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.name.upper() != "DICOMDIR"


def _content(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """An entry's bytes. Its declared size is checked first: zipfile reads no more than that, and checks the CRC."""
    path = _path(info)
    name = path.name
    if path.is_absolute() or ".." in path.parts:
        raise KoaError(f"{name} names a place outside the zip; make the zip again from one folder.")
    if info.external_attr >> 16 & 0o170000 == _SYMBOLIC_LINK:
        raise KoaError(f"{name} is a link, not a file; zip the X-ray itself.")
    if info.flag_bits & 0x1:
        raise KoaError(f"{name} is encrypted; make the zip again without a password.")
    # zipfile bounds the output of these two methods only.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise KoaError(f"{name} is packed in a way that isn't read here; make the zip with ordinary compression.")
    if info.file_size > MAX_FILE_BYTES:
        raise KoaError(f"{name} would unpack to over {MAX_FILE_BYTES / 1e6:.0f} MB; crop it to the knee.")
    if info.file_size > _HARMLESS_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        raise KoaError(f"{name} would unpack to over {MAX_RATIO} times its size, which no X-ray does.")
    try:
        content = opened.read(info)
    except Exception as error:  # zipfile raises a dozen kinds for a damaged entry
        raise KoaError(f"{name} is damaged in the zip, or was cut short; make the zip again.") from error
    if content[:4] in MAGIC:
        raise KoaError(f"{name} is a zip within the zip; give it by itself.")
    return content
