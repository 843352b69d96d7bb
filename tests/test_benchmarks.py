"""What benchmarks make of a release and of their results; their figures themselves are measured, not tested."""

import json

import pytest

from benchmarks import growth, tables
from koa_hf.errors import KoaError
from koa_hf.release import Release


def test_a_repeated_release_is_one_of_as_many_patients_more(release_folder, tmp_path):
    with Release(release_folder) as release:
        knees = growth.part_of([knee for knee in release.scan()[0] if knee.split in growth.FOLDERS], images=30)
        growth.repeat(release, knees, 3, tmp_path / "repeated")
    with Release(tmp_path / "repeated") as repeated:
        found, problems = repeated.scan()
    assert problems == []
    assert len(found) == 3 * len(knees)
    assert len({knee.patient_id for knee in found}) == 3 * len({knee.patient_id for knee in knees})


def test_growth_in_proportion_behind_a_start_is_called_a_straight_line():
    rows = [
        {"images": n, "seconds": 2 + n / 10, "processor_seconds": 1, "megabytes": 500, "with_mapped_files": 600}
        for n in (10, 40, 160)
    ]
    step = growth.grown(rows)
    assert step["linearity"] == 1
    assert step["peak_times_the_baseline"] == 1
    assert step["megabytes_more_in_100000"] == 0
    assert [row["times_proportion"] for row in step["rows"]] == [1, 0.5, 0.38]


def test_tables_say_what_was_not_measured_yet_and_which_result_is_of_no_use(tmp_path):
    text = tables.render(results=tmp_path)
    assert text.count("Not measured yet.") == len(tables.PARTS)
    assert "python benchmarks/growth.py" in text
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "load.json").write_text(json.dumps({"what": "something else"}))
    with pytest.raises(KoaError, match=r"load\.json isn't what benchmarks/demo_load\.py writes today"):
        tables.render(results=tmp_path)
