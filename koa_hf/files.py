"""Files that appear whole or not at all, and files that go in time."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write to; it takes `path`'s place once the block ends without an error.

    A link or device, such as /dev/stdout, is written to directly: it must not be replaced by a file of that name.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def delete_older(folder: Path, seconds: float) -> None:
    """Delete every file under a folder that was last changed longer ago than that, and the folders left empty."""
    limit = time.time() - seconds
    # Deepest first. Others may be at work here: a file that is gone already is as good.
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.lstat().st_ctime > limit:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
