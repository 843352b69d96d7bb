"""What becomes of a push and of a load when the Hub or the connection fails: results/hub/faults.json.

    python benchmarks/hub_faults.py

Runs against the small Hub of tests/hub/, on this machine. Every row is one command with one fault: it either succeeds
after a retry, or ends in one sentence; and afterwards the repository holds a whole commit, or none of it.
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
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ALWAYS = -1


@dataclass(frozen=True)
class Case:
    """One command with one fault. `fault` has the fields of `tests.hub.faults.Fault`."""

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


def run(cases: list[Case], work: Path) -> list[dict]:
    """Run the cases, one client process for all of them; a row each, in order."""
    from koa_hf import dataset, phantom
    from tests.hub.server import Hub

    releases = {name: phantom.write_release(work / name, {"train": 6, "val": 3, "test": 3}, seed) for seed, name in
                enumerate(("earlier", "later"))}  # fmt: skip
    folders = {name: dataset.build(release, work / f"{name}-built") for name, release in releases.items()}
    model = _model(work / "model")
    with Hub(work / "hub") as hub:
        jobs = [{"case": asdict(case), "repo": f"user/case-{i}"} for i, case in enumerate(cases)]
        order = {"jobs": jobs, "folders": {k: str(v) for k, v in folders.items()}, "model": str(model), "hub": hub.url}
        done = subprocess.run(
            [sys.executable, __file__, "--client"],
            input=json.dumps(order),
            env=hub.environment(work / "home"),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows = json.loads(done.stdout)
        for row, job, case in zip(rows, jobs, cases, strict=True):
            if case.doing == "push":
                row["repository"] = _state(hub, job["repo"], folders)
    return rows


def _state(hub, repo: str, folders: dict[str, Path]) -> str:
    """What a repository holds: `later` or `earlier` as a whole, `empty`, `absent`; anything else is half a commit."""
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
    """A model of random weights, with a card."""
    from koa_hf import xception

    xception.save(xception.build(pretrained=False), folder, image_size=71)
    front = "license: apache-2.0\nlibrary_name: timm\npipeline_tag: image-classification\ntags: [timm]"
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# Random weights\n")
    return folder


def client() -> None:
    """The process that pushes and loads: jobs as JSON on stdin, rows as JSON on stdout."""
    from huggingface_hub import constants

    from koa_hf import Grader, dataset, hub
    from koa_hf.errors import KoaError

    order = json.load(sys.stdin)
    folders = order["folders"]

    def control(method: str, body: dict | None = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{order['hub']}/_control/faults", data, method=method)
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request).close()

    def push(folder: str, repo: str, *options: str) -> None:
        hub.push_dataset(Path(folder), repo, tag=options[0] if options else None)

    push(folders["later"], "user/knees")
    hub.push_model(Path(order["model"]), "user/model")
    rows = []
    for job in order["jobs"]:
        case, repo = job["case"], job["repo"]
        for cache in (constants.HF_HUB_CACHE, os.path.join(constants.HF_HOME, "datasets")):
            shutil.rmtree(cache, ignore_errors=True)
        if case["existing"]:
            push(folders["earlier"], repo)
        control("POST", case["fault"])
        began, said = time.perf_counter(), io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                if case["doing"] == "push":
                    push(folders["later"], repo, "v1")
                elif case["doing"] == "load data set":
                    dataset.load("user/knees")
                else:
                    Grader.from_pretrained("user/model")
                outcome = "success"
            except KoaError as error:
                outcome = str(error).replace(order["hub"], "HUB")
        row = {"doing": case["doing"], "fault": case["name"], "to": "existing" if case["existing"] else "new"}
        if case["doing"] != "push":
            del row["to"]
        row |= {"outcome": outcome, "seconds": round(time.perf_counter() - began, 1)}
        control("DELETE")
        if case["doing"] == "push" and outcome != "success":
            row["left"] = list(_tree(repo))
            push(folders["later"], repo, "v1")  # raises, and ends all, where the same command doesn't mend it
            row["the same command again"] = "success"
        rows.append(row)
        print(row, file=sys.stderr)
    json.dump(rows, sys.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results/hub/faults.json")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        return client()
    with tempfile.TemporaryDirectory() as work:
        rows = run(CASES, Path(work))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{len(rows)} rows written to {args.output}")


if __name__ == "__main__":
    sys.exit(main())
