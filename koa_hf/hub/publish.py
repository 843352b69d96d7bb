"""Publish a data set, a model or the demo on the Hugging Face Hub.

    python -m koa_hf.hub.publish push-dataset data/knee-kl user/knee-kl
    python -m koa_hf.hub.publish push-model runs/strong user/koa-xception --tag v1.0
    python -m koa_hf.hub.publish push-space user/koa-demo --model user/koa-xception
    python -m koa_hf.hub.publish push-model runs/strong user/koa-xception --dry-run     # needs neither network nor token

Private unless --public is given. Log in before with `hf auth login`, or set HF_TOKEN.

A push is one commit: it is there as a whole or not at all. Everything that can be checked is checked before a
repository is made, here and at the Hub. Run again after an interruption, it sends only what isn't there yet.

Why not `upload_folder`: with Xet, which is the default, it publishes a folder in several commits, so that half of one
can be seen, and stay; `upload_large_folder` did the same and is gone in huggingface_hub 2. `create_commit` uploads the
large files first, skipping those that the Hub holds already, and then makes the one commit.
"""

import argparse
import contextlib
import fnmatch
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
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
from rich.console import Console
from rich.table import Table

from koa_hf import __version__
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.hub import contents
from koa_hf.hub.contents import Contents
from koa_hf.retry import may_pass, retried, status_of

KINDS = {"dataset": "data set", "model": "model", "space": "Space"}


@dataclass(frozen=True)
class Published:
    """Where something is now."""

    url: str
    commit: str
    private: bool


def push_dataset(folder: Path, repo_id: str, **options) -> Published:
    """Publish a folder that `koa_hf.data.build.build` wrote. Options and errors: see `publish`."""
    return publish(contents.of_dataset(Path(folder), repo_id), repo_id, **options)


def push_model(folder: Path, repo_id: str, dataset_id: str | None = None, **options) -> Published:
    """Publish a model folder; `dataset_id` is the data set that its card links to. Else see `publish`."""
    return publish(contents.of_model(Path(folder), repo_id, dataset_id), repo_id, **options)


def push_space(repo_id: str, model: str, model_revision: str | None = None, **options) -> Published:
    """Publish the demo, serving a model that is on the Hub already. Options and errors: see `publish`."""
    files = contents.of_space(repo_id, model, model_revision)
    check_id(model)
    with one_sentence(model):
        try:
            retried(lambda: _api().model_info(model, revision=model_revision))
        except RevisionNotFoundError as error:
            raise KoaError(f"{model} has no revision {model_revision!r} on the Hub; check the name.") from error
        except RepositoryNotFoundError as error:
            raise KoaError(
                f"there is no model {model} on the Hub that you may see; push it first with push-model."
            ) from error
    return publish(files, repo_id, **options)


def publish(
    contents: Contents,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str | None = None,
) -> Published:
    """Put contents into a repository of the Hub, in one commit.

    The repository is created where it isn't there. Files of an earlier push that are no longer among the contents are
    deleted in the same commit; files that somebody else added stay.

    Args:
        repo_id: `user/name` or `organisation/name`.
        public: let everybody see a new repository. An existing one keeps what it is; to add to one that is public
            needs `public=True`.
        revision: branch to push to, `main` by default; made from `main` where it isn't there.
        tag: name for this version. One that exists is never moved.
        message: of the commit.

    Raises:
        KoaError: no token or permission, a card that the Hub refuses, a tag that is taken, no network, or a Hub that
            fails in spite of retries. No commit was made then, unless the message says so. A repository or branch
            made for this push is removed again where the Hub refused; where the connection or the Hub failed it stays,
            empty, so that the same command can go on with what was uploaded already.
    """
    check_id(repo_id)
    branch = revision or "main"
    for option, name in (("--revision", branch), ("--tag", tag or "v1")):
        if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_./-]*[A-Za-z0-9_])?", name) or ".." in name or "//" in name:
            raise KoaError(f"{option} {name!r} can't be a name; use letters, digits and . _ - / between them.")
    if re.fullmatch("[0-9a-f]{40}", branch):
        raise KoaError(f"--revision {branch} is a commit, and commits don't change; give a branch.")
    api, kind = _api(), contents.kind
    here = {"repo_id": repo_id, "repo_type": kind}
    with one_sentence(repo_id):
        _check_account(api, repo_id, kind)
        retried(lambda: contents.card.validate())
        existing = _existing(api, repo_id, kind)
        branches, tags = _refs(api, here) if existing else (["main"], [])
        if existing and not existing.private and not public:
            raise KoaError(f"{repo_id} exists and is public; give --public to add to it, or choose another name.")
        if tag in tags:
            raise KoaError(f"{repo_id} has a version {tag} already, and versions don't change; choose another --tag.")
        if branch in tags:
            raise KoaError(f"{branch} is a tag of {repo_id}, and tags don't change; give a branch as --revision.")

        made = []  # what to do to have none of it
        if not existing:
            made.append(lambda: api.delete_repo(**here, missing_ok=True))
            sdk = {"space_sdk": "gradio"} if kind == "space" else {}
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
        with one_sentence(repo_id, f"the files are there (commit {commit}), but the tag {tag} is not: "):
            _creating(lambda: api.create_tag(**here, tag=tag, revision=commit))
    part = {"dataset": "datasets/", "model": "", "space": "spaces/"}[kind]
    place = f"/tree/{tag or branch}" if tag or branch != "main" else ""
    private = existing.private if existing else not public
    return Published(f"{api.endpoint}/{part}{repo_id}{place}", commit, private)


