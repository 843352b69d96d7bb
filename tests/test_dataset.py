import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from koa_hf.cli import main
from koa_hf.data import shards
from koa_hf.data.build import build_dataset
from koa_hf.data.load import dataset_fingerprint, load_dataset
from koa_hf.data.release import RELEASED_COUNTS
from koa_hf.data.verify import verify
from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES


@pytest.fixture
def release(release_folder, tmp_path) -> Path:
    """A copy of the phantom release that a test may damage."""
    return Path(shutil.copytree(release_folder, tmp_path / "kneeKL224"))


@pytest.fixture
def built(dataset_folder, tmp_path) -> Path:
    """A copy of the built data set that a test may damage."""
    return Path(shutil.copytree(dataset_folder, tmp_path / "built"))


def first(folder: Path, pattern: str = "train/0/*.png") -> Path:
    return sorted(folder.glob(pattern))[0]


def counts_of(folder: Path, split: str) -> list[int]:
    return [len(list((folder / split / str(grade)).iterdir())) for grade in range(5)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped_release(folder: Path, target: Path, prefix: str, litter: bool = False) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
        if litter:
            archive.writestr("__MACOSX/" + prefix + "train/0/._9000001R.png", b"resource fork")
            archive.writestr(prefix + "train/.DS_Store", b"litter")
    return target


# --- build


def test_stock_datasets_loads_the_splits_with_grade_names_and_counts(release_folder, dataset_folder):
    knees = datasets.load_dataset(str(dataset_folder))
    assert list(knees) == ["train", "validation", "test"]
    assert knees["train"].features["label"].names == list(GRADE_NAMES)
    for folder, split in [("train", "train"), ("val", "validation"), ("test", "test")]:
        found = Counter(knees[split]["label"])
        assert [found[grade] for grade in range(5)] == counts_of(release_folder, folder)


def test_a_row_says_which_knee_it_is_and_holds_the_released_file_byte_for_byte(release_folder, dataset_folder):
    rows = load_dataset(dataset_folder)["test"].cast_column("image", datasets.Image(decode=False))
    assert rows["file_name"] == sorted(rows["file_name"])
    for row in rows:
        path = release_folder / "test" / str(row["label"]) / row["file_name"]
        assert row["image"] == {"bytes": path.read_bytes(), "path": row["file_name"]}
        assert row["patient_id"] + row["side"][0].upper() == path.stem


def test_auto_test_comes_only_by_name(release_folder, dataset_folder):
    again = load_dataset(dataset_folder, "auto_test")
    assert list(again) == ["test"]
    assert len(again["test"]) == sum(counts_of(release_folder, "auto_test"))
    assert all("_" in name for name in again["test"]["file_name"])
    assert not any("_" in name for part in load_dataset(dataset_folder).values() for name in part["file_name"])


def test_the_card_has_what_the_hub_reads(dataset_folder):
    card = DatasetCard.load(dataset_folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    assert [c["config_name"] for c in card.data.configs] == ["auto_test", "default"]
    info = {entry["config_name"]: entry for entry in card.data.dataset_info}
    assert {s["name"]: s["num_examples"] for s in info["default"]["splits"]} == {
        "train": 40,
        "validation": 16,
        "test": 16,
    }
    assert "| train | " in card.text


def test_the_card_of_phantoms_does_not_pass_them_off_as_the_public_release(dataset_folder):
    text = DatasetCard.load(dataset_folder / "README.md").text
    assert "other data than the public release" in text
    assert "@misc" not in text


def test_building_twice_gives_the_same_bytes(release_folder, dataset_folder, tmp_path):
    assert contents(build_dataset(release_folder, tmp_path / "again")) == contents(dataset_folder)


def test_building_where_files_of_the_same_names_lie_keeps_the_image_bytes(
    release_folder, dataset_folder, tmp_path, monkeypatch
):
    # datasets' own encoder replaces the bytes by the path where the working directory has such a file.
    monkeypatch.chdir(first(release_folder).parent)
    assert contents(build_dataset(release_folder, tmp_path / "again")) == contents(dataset_folder)


@pytest.mark.parametrize("prefix", ["", "kneeKL224/", "KneeXrayData/ClsKLData/kneeKL224/"])
def test_a_zip_gives_the_same_as_its_folder(release_folder, dataset_folder, tmp_path, prefix):
    archive = zipped_release(release_folder, tmp_path / "release.zip", prefix, litter=True)
    assert contents(build_dataset(archive, tmp_path / "out")) == contents(dataset_folder)


def test_of_a_zip_with_both_editions_the_224_pixel_one_is_taken(release_folder, dataset_folder, tmp_path):
    archive = zipped_release(release_folder, tmp_path / "release.zip", "kneeKL224/")
    with zipfile.ZipFile(archive, "a") as both:
        both.write(first(release_folder), "kneeKL299/train/0/9000001R.png")
    assert contents(build_dataset(archive, tmp_path / "out")) == contents(dataset_folder)


def test_a_folder_above_the_release_and_a_release_with_some_splits_will_do(release, tmp_path):
    for split in ("test", "auto_test"):
        shutil.rmtree(release / split)
    out = build_dataset(release.parent, tmp_path.parent / f"{tmp_path.name}-out")
    assert list(load_dataset(out)) == ["train", "validation"]


def test_many_shards_hold_the_same_rows_as_one(release_folder, dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 15)
    out = build_dataset(release_folder, tmp_path / "out")
    assert len(list(out.glob("data/train-*-of-00003.parquet"))) == 3
    whole, sharded = (load_dataset(folder)["train"] for folder in (dataset_folder, out))
    assert dataset_fingerprint(sharded) == dataset_fingerprint(whole)
    assert verify(out).ok


def test_an_existing_folder_is_kept_unless_overwrite_is_given_and_it_is_a_data_set(release, built, tmp_path, capsys):
    assert main(["dataset", "build", str(release), str(built)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    shutil.rmtree(release / "auto_test")
    assert main(["dataset", "build", str(release), str(built), "--overwrite"]) == 0
    assert not (built / "auto_test").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    assert main(["dataset", "build", str(release), str(mine), "--overwrite"]) == 2
    assert (mine / "notes.txt").read_text() == "mine"


# Each case: what is done to a release, and what the one sentence must name.
def stray_file(release: Path) -> str:
    (release / "train" / "notes.txt").write_text("hello")
    return "train/notes.txt does not belong"


def stray_image(release: Path) -> str:
    shutil.copy(first(release), release / "train/2/deeper.jpg")
    return "train/2/deeper.jpg is not named like"


def wrong_name(release: Path) -> str:
    first(release).rename(release / "train/0/knee1.png")
    return "train/0/knee1.png is not named like"


def truncated_png(release: Path) -> str:
    path = first(release)
    path.write_bytes(path.read_bytes()[:9000])
    return f"train/0/{path.name} is damaged or cut short"


def not_a_png(release: Path) -> str:
    path = first(release)
    Image.open(path).save(path, "JPEG")
    return f"train/0/{path.name} is not a PNG"


def missing_grade(release: Path) -> str:
    shutil.rmtree(release / "val/3")
    return "val/3 is missing or empty"


def empty_split(release: Path) -> str:
    for path in (release / "val").rglob("*.png"):
        path.unlink()
    return "val in .* has no image"


def patient_in_two_splits(release: Path) -> str:
    path = first(release)
    path.rename(release / "val/0" / path.name)
    return f"patient {path.name[:7]} is in both train and validation"


def auto_test_of_a_training_patient(release: Path) -> str:
    name = first(release).name[:7]
    first(release, "auto_test/0/*.png").rename(release / f"auto_test/0/{name}_1.png")
    return f"patient {name} is in both train and auto_test"


def two_grades_for_a_knee(release: Path) -> str:
    path = first(release)
    shutil.copy(path, release / "train/1" / path.name)
    return "give the same knee two grades"


DAMAGES = [
    stray_file,
    stray_image,
    wrong_name,
    truncated_png,
    not_a_png,
    missing_grade,
    empty_split,
    patient_in_two_splits,
    auto_test_of_a_training_patient,
    two_grades_for_a_knee,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_release_is_refused_in_one_sentence_and_leaves_nothing_behind(damage, release, tmp_path, capsys):
    message = damage(release)
    before = sorted(tmp_path.iterdir())
    assert main(["dataset", "build", str(release), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    with pytest.raises(KoaError, match=message):
        build_dataset(release, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_reports_what_build_refuses(damage, release, capsys):
    damage(release)
    assert main(["dataset", "verify", str(release)]) == 2
    assert "problem:" in capsys.readouterr().out


def test_a_source_that_is_not_the_release_is_refused(release_folder, tmp_path):
    with pytest.raises(KoaError, match="doesn't exist"):
        build_dataset(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(KoaError, match="neither a folder nor a zip"):
        build_dataset(tmp_path / "text.zip", tmp_path / "out")
    with pytest.raises(KoaError, match="no folder train, val or test"):
        build_dataset(tmp_path, tmp_path.parent / "out")
    with pytest.raises(KoaError, match="single split; give the folder above it"):
        build_dataset(release_folder / "train", tmp_path / "out")
    with pytest.raises(KoaError, match="lies within"):
        build_dataset(release_folder, release_folder / "out")
    with pytest.raises(KoaError, match="can't be written"):
        build_dataset(release_folder, tmp_path / "text.zip" / "out")


def test_a_zip_cut_short_and_a_damaged_member_are_refused(release_folder, tmp_path):
    archive = zipped_release(release_folder, tmp_path / "release.zip", "kneeKL224/")
    data = bytearray(archive.read_bytes())
    (tmp_path / "short.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(KoaError, match="neither a folder nor a zip"):
        build_dataset(tmp_path / "short.zip", tmp_path / "out")
    data[1000:1010] = bytes(10)  # within the first image, stored uncompressed
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(KoaError, match=r"Bad CRC-32.*download the release again"):
        build_dataset(tmp_path / "bad.zip", tmp_path / "out")


# --- verify


def test_verify_finds_nothing_wrong_with_a_release_or_what_was_built_of_it(release_folder, dataset_folder):
    of_release, of_dataset = verify(release_folder), verify(dataset_folder)
    assert of_release.ok
    assert of_release.formats == {"224x224 L": 88}
    assert of_release.counts["train"] == counts_of(release_folder, "train")
    assert of_release.patients == {"train": 20, "validation": 8, "test": 8, "auto_test": 8}
    assert of_release.edition == "other"
    of_dataset.source = of_release.source
    assert of_dataset == of_release


def test_verify_prints_a_table_and_writes_json(release_folder, tmp_path, capsys):
    assert main(["dataset", "verify", str(release_folder), "--json", str(tmp_path / "report.json")]) == 0
    printed = capsys.readouterr().out
    assert "validation" in printed
    assert "no problems" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is True
    assert report["counts"]["test"] == counts_of(release_folder, "test")


def test_verify_names_duplicates_by_pixels_across_splits(release):
    one, other = first(release), first(release, "val/1/*.png")
    Image.open(one).save(other, optimize=True, compress_level=1)
    report = verify(release)
    assert report.duplicates == [[f"train/{one.name}", f"validation/{other.name}"]]
    assert not report.ok


def test_verify_flags_photographic_negatives_without_refusing_them(release):
    path = first(release, "test/2/*.png")
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    report = verify(release)
    assert report.negatives == {"test": [path.name]}
    assert report.ok


def test_verify_notes_images_that_differ_in_size_or_depth(release):
    path = first(release)
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 100).save(path)
    report = verify(release)
    assert report.formats == {"224x224 L": 87, "224x224 I;16": 1}
    assert "differ in format" in " ".join(report.notes)


def test_verify_misses_shards_rows_and_columns(built):
    shard = first(built, "data/train-*.parquet")
    table = pq.read_table(shard)
    pq.write_table(table.slice(1), shard)
    assert any("its card states 40" in problem for problem in verify(built).problems)
    shard.rename(shard.with_name("train-00000-of-00002.parquet"))
    assert any("lacks 1 of its 2" in problem for problem in verify(built).problems)
    pq.write_table(table.drop_columns("patient_id"), first(built, "data/train-*.parquet"))
    with pytest.raises(KoaError, match="has no column patient_id"):
        verify(built)
    first(built, "data/train-*.parquet").write_bytes(b"PAR1")
    with pytest.raises(KoaError, match="not a readable Parquet"):
        verify(built)


@pytest.mark.slow
def test_verify_knows_the_released_counts(real_data):
    report = verify(real_data)
    assert report.ok
    assert report.edition in ("complete", "partial")
    assert tuple(report.counts["train"]) == RELEASED_COUNTS["train"]
    assert tuple(report.counts["validation"]) == RELEASED_COUNTS["validation"]
    assert (report.patients["train"], report.patients["validation"]) == (2889, 413)
    assert (len(report.negatives["train"]), len(report.negatives["validation"])) == (70, 14)


# --- load


def test_loading_the_release_itself_says_to_build_first(release_folder, tmp_path):
    archive = zipped_release(release_folder, tmp_path / "release.zip", "")
    for source in (release_folder, archive):
        with pytest.raises(KoaError, match=r"run `koa dataset build"):
            load_dataset(source)


def test_loading_what_is_not_there_says_so(tmp_path, dataset_folder):
    with pytest.raises(KoaError, match="doesn't exist"):
        load_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(KoaError, match="holds no data set"):
        load_dataset(tmp_path)
    with pytest.raises(KoaError, match="has no configuration 'other'"):
        load_dataset(dataset_folder, "other")
    with pytest.raises(KoaError, match="can't be reached"):
        load_dataset("somebody/knees")


def test_an_id_that_the_hub_does_not_know_says_to_check_the_spelling(monkeypatch):
    def unknown(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'somebody/nees' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    with pytest.raises(KoaError, match=r"somebody/nees is neither .* check the spelling"):
        load_dataset("somebody/nees")


def test_a_data_set_without_the_columns_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict({"image": [1], "label": [0]}).to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(KoaError, match="has no column patient_id, side, file_name"):
        load_dataset(tmp_path)


def test_a_folder_named_like_one_of_the_loaders_of_datasets_is_still_a_folder(built, monkeypatch):
    monkeypatch.chdir(built.parent)
    built.rename("csv")
    assert len(load_dataset("csv")["train"]) == 40


def test_the_fingerprint_changes_with_the_data_and_with_nothing_else(dataset_folder, built):
    one, other = (load_dataset(folder)["validation"] for folder in (dataset_folder, built))
    fingerprint = dataset_fingerprint(one)
    assert len(fingerprint) == 64
    assert dataset_fingerprint(other) == fingerprint
    assert dataset_fingerprint(one.select(range(15))) != fingerprint
    assert dataset_fingerprint(one.select(range(15, -1, -1))) != fingerprint
    relabelled = one.remove_columns("label").add_column("label", [0] * 16)
    assert dataset_fingerprint(relabelled) != fingerprint
    assert one[0]["image"].size == (224, 224)  # the caller's data set is not changed
