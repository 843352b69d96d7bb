"""Reading: listings, and the way from a file's name to its bytes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.fake_hub import errors, views
from tests.fake_hub.errors import HubError
from tests.fake_hub.routing import PAGE, Call, route
from tests.fake_hub.store import File

if TYPE_CHECKING:
    from tests.fake_hub.app import HubApp

CHUNK = 64 * 1024
"""Bytes that are read and sent at a time."""


@route("GET", "/api/{kind}/{id}/tree/{revision}(?:/{path})?", "tree")
async def tree(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call)
    commit = repository.commit(call.revision)
    folder = (call.parts.get("path") or "").strip("/")
    entries = views.entries(commit, folder, call.flag("recursive"))
    if folder and not entries:
        message = f'{folder} does not exist on "{call.revision}"'
        raise errors.entry_not_found(folder, commit.id, message)
    expand = call.flag("expand")
    listed = [views.entry(repository, commit, path, expand) for path in entries]
    return hub.page(call, listed, 50 if expand else PAGE)


@route("POST", "/api/{kind}/{id}/paths-info/{revision}", "paths-info")
async def paths_info(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call)
    commit = repository.commit(call.revision)
    if "json" in call.request.headers.get("content-type", ""):
        form = {key: value if isinstance(value, list) else [value] for key, value in (await call.json()).items()}
    else:
        form = parse_qs((await call.request.body()).decode())
    paths = [path.strip("/") for path in form.get("paths", [])]
    expand = str(form.get("expand", ["false"])[0]).lower() in ("true", "1")
    there = [path for path in paths if path in commit.files or views.entries(commit, path, recursive=False)]
    return JSONResponse([views.entry(repository, commit, path, expand) for path in there if path])


@route("GET HEAD", "/{prefix}{id}/resolve/{revision}/{path}", "resolve")
async def resolve(hub: HubApp, call: Call) -> Response:
    """Address of a file's bytes: regular files on the Hub itself, LFS files on the storage host."""
    repository = hub.repository(call, files=True)
    commit = repository.commit(call.revision)
    path = call.parts["path"]
    if (file := commit.files.get(path)) is None:
        raise errors.entry_not_found(path, commit.id)
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"', "ETag": f'"{file.etag}"'}
    if file.lfs:
        location = f"{hub.storage_url}/{file.sha256}/{quote(path)}?{hub.signed('GET', file.sha256)}"
        return RedirectResponse(location, 302, headers)
    location = f"/api/resolve-cache/{repository.kind}s/{repository.id}/{commit.id}/{quote(path)}"
    return RedirectResponse(location, 307, headers)


@route("GET HEAD", "/api/resolve-cache/{kind}/{id}/{revision}/{path}", "download")
async def resolve_cache(hub: HubApp, call: Call) -> Response:
    commit = hub.repository(call, files=True).commit(call.revision)
    return _content(hub, call, commit.files[call.parts["path"]], {"X-Repo-Commit": commit.id})


@route("GET HEAD", "/{oid}/{path}", "download", host="storage")
async def download(hub: HubApp, call: Call) -> Response:
    hub.check_signed(call, "GET")
    oid = call.parts["oid"]
    file = File(oid, oid, hub.store.content(oid).stat().st_size, lfs=True)
    name = PurePosixPath(call.parts["path"]).name
    return _content(hub, call, file, {"Content-Disposition": f'inline; filename="{name}"'})


def _content(hub: HubApp, call: Call, file: File, headers: dict[str, str]) -> Response:
    """A file's bytes, or the range of them that was asked for."""
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    start, stop, status = 0, file.size, 200
    if match := re.fullmatch(r"bytes=(\d*)-(\d*)", call.request.headers.get("range", "")):
        first, last = match.groups()
        if first:
            start, stop = int(first), min(int(last) + 1, file.size) if last else file.size
        else:
            start = max(file.size - int(last or 0), 0)
        if start >= stop:
            raise HubError(416, "Requested Range Not Satisfiable", headers={"Content-Range": f"bytes */{file.size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    headers["Content-Length"] = str(stop - start)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)

    async def body():
        left = stop - start
        with hub.store.content(file.sha256).open("rb") as content:
            content.seek(start)
            while left > 0 and (chunk := content.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    return StreamingResponse(body(), status, headers)
