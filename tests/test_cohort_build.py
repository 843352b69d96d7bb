"""`koa cohort build`: a data set with a row for each film of a tree, and a reason for every other file."""

import csv
import hashlib
import io
import os
import tracemalloc
from pathlib import Path

import datasets
import pytest
from PIL import Image
from pydicom.uid import MRImageStorage

from koa_hf.cli import main
from koa_hf.cohort.build import FEATURES, build_cohort
from koa_hf.errors import KoaError
from koa_hf.imaging import phantom
from tests.helpers import dicom_of, zipped


def png_of(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(phantom.draw_knee(2, seed)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A tree as a hospital exports it, with much in it that is no film."""
    folder = tmp_path_factory.mktemp("archive")
    knee = phantom.draw_knee(1, seed=3)
    visit = {"PatientID": "Ж-7", "StudyInstanceUID": "1.2.3"}
    files = {
        "DICOM/P1/S1/IM1": dicom_of(knee, **visit, ViewPosition="AP", ImagerPixelSpacing=[0.14, 0.14]),
        "DICOM/P1/S1/IM2": dicom_of(knee, **visit, ViewPosition="LL"),
        "DICOM/P1/S1/IM3": dicom_of(knee, **visit, Modality="MR", SOPClassUID=MRImageStorage),
        "DICOM/P2/1.2.840.55": dicom_of(knee[:200], PatientID="8", ImageLaterality="L", NumberOfFrames=1),
        "DICOMDIR": b"\0" * 128 + b"DICM",
        "images/copy.dcm": dicom_of(knee, **visit),
        "images/knee.png": png_of(0),
        "images/the same.png": png_of(0),
        "images/icon.png": b"",
        "images/notes.txt": b"not a film",
        "more.zip": zipped({"a/knee.png": png_of(1), ".hidden": b"x", "inner.zip": zipped({"b.png": b"x"})}),
        "broken.zip": zipped({"a.png": b"x"})[:30],
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    Image.new("L", (32, 32)).save(folder / "images" / "icon.png")
    (folder / "link").symlink_to(folder / "DICOM")
    os.mkfifo(folder / "pipe")
    (folder / os.fsdecode(b"gen\xe9.png")).write_bytes(png_of(2))
    return folder


def reasons(out: Path) -> dict[str, str]:
    with (out / "left_out.csv").open(newline="") as opened:
        return {row["file"]: row["reason"] for row in csv.DictReader(opened)}


def test_every_file_is_a_film_or_is_left_out_with_a_reason(archive, tmp_path, capsys):
    out = tmp_path / "films"
    assert main(["cohort", "build", str(archive), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 6 films, 1 of them duplicates\n"
    films = datasets.load_dataset(str(out), split="films")
    assert films.features == FEATURES
    rows = {film["file"]: film for film in films}
    first = rows["DICOM/P1/S1/IM1"]
    assert (first["width"], first["height"], first["spacing"]) == (224, 224, [0.14, 0.14])
    assert (first["view"], first["side"], rows["DICOM/P2/1.2.840.55"]["side"]) == ("AP", "right", "left")
    assert first["image"] == {"bytes": None, "path": str(archive / "DICOM/P1/S1/IM1")}
    assert first["sha256"] == hashlib.sha256((archive / "DICOM/P1/S1/IM1").read_bytes()).hexdigest()
    assert rows["more.zip/a/knee.png"]["image"]["path"] == f"zip://a/knee.png::{archive / 'more.zip'}"
    assert rows["images/the same.png"]["duplicate_of"] == "images/knee.png"
    assert sum(film["duplicate_of"] is None for film in films) == 5

    found = reasons(out)
    says = {
        "DICOM/P1/S1/IM2": "says lateral view",
        "DICOM/P1/S1/IM3": "its modality is MR",
        "DICOMDIR": "DICOM",
        "broken.zip": "damaged zip",
        "gen\\xe9.png": "not UTF-8",
        "images/icon.png": "32 x 32 pixels",
        "images/notes.txt": "not an image",
        "link": "a link to a folder",
        "more.zip/.hidden": "not an image",
        "more.zip/inner.zip": "a zip within the zip",
        "pipe": "not a file",
    }
    assert found.keys() == says.keys()
    assert {file: part for file, part in says.items() if part not in found[file]} == {}


def test_patients_are_hashes_that_only_the_salt_makes_again(archive, tmp_path):
    salt = tmp_path / "secret.salt"
    for name, options in {"a": ["--salt", salt], "b": ["--salt", salt], "c": [], "kept": ["--keep-ids"]}.items():
        assert main(["cohort", "build", str(archive / "DICOM"), str(tmp_path / name), *map(str, options)]) == 0
    ids = {name: datasets.load_dataset(str(tmp_path / name), split="films")[:]["patient_id"] for name in "abc"}
    assert ids["a"] == ids["b"] != ids["c"]
    assert [len(one) for one in ids["a"]] == [16, 16]
    assert salt.stat().st_mode & 0o777 == 0o600
    kept = datasets.load_dataset(str(tmp_path / "kept"), split="films")[:]
    assert (kept["patient_id"], kept["study_uid"][0]) == (["Ж-7", "8"], "1.2.3")
    for shard in (tmp_path / "a").rglob("*"):
        assert shard.is_dir() or "Ж-7".encode() not in shard.read_bytes()


def test_embedded_films_need_their_folder_no_more(archive, tmp_path):
    build_cohort(archive, tmp_path / "films", embed=True, films_per_shard=3)
    assert len([*(tmp_path / "films" / "data").iterdir()]) == 3
    films = datasets.load_dataset(str(tmp_path / "films"), split="films")
    image = {film["file"]: film["image"] for film in films}["images/knee.png"]
    assert image == {"bytes": png_of(0), "path": "knee.png"}
    assert "gen\\xe9.png" in films[:]["file"]


def test_a_folder_that_cannot_be_read_is_listed_and_the_others_are_read(archive, tmp_path, monkeypatch):
    scan = os.scandir

    def refused(path):
        if str(path).endswith("P1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    built = build_cohort(archive / "DICOM", tmp_path / "films")
    assert (built.films, built.left_out) == (1, 1)
    assert reasons(tmp_path / "films") == {"P1": "this folder can't be read: Permission denied."}


def test_memory_does_not_grow_with_the_number_of_films(tmp_path):
    png, peaks = png_of(0), {}
    for times in (1, 4, 16):
        folder = tmp_path / f"{times}"
        for number in range(30 * times):
            (folder / f"{number // 50}").mkdir(parents=True, exist_ok=True)
            (folder / f"{number // 50}" / f"{number}.png").write_bytes(png + bytes([number % 256, number // 256]))
        tracemalloc.start()
        build_cohort(folder, tmp_path / f"films {times}", films_per_shard=16)
        peaks[times] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[16] < 1.5 * peaks[4] + 100_000


def test_a_tree_without_films_is_refused_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "notes.txt").write_text("not a film")
    with pytest.raises(KoaError, match=r"holds no films \(1 other files\)"):
        build_cohort(tmp_path / "archive", tmp_path / "films")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    with pytest.raises(KoaError, match="lies within"):
        build_cohort(tmp_path / "archive", tmp_path / "archive" / "films")
