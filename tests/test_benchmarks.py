"""Benchmarks: their inputs and their tables; the figures themselves are measured, not tested."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml

from benchmarks import all as all_benchmarks
from benchmarks import reporting
from benchmarks.speed import ceiling, growth, other_engines
from benchmarks.studies import ablation, disturbances, robust_keys, runs, versions
from benchmarks.tables import field_tables, pages, paper_tables, recipe_tables, results_tables, speed_tables
from koa_hf.data.release import Release
from koa_hf.errors import KoaError
from koa_hf.network import xception
from koa_hf.network.engines import Network, TorchEngine
from train.loop.predictions import Predictions
from train.loop.recipe import load_recipe


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


def test_operations_are_those_of_the_network():
    network = xception.build(pretrained=False)
    forward = ceiling.operations(network, 299)
    assert forward == pytest.approx(2 * 8.4e9, rel=0.01)  # timm's results table: 8.4 billion multiplications
    # Two gradients for each product, but none of the image.
    assert ceiling.operations(network, 299, backward=True) == pytest.approx(3 * forward, rel=0.01)


def test_a_goal_is_stated_with_the_measured_value_and_the_machines_limit():
    assert speed_tables.Goal("Time", 25, 30.04, " s", 18.26).cells() == ["Time", "25 s", "30 s", "18.3 s"]
    assert speed_tables.Goal("Rate", 3000, 1754.2).cells() == ["Rate", "3,000", "1,754", ""]


def test_onnx_runtime_computes_what_torch_does():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="it comes with requirements-bench.txt")
    network = Network(xception.build(pretrained=False).eval(), "block2", 71)
    engine = TorchEngine(network, "fp32")
    images = torch.rand(3, 3, 71, 71, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(other_engines.OnnxRuntime(engine, 71)(images), engine(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_speed_page_gives_the_command_of_what_is_not_measured_and_refuses_a_foreign_result(tmp_path):
    goals, sections = speed_tables.render(results=tmp_path)
    assert goals == "Nothing measured yet."
    assert sections.count("Not measured yet") == len(speed_tables.PARTS)
    assert "python benchmarks/speed/growth.py" in sections
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "load.json").write_text(json.dumps({"what": "something else"}))
    with pytest.raises(KoaError, match=r"load\.json is not what benchmarks/speed/demo_load\.py writes today"):
        speed_tables.render(results=tmp_path)


@pytest.mark.parametrize("tables", [field_tables, results_tables, recipe_tables, paper_tables, speed_tables])
def test_the_tables_in_docs_are_those_of_the_results(tables, tmp_path, monkeypatch):
    page = tmp_path / tables.PAGE
    page.write_text((pages.DOCS / tables.PAGE).read_text())
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    tables.update()
    assert page.read_text() == (reporting.ROOT / "docs" / tables.PAGE).read_text()


@pytest.mark.parametrize("script", [one for one in all_benchmarks.BENCHMARKS if not one.gpu], ids=lambda one: one.name)
def test_make_bench_knows_scripts_that_exist(script):
    assert (reporting.ROOT / "benchmarks" / "speed" / f"{script.script or script.name}.py").is_file()


def test_the_oldest_libraries_are_the_lower_bounds_and_what_failed_with_them_is_named():
    needed = versions.requirements("# why\ntorch>=2.15,<3\n-r more.txt\n\ngradio>=6.29.1,<7  # and why\n")
    assert versions.lower_bounds(needed) == "torch==2.15\ngradio==6.29.1\n"
    with pytest.raises(KoaError, match="numpy<3 has no lower bound"):
        versions.lower_bounds(versions.requirements("numpy<3"))
    report = """<testsuites><testsuite time="90"><testcase classname="tests.test_a" name="test_x[1]"/>
        <testcase classname="tests.test_a" name="test_y"><failure/></testcase>
        <testcase classname="tests.test_b" name="test_z"><skipped/></testcase></testsuite></testsuites>"""
    found = versions.outcome(ElementTree.fromstring(report))
    assert found == {"passed": 1, "skipped": 1, "failed": ["tests/test_a.py::test_y"], "minutes": 1.5}
    one = {"python": "3.11", "packages": dict.fromkeys(versions.SHOWN, "1"), "suite": found, "date": "2026-11-26"}
    text = versions.render({"newest": one})
    assert "| tests | 1 passed, 1 skipped, 1 failed |" in text
    assert "Failed: tests/test_a.py::test_y (with the newest)." in text


@pytest.fixture
def three_rows(tmp_path, monkeypatch):
    """An ablation's plan and folder with three finished rows, each less sure of what is right than the one before."""
    monkeypatch.setattr(ablation, "PICTURE", tmp_path / "ablation.png")
    monkeypatch.setattr(runs, "FILE", tmp_path / "runs.csv")
    rows = {"as_it_is": [], "seed_1": ["seed=1"], "no_ema": ["stages.0.ema=0"], "not_yet": []}
    plan = {"recipe": "phantom", "small": ["image_size=71"], "rows": rows}
    grades = np.arange(60) % 5
    names = [f"{9000000 + i // 2}{'RL'[i % 2]}.png" for i in range(60)]
    noise = np.random.default_rng(0).normal(size=(60, 5))
    for name, sure in (("as_it_is", 4.0), ("seed_1", 3.0), ("no_ema", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        logits = sure * np.eye(5)[grades] + noise
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        Predictions(names, grades, probabilities.argmax(1), probabilities).write(folder)
        plan_of_row = load_recipe("phantom", ablation.settings_of(plan, name))
        (folder / "recipe.yaml").write_text(plan_of_row.to_yaml())
        machine = {"processor": "some", "precision": "bf16"}
        run = {"seconds": {"epochs": 60.0}, "machine": machine, "git_commit": None, "options": {"overrides": []}}
        (folder / "run.json").write_text(json.dumps(run))
    return plan, tmp_path


def test_an_ablation_compares_its_rows_knee_by_knee_with_the_mean_of_the_recipes_own_runs(three_rows):
    plan, folder = three_rows
    ablation.report(plan, folder)
    rows = runs.read_runs()
    assert [row["run"] for row in rows] == ["ablation/as_it_is", "ablation/seed_1", "ablation/no_ema"]
    assert [row["is_the_recipe_itself"] for row in rows] == ["yes", "yes", ""]
    first, second, more = (float(row["cross_entropy_more"]) for row in rows)
    assert first + second == pytest.approx(0, abs=2e-4)
    assert 0 < float(rows[2]["cross_entropy_more_low"]) < more < float(rows[2]["cross_entropy_more_high"])
    assert (folder / "ablation.png").stat().st_size > 0
    ablation.report(plan, folder)
    assert runs.read_runs() == rows  # each in the place of the earlier one


def test_an_ablation_refuses_a_row_of_another_plan(three_rows):
    plan, folder = three_rows
    plan["small"] = ["image_size=96"]
    with pytest.raises(KoaError, match="trained by another recipe"):
        ablation.report(plan, folder)


@pytest.mark.parametrize("study", [ablation, robust_keys], ids=lambda study: study.PLAN.stem)
def test_every_row_of_an_ablation_is_a_recipe_of_its_own(study):
    plan = yaml.safe_load(study.PLAN.read_text())
    disturbances.chosen(plan.get("states"))
    seen = [[load_recipe(plan["recipe"], ablation.settings_of(plan, name)), plan.get("options", {}).get(name)]
            for name in plan["rows"]]  # fmt: skip
    assert all(row not in seen[:i] for i, row in enumerate(seen))
