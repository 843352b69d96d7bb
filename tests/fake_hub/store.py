"""Storage: repositories with their history, and the files' contents, in one folder.

A commit is made in one step or not at all, and everything is written to disk, so that a Hub started again in the same
folder goes on where it was.
"""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.fake_hub.errors import HubError, entry_not_found, revision_not_found

KINDS = ("model", "dataset", "space")

_SUFFIXES = (
    ".7z .arrow .avro .bin .bz2 .ckpt .flac .gif .gz .h5 .jpeg .jpg .joblib .mlmodel .mp3 .mp4 .msgpack .npy .npz"
    " .onnx .ot .parquet .pb .pickle .pkl .png .pt .pth .rar .safetensors .tar .tflite .tgz .tif .tiff .wav .wasm"
    " .webp .xz .zip .zst"
)
LFS_SUFFIXES = tuple(_SUFFIXES.split())
"""The suffixes that the Hub's own .gitattributes gives to LFS (models and data sets together)."""

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


@dataclass(frozen=True)
class File:
    """A file in a commit. `oid` is git's name for what git holds: the content, or the pointer of an LFS file."""

    oid: str
    sha256: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        """Name of the file in a client's cache: SHA-256 for LFS, git's SHA-1 otherwise."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer."""
        return len(POINTER.format(sha256=self.sha256, size=self.size))


@dataclass(frozen=True)
class Commit:
    """A commit, with the whole tree: paths to files."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, File]


@dataclass
class Repository:
    """A repository of one of the three kinds."""

    kind: str
    id: str
    private: bool
    created: str
    gated: str | bool = False
    sdk: str | None = None
    hardware: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    """SHA-256 of the LFS files that were uploaded to this repository, committed or not."""
    granted: set[str] = field(default_factory=set)
    """Accounts that may download although the repository is gated."""

    @property
    def owner(self) -> str:
        """The account whose repository this is."""
        return self.id.split("/")[0]

    def commit(self, revision: str) -> Commit:
        """The commit that a branch, tag or full commit hash names.

        Raises:
            HubError: 404 RevisionNotFound.
        """
        for prefix, names in (("refs/heads/", self.branches), ("refs/tags/", self.tags)):
            if (name := revision.removeprefix(prefix)) in names:
                return self.commits[names[name]]
        if revision in self.commits:
            return self.commits[revision]
        raise revision_not_found(revision)

    def history(self, commit: Commit) -> Iterator[Commit]:
        """`commit` and all before it, newest first."""
        at: Commit | None = commit
        while at:
            yield at
            at = self.commits[at.parent] if at.parent else None

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The newest commit up to `commit` that changed the file or folder `path`."""

        def state(commit: Commit) -> dict[str, File]:
            return {name: file for name, file in commit.files.items() if name == path or name.startswith(path + "/")}

        last = commit
        for earlier in self.history(commit):
            if state(earlier) != state(commit):
                break
            last = earlier
        return last


