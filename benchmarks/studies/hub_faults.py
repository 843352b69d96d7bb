"""Pushes and downloads while the Hub or the connection fails: results/hub/faults.json.

    python benchmarks/studies/hub_faults.py

Runs against the fake Hub of tests/fake_hub/ on this machine. Each row is one command with one fault: it succeeds after
a retry or ends with one sentence, and the repository then holds a whole commit or none of it.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


ALWAYS = -1


@dataclass(frozen=True)
class Case:
    """One command with one fault. `fault` has the fields of `tests.fake_hub.faults.Fault`."""

    doing: str  # push, load data set or load model
    name: str
    fault: dict = field(default_factory=dict)
    succeeds: bool = True
    existing: bool = False  # push to a repository that holds an earlier version, instead of to a new one


def _error(where: str, status: int = 500, **options) -> dict:
    return {"effect": "error", "where": where, "status": status, **options}


LARGE = "*.parquet"
CASES = [
    Case("push", "error 500 once when asked who we are", _error("whoami")),
    Case("push", "error 503 once when the repository is made", _error("create", 503)),
    Case("push", "answer lost when the repository is made", {"effect": "cut", "where": "create", "after": 0}),
    Case("push", "error 500 once when the card is checked", _error("validate-yaml")),
    Case("push", "error 429 with Retry-After at preupload", _error("preupload", 429, retry_after=1)),
    Case("push", "error 500 once at the LFS batch", _error("lfs-batch")),
    Case("push", "error 500 once in the upload", _error("lfs-put")),
    Case("push", "connection cut in mid-upload", {"effect": "cut_upload", "where": "lfs-put"}),
    Case("push", "connection reset in mid-upload", {"effect": "cut_upload", "where": "lfs-put", "reset": True}),
    Case("push", "slow answers", {"effect": "slow", "where": "*", "seconds": 1.0, "times": 5}),
    Case("push", "error 429 with Retry-After at the commit", _error("commit", 429, retry_after=1)),
    Case("push", "error 500 once at the commit", _error("commit")),
    Case("push", "answer lost after the commit", {"effect": "cut", "where": "commit", "after": 0}),
    Case("push", "answer lost after the commit", {"effect": "cut", "where": "commit", "after": 0}, existing=True),
    Case("push", "error 500 once when the version is tagged", _error("tag")),
    Case("push", "wrong checksum in the upload", {"effect": "corrupt", "where": "lfs-put"}, succeeds=False),
    Case("push", "error 500 again and again at the commit", _error("commit", times=ALWAYS), succeeds=False),
    Case(
        "push", "error 500 again and again at the commit", _error("commit", times=ALWAYS), succeeds=False, existing=True
    ),
    Case("push", "error 503 again and again in the upload", _error("lfs-put", 503, times=ALWAYS), succeeds=False),
    Case(
        "push",
        "connection cut again and again in mid-upload",
        {"effect": "cut_upload", "where": "lfs-put", "times": ALWAYS},
        succeeds=False,
        existing=True,
    ),
    *(
        Case(doing, name, {"path": path, **fault} if fault["where"] == "download" else fault, succeeds)
        for doing, path in (("load data set", LARGE), ("load model", "*.safetensors"))
        for name, fault, succeeds in (
            ("error 429 with Retry-After at the metadata", _error("resolve", 429, retry_after=1), True),
            ("error 500 once in the download", _error("download"), True),
            ("connection cut in mid-download", {"effect": "cut", "where": "download"}, True),
            ("connection reset in mid-download", {"effect": "cut", "where": "download", "reset": True}, True),
            ("slow answers", {"effect": "slow", "where": "*", "seconds": 1.0, "times": 5}, True),
            ("wrong checksum in the download", {"effect": "corrupt", "where": "download"}, True),
            (
                "wrong checksum in every download",
                {"effect": "corrupt", "where": "download", "times": ALWAYS},
                False,
            ),
            ("error 500 at every request", _error("*", times=ALWAYS), False),
            (
                "connection cut in every download",
                {"effect": "cut", "where": "download", "after": 1000, "times": ALWAYS},
                False,
            ),
        )
    ),
]


def run(cases: list[Case], work: Path, hurried: bool = False) -> list[dict]:
    """Run the cases in one client process; a row each, in order.

    Args:
        hurried: the client waits milliseconds between its attempts, instead of seconds.
    """
    from koa_hf.data.build import build_dataset
    from koa_hf.imaging import phantom
    from tests.fake_hub.faults import Fault
    from tests.fake_hub.server import Hub

    releases = {name: phantom.write_release(work / name, {"train": 6, "val": 3, "test": 3}, seed) for seed, name in
                enumerate(("earlier", "later"))}  # fmt: skip
    folders = {name: build_dataset(release, work / f"{name}-built") for name, release in releases.items()}
    model = str(_model(work / "model")) if any(case.doing == "load model" for case in cases) else None
    rows = []
    with Hub(work / "hub") as hub:
        built = {name: str(folder) for name, folder in folders.items()}
        given = json.dumps({"folders": built, "model": model, "hurried": hurried})
        with subprocess.Popen(
            [sys.executable, __file__, "--client", given],
            env=hub.environment(work / "home"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:

            def ask(doing: str, name: str, **fault) -> dict:
                if fault:
                    hub.faults.add(Fault(**fault))
                print(json.dumps([doing, name]), file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                hub.faults.clear()
                return answer

            for i, case in enumerate(cases):
                row = {"doing": case.doing, "fault": case.name}
                if case.doing == "push":
                    name, row["to"] = f"user/case-{i}", "an earlier version" if case.existing else "nothing yet"
                    if case.existing:
                        ask("push earlier", name)
                    row |= ask("push", name, **case.fault)
                    row["repository"] = _state(hub, name, folders)
                    if row["outcome"] != "success":
                        row["the same command again"] = ask("push", name)["outcome"]
                else:
                    row |= ask(
                        case.doing, "user/knees" if case.doing == "load data set" else "user/model", **case.fault
                    )
                row["outcome"] = row["outcome"].replace(hub.url, "HUB")
                rows.append(row)
                print(row, file=sys.stderr)
            process.stdin.close()
    return rows


def _state(hub, repo: str, folders: dict[str, Path]) -> str:
    """Content of a repository: all of `later` or `earlier`, `empty`, `absent`, or `half a commit`."""
    repository = hub.store.repository("dataset", repo)
    if repository is None:
        return "absent"
    files = {path: file.sha256 for path, file in repository.commit("main").files.items() if path.endswith(".parquet")}
    if not repository.commit("main").files.keys() - {".gitattributes"}:
        return "empty"
    from koa_hf.checksums import sha256

    for name, folder in folders.items():
        whole = {path.relative_to(folder).as_posix(): sha256(path) for path in folder.glob("data/*.parquet")}
        if files == whole and "README.md" in repository.commit("main").files:
            return name
    return "half a commit"


def _model(folder: Path) -> Path:
    """A model with random weights and a card."""
    from koa_hf.network import xception

    xception.save_model(xception.build(pretrained=False), folder, image_size=71)
    front = "license: apache-2.0\nlibrary_name: timm\npipeline_tag: image-classification\ntags: [timm]"
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# Random weights\n")
    return folder


def client(given: dict) -> None:
    """Body of the client process: one request per line on stdin, one answer per line on stdout."""
    from huggingface_hub import constants

    from koa_hf.data.load import load_dataset
    from koa_hf.errors import KoaError
    from koa_hf.hub import publish

    if given["hurried"]:
        wait = time.sleep
        time.sleep = lambda seconds: wait(min(seconds, 0.005))
    publish.push_dataset(Path(given["folders"]["later"]), "user/knees")
    if given["model"]:
        from koa_hf import Grader  # and torch, which takes seconds

        publish.push_model(Path(given["model"]), "user/model")
    actions = {
        "push earlier": lambda name: publish.push_dataset(Path(given["folders"]["earlier"]), name),
        "push": lambda name: publish.push_dataset(Path(given["folders"]["later"]), name, tag="v1"),
        "load data set": load_dataset,
        "load model": lambda name: Grader.from_pretrained(name),
    }
    for line in sys.stdin:
        for cache in (constants.HF_HUB_CACHE, os.path.join(constants.HF_HOME, "datasets")):
            shutil.rmtree(cache, ignore_errors=True)
        doing, name = json.loads(line)
        began, outcome = time.perf_counter(), "success"
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                actions[doing](name)
            except KoaError as error:
                outcome = str(error)
        print(json.dumps({"outcome": outcome, "seconds": round(time.perf_counter() - began, 1)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results/hub/faults.json")
    parser.add_argument("--client", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        return client(args.client)
    with tempfile.TemporaryDirectory() as work:
        rows = run(CASES, Path(work))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{len(rows)} rows written to {args.output}")


if __name__ == "__main__":
    sys.exit(main())
