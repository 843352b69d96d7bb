"""What a model folder's files were when they were made, and whether they still are; and the same for downloads.

checksums.json: {"config.json": SHA-256 in hex, "model.safetensors": ...}. Training writes it together with the two
files; `koa_hf.hub.publish` refuses to publish a folder that differs from it.
"""

import hashlib
import json
import os
import re
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.files import write_text

CHECKSUMS_FILE = "checksums.json"
REQUIRED = ("config.json", "model.safetensors")
OPTIONAL = ("grading.json", "int8.safetensors")  # decide the probabilities that people see, where they are there


def write_checksums(folder: str | os.PathLike) -> None:
    """Write checksums.json of a model folder as it is now.

    Raises:
        KoaError: the folder isn't a model's.
    """
    folder = Path(folder)
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise KoaError(f"{folder} is not a model folder: it has no {name}.")
    present = [name for name in (*REQUIRED, *OPTIONAL) if (folder / name).is_file()]
    sums = {name: sha256(folder / name) for name in sorted(present)}
    write_text(folder / CHECKSUMS_FILE, json.dumps(sums, indent=2) + "\n")


def check(folder: str | os.PathLike) -> None:
    """Compare a model folder with its checksums.json.

    Raises:
        KoaError: no record, a damaged one, or a file that differs from it.
    """
    folder = Path(folder)
    again = f"if you changed it yourself, record it with `koa checksums {folder} --record`"
    try:
        recorded = json.loads((folder / CHECKSUMS_FILE).read_text())
        recorded = {str(name): str(value) for name, value in recorded.items()}
    except FileNotFoundError as error:
        raise KoaError(
            f"{folder} has no {CHECKSUMS_FILE} to check its files by; record them with "
            f"`koa checksums {folder} --record`."
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise KoaError(f"{folder / CHECKSUMS_FILE} is damaged; {again}.") from error
    for name in {*REQUIRED, *recorded, *(name for name in OPTIONAL if (folder / name).is_file())}:
        if not (folder / name).is_file():
            raise KoaError(f"{folder} has no {name}, which {CHECKSUMS_FILE} lists; get or train the model again.")
        if recorded.get(name) != sha256(folder / name):
            raise KoaError(f"{folder / name} is not the file that {CHECKSUMS_FILE} records; {again}.")


def sha256(file: Path) -> str:
    """SHA-256 of a file, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_damaged(cached: str | os.PathLike) -> bool:
    """Whether a file in the Hugging Face cache differs from what the Hub has; False where that can't be told.

    A snapshot's file is a link to a blob, which the cache names by its content: SHA-256 for large files, git's SHA-1
    for the others. The cache itself looks at the size only.
    """
    cached = Path(cached)
    if not cached.is_symlink():
        return False
    name = Path(os.readlink(cached)).name
    try:
        if re.fullmatch("[0-9a-f]{64}", name):
            return sha256(cached) != name
        if re.fullmatch("[0-9a-f]{40}", name):
            content = cached.read_bytes()
            return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest() != name
    except OSError:
        return True
    return False