class Store:
    """All repositories and contents in `folder`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lock = threading.RLock()
        self._contents = self.folder / "contents"
        self._contents.mkdir(parents=True, exist_ok=True)
        self.repositories: dict[tuple[str, str], Repository] = {}
        for path in self.folder.glob("repositories/*/*/*.json"):
            repository = _repository_from_json(json.loads(path.read_text(encoding="utf-8")))
            self.repositories[repository.kind, repository.id] = repository

    def repository(self, kind: str, repository_id: str) -> Repository | None:
        """The repository, whoever may see it."""
        return self.repositories.get((kind, repository_id))

    def create(
        self,
        kind: str,
        repository_id: str,
        private: bool,
        author: str,
        sdk: str | None = None,
        hardware: str | None = None,
    ) -> Repository:
        """A new repository with the Hub's first commit: .gitattributes, and a Space's README.md.

        Raises:
            HubError: 409 where there is one already.
        """
        with self.lock:
            if self.repository(kind, repository_id):
                raise HubError(409, f"You already created this {kind} repo")
            repository = Repository(kind, repository_id, private, created=_now(), sdk=sdk, hardware=hardware)
            attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
            files = {".gitattributes": self.add_content(attributes.encode())}
            if kind == "space":
                card = f"---\ntitle: {repository_id.split('/')[1]}\nsdk: {sdk}\npinned: false\n---\n"
                files["README.md"] = self.add_content(card.encode())
            first = _commit(None, "initial commit", "", author, files)
            repository.commits[first.id] = first
            repository.branches["main"] = first.id
            self.repositories[kind, repository_id] = repository
            self.save(repository)
            return repository

    def delete(self, repository: Repository) -> None:
        """Forget a repository."""
        with self.lock:
            del self.repositories[repository.kind, repository.id]
            self._record(repository).unlink()

    def save(self, repository: Repository) -> None:
        """Write a changed repository to disk, replacing the old record in one step."""
        record = self._record(repository)
        record.parent.mkdir(parents=True, exist_ok=True)
        new = record.with_suffix(".new")
        new.write_text(json.dumps(asdict(repository), default=sorted), encoding="utf-8")
        os.replace(new, record)

    def _record(self, repository: Repository) -> Path:
        return self.folder / "repositories" / f"{repository.kind}s" / f"{repository.id}.json"

    def add_content(self, content: bytes) -> File:
        """Keep the content of a regular file."""
        sha256 = hashlib.sha256(content).hexdigest()
        with self.receive() as upload:
            upload.write(content)
            upload.keep(sha256)
        return File(_git_oid(content), sha256, len(content), lfs=False)

    def receive(self) -> "Upload":
        """A content that arrives in pieces."""
        return Upload(self._contents)

    def content(self, sha256: str) -> Path:
        """The file that holds a content."""
        return self._contents / sha256

    def lfs_file(self, repository: Repository, sha256: str) -> File:
        """The tree entry of an LFS file.

        Raises:
            HubError: 400 where it was never uploaded to this repository.
        """
        if sha256 not in repository.objects:
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = self.content(sha256).stat().st_size
        return File(_git_oid(POINTER.format(sha256=sha256, size=size).encode()), sha256, size, lfs=True)

    def apply(
        self,
        repository: Repository,
        branch: str,
        title: str,
        message: str,
        author: str,
        added: dict[str, File],
        deleted_files: list[str],
        deleted_folders: list[str],
        parent: str | None,
    ) -> Commit:
        """One commit on a branch: deletions first, then additions.

        Raises:
            HubError: 404 for an unknown branch or file to delete, 412 where `parent` isn't the branch's last commit.
        """
        with self.lock:
            if branch not in repository.branches:
                raise revision_not_found(branch)
            head = repository.commits[repository.branches[branch]]
            if parent is not None and parent != head.id:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for path in deleted_files:
                if files.pop(path, None) is None:
                    raise entry_not_found(path, message="A file with this name doesn't exist")
            for folder in deleted_folders:
                inside = [path for path in files if path.startswith(folder.rstrip("/") + "/")]
                if not inside:
                    raise entry_not_found(folder, message="A folder with this name doesn't exist")
                for path in inside:
                    del files[path]
            files.update(added)
            commit = _commit(head.id, title, message, author, files)
            repository.commits[commit.id] = commit
            repository.branches[branch] = commit.id
            self.save(repository)
            return commit


class Upload:
    """A content on its way in. Unless `keep` is called, nothing of it stays."""

    def __init__(self, folder: Path):
        self._folder = folder
        descriptor, name = tempfile.mkstemp(prefix="incoming-", dir=folder)
        self._file = os.fdopen(descriptor, "wb")
        self._path = Path(name)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    def keep(self, sha256: str) -> None:
        """Keep it under its SHA-256.

        Raises:
            HubError: 400 BadDigest where the bytes that came aren't the ones that were announced.
        """
        if self._sha256.hexdigest() != sha256:
            raise HubError(400, "BadDigest: the SHA-256 you specified did not match what we received.")
        self._file.close()
        os.replace(self._path, self._folder / sha256)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _commit(parent: str | None, title: str, message: str, author: str, files: dict[str, File]) -> Commit:
    """A commit, named by a hash of all that it is (40 hexadecimal digits, but not git's own hash)."""
    date = _now()
    listing = sorted((path, file.oid) for path, file in files.items())
    identity = json.dumps([parent, title, message, author, date, listing])
    return Commit(hashlib.sha1(identity.encode()).hexdigest(), parent, title, message, author, date, files)


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _repository_from_json(record: dict) -> Repository:
    commits = {
        name: Commit(**{**commit, "files": {path: File(**file) for path, file in commit["files"].items()}})
        for name, commit in record["commits"].items()
    }
    sets = {"objects": set(record["objects"]), "granted": set(record["granted"])}
    return Repository(**{**record, **sets, "commits": commits})
