"""One X-ray has the same grades, sides, notes and cautions in `koa report`, on the page and in the API."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from koa_hf.cli import main, report
from koa_hf.demo.api import Api
from koa_hf.demo.batch import Limits
from koa_hf.demo.session import Visit
from koa_hf.imaging import phantom
from tests.helpers import dicom_of
from tests.test_flow import ended, flow  # noqa: F401 (a fixture)
from train.pictures.composites import Crop, compose

FEW = (
    "a film tagged right",
    "a lateral view of one knee",
    "a film on its side",
    "a crop",
    "pixels that are not square",
)
SAME = ("side", "view", "box", "notes", "cautions", "grade", "turned", "inverted", "grade_set")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def films() -> dict[str, bytes]:
    """Twenty drawn and composed X-rays as files."""

    def film(kind: str, seed: int) -> np.ndarray:
        knees = [Crop(phantom.draw_knee(seed % 5, seed, side), side) for side in ("right", "left")]
        both = kind in ("bilateral", "strip of both", "full leg")
        return compose(kind, knees if both else knees[:1], np.random.default_rng(seed), size=200, varied=False).pixels

    pair, knee = film("bilateral", 1), phantom.draw_knee(2, 3)
    squeezed = np.asarray(Image.fromarray(pair).resize((pair.shape[1] // 2, pair.shape[0])))
    made = {
        "a film tagged right": dicom_of(pair),
        "a mirrored film": dicom_of(pair[:, ::-1].copy(), ImageLaterality="", PatientOrientation=["R", "F"]),
        "contradictory tags": dicom_of(knee, ImageLaterality="L", Laterality="R"),
        "a lateral view of one knee": dicom_of(knee, ViewPosition="LL"),
        "no radiograph": dicom_of(knee, Modality="CT"),
        "pixels that are not square": dicom_of(squeezed, PixelSpacing=[0.1, 0.2], ImageLaterality=""),
        "16 bits": png(pair.astype(np.uint16) * 4),
        "a negative": png(255 - pair),
        "an upside-down film": png(pair[::-1, ::-1]),
        "a film on its side": png(np.rot90(pair)),
        "a film on its other side": png(np.rot90(pair, 3)),
        "a crop": png(knee),
        "an upside-down crop": png(knee[::-1, ::-1]),
        "a small film": png(np.asarray(Image.fromarray(pair).resize((pair.shape[1] // 2, pair.shape[0] // 2)))),
        "nothing": png(np.random.default_rng(0).integers(0, 256, (300, 200)).astype(np.uint8)),
    }
    kinds = ("single", "strip", "strip of both", "full leg", "bilateral")
    return made | {kind: png(film(kind, seed)) for seed, kind in enumerate(kinds, start=2)}


def check(name, content, grader, flow, folder: Path, monkeypatch) -> None:  # noqa: F811
    file = folder / ("film.dcm" if content[128:132] == b"DICM" else "film.png")
    file.write_bytes(content)
    monkeypatch.setattr(report, "load_grader", lambda args: grader)
    assert main(["report", str(file), "--json", str(folder / "report.json")]) == 0
    at_terminal = json.loads((folder / "report.json").read_text())
    flow.grader = grader
    visit = ended(flow.start([str(file)], Visit()))[flow.parts.visit]
    on_page = [knee.grading.to_dict() for knee in visit.examination.knees]
    by_api = Api(grader, Limits(), folder).grade_film(str(file))
    assert len(at_terminal) == len(on_page) == len(by_api), name
    for knees in zip(at_terminal, on_page, by_api, strict=True):
        first, *others = [{key: knee[key] for key in SAME} for knee in knees]
        assert others == [first, first], name


@pytest.mark.parametrize("name", FEW)
def test_a_few_films_are_the_same_everywhere(name, grader, flow, tmp_path, monkeypatch):  # noqa: F811
    check(name, films()[name], grader, flow, tmp_path, monkeypatch)


@pytest.mark.slow
def test_twenty_films_are_the_same_everywhere(grader, flow, tmp_path, monkeypatch):  # noqa: F811
    assert len(films()) == 20
    for name, content in films().items():
        check(name, content, grader, flow, tmp_path, monkeypatch)
