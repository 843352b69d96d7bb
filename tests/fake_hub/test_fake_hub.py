"""The fake Hub, asked by the libraries that it stands in for.

Each client is a function whose source runs in a process of its own, away from this project.
"""

import hashlib
import json
import urllib.error
import urllib.request

import pytest

from tests.fake_hub.server import Hub
from tests.fake_hub.store import Store

pytestmark = pytest.mark.slow


def _publish_and_read():
    import os
    import warnings
    from pathlib import Path

    import pytest
    from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    warnings.simplefilter("ignore")
    api, name = HfApi(), "user/koa"
    assert api.whoami()["name"] == "user"
    assert api.create_repo(name, private=True).repo_id == name
    api.create_repo(name, private=True, exist_ok=True)

    folder = Path("model")
    (folder / "plots").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [knee]\n---\n# A model\n")
    (folder / "config.json").write_text("{}")
    (folder / "empty.txt").touch()
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "plots" / "a curve #1.png").write_bytes(b"\x89PNG\0" + os.urandom(1000))
    first = api.upload_folder(repo_id=name, folder_path=folder, commit_message="A model")
    assert first.commit_message == "A model"
    assert str(first.repo_url).endswith(name)

    info = api.model_info(name, files_metadata=True)
    assert (info.sha, info.private, info.card_data.license) == (first.oid, True, "mit")
    lfs = {sibling.rfilename for sibling in info.siblings if sibling.lfs}
    assert lfs == {"model.safetensors", "plots/a curve #1.png"}
    assert api.model_info(name, expand=["private"]).siblings is None
    assert [found.id for found in api.list_models(author="user")] == [name]

    snapshot = Path(snapshot_download(name))
    for path in folder.rglob("*.*"):
        assert (snapshot / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert not api.verify_repo_checksums(name).mismatches

    api.create_tag(name, tag="v1", tag_message="first")
    api.create_branch(name, branch="try/1")
    api.create_branch(name, branch="try/1", exist_ok=True)
    api.upload_file(repo_id=name, path_or_fileobj=b'{"tried": 1}', path_in_repo="config.json", revision="try/1")
    texts = {
        revision: Path(hf_hub_download(name, "config.json", revision=revision)).read_text()
        for revision in ("main", "v1", "try/1", first.oid)
    }
    assert texts == {"main": "{}", "v1": "{}", "try/1": '{"tried": 1}', first.oid: "{}"}

    copy = CommitOperationCopy("model.safetensors", "plots/copy.safetensors")
    second = api.create_commit(name, [copy, CommitOperationDelete("config.json")], commit_message="Second")
    assert not api.file_exists(name, "config.json")
    assert [commit.title for commit in api.list_repo_commits(name)] == ["Second", "A model", "initial commit"]
    unchanged = api.upload_folder(repo_id=name, folder_path=folder / "plots", path_in_repo="plots")
    assert unchanged.oid == second.oid
    api.delete_folder("plots", name)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(repo_id=name, path_or_fileobj=b"x", path_in_repo="x", parent_commit=first.oid)

    entries = {entry.path: entry for entry in api.list_repo_tree(name, recursive=True, expand=True, revision="v1")}
    assert entries["plots"].last_commit.title == "A model"
    assert entries["model.safetensors"].lfs.size == 300_000
    found = api.get_paths_info(name, ["plots", "empty.txt", "no such"], revision="v1")
    assert [entry.path for entry in found] == ["plots", "empty.txt"]
    refs = api.list_repo_refs(name)
    assert [tag.target_commit for tag in refs.tags] == [first.oid]
    assert [branch.name for branch in refs.branches] == ["main", "try/1"]

    api.delete_tag(name, tag="v1")
    api.delete_branch(name, branch="try/1")
    api.update_repo_settings(name, private=False)
    assert not HfApi(token=False).model_info(name).private
    api.create_repo("user/demo", repo_type="space", space_sdk="gradio")
    assert api.space_info("user/demo").sdk == "gradio"
    for repo_id, kind in ((name, "model"), ("user/demo", "space")):
        api.delete_repo(repo_id, repo_type=kind)
        assert not api.repo_exists(repo_id, repo_type=kind)


def test_a_repository_is_published_read_changed_and_deleted(hub, tmp_path):
    hub.run(_publish_and_read, tmp_path)
    assert not hub.store.repositories
    puts = [request["path"] for request in hub.requests if request["endpoint"] == "lfs-put"]
    assert len(puts) == len(set(puts)) == 2, "only new LFS files are sent"
    assert {request["endpoint"] for request in hub.requests if request["status"] is None} == set()


def _be_refused():
    import warnings

    import pytest
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import (
        BadRequestError,
        GatedRepoError,
        HfHubHTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    warnings.simplefilter("ignore")

    def refused(expected, status, call, *arguments, **options):
        with pytest.raises(expected) as caught:
            call(*arguments, **options)
        error = caught.value
        assert type(error) is expected, repr(error)
        assert expected is ValueError or error.response.status_code == status, repr(error)
        return str(error)

    write, read, stranger = (HfApi(token=f"hf_{kind}") for kind in ("write", "read", "stranger"))
    nobody, unknown = HfApi(token=False), HfApi(token="hf_expired")
    for name in ("private", "open", "gated"):
        write.create_repo(f"user/{name}", private=name == "private")
    write.update_repo_settings("user/gated", gated="manual")
    file = {"path_or_fileobj": b"{}", "path_in_repo": "config.json"}

    # tokens
    refused(HfHubHTTPError, 401, unknown.whoami)
    refused(HfHubHTTPError, 401, unknown.model_info, "user/open")
    assert "namespace" in refused(HfHubHTTPError, 403, read.create_repo, "user/new")
    assert "write token" in refused(HfHubHTTPError, 403, read.upload_file, repo_id="user/open", **file)
    refused(HfHubHTTPError, 403, stranger.upload_file, repo_id="user/open", **file)
    refused(HfHubHTTPError, 403, stranger.create_repo, "user/new")
    refused(HfHubHTTPError, 403, read.delete_repo, "user/open")
    refused(HfHubHTTPError, 403, read.auth_check, "user/open", write=True)
    refused(HfHubHTTPError, 401, nobody.create_repo, "user/new")
    refused(HfHubHTTPError, 409, write.create_repo, "user/open")

    # who sees what
    assert read.model_info("user/private").private
    refused(RepositoryNotFoundError, 404, stranger.model_info, "user/private")
    refused(RepositoryNotFoundError, 401, nobody.model_info, "user/private")
    refused(RepositoryNotFoundError, 404, stranger.hf_hub_download, "user/private", ".gitattributes")
    refused(RepositoryNotFoundError, 404, write.model_info, "user/unknown")
    refused(RepositoryNotFoundError, 404, write.dataset_info, "user/open")
    refused(RepositoryNotFoundError, 404, write.snapshot_download, "user/unknown")
    refused(RepositoryNotFoundError, 404, write.upload_file, repo_id="user/unknown", **file)
    refused(RevisionNotFoundError, 404, write.model_info, "user/open", revision="v9")
    refused(RevisionNotFoundError, 404, write.hf_hub_download, "user/open", ".gitattributes", revision="v9")
    refused(RevisionNotFoundError, 404, write.create_branch, "user/open", branch="b", revision="v9")
    refused(RemoteEntryNotFoundError, 404, write.hf_hub_download, "user/open", "none.json")
    refused(RemoteEntryNotFoundError, 404, lambda: list(write.list_repo_tree("user/open", "no/folder")))
    refused(RemoteEntryNotFoundError, 404, write.delete_file, "none.json", "user/open")
    assert list(stranger.list_repo_tree("user/gated"))
    refused(GatedRepoError, 403, stranger.hf_hub_download, "user/gated", ".gitattributes")
    refused(GatedRepoError, 401, nobody.hf_hub_download, "user/gated", ".gitattributes")
    write.grant_access("user/gated", "stranger")
    stranger.hf_hub_download("user/gated", ".gitattributes")

    # cards
    for kind, card in (
        ("model", "---\nlicense: mine\n---\n"),
        ("model", "---\ntags: [a, b\n---\n"),
        ("model", "---\nmodel-index:\n- name: m\n  results:\n  - task: {type: x}\n    metrics: []\n---\n"),
        ("dataset", "---\nconfigs:\n- data_dir: x\n---\n"),
        ("space", "---\nsdk: gradio\ncolorFrom: mauve\n---\n"),
    ):
        write.create_repo("user/card", repo_type=kind, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
        card_file = {"path_or_fileobj": card.encode(), "path_in_repo": "README.md"}
        message = refused(ValueError, 400, write.upload_file, repo_id="user/card", repo_type=kind, **card_file)
        assert "Invalid metadata in README.md" in message

    # a commit past the client's checks
    def post(*operations):
        import json

        lines = [{"key": "header", "value": {"summary": "s", "description": ""}}, *operations]
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        from huggingface_hub.utils import hf_raise_for_status

        url = f"{write.endpoint}/api/models/user/open/commit/main"
        hf_raise_for_status(get_session().post(url, content=body, headers={"Authorization": "Bearer hf_write"}))

    good = {"key": "file", "value": {"content": "{}", "path": "config.json", "encoding": "utf-8"}}
    bad_card = {"key": "file", "value": {"content": "---\nlicense: mine\n---\n", "path": "README.md"}}
    never_sent = {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}
    outside = {"key": "file", "value": {"content": "x", "path": "../x"}}
    for bad in (bad_card, never_sent, outside, {"key": "rename"}):
        refused(BadRequestError, 400, post, good, bad)
    assert write.list_repo_files("user/open") == [".gitattributes"]


def test_refusals_reach_the_client_as_its_own_exceptions(hub, tmp_path):
    hub.run(_be_refused, tmp_path, token=None)
    assert {commit.title for commit in hub.store.repository("model", "user/open").commits.values()} == {
        "initial commit"
    }


def _publish_and_load_through_faults():
    import random
    from pathlib import Path

    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    api.create_repo("user/koa")
    Path("model").mkdir()
    Path("model", "model.safetensors").write_bytes(random.Random(0).randbytes(12_000_000))
    Path("model", "config.json").write_text("{}")
    api.upload_folder(repo_id="user/koa", folder_path="model")
    snapshot_download("user/koa", local_dir="again")


def test_clients_recover_from_faults_that_pass(hub, tmp_path):
    hub.upload_in_parts(5_000_000)
    hub.faults.error("preupload", status=429, retry_after=0)
    hub.faults.error("lfs-batch", status=500)
    hub.faults.cut_upload("lfs-put", skip=1, reset=True)
    hub.faults.cut("lfs-complete", after=0)
    hub.faults.cut("download", path="*/model.safetensors", after=11_000_000)
    hub.faults.slow("info", seconds=0.2)
    done = hub.run(_publish_and_load_through_faults, tmp_path)
    assert "429" in done.stderr
    effects = [(struck["effect"], struck["where"]) for struck in hub.faults.struck]
    assert len(effects) == 6, effects
    sent, came = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("model", "again"))
    assert hashlib.sha256(came).digest() == hashlib.sha256(sent).digest()
    resumed = [request["range"] for request in hub.requests if request["range"]]
    assert resumed == ["bytes=10485760-"], "huggingface_hub keeps whole chunks of 10 MiB"
    assert len(hub.store.repository("model", "user/koa").commits) == 2


def _meet_faults_that_stay():
    import httpx2
    import pytest
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    api.create_repo("user/koa")
    weights = {"repo_id": "user/koa", "path_or_fileobj": bytes(200_000), "path_in_repo": "model.safetensors"}
    for expected in (RuntimeError, HfHubHTTPError, httpx2.TransportError):
        with pytest.raises(expected):
            api.upload_file(**weights)
        assert api.list_repo_files("user/koa") == [".gitattributes"]
    api.upload_file(**weights)

    hf_hub_download("user/koa", "model.safetensors")
    mismatches = api.verify_repo_checksums("user/koa").mismatches
    assert [mismatch["path"] for mismatch in mismatches] == ["model.safetensors"]


def test_faults_that_stay_never_leave_half_a_commit(hub, tmp_path):
    hub.faults.corrupt("lfs-put")
    hub.faults.error("commit", status=500)
    hub.faults.cut_upload("commit", skip=1)
    hub.faults.corrupt("download", path="*/model.safetensors")
    hub.run(_meet_faults_that_stay, tmp_path)
    assert len(hub.faults.struck) == 4
    titles = [commit.title for commit in hub.store.repository("model", "user/koa").commits.values()]
    assert titles == ["initial commit", "Upload model.safetensors with huggingface_hub"]
    assert not list(tmp_path.rglob("incoming-*"))


def _load_a_dataset():
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import pytest
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import CommitOperationAdd, HfApi

    api, name = HfApi(), "user/knee-kl"
    api.create_repo(name, repo_type="dataset", private=True)
    configs = "- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n"
    configs += "- config_name: auto_test\n  data_files:\n  - {split: test, path: auto_test/test-*}\n"
    card = f"---\nlicense: cc-by-4.0\nconfigs:\n{configs}---\n# Knees\n"

    def commit(rows: int) -> None:
        files = {"README.md": card.encode()}
        for folder, split in (("data", "train"), ("auto_test", "test")):
            shard = io.BytesIO()
            pq.write_table(pa.table({"label": [grade % 5 for grade in range(rows)]}), shard)
            files[f"{folder}/{split}-00000-of-00001.parquet"] = shard.getvalue()
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(name, operations, commit_message=f"{rows} rows", repo_type="dataset")

    commit(rows=7)
    api.create_tag(name, tag="v1", repo_type="dataset")
    commit(rows=11)
    assert len(load_dataset(name)["train"]) == 11
    assert len(load_dataset(name, revision="v1")["train"]) == 7
    assert len(load_dataset(name, "auto_test", split="test")) == 11
    streamed = [row["label"] for row in load_dataset(name, split="train", streaming=True, revision="v1")]
    assert streamed == [0, 1, 2, 3, 4, 0, 1]
    for wrong, options in (("user/none", {}), (name, {"revision": "v9"})):
        with pytest.raises(DatasetNotFoundError):
            load_dataset(wrong, **options)


def test_datasets_loads_whole_streamed_and_by_revision(hub, tmp_path):
    hub.run(_load_a_dataset, tmp_path)
    missing = {request["path"] for request in hub.requests if request["endpoint"] == "unknown"}
    assert not missing, "datasets asks for something that isn't there"


def test_long_listings_come_in_pages(hub, tmp_path):
    repository = hub.store.create("model", "user/many", private=False, author="user")
    file = hub.store.add_content(b"x")
    many = {f"folder/{number}": file for number in range(2100)}
    hub.store.apply(repository, "main", "Many", "", "user", many, [], [], parent=None)
    code = """if True:
        from huggingface_hub import list_repo_tree
        assert len(list(list_repo_tree("user/many", "folder"))) == 2100
    """
    hub.run(code, tmp_path, token=None)
    assert len([request for request in hub.requests if request["endpoint"] == "tree"]) == 3


def test_a_hub_started_again_has_its_repositories(tmp_path):
    store = Store(tmp_path)
    repository = store.create("dataset", "user/knee-kl", private=False, author="user")
    commit = store.apply(repository, "main", "x", "", "user", {"x": store.add_content(b"x")}, [], [], parent=None)
    with Hub(tmp_path) as hub, urllib.request.urlopen(f"{hub.url}/datasets/user/knee-kl/resolve/main/x") as answer:
        assert answer.read() == b"x"
        assert answer.headers["X-Repo-Commit"] == commit.id


def test_faults_can_be_set_from_another_process(hub):
    fault = json.dumps({"effect": "error", "where": "whoami", "status": 503}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{hub.url}/_control/faults", data=fault)).close()
    for expected in (503, 401):
        with pytest.raises(urllib.error.HTTPError, match=str(expected)):
            urllib.request.urlopen(f"{hub.url}/api/whoami-v2")
    with urllib.request.urlopen(f"{hub.url}/_control/requests") as answer:
        assert [request["status"] for request in json.load(answer)] == [503, 401]
