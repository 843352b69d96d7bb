"""Accounts and repositories: who asks, what there is, what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from tests.fake_hub import cards, errors, views
from tests.fake_hub.accounts import may_read
from tests.fake_hub.errors import HubError
from tests.fake_hub.routing import PAGE, Call, route
from tests.fake_hub.store import Commit, Repository

if TYPE_CHECKING:
    from tests.fake_hub.app import HubApp


@route("GET", "/api/whoami-v2", "whoami")
async def whoami(hub: HubApp, call: Call) -> Response:
    if call.caller is None:
        raise HubError(401, "Invalid username or password.")
    name, role = call.caller.account, call.caller.role
    token = {"displayName": f"{role} token", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
    who = {"type": "user", "id": views.object_id(name), "name": name, "fullname": name, "email": f"{name}@example.com"}
    plan = {"emailVerified": True, "canPay": False, "isPro": False, "periodEnd": None, "avatarUrl": "", "orgs": []}
    return JSONResponse({**who, **plan, "auth": {"type": "access_token", "accessToken": token}})


@route("POST", "/api/repos/create", "create")
async def create(hub: HubApp, call: Call) -> Response:
    body = await call.json()
    kind = body.get("type") or "model"
    if call.caller is None:
        raise HubError(401, "Invalid username or password.")
    owner = body.get("organization") or call.caller.account
    if not call.caller.may_write(owner):
        raise errors.forbidden(f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    repository_id = f"{owner}/{body['name']}"
    url = f"{call.endpoint}/{views.prefix(kind)}{repository_id}"
    private = body.get("visibility") == "private" or body.get("private") is True
    try:
        hub.store.create(kind, repository_id, private, call.caller.account, body.get("sdk"), body.get("hardware"))
    except HubError as error:
        error.body["url"] = url
        raise
    return JSONResponse({"url": url, "name": repository_id, "id": views.object_id(kind + repository_id)})


@route("DELETE", "/api/repos/delete", "delete")
async def delete(hub: HubApp, call: Call) -> Response:
    body = await call.json()
    owner = body.get("organization") or (call.caller.account if call.caller else "")
    repository = hub.repository(call, body.get("type") or "model", f"{owner}/{body['name']}", write=True)
    hub.store.delete(repository)
    return Response("OK")


@route("PUT", "/api/{kind}/{id}/settings", "settings")
async def settings(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call, write=True)
    body = await call.json()
    with hub.store.lock:
        if "visibility" in body or "private" in body:
            repository.private = body.get("visibility") == "private" or body.get("private") is True
        repository.gated = body.get("gated", repository.gated)
        hub.store.save(repository)
    return JSONResponse({"private": repository.private, "gated": repository.gated})


@route("POST", "/api/{kind}/{id}/user-access-request/grant", "grant")
async def grant(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call, write=True)
    with hub.store.lock:
        repository.granted.add((await call.json())["user"])
        hub.store.save(repository)
    return JSONResponse({})


@route("GET", "/api/{kind}/{id}/auth-check", "auth-check")
async def auth_check(hub: HubApp, call: Call) -> Response:
    hub.repository(call, files=True)
    return Response()


@route("GET", "/api/{kind}/{id}/auth-check/write", "auth-check")
async def auth_check_write(hub: HubApp, call: Call) -> Response:
    hub.repository(call, write=True)
    return Response()


@route("GET", "/api/{kind}/{id}/refs", "refs")
async def refs(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call)

    def listed(names: dict[str, str], folder: str) -> list[dict]:
        return [{"name": name, "ref": f"{folder}/{name}", "targetCommit": at} for name, at in names.items()]

    references = {"branches": listed(repository.branches, "refs/heads"), "converts": []}
    references["tags"] = listed(repository.tags, "refs/tags")
    return JSONResponse({**references, "pullRequests": []})


@route("GET", "/api/{kind}/{id}/commits/{revision}", "commits")
async def commits(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call)
    commits = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author, "avatar": ""}],
            "date": commit.date,
            **({"formatted": {"title": commit.title, "message": commit.message}} if call.values("expand") else {}),
        }
        for commit in repository.history(repository.commit(call.revision))
    ]
    return hub.page(call, commits, 50, {"X-Total-Count": str(len(commits))})


@route("POST DELETE", "/api/{kind}/{id}/branch/{name}", "branch")
async def branch(hub: HubApp, call: Call) -> Response:
    repository, name = hub.repository(call, write=True), call.parts["name"]
    with hub.store.lock:
        if call.request.method == "POST":
            body = await call.json()
            if name in repository.branches:
                raise HubError(409, f"Reference already exists: refs/heads/{name}")
            repository.branches[name] = repository.commit(body.get("startingPoint") or "main").id
        elif name == "main":
            raise errors.forbidden("Cannot delete the main branch")
        elif repository.branches.pop(name, None) is None:
            raise errors.revision_not_found(name)
        hub.store.save(repository)
    return Response()


@route("POST DELETE", "/api/{kind}/{id}/tag/{name}", "tag")
async def tag(hub: HubApp, call: Call) -> Response:
    repository, name = hub.repository(call, write=True), call.parts["name"]
    with hub.store.lock:
        if call.request.method == "POST":
            tag = (await call.json())["tag"]
            commit = repository.commit(name)
            if tag in repository.tags:
                raise HubError(409, f"Tag reference exists already: {tag}")
            repository.tags[tag] = commit.id
        elif repository.tags.pop(name, None) is None:
            raise errors.revision_not_found(name)
        hub.store.save(repository)
    return Response()


@route("GET", "/api/{kind}/{id}/discussions", "discussions")
async def discussions(hub: HubApp, call: Call) -> Response:
    hub.repository(call)
    return JSONResponse({"discussions": [], "count": 0, "start": 0})


@route("GET", "/api/spaces/{id}/runtime", "runtime")
async def runtime(hub: HubApp, call: Call) -> Response:
    call.parts["kind"] = "space"
    return JSONResponse(views.runtime(hub.repository(call)))


@route("GET", "/api/{kind}/{id}(?:/revision/{revision})?", "info")
async def info(hub: HubApp, call: Call) -> Response:
    repository = hub.repository(call)
    return JSONResponse(_info(hub, call, repository, repository.commit(call.revision)))


@route("GET", "/api/{kind}", "list")
async def list_repositories(hub: HubApp, call: Call) -> Response:
    author, search = call.query.get("author", [""])[0], call.query.get("search", [""])[0].lower()
    listed = []
    for (kind, _), repository in sorted(hub.store.repositories.items()):
        seen = kind == call.kind and may_read(repository, call.caller)
        if seen and author in ("", repository.owner) and search in repository.id.lower():
            listed.append(_info(hub, call, repository, repository.commit("main")))
    return hub.page(call, listed, int(call.query.get("limit", [PAGE])[0]))


def _info(hub: HubApp, call: Call, repository: Repository, commit: Commit) -> dict:
    blobs = call.flag("blobs")
    card = commit.files.get("README.md")
    text = hub.store.content(card.sha256).read_text(encoding="utf-8", errors="replace") if card else ""
    data = cards.front_matter(text)
    facts = {
        "author": repository.owner,
        "sha": commit.id,
        "lastModified": repository.commit("main").date,
        "createdAt": repository.created,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": views.tags(repository, data),
        "cardData": data,
        "siblings": [views.sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }
    if repository.kind == "model":
        facts |= {"modelId": repository.id, "library_name": data.get("library_name")}
        facts |= {"pipeline_tag": data.get("pipeline_tag"), "model-index": data.get("model-index"), "spaces": []}
        if call.flag("securityStatus"):
            facts["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    if repository.kind == "space":
        subdomain = repository.id.replace("/", "-").lower()
        facts |= {
            "sdk": data.get("sdk") or repository.sdk,
            "subdomain": subdomain,
            "runtime": views.runtime(repository),
        }
        facts |= {"models": data.get("models", []), "datasets": data.get("datasets", [])}
    if wanted := call.values("expand"):
        facts = {key: value for key, value in facts.items() if key in wanted}
    return {"_id": views.object_id(repository.kind + repository.id), "id": repository.id, **facts}
