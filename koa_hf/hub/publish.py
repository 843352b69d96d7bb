"""Publish a data set, a model or the demo on the Hugging Face Hub.

A push is one commit, so that a repository never holds half of one. All checks, local and on the Hub, come before a
repository is created. After an interruption, the same push uploads only what is missing.

`upload_folder` does not do this: with Xet, the default, it publishes a folder in several commits, and a failure leaves
part of it visible. `create_commit` first uploads the large files that the Hub lacks and then makes one commit.
"""

import contextlib
import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id

from koa_hf import __version__
from koa_hf.errors import KoaError
from koa_hf.hub.contents import Contents, of_dataset, of_model
from koa_hf.retry import may_pass, retried, status_of

KINDS = {"dataset": "data set", "model": "model", "space": "Space"}
"""The Hub's repository types, and their names in messages."""


@dataclass(frozen=True)
class Published:
    """A finished push: address, commit hash, and visibility of the repository."""

    url: str
    commit: str
    private: bool


def push_dataset(folder: Path, repo_id: str, **options) -> Published:
    """Publish a folder that `koa dataset build` wrote. Options and errors as for `publish`."""
    return publish(of_dataset(Path(folder), repo_id), repo_id, **options)


def push_model(folder: Path, repo_id: str, dataset_id: str | None = None, **options) -> Published:
    """Publish a model folder; its card links to `dataset_id`. Options and errors as for `publish`."""
    return publish(of_model(Path(folder), repo_id, dataset_id), repo_id, **options)


def publish(
    contents: Contents,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str | None = None,
) -> Published:
    """Commit contents to a repository of the Hub, which is created if it does not exist.

    Files of an earlier push that are no longer among the contents are deleted in the same commit; files that somebody
    else added stay.

    Args:
        contents: the files.
        repo_id: `user/name` or `organisation/name`.
        public: make a new repository public. An existing one keeps its visibility, and a public one is changed only
            with `public=True`.
        revision: branch to push to, created from `main` if missing; `main` by default.
        tag: name of this version. An existing tag is never moved.
        message: commit message.

    Raises:
        KoaError: no token or permission, a card that the Hub refuses, a tag that exists, a Space whose model is not on
            the Hub, no network, or a Hub that fails after all retries. No commit was made then, unless the message
            says so. A repository or branch created for this push is removed if the Hub refused; after a failed
            connection it stays, empty, so that the same push can continue with what was uploaded.
    """
    check_id(repo_id)
    branch = revision or "main"
    for option, name in (("--revision", branch), ("--tag", tag or "v1")):
        if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_./-]*[A-Za-z0-9_])?", name) or ".." in name or "//" in name:
            raise KoaError(f"{option} {name!r} can't be a name; use letters and digits, with . _ - / between them.")
    if re.fullmatch("[0-9a-f]{40}", branch):
        raise KoaError(f"--revision {branch} is a commit, which can't be pushed to; give a branch.")
    api, kind = _api(), contents.kind
    here = {"repo_id": repo_id, "repo_type": kind}
    if contents.serves:
        _check_served_model(api, *contents.serves)
    with one_sentence(repo_id):
        _check_account(api, repo_id, kind)
        retried(lambda: contents.card.validate())
        existing = _existing(api, repo_id, kind)
        branches, tags = _refs(api, here) if existing else (["main"], [])
        if existing and not existing.private and not public:
            raise KoaError(f"{repo_id} exists and is public; give --public to add to it, or choose another name.")
        if tag in tags:
            raise KoaError(f"{repo_id} already has a version {tag}; choose another --tag.")
        if branch in tags:
            raise KoaError(f"{branch} is a tag of {repo_id}, which can't be pushed to; give a branch as --revision.")

        made = []  # calls that undo what was created
        if not existing:
            made.append(lambda: api.delete_repo(**here, missing_ok=True))
            sdk = {"space_sdk": "gradio", "space_hardware": contents.hardware} if kind == "space" else {}
            _creating(lambda: api.create_repo(**here, private=not public, **sdk))
        try:
            if branch not in branches:
                _creating(lambda: api.create_branch(**here, branch=branch))
                made.append(lambda: api.delete_branch(**here, branch=branch))
            commit = _commit(api, contents, here, branch, message)
        except (HfHubHTTPError, RuntimeError, ValueError) as error:
            if not may_pass(_cause(error)):
                for undo in reversed(made):
                    with contextlib.suppress(HfHubHTTPError, httpx.TransportError):
                        undo()
            raise
    if tag:
        with one_sentence(repo_id, f"the files were published (commit {commit}), but not the tag {tag}: "):
            _creating(lambda: api.create_tag(**here, tag=tag, revision=commit))
    part = {"dataset": "datasets/", "model": "", "space": "spaces/"}[kind]
    place = f"/tree/{tag or branch}" if tag or branch != "main" else ""
    private = existing.private if existing else not public
    return Published(f"{api.endpoint}/{part}{repo_id}{place}", commit, private)


