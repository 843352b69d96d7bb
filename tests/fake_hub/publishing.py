"""Writing: the check of the card, which files go to LFS, their upload, and the commit."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from tests.fake_hub import cards, errors, views
from tests.fake_hub.errors import HubError
from tests.fake_hub.routing import Call, route
from tests.fake_hub.store import Commit, File

if TYPE_CHECKING:
    from tests.fake_hub.app import HubApp

REGULAR_LIMIT = 5 * 1024 * 1024
"""Bytes over which a file goes to LFS whatever its name."""


@route("POST", "/api/validate-yaml", "validate-yaml")
async def validate_yaml(hub: HubApp, call: Call) -> Response:
    body = await call.json()
    found, warnings = cards.validate(body.get("content", ""), body.get("repoType", "model"))
    answer = {"errors": [{"message": m} for m in found], "warnings": [{"message": m} for m in warnings]}
    if found:
        return JSONResponse(answer, 400, {"X-Error-Message": "Invalid metadata in README.md"})
    return JSONResponse(answer)


@route("POST", "/api/{kind}/{id}/preupload/{revision}", "preupload")
async def preupload(hub: HubApp, call: Call) -> Response:
    """Tell, for each file, if it goes to LFS, if it is ignored, and its present object name."""
    repository = hub.repository(call, write=True)
    _refuse_pull_request(call)
    commit = repository.commit(call.revision)
    body = await call.json()
    ignored = body.get("gitIgnore")
    if ignored is None and (file := commit.files.get(".gitignore")):
        ignored = hub.store.content(file.sha256).read_text(encoding="utf-8", errors="replace")
    patterns = _lfs_patterns(hub, commit)
    answer = []
    for file in body["files"]:
        path, sample = file["path"], base64.b64decode(file.get("sample", ""))
        lfs = views.matches(path, patterns) or file["size"] > REGULAR_LIMIT or views.is_binary(sample)
        entry = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
        entry["shouldIgnore"] = views.matches(path, (ignored or "").splitlines())
        if known := commit.files.get(path):
            entry["oid"] = known.etag
        answer.append(entry)
    return JSONResponse({"files": answer, "commitOid": commit.id})


def _lfs_patterns(hub: HubApp, commit: Commit) -> list[str]:
    if (file := commit.files.get(".gitattributes")) is None:
        return []
    lines = hub.store.content(file.sha256).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if "filter=lfs" in line]


@route("POST", "/{prefix}{id}\\.git/info/lfs/objects/batch", "lfs-batch")
async def lfs_batch(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call, write=True)
    body = await call.json()
    if body.get("operation") != "upload":
        raise HubError(400, "Only uploads")
    verify = f"{call.endpoint}/{views.prefix(repository.kind)}{repository.id}.git/info/lfs/objects/verify"
    objects = []
    for wanted in body["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        answer = {"oid": oid, "size": size, "authenticated": True}
        if oid not in repository.objects:
            address = f"{hub.storage_url}/{repository.kind}s/{repository.id}/{oid}"
            upload = {"href": f"{address}?{hub.signed('PUT', oid)}", "header": {}}
            if hub.part_size and size > hub.part_size and "multipart" in body.get("transfers", []):
                upload = _upload_in_parts(hub, address, oid, size)
            answer["actions"] = {"upload": upload, "verify": {"href": verify, "header": {}}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


def _upload_in_parts(hub: HubApp, address: str, oid: str, size: int) -> dict:
    count = -(-size // hub.part_size)
    parts = {
        str(number): f"{address}/{number}?{hub.signed('PUT', f'{oid}/{number}')}" for number in range(1, count + 1)
    }
    href = f"{address}/complete?{hub.signed('POST', oid)}"
    return {"href": href, "header": {"chunk_size": str(hub.part_size), **parts}}


@route("PUT", "/{kind}/{id}/{oid}", "lfs-put", host="storage")
async def lfs_put(hub: HubApp, call: Call) -> Response:
    hub.check_signed(call, "PUT")
    oid = call.parts["oid"]
    with hub.store.receive() as upload:
        async for chunk in call.request.stream():
            upload.write(chunk)
        upload.keep(oid)
    _uploaded(hub, call, oid)
    return Response(headers={"ETag": f'"{oid}"'})


@route("PUT", "/{kind}/{id}/{oid}/{name}", "lfs-put", host="storage")
async def lfs_put_part(hub: HubApp, call: Call) -> Response:
    oid, number = call.parts["oid"], call.parts["name"]
    hub.check_signed(call, "PUT", f"{oid}/{number}")
    body = await call.request.body()
    hub.store.content(f"{oid}.{number}").write_bytes(body)
    return Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})


@route("POST", "/{kind}/{id}/{oid}/complete", "lfs-complete", host="storage")
async def lfs_complete(hub: HubApp, call: Call) -> Response:
    hub.check_signed(call, "POST")
    oid = call.parts["oid"]
    if hub.store.content(oid).exists():  # asked again, because the answer was lost
        _uploaded(hub, call, oid)
        return JSONResponse({"success": True})
    parts = [hub.store.content(f"{oid}.{part['partNumber']}") for part in (await call.json())["parts"]]
    with hub.store.receive() as upload:
        for part in parts:
            upload.write(part.read_bytes())
        upload.keep(oid)
    for part in parts:
        part.unlink()
    _uploaded(hub, call, oid)
    return JSONResponse({"success": True})


def _uploaded(hub: HubApp, call: Call, oid: str) -> None:
    with hub.store.lock:
        if repository := hub.store.repository(call.kind, call.parts["id"]):
            repository.objects.add(oid)
            hub.store.save(repository)


@route("POST", "/{prefix}{id}\\.git/info/lfs/objects/verify", "lfs-verify")
async def lfs_verify(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call, write=True)
    body = await call.json()
    if body["oid"] not in repository.objects:
        raise HubError(404, f"Object {body['oid']} was not uploaded")
    if hub.store.content(body["oid"]).stat().st_size != body["size"]:
        raise HubError(400, f"Object {body['oid']} has another size")
    return JSONResponse({})


@route("POST", "/api/{kind}/{id}/commit/{revision}", "commit")
async def commit(hub: HubApp, call: Call) -> Response:
    """One commit, read and checked as a whole before anything is changed."""
    repository = hub.repository(call, write=True)
    _refuse_pull_request(call)
    header, added, files, folders = None, {}, [], []
    for line in (await call.request.body()).splitlines():
        try:
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                header = value
            elif key == "file":
                content = value["content"]
                base64_coded = value.get("encoding") == "base64"
                content = base64.b64decode(content, validate=True) if base64_coded else content.encode()
                added[_checked_path(value["path"])] = hub.store.add_content(content)
            elif key == "lfsFile":
                added[_checked_path(value["path"])] = hub.store.lfs_file(repository, value["oid"])
            elif key == "deletedFile":
                files.append(value["path"])
            elif key == "deletedFolder":
                folders.append(value["path"])
            else:
                raise HubError(400, f"Unknown operation: {key}")
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise HubError(400, "Invalid commit: a line isn't a JSON object with key and value") from None
    if header is None or not header.get("summary"):
        raise HubError(400, "Invalid commit: no summary")
    _check_card(hub, repository.kind, added.get("README.md"))
    author = call.caller.account
    about = (header["summary"], header.get("description") or "", author)
    commit = hub.store.apply(repository, call.revision, *about, added, files, folders, header.get("parentCommit"))
    url = f"{call.endpoint}/{views.prefix(repository.kind)}{repository.id}/commit/{commit.id}"
    return JSONResponse({"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""})


def _check_card(hub: HubApp, kind: str, card: File | None) -> None:
    if card is None or card.lfs:
        return
    text = hub.store.content(card.sha256).read_text(encoding="utf-8", errors="replace")
    if found := cards.validate(text, kind)[0]:
        raise HubError(400, "Invalid metadata in README.md: " + "; ".join(found))


def _refuse_pull_request(call: Call) -> None:
    if call.flag("create_pr"):
        raise errors.forbidden("Pull requests are disabled for this repository")


def _checked_path(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..", ".git") for part in parts):
        raise HubError(400, f"Invalid path: {path}")
    return path
