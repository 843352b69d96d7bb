"""One film: read, its knees found and cropped. Runs in worker processes, so it imports neither torch nor `datasets`."""

import dataclasses
from typing import Any

from threadpoolctl import threadpool_limits

from koa_hf.errors import KoaError
from koa_hf.grading import examination
from koa_hf.grading.examination import FoundKnees
from koa_hf.imaging import archive, radiograph


def start_worker() -> None:
    """One thread for each worker: there are as many of them as cores."""
    threadpool_limits(1)


def find_on(image: dict[str, Any], name: str, side: str | None, whole: bool) -> FoundKnees:
    """Read a film and find its knees.

    Args:
        image: `bytes` of the file, or else its `path`: a path, `zip://member::archive.zip`, or an address that fsspec
            opens, such as `hf://...`.
        name: what to call the film.
        side: `right` or `left` where that is known, and the file does not tell; else None.
        whole: take the image as one knee, and find none.

    Raises:
        KoaError: it can't be read.
    """
    try:
        film = radiograph.read(_content(image), name)
        # The file's own bytes serve DICOM reports only, and would travel to the grader with each knee.
        return examination.find(dataclasses.replace(film, dicom=None, side=film.side or side), as_it_is=whole)
    except KoaError:
        raise
    except Exception as error:  # this film's alone, whatever it is
        raise KoaError(f"{name} can't be read ({type(error).__name__}: {error}).") from error


def _content(image: dict[str, Any]) -> bytes | str:
    if image["bytes"] is not None:
        return image["bytes"]
    if image["path"] is None:
        raise KoaError("the row holds no image.")
    if image["path"].startswith("zip://"):
        member, _, path = image["path"].removeprefix("zip://").rpartition("::")
        return archive.read_member(path, member)
    if "://" in image["path"]:
        import fsspec  # 0.1 s, for films on the Hub and in buckets only

        with fsspec.open(image["path"], "rb") as opened:
            return opened.read()
    return image["path"]