def check_push(repo_id: str, kind: str = "model", public: bool = False) -> None:
    """Check before hours of training that a later push can succeed.

    Raises:
        KoaError: an invalid name, no network, no token or one without write access, or a public repository of that
            name without `public`.
    """
    check_id(repo_id)
    api = _api()
    with one_sentence(repo_id):
        _check_account(api, repo_id, kind)
        existing = _existing(api, repo_id, kind)
    if existing and not existing.private and not public:
        raise KoaError(f"{repo_id} exists and is public; give --public to add to it, or choose another name.")


def check_id(repo_id: str) -> None:
    """Raise KoaError unless `repo_id` has the form user/name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise KoaError(f"{repo_id} can't be a name on the Hub: {str(error).splitlines()[0].rstrip('.')}.") from error
    if repo_id.count("/") != 1:
        raise KoaError(f"{repo_id} names no owner; give user/name.")


def _api() -> HfApi:
    return HfApi(library_name="koa-hf", library_version=__version__)


def _check_account(api: HfApi, repo_id: str, kind: str) -> None:
    """Raise KoaError if the token can't write there. The Hub may still refuse for reasons only it knows."""
    account = retried(api.whoami)
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise KoaError(
            f"the token of {account['name']} can only read; create one with write access at "
            f"{api.endpoint}/settings/tokens, and log in with it (`hf auth login`) or set HF_TOKEN."
        )
    owner = repo_id.split("/")[0]
    owners = [account["name"], *(organisation["name"] for organisation in account.get("orgs") or ())]
    if owner not in owners:
        raise KoaError(
            f"you are logged in as {account['name']}, who can't publish a {KINDS[kind]} for {owner}; "
            f"choose a name that begins with {' or '.join(f'{one}/' for one in owners)}."
        )


def _check_served_model(api: HfApi, model: str, revision: str | None) -> None:
    """Raise KoaError unless the model that a Space serves is on the Hub."""
    check_id(model)
    with one_sentence(model):
        try:
            retried(lambda: api.model_info(model, revision=revision))
        except RevisionNotFoundError as error:
            raise KoaError(f"{model} has no revision {revision!r} on the Hub; check the name.") from error
        except RepositoryNotFoundError as error:
            raise KoaError(
                f"there is no model {model} on the Hub that you may see; publish it first with `koa push model`."
            ) from error


def _existing(api: HfApi, repo_id: str, kind: str):
    try:
        return retried(lambda: api.repo_info(repo_id, repo_type=kind))
    except RepositoryNotFoundError:
        return None


def _refs(api: HfApi, here: dict) -> tuple[list[str], list[str]]:
    refs = retried(lambda: api.list_repo_refs(**here))
    return [ref.name for ref in refs.branches], [ref.name for ref in refs.tags]


