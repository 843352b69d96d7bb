import numpy as np
import pytest
from datasets import load_dataset

from koa_hf.demo.disagreements import Disagreements
from koa_hf.errors import KoaError
from koa_hf.grading.examination import GradedKnee
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from tests.helpers import grading

KNEE = Radiograph(phantom.draw_knee(3, seed=1), "Doe, Jane 1950.png", "left")


def test_remarks_are_read_back_by_datasets_with_the_x_ray_only_where_it_was_allowed(tmp_path):
    knee = GradedKnee(grading(file=KNEE.name, side="left", box=(1, 2, 201, 202)), KNEE)
    Disagreements(tmp_path / "remarks").add(knee, 3, " osteophytes on both sides ", with_image=True)
    again = Disagreements(tmp_path / "remarks")  # as after a restart
    again.add(knee, 0)
    rows = load_dataset(str(tmp_path / "remarks"), split="train", cache_dir=tmp_path / "cache")
    with_image, without = sorted(rows, key=lambda row: -row["reader_grade"])
    assert np.array_equal(np.asarray(with_image["image"]), KNEE.pixels)
    assert without["image"] is None
    assert (with_image["comment"], without["comment"]) == ("osteophytes on both sides", "")
    assert (with_image["side"], with_image["box"]) == ("left", [1, 2, 201, 202])
    assert (with_image["model_grade"], with_image["model"]) == (2, "m")
    assert rows.features["reader_grade"].int2str(3) == "moderate"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "remarks").rglob("*") if path.is_file())
    assert b"Jane" not in kept


def test_what_can_not_be_kept_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KoaError, match="can't be written"):
        Disagreements(tmp_path / "file")
    remarks = Disagreements(tmp_path / "remarks")
    knee = GradedKnee(grading(), KNEE)
    with pytest.raises(KoaError, match="choose one from KL 0 to 4"):
        remarks.add(knee, None)
    with pytest.raises(KoaError, match="write at most 2000"):
        remarks.add(knee, 1, "x" * 2001)
    assert not list((tmp_path / "remarks" / "data").iterdir())


def test_remarks_are_pushed_to_a_private_data_set_when_the_demo_ends(hub, tmp_path):
    client = """
import numpy as np
from pathlib import Path
from koa_hf.demo.disagreements import Disagreements
from koa_hf.grading.examination import GradedKnee
from koa_hf.imaging.radiograph import Radiograph
from tests.helpers import grading
remarks = Disagreements(Path("remarks"), "user/remarks")
remarks.add(GradedKnee(grading(), Radiograph(np.zeros((40, 60), np.uint8), "knee.png")), 1)
remarks.close()
"""
    hub.run(client, tmp_path / "home")
    repository = hub.store.repository("dataset", "user/remarks")
    assert repository.private
    files = sorted(name for name in repository.commit("main").files if not name.startswith("."))
    assert files[0] == "README.md"
    assert len(files) == 2
    assert files[1].startswith("data/")
    refused = hub.run(client, tmp_path / "other", token=None, check=False)
    assert "user/remarks can't be pushed to" in refused.stderr
