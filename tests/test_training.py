"""`train/run.py` and `train/validate.py` from the command line, on phantoms."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from koa_hf import Grader, checksums
from koa_hf.data.build import build_dataset
from koa_hf.grades import GRADE_NAMES
from koa_hf.imaging import phantom
from tests.helpers import SMALL, assert_same_losses, history, losses
from tests.processes import REPOSITORY, Process, client_environment, run_in_two
from tests.processes import run as run_script
from train.loop.deletion_test import CONTROLS
from train.loop.recipe import load_recipe


def run(dataset, out, *options, processes=1, script="train/run.py", check=True) -> subprocess.CompletedProcess:
    return command(script, "--dataset", dataset, "--output-dir", out, *options, processes=processes, check=check)


def command(script, *options, processes=1, check=True) -> subprocess.CompletedProcess:
    start = run_in_two if processes == 2 else run_script
    return start(script, *options, env=client_environment(KOA_WEIGHTS=""), check=check)


def test_a_run_leaves_a_model_folder_with_its_record(finished):
    expected = {"config.json", "model.safetensors", "README.md", "recipe.yaml", "run.json", "metrics.jsonl"}
    expected |= {"metrics.json", "predictions.csv", "curves.png", "confusion_matrix.png", "tensorboard"}
    expected |= {"checksums.json"}
    assert {path.name for path in finished.iterdir()} == expected  # and no cache, checkpoint or partial file
    stages = [(row["stage"], row["epoch"]) for row in history(finished)]
    assert stages == [("baseline", 1), ("fine-tuned", 1), ("fine-tuned", 2)]
    record = json.loads((finished / "run.json").read_text())
    assert record["dataset"]["images"] == {"train": 40, "validation": 16}
    assert record["seconds"]["this_process"] > 0
    assert "torch" in record["packages"]
    assert list((finished / "tensorboard").rglob("events.out.tfevents*"))


def test_every_training_image_is_counted_once_an_epoch(finished):
    for row in history(finished):
        assert row["train"]["images"] == 40
        assert sum(map(sum, row["validation"]["confusion_matrix"])) == 16


# Two processes with --accumulate are compared in tests/test_hub.py, where such a run is made anyway.
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        pytest.param(1, ["--no-cache"], id="no cache"),
        pytest.param(2, [], id="two processes", marks=pytest.mark.slow),
        pytest.param(1, ["--accumulate", 3], id="in parts", marks=pytest.mark.slow),
        pytest.param(2, ["--accumulate", 3, "--no-cache"], id="all three", marks=pytest.mark.slow),
    ],
)
def test_two_processes_accumulated_parts_and_no_trunk_cache_give_the_same_losses(
    finished, dataset_folder, tmp_path, processes, options
):
    done = run(dataset_folder, tmp_path / "other", *SMALL, *options, processes=processes)
    assert f"{processes} process(es) on cpu" in done.stdout
    assert_same_losses(finished, tmp_path / "other")


@pytest.mark.slow
def test_accelerate_launch_starts_two_processes_that_give_the_loss_curve_of_one(finished, dataset_folder, tmp_path):
    # The launcher's own --cpu starts a single process, whatever --num_processes says; the script's --cpu (in SMALL)
    # keeps those that --multi_gpu starts off the GPUs.
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
    script = ["train/run.py", "--dataset", str(dataset_folder), "--output-dir", str(tmp_path / "two"), *SMALL]
    subprocess.run([sys.executable, "-m", *launcher, *script], cwd=REPOSITORY, env=client_environment(), check=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(finished), rel=1e-3)


DISTURBED = [
    *("--set", "augmentation.flip=true", "--set", "augmentation.rotation=10", "--set", "augmentation.erasing=0.5"),
    *("--set", "augmentation.resolution=0.5", "--set", "augmentation.blur.share=0.5"),
    *("--set", "augmentation.noise.share=0.5", "--set", "augmentation.sharpen.share=0.5"),
    *("--set", "augmentation.compression.share=0.5", "--set", "stored_size=80"),
]


@pytest.mark.slow
def test_random_changes_and_mixup_are_the_same_in_two_processes(dataset_folder, tmp_path):
    options = [*SMALL, *DISTURBED, "--set", "stages.0.mixup=0.3", "--set", "stages.1.mixup=0.3", "--limit", "20"]
    for processes in (1, 2):
        run(dataset_folder, tmp_path / str(processes), *options, processes=processes)
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-3)


def kill_and_resume(dataset: Path, out: Path, options: list[str], sent: dict[str, signal.Signals]) -> None:
    """Start a run, end it by each signal as soon as the mid-epoch checkpoint of that name is there, and resume it."""
    resume = []
    for checkpoint, number in sent.items():
        # One checkpoint a batch, so that there is a mid-epoch one to wait for.
        started = ("train/run.py", "--dataset", dataset, "--output-dir", out, *options, "--checkpoint-every", "1")
        process = Process(*started, *resume, env=client_environment(KOA_WEIGHTS=""))
        deadline = time.monotonic() + 120
        while not (out / "checkpoints" / checkpoint).exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        assert not (out / "model.safetensors").exists()
        resume = ["--resume"]
    assert "resumed: stage" in run(dataset, out, *options, *resume).stdout


def assert_same_outcome(one: Path, other: Path) -> None:
    expected, actual = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert all(expected[name].equal(actual[name]) for name in expected)
    without_time = [[{**row, "seconds": 0} for row in history(out)] for out in (one, other)]
    assert without_time[0] == without_time[1]


def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(finished, dataset_folder, tmp_path):
    first, second = "stage-01-epoch-0000-batch-0000002", "stage-01-epoch-0001-batch-0000002"
    kill_and_resume(dataset_folder, tmp_path, SMALL, {first: signal.SIGTERM, second: signal.SIGKILL})
    assert_same_outcome(finished, tmp_path)


@pytest.mark.slow
def test_so_does_one_that_continues_another_with_all_that_a_recipe_can_ask_for(finished, dataset_folder, tmp_path):
    everything = [
        *(*SMALL, "--limit", "24", "--set", "drop_rate=0.2", "--set", "stages.1.train=all"),
        *("--set", "augmentation.scale=0.1"),
        *("--set", "augmentation.contrast=0.2", "--set", "augmentation.gamma=0.2", "--set", "augmentation.inversion=1"),
        *("--set", "stages.1.loss=soft_ordinal", "--set", "stages.1.class_weights=balanced"),
        *("--set", "stages.1.ema=0.9", "--set", "stages.1.batch_norm=batch", "--set", "stages.1.schedule=cosine"),
        *("--set", "stages.1.head_lr_factor=5", "--set", "stages.1.layer_lr_decay=0.9", "--set", "stages.1.warmup=.3"),
        *("--set", "stages.1.epochs=3", "--set", "stages.1.stop_after=2", "--set", "stages.1.image_sizes=[71,75,71]"),
        *("--set", "image_size=75", *DISTURBED),
        *("--set", "weights=model", "--start-from", str(finished), "--set", "stages.1.distillation=0.5"),
        *("--teacher", str(finished), str(finished)),
    ]
    done = run(dataset_folder, tmp_path / "undisturbed", *everything)
    assert "trunk cache off" in done.stdout  # what it would hold changes with every epoch
    record = json.loads((tmp_path / "undisturbed" / "run.json").read_text())
    assert record["started_from"]["model"] == str(finished)
    assert [teacher["model"] for teacher in record["taught_by"]] == [str(finished)] * 2
    assert (tmp_path / "undisturbed" / "recipe_before.yaml").read_text() == (finished / "recipe.yaml").read_text()
    card = (tmp_path / "undisturbed" / "README.md").read_text()
    assert card.index("run.py --recipe phantom --dataset") < card.index("--start-from runs/phantom")
    killed = {"stage-01-epoch-0001-batch-0000001": signal.SIGKILL}
    kill_and_resume(dataset_folder, tmp_path / "killed", everything, killed)
    assert_same_outcome(tmp_path / "undisturbed", tmp_path / "killed")


def test_evaluation_needs_only_a_model_folder_and_a_data_set(finished, dataset_folder, tmp_path):
    options = ("--model", finished, "--cpu", "--batch-size", 12, "--split")
    one = run(dataset_folder, tmp_path / "one", *options, "validation", script="train/validate.py")
    assert "quadratic weighted kappa" in one.stdout
    said = f"train/validate.py --split test --dataset BUILT_DATASET_WITH_TEST --model {finished}"
    assert said in one.stdout.replace("\n", "")
    figures = json.loads((tmp_path / "one" / "metrics.json").read_text())["figures"]
    in_training = json.loads((finished / "metrics.json").read_text())["figures"]
    for counted in ("confusion_matrix", "recall_by_grade"):
        assert figures.pop(counted) == in_training[counted]
    # In batches of another size: on some CPUs the logits' last digits depend on that.
    assert figures == pytest.approx({name: in_training[name] for name in figures}, rel=1e-5)
    run(dataset_folder, tmp_path / "two", *options, "validation", script="train/validate.py", processes=2)
    again = json.loads((tmp_path / "two" / "metrics.json").read_text())["figures"]
    assert again["confusion_matrix"] == in_training["confusion_matrix"]
    assert len((tmp_path / "two" / "predictions.csv").read_text().splitlines()) == 1 + 16


def test_a_finished_run_becomes_the_model_that_ships(finished, dataset_folder, tmp_path):
    bundle, results = tmp_path / "koa-xception", tmp_path / "results"
    few = ("--training-knees", 20, "--images-per-kind", 2)
    command("train/bundle.py", "--run", finished, "--dataset", dataset_folder, "--output", bundle,
            "--results", results, "--grading", "coverage=0.8", *few)  # fmt: skip
    assert (bundle / "model.safetensors").stat().st_size < 45e6  # float16
    assert load_recipe(bundle / "recipe.yaml").grading.coverage == 0.8
    assert json.loads((results / "float16.json").read_text())["largest_probability_change"] < 0.01
    for picture in ("reliability.png", "familiarity.png", "confusion_matrix.png", "curves.png"):
        assert (results / picture).stat().st_size > 1000
    assert "Mahalanobis" in (bundle / "README.md").read_text()
    checksums.check(bundle)

    knee = phantom.draw_knee(2, seed=1)
    grader, plain = (Grader.from_pretrained(bundle, engine="torch", plain=plain) for plain in (False, True))
    assert grader.rules.sets.coverage == 0.8
    grading = grader.grade(knee)
    assert grading.calibrated
    assert grading.familiar is not None
    assert grading.grade_set[0] <= grading.grade <= grading.grade_set[1]
    theirs = transformers.pipeline("image-classification", model=str(bundle), device="cpu")
    answers = {answer["label"]: answer["score"] for answer in theirs(Image.fromarray(knee), top_k=5)}
    ours = dict(zip(GRADE_NAMES, plain.grade(knee).probabilities, strict=True))
    assert answers == pytest.approx(ours, abs=1e-4)

    command("train/audit.py", "--model", bundle, "--dataset", dataset_folder, "--results", results)
    audit = json.loads((results / "audit.json").read_text())
    assert audit["deletion"]["knees"] == 16
    assert audit["deletion"]["hottest_costs_more_than"].keys() == set(CONTROLS)
    assert audit["worst_mistakes"][0]["file_name"].endswith(".png")
    again = command("train/bundle.py", "--run", finished, "--dataset", dataset_folder, "--output", bundle,
                    "--results", results, check=False)  # fmt: skip
    assert (again.returncode, "is not empty" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--recipe", "nowhere"], "no recipe 'nowhere'"),
        (["--recipe", "paper", "--pretrained-weights", "nowhere.safetensors"], "no ImageNet weights at nowhere"),
        ([*SMALL, "--resume"], "no run to resume"),
        (["--recipe", "strong-polished"], "--start-from"),
        ([*SMALL, "--start-from", "models/koa-xception"], "--start-from has no use"),
        ([*SMALL, "--accumulate", "5"], "multiple of 5"),
        ([*SMALL, "--accumulate", "4", "--set", "stages.1.mixup=0.2"], "mixup blends pairs of images"),
        ([*SMALL, "--set", "stages.1.distillation=0.5"], "name one or more finished runs with --teacher"),
        ([*SMALL, "--teacher", "models/koa-xception"], "--teacher has no use"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_leaves_nothing(dataset_folder, tmp_path, options, says):
    done = run(dataset_folder, tmp_path / "bad", *options, check=False)
    assert done.returncode == 2
    assert says in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "bad").exists()


def test_a_finished_run_is_neither_overwritten_nor_resumed(finished, dataset_folder):
    before = (finished / "model.safetensors").stat().st_mtime_ns
    assert "not empty" in run(dataset_folder, finished, *SMALL, check=False).stderr
    assert "finished" in run(dataset_folder, finished, *SMALL, "--resume", check=False).stderr
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_head_on_frozen_imagenet_features_learns_from_real_knees(real_data, tmp_path):
    if not (weights := os.environ.get("KOA_WEIGHTS")):
        pytest.skip("KOA_WEIGHTS does not name the ImageNet weights of Xception (a safetensors file)")
    knees = build_dataset(real_data, tmp_path / "knee-kl")
    run(
        knees,
        tmp_path / "run",
        *("--recipe", "paper", "--cpu", "--limit", 240, "--pretrained-weights", weights),
        *("--set", "image_size=128", "--set", "stages.0.epochs=4", "--set", "stages.0.lr=3e-3"),
        *("--set", "stages.1.epochs=1", "--set", "stages.1.train=head"),
    )
    head = [row for row in history(tmp_path / "run") if row["stage"] == "baseline"]
    assert head[-1]["train"]["loss"] < head[0]["train"]["loss"]
    assert head[-1]["validation"]["macro_auc"] > 0.55  # chance is 0.5


def test_the_mean_of_networks_has_the_mean_weights_and_says_what_it_is_of(
    finished, model_folder, dataset_folder, tmp_path
):
    out = tmp_path / "averaged"
    command("train/average.py", finished, model_folder, model_folder, "--dataset", dataset_folder, "--output-dir", out)
    one, other, mean = (load_file(folder / "model.safetensors") for folder in (finished, model_folder, out))
    for name in ("fc.weight", "bn1.running_mean"):
        torch.testing.assert_close(mean[name], (one[name] + 2 * other[name]) / 3)
    record = json.loads((out / "run.json").read_text())["averaged_with"]
    assert [entry["model"] for entry in record] == [str(model_folder)] * 2
    checksums.check(out)
