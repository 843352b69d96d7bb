"""X-rays that the page offers to try: drawn knees, or a folder of the person who runs the demo."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from koa_hf.errors import KoaError
from koa_hf.grades import GRADES
from koa_hf.imaging import phantom, radiograph
from koa_hf.imaging.radiograph import Radiograph

MAX_EXAMPLES = 10


@dataclass(frozen=True)
class Examples:
    """(button text, X-ray) pairs; `drawn` if they are phantoms, not X-rays of people."""

    films: list[tuple[str, Radiograph]]
    drawn: bool


def drawn_examples() -> Examples:
    """One phantom for each grade."""
    films = []
    for grade in GRADES:
        png = io.BytesIO()
        Image.fromarray(phantom.draw_knee(grade.value, seed=grade.value)).save(png, "PNG")
        film = radiograph.read(png.getvalue(), f"drawn knee, KL {grade.value}")
        films.append((f"KL {grade.value}", film))
    return Examples(films, drawn=True)


def examples_in(folder: Path) -> Examples:
    """The first `MAX_EXAMPLES` X-rays of a folder, by name.

    Raises:
        KoaError: not a folder, without X-rays, or one of them can't be read.
    """
    if not folder.is_dir():
        raise KoaError(f"{folder} is not a folder; give --examples a folder of X-rays.")
    files = sorted(filter(radiograph.is_radiograph_file, folder.iterdir()))
    if not files:
        raise KoaError(f"{folder} holds no X-rays ({radiograph.FORMATS}).")
    return Examples([(file.stem, radiograph.read(file)) for file in files[:MAX_EXAMPLES]], drawn=False)
