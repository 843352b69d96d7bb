"""`train/run.py` and `train/evaluate.py` as people start them: from the command line, on phantoms."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
# Small enough for seconds: random weights, the least image size, 40 training images in batches of 12, so that the
# last batch is short and can't be shared out evenly. The low rate keeps rounding differences from growing.
SMALL = [
    *("--recipe", "phantom", "--cpu", "--precision", "fp32"),
    *("--set", "image_size=71", "--set", "batch_size=12", "--set", "best_metric=last"),
    *("--set", "stages.0.epochs=1", "--set", "stages.1.epochs=2", "--set", "stages.1.lr=3e-5"),
]


def environment() -> dict[str, str]:
    return {**os.environ, "KOA_WEIGHTS": ""}


def run(dataset, out, *options, processes=1, script="train/run.py", check=True) -> subprocess.CompletedProcess:
    launcher = [sys.executable]
    if processes > 1:
        launcher = [*launcher, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    command = [*launcher, script, "--dataset", str(dataset), "--output-dir", str(out), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def history(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row[split]["loss"] for row in history(out) for split in ("train", "validation")]


@pytest.fixture(scope="module")
def finished(dataset_folder, tmp_path_factory) -> Path:
    """A run that nothing disturbed, one process, with the trunk cache."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    run(dataset_folder, out, *SMALL)
    return out


def test_a_run_leaves_a_model_folder_with_its_record(finished):
    expected = {"config.json", "model.safetensors", "README.md", "recipe.yaml", "run.json", "metrics.jsonl"}
    expected |= {"metrics.json", "predictions.csv", "curves.png", "confusion_matrix.png", "tensorboard"}
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


def test_training_with_and_without_the_trunk_cache_gives_the_same_losses(finished, dataset_folder, tmp_path):
    run(dataset_folder, tmp_path / "uncached", *SMALL, "--no-cache")
    assert losses(tmp_path / "uncached") == pytest.approx(losses(finished), rel=1e-3)


def test_two_processes_give_the_loss_curve_of_one(finished, dataset_folder, tmp_path):
    run(dataset_folder, tmp_path / "two", *SMALL, processes=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(finished), rel=1e-3)
    for one, two in zip(history(finished), history(tmp_path / "two"), strict=True):
        assert two["train"]["images"] == 40
        assert two["validation"]["confusion_matrix"] == one["validation"]["confusion_matrix"]


def test_accumulated_parts_give_the_loss_curve_of_the_whole_batch(finished, dataset_folder, tmp_path):
    run(dataset_folder, tmp_path / "parts", *SMALL, "--accumulate", 3)
    assert losses(tmp_path / "parts") == pytest.approx(losses(finished), rel=1e-3)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(finished, dataset_folder, tmp_path, sent):
    out = tmp_path / "killed"
    command = [sys.executable, "train/run.py", "--dataset", str(dataset_folder), "--output-dir", str(out), *SMALL]
    # One checkpoint a batch, so that there is a mid-epoch one to wait for.
    process = subprocess.Popen(
        [*command, "--checkpoint-every", "1"], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/stage-01-epoch-0000-batch-0000002")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(sent)
    assert process.wait(60) == (143 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert not (out / "model.safetensors").exists()

    resumed = run(dataset_folder, out, *SMALL, "--resume")
    assert "resumed: stage fine-tuned, epoch" in resumed.stdout
    expected, actual = load_file(finished / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(expected[name].equal(actual[name]) for name in expected)
    without_time = [{**row, "seconds": 0} for row in history(out)]
    assert without_time == [{**row, "seconds": 0} for row in history(finished)]


def test_augmentation_switches_the_trunk_cache_off(dataset_folder, tmp_path):
    done = run(
        dataset_folder,
        tmp_path / "augmented",
        *SMALL,
        *("--limit", 12, "--set", "stages.1.epochs=1"),
        *("--set", "augmentation.flip=true", "--set", "augmentation.rotation=10", "--set", "augmentation.scale=0.1"),
        *(
            "--set",
            "augmentation.contrast=0.2",
            "--set",
            "augmentation.gamma=0.2",
            "--set",
            "augmentation.inversion=1",
        ),
    )
    assert "trunk cache off" in done.stdout
    assert len(history(tmp_path / "augmented")) == 2


def test_evaluation_needs_only_a_model_folder_and_a_data_set(finished, dataset_folder, tmp_path):
    options = ("--model", finished, "--cpu", "--batch-size", 12, "--split")
    one = run(dataset_folder, tmp_path / "one", *options, "validation", script="train/evaluate.py")
    assert "quadratic weighted kappa" in one.stdout
    figures = json.loads((tmp_path / "one" / "metrics.json").read_text())["figures"]
    assert figures == json.loads((finished / "metrics.json").read_text())["figures"]
    run(dataset_folder, tmp_path / "two", *options, "validation", script="train/evaluate.py", processes=2)
    again = json.loads((tmp_path / "two" / "metrics.json").read_text())["figures"]
    assert again["confusion_matrix"] == figures["confusion_matrix"]
    assert len((tmp_path / "two" / "predictions.csv").read_text().splitlines()) == 1 + 16


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--recipe", "nowhere"], "no recipe 'nowhere'"),
        (["--recipe", "paper", "--pretrained-weights", "nowhere.safetensors"], "no ImageNet weights at nowhere"),
        ([*SMALL, "--resume"], "no run to resume"),
        ([*SMALL, "--accumulate", "5"], "multiple of 5"),
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