def _creating(create: Callable[[], object]) -> None:
    """Create something known to be absent, so that 409 on a retry means that the first attempt succeeded."""
    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        try:
            create()
        except HfHubHTTPError as error:
            if attempts == 1 or status_of(error) != 409:
                raise

    retried(attempt)


def _commit(api: HfApi, contents: Contents, here: dict, branch: str, message: str | None) -> str:
    """Upload and commit; returns the commit hash."""
    present = retried(lambda: api.list_repo_files(**here, revision=branch))
    left_over = [
        path
        for path in present
        if path not in contents.files and any(fnmatch.fnmatchcase(path, pattern) for pattern in contents.owned)
    ]

    # The long part, retried by the library file by file. The commit then finds the large files on the Hub.
    additions = _additions(contents)
    api.preupload_lfs_files(additions=additions, **here, revision=branch, free_memory=False)

    def commit():
        nonlocal additions
        # Operations can't be reused: they remember the state of the Hub, which changes if only the answer was lost.
        operations, additions = additions or _additions(contents), None
        operations += _deletions(api, here, branch, left_over)
        title = message or f"Publish the {KINDS[contents.kind]} with koa-hf {__version__}"
        return api.create_commit(**here, operations=operations, commit_message=title, revision=branch)

    return retried(commit).oid


def _additions(contents: Contents) -> list:
    return [CommitOperationAdd(path, source) for path, source in contents.files.items()]


def _deletions(api: HfApi, here: dict, branch: str, left_over: list[str]) -> list[CommitOperationDelete]:
    if not left_over:
        return []
    present = set(api.list_repo_files(**here, revision=branch))  # if only the answer was lost, they are gone already
    return [CommitOperationDelete(path) for path in left_over if path in present]


def _cause(error: Exception) -> Exception:
    """Cause of a failed upload: the library's own message only names the file."""
    return error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error


@contextlib.contextmanager
def one_sentence(repo_id: str, before: str = "") -> Iterator[None]:
    """Turn errors of the Hub, the network and the library into a KoaError of one sentence.

    Args:
        repo_id: repository concerned.
        before: start of every message.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        raise KoaError(before + _sentence(_cause(error), repo_id)) from error


def _sentence(error: Exception, repo_id: str) -> str:
    later = "run the same command again later; files already uploaded are not sent again"
    status, said = status_of(error), " ".join(str(error).split()).rstrip(".")
    if isinstance(error, LocalTokenNotFoundError):
        return "you are not logged in; run `hf auth login`, or set HF_TOKEN to a token with write access."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub can't be asked; unset it to publish."
    if isinstance(error, HfHubHTTPError):
        server = " ".join((error.server_message or "").split()).rstrip(".")
        server = f": {server}" if server else ""
        if may_pass(error):
            return f"the Hub failed (HTTP {status}) after several attempts; {later}."
        if isinstance(error, RepositoryNotFoundError):
            return f"{repo_id} does not exist, or you may not see it (HTTP {status}); check the name and the token."
        if status == 401:
            return "the Hub does not accept your token (HTTP 401); log in with `hf auth login`, or renew HF_TOKEN."
        if status in (402, 403):
            return f"you may not do that with {repo_id} (HTTP {status}){server}; check the token's rights."
        return f"the Hub refused {repo_id} (HTTP {status}){server}; nothing was published."
    if isinstance(error, httpx.TransportError):
        return (
            f"the Hub can't be reached, or the connection broke ({type(error).__name__}); "
            f"check the network, then {later}."
        )
    if isinstance(error, ValueError) and ('"errors"' in said or "metadata" in said):  # of the Hub's card validation
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = "; ".join(problem["message"] for problem in json.loads(said)["errors"])
        return f"the card of {repo_id} fails the Hub's validation: {said.rstrip('.')}."
    return f"{repo_id} can't be published ({said}); {later}."  # a file that vanished, a full disk
