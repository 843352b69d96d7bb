"""A cohort graded while processes are killed, films hang and disks fill up: results/cohort/faults.json.

    python benchmarks/studies/cohort_faults.py

Each row is one fault. `koa cohort grade` is killed with SIGKILL at --kills random moments and started again each time;
at the end its table must be that of a run that nobody disturbed, and at no moment may there be a shard that is not
whole. The network is a small one of random weights, on drawn knees: the faults are the same for any network.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.reporting import RESULTS, ROOT, print_table, write_result
from koa_hf.cohort.build import build_cohort
from koa_hf.imaging import phantom
from koa_hf.imaging.radiograph import Radiograph
from koa_hf.network import xception
from koa_hf.network.preprocess import Preprocessing

FILMS, FILMS_PER_SHARD = 200, 4
SECONDS = 3  # longest time for a film


def small_model(folder: Path) -> Path:
    """A model of random weights for 71-pixel images, whose grades differ from knee to knee."""
    torch.manual_seed(0)
    model, preprocess = xception.build(pretrained=False), Preprocessing(image_size=71)
    knees = [preprocess(Radiograph(phantom.draw_knee(grade, seed=1), "drawn knee")) for grade in range(5)]
    xception.estimate_batch_norm_statistics(model, torch.stack(knees))
    torch.nn.init.normal_(model.fc.weight, std=0.1)
    xception.save_model(model, folder, image_size=71)
    return folder


class Command:
    """`koa cohort grade` as a process of its own."""

    def __init__(self, films: Path, out: Path, model: Path):
        self.log = out.with_suffix(".log")
        self.log.unlink(missing_ok=True)
        options = ["--model", str(model), "--engine", "torch", "--device", "cpu", "--workers", "1"]
        command = ["-m", "koa_hf", "cohort", "grade", str(films), str(out), *options, "--seconds", str(SECONDS)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
            )

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self) -> int:
        return self.process.wait(timeout=600)


def table(out: Path) -> list[dict]:
    """All rows in order, without their durations; fails if a shard is not whole."""
    shards = sorted((out / "data").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).drop_columns("seconds").to_pylist()]


def shards_in(out: Path) -> int:
    return len([*(out / "data").glob("*.parquet")])


def run(work: Path, kills: int = 10, seed: int = 0) -> Iterator[dict]:
    """All faults, one after the other; a row each, with `as_expected`."""
    model = small_model(work / "model")
    archive = work / "archive"
    archive.mkdir()
    for number in range(FILMS):
        Image.fromarray(phantom.draw_knee(number % 5, number)).save(archive / f"{number:03d}.png")
    (archive / "damaged.png").write_bytes((archive / "000.png").read_bytes()[:2000])
    films = work / "films"
    build_cohort(archive, films, films_per_shard=FILMS_PER_SHARD)
    began = time.monotonic()
    undisturbed = Command(films, work / "undisturbed", model)
    while not shards_in(work / "undisturbed") and undisturbed.process.poll() is None:
        time.sleep(0.05)
    start = time.monotonic() - began
    assert undisturbed.end() == 0, undisturbed.log.read_text()
    expected = table(work / "undisturbed")
    shards = shards_in(work / "undisturbed")
    yield from _killed(films, work / "killed", model, expected, kills, shards, start, random.Random(seed))
    yield _full_disk(films, work / "full", model, expected)
    yield _bad_films(archive, work, model)


def _killed(
    films: Path,
    out: Path,
    model: Path,
    expected: list[dict],
    kills: int,
    shards: int,
    start: float,
    chance: random.Random,
) -> Iterator[dict]:
    """`shards`: of a whole run; `start`: its seconds to the first of them."""
    for _ in range(kills):
        before = shards_in(out)
        more = chance.randint(0, 3 * shards // (2 * kills))  # none: killed while it starts
        began, command = time.monotonic(), Command(films, out, model)
        if more:
            while shards_in(out) < min(before + more, shards - 1) and command.process.poll() is None:
                time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2 if more else start))
        moment = time.monotonic() - began
        children = command.children()
        command.process.kill()
        code = command.end()
        _, alive = psutil.wait_procs(children, timeout=10)
        alive = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]  # ended, and nobody asked for its code
        there = table(out)
        yield {
            "fault": "SIGKILL" if code else "none: it had ended",
            "seconds_after_start": round(moment, 2),
            "shards_before": before,
            "shards_after": shards_in(out),
            "as_expected": there == [row for row in expected if row in there] and not alive,
        }
    code = Command(films, out, model).end()
    same = table(out) == expected
    yield {
        "fault": "started again after all kills",
        "shards_after": shards_in(out),
        "as_expected": same and not code,
    }


def _full_disk(films: Path, out: Path, model: Path, expected: list[dict]) -> dict:
    """A limit on the size of files stands for a full disk: writing fails half way through a shard."""
    command = Command(films, out, model)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (8000, 8000))
    code, said = command.end(), command.log.read_text()
    left = [path.name for path in (out / "data").iterdir()]
    code_after = Command(films, out, model).end()
    return {
        "fault": "full disk",
        "exit_code": code,
        "said": said.strip().splitlines()[-1].replace(str(out.parent), ""),
        "files_left": left,
        "as_expected": code == 2 and not left and code_after == 0 and table(out) == expected,
    }


def _bad_films(archive: Path, work: Path, model: Path) -> dict:
    """A film that hangs, one that kills its reader, one that is gone, among others."""
    folder = work / "bad"
    folder.mkdir()
    for name in ("a hangs", "b kills", "c is gone", "d is a film"):
        (folder / f"{name}.png").write_bytes((archive / "001.png").read_bytes())
    build_cohort(folder, work / "bad films")
    for name in ("a hangs", "b kills", "c is gone"):
        (folder / f"{name}.png").unlink()
    for name in ("a hangs", "b kills"):
        os.mkfifo(folder / f"{name}.png")  # reading it takes until somebody writes
    command = Command(work / "bad films", work / "bad grades", model)

    def kill_the_reader() -> None:
        with (folder / "b kills.png").open("wb"):  # once somebody reads
            for child in command.children():
                child.kill()
            time.sleep(0.5)

    threading.Thread(target=kill_the_reader, daemon=True).start()
    code = command.end()
    errors = [row["error"] for row in table(work / "bad grades")]
    says = ("more than 3 seconds", "crashed the process", "does not exist")
    right = [bool(error) and part in error for error, part in zip(errors, says, strict=False)]
    return {
        "fault": "films that hang, kill their reader, and are gone",
        "exit_code": code,
        "said": errors,
        "as_expected": code == 0 and right == [True] * 3 and errors[3:] == [None],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="other moments (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "cohort" / "faults.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = []
        for row in run(Path(work), args.kills, args.seed):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    write_result(args.output, {"what": f"{FILMS + 1} drawn films in shards of {FILMS_PER_SHARD}", "rows": rows})
    print_table("faults", [{"fault": row["fault"], "as_expected": row["as_expected"]} for row in rows])
    return 0 if all(row["as_expected"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
