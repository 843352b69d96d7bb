"""SHA-256 checksums of model folders, and integrity of downloads from the Hub.

checksums.json: {"config.json": SHA-256 in hex, "model.safetensors": ...}. Training writes it together with the model;
`koa push model` refuses a folder whose files differ from it.
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
OPTIONAL = ("grading.json",)  # changes the probabilities, so it is recorded too


def write_checksums(folder: str | os.PathLike) -> None:
    """Write checksums.json for a model folder's current files.

    Raises:
        KoaError: the folder is not a model folder.
    """
    folder = Path(folder)
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise KoaError(f"{folder} is not a model folder: it has no {name}.")
    present = [name for name in (*REQUIRED, *OPTIONAL) if (folder / name).is_file()]
    sums = {name: sha256(folder / name) for name in sorted(present)}
    write_text(folder / CHECKSUMS_FILE, json.dumps(sums, indent=2) + "\n")


def check(folder: str | os.PathLike) -> None:
    """Compare a model folder's files with its checksums.json.

    Raises:
        KoaError: checksums.json is missing or damaged, or a file differs from it.
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
            raise KoaError(f"{folder} has no {name}, which {CHECKSUMS_FILE} lists; download or train the model again.")
        if recorded.get(name) != sha256(folder / name):
            raise KoaError(f"{folder / name} is not the file that {CHECKSUMS_FILE} records; {again}.")


def sha256(file: Path) -> str:
    """SHA-256 of a file, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_damaged(cached: str | os.PathLike) -> bool:
    """True if a file in the Hugging Face cache is not the file on the Hub; False where that can't be checked.

    The cache names a blob by its content (SHA-256 for large files, git's SHA-1 for others), and itself compares only
    sizes.
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
