"""Atomic writes, and deletion of old files."""

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends without an error.

    Its name is unique: of two processes that write the same file, on one machine or two, each writes a whole one.
    Symbolic links and devices, such as /dev/stdout, are written to directly, because a rename would replace them.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def put_in_place(made: Path, out: Path) -> None:
    """Rename a finished folder to `out`; an older one of that name is deleted once the new one is there."""
    if not out.exists():
        made.rename(out)
        return
    old = made.with_suffix(".old")
    out.rename(old)
    try:
        made.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def write_apart(folder: Path, name: str, content: bytes) -> str:
    """Write a file in a folder of its own within `folder`, so that files of one name don't meet; returns its path."""
    path = Path(tempfile.mkdtemp(dir=folder), name)
    path.write_bytes(content)
    return str(path)


def delete_older(folder: Path, seconds: float) -> None:
    """Delete all files under a folder whose last change is more than `seconds` ago, then its empty folders."""
    limit = time.time() - seconds
    # Deepest first. Another process may delete the same files at the same time.
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.lstat().st_ctime > limit:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