def check_push(repo_id: str, kind: str = "model", public: bool = False) -> None:
    """Find out, before hours of work, whether a later push could succeed.

    Raises:
        KoaError: a bad name, no network, no token, one that may not write there, or a public repository of that name
            without `public`.
    """
    check_id(repo_id)
    api = _api()
    with one_sentence(repo_id):
        _check_account(api, repo_id, kind)
        existing = _existing(api, repo_id, kind)
    if existing and not existing.private and not public:
        raise KoaError(f"{repo_id} exists and is public; give --public to add to it, or choose another name.")


def check_id(repo_id: str) -> None:
    """KoaError where `repo_id` isn't of the form user/name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise KoaError(f"{repo_id} can't be a name on the Hub: {str(error).splitlines()[0].rstrip('.')}.") from error
    if repo_id.count("/") != 1:
        raise KoaError(f"{repo_id} doesn't say whose it is; give user/name.")


def _api() -> HfApi:
    return HfApi(library_name="koa-hf", library_version=__version__)


def _check_account(api: HfApi, repo_id: str, kind: str) -> None:
    """KoaError where the token certainly can't write there; what only the Hub knows, it says when it is asked."""
    account = retried(api.whoami)
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise KoaError(
            f"the token of {account['name']} can only read; make one that may write at {api.endpoint}/settings/tokens, "
            "and log in with it (`hf auth login`) or set HF_TOKEN."
        )
    owner = repo_id.split("/")[0]
    owners = [account["name"], *(organisation["name"] for organisation in account.get("orgs") or ())]
    if owner not in owners:
        raise KoaError(
            f"you are logged in as {account['name']}, who can't publish a {KINDS[kind]} for {owner}; "
            f"choose a name that begins with {' or '.join(f'{one}/' for one in owners)}."
        )


def _existing(api: HfApi, repo_id: str, kind: str):
    try:
        return retried(lambda: api.repo_info(repo_id, repo_type=kind))
    except RepositoryNotFoundError:
        return None


def _refs(api: HfApi, here: dict) -> tuple[list[str], list[str]]:
    refs = retried(lambda: api.list_repo_refs(**here))
    return [ref.name for ref in refs.branches], [ref.name for ref in refs.tags]


def _creating(create: Callable[[], object]) -> None:
    """Create something that wasn't there a moment ago, so that 409 after a lost answer means: done."""
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
    """Upload and commit; the commit's hash."""
    present = retried(lambda: api.list_repo_files(**here, revision=branch))
    left_over = [
        path
        for path in present
        if path not in contents.files and any(fnmatch.fnmatchcase(path, pattern) for pattern in contents.owned)
    ]

    # The long part, which the library retries file by file. The commit after it finds the large files there.
    additions = _additions(contents)
    api.preupload_lfs_files(additions=additions, **here, revision=branch, free_memory=False)

    def commit():
        nonlocal additions
        # An attempt uses its operations up: they remember what the Hub held, which is more after a lost answer.
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
    present = set(api.list_repo_files(**here, revision=branch))  # after a lost answer they are gone already
    return [CommitOperationDelete(path) for path in left_over if path in present]


def _cause(error: Exception) -> Exception:
    """What was wrong with an upload: the library says only of which file."""
    return error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error


