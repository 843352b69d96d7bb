"""Commits, files and repositories as the Hub's JSON."""

import fnmatch
import hashlib
import json

from tests.fake_hub.store import Commit, File, Repository


def prefix(kind: str) -> str:
    return "" if kind == "model" else f"{kind}s/"


def object_id(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()[:24]


def entries(commit: Commit, folder: str, recursive: bool) -> list[str]:
    """Paths of the files and folders below a folder ("" for the root), sorted."""
    below = f"{folder}/" if folder else ""
    found = set()
    for path in commit.files:
        if not path.startswith(below):
            continue
        steps = path[len(below) :].split("/")
        depths = range(1, len(steps) + 1) if recursive else [1]
        found.update(below + "/".join(steps[:depth]) for depth in depths)
    return sorted(found)


def entry(repository: Repository, commit: Commit, path: str, expand: bool) -> dict:
    """A file or folder as the tree listing shows it."""
    if file := commit.files.get(path):
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    else:
        inside = sorted((name, file.oid) for name, file in commit.files.items() if name.startswith(path + "/"))
        oid = hashlib.sha1(json.dumps(inside).encode()).hexdigest()
        entry = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        last = repository.last_change(commit, path)
        entry["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
        if entry["type"] == "file":
            entry["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return entry


def sibling(path: str, file: File, blobs: bool) -> dict:
    if not blobs:
        return {"rfilename": path}
    sibling = {"rfilename": path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return sibling


def tags(repository: Repository, data: dict) -> list[str]:
    tags = [str(tag) for tag in data.get("tags") or []]
    tags += [str(data[key]) for key in ("library_name", "pipeline_tag", "sdk") if data.get(key)]
    for key, prefix in (("license", "license:"), ("datasets", "dataset:"), ("task_categories", "task_categories:")):
        values = data.get(key) or []
        tags += [f"{prefix}{value}" for value in (values if isinstance(values, list) else [values])]
    return list(dict.fromkeys([*tags, "region:us"]))


def runtime(repository: Repository) -> dict:
    hardware = {"current": None, "requested": "cpu-basic"}
    return {"stage": "BUILDING", "hardware": hardware, "storage": None, "gcTimeout": 172800, "sdk": repository.sdk}


def matches(path: str, patterns: list[str]) -> bool:
    """True if a path matches one of git's patterns. Negation (!) isn't supported."""
    names = [path, *path.split("/")]
    for pattern in patterns:
        pattern = pattern.strip()
        if not pattern or pattern.startswith(("#", "!")):
            continue
        if pattern.endswith("/"):
            folder = pattern.strip("/")
            if path.startswith(f"{folder}/") or f"/{folder}/" in f"/{path}":
                return True
        elif any(fnmatch.fnmatchcase(name, pattern.lstrip("/")) for name in names):
            return True
    return False


def is_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3  # the sample may end in the middle of a character
    return False