@contextlib.contextmanager
def one_sentence(repo_id: str, before: str = "") -> Iterator[None]:
    """Turn what the Hub, the network and the library raise into one sentence.

    Args:
        repo_id: what it was about.
        before: beginning of every message.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        raise KoaError(before + _sentence(_cause(error), repo_id)) from error


def _sentence(error: Exception, repo_id: str) -> str:
    later = "run the same command again later; what was uploaded already isn't sent twice"
    status, said = status_of(error), " ".join(str(error).split()).rstrip(".")
    if isinstance(error, LocalTokenNotFoundError):
        return "you are not logged in; run `hf auth login`, or set HF_TOKEN to a token that may write."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub can't be asked; unset it to publish."
    if isinstance(error, HfHubHTTPError):
        server = " ".join((error.server_message or "").split()).rstrip(".")
        server = f": {server}" if server else ""
        if may_pass(error):
            return f"the Hub failed (HTTP {status}) in spite of several attempts; {later}."
        if isinstance(error, RepositoryNotFoundError):
            return f"{repo_id} is not there, or you may not see it (HTTP {status}); check the name and the token."
        if status == 401:
            return "the Hub doesn't know your token (HTTP 401); log in again with `hf auth login`, or renew HF_TOKEN."
        if status in (402, 403):
            return f"you may not do that with {repo_id} (HTTP {status}){server}; check the token's rights."
        return f"the Hub refused to take {repo_id} (HTTP {status}){server}; nothing of it was published."
    if isinstance(error, httpx.TransportError):
        return (
            f"the Hub can't be reached, or the connection broke ({type(error).__name__}); "
            f"check the network, then {later}."
        )
    if isinstance(error, ValueError) and ('"errors"' in said or "metadata" in said):  # the Hub's opinion of a card
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = "; ".join(problem["message"] for problem in json.loads(said)["errors"])
        return f"the card of {repo_id} fails the Hub's validation: {said.rstrip('.')}."
    return f"{repo_id} can't be published ({said}); {later}."  # a file that vanished, a full disk


def print_contents(contents: Contents, repo_id: str) -> None:
    """List what a push would send."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    sizes = contents.sizes()
    for path, size in sizes.items():
        table.add_row(path, _readable(size))
    Console(soft_wrap=True).print(table)
    print(f"{len(sizes)} files, {_readable(sum(sizes.values()))}, would become the {KINDS[contents.kind]} {repo_id}.")


def _readable(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--public", action="store_true", help="let everybody see it; private by default")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, made where it isn't there; main")
    parser.add_argument("--tag", metavar="VERSION", help="name for this version, such as v1.0")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="check, list files and sizes, and send nothing")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m koa_hf.hub.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_dataset = verbs.add_parser("push-dataset", help="a folder that koa_hf.data.build built -> a data set")
    of_dataset.add_argument("folder", metavar="DIR", type=Path, help="written by python -m koa_hf.data.build build")
    of_dataset.add_argument("repo_id", metavar="USER/NAME")
    of_model = verbs.add_parser("push-model", help="a model folder -> a model")
    of_model.add_argument("folder", metavar="DIR", type=Path, help="written by train/run.py")
    of_model.add_argument("repo_id", metavar="USER/NAME")
    of_model.add_argument("--dataset", metavar="USER/NAME", help="what it was trained on, for the card")
    of_space = verbs.add_parser("push-space", help="the demo -> a Space")
    of_space.add_argument("repo_id", metavar="USER/NAME")
    of_space.add_argument("--model", metavar="USER/NAME", required=True, help="the model to serve, on the Hub already")
    of_space.add_argument("--model-revision", metavar="REVISION", help="branch, tag or commit of it; newest by default")
    for verb in (of_dataset, of_model, of_space):
        _options(verb)
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    check_id(args.repo_id)
    kind = args.verb.removeprefix("push-")
    if args.dry_run:
        if kind == "dataset":
            files = contents.of_dataset(args.folder, args.repo_id)
        elif kind == "model":
            files = contents.of_model(args.folder, args.repo_id, args.dataset)
        else:
            files = contents.of_space(args.repo_id, args.model, args.model_revision)
        print_contents(files, args.repo_id)
        return
    options = {name: getattr(args, name) for name in ("public", "revision", "tag", "message")}
    if kind == "dataset":
        published = push_dataset(args.folder, args.repo_id, **options)
    elif kind == "model":
        published = push_model(args.folder, args.repo_id, args.dataset, **options)
    else:
        published = push_space(args.repo_id, args.model, args.model_revision, **options)
    seen_by = "private" if published.private else "public"
    print(f"{published.url}  ({seen_by}, commit {published.commit[:12]})")
    if args.public and published.private:
        print("It was there before, as a private repository, and stays so; its settings page can make it public.")


if __name__ == "__main__":
    sys.exit(main())
