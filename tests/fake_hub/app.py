"""The Hub's HTTP interface, as an ASGI application that answers on two ports: the Hub itself, and the storage host.

What the endpoints do is in repositories.py, reading.py, publishing.py and control.py.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.fake_hub import control, errors, publishing, reading, repositories  # noqa: F401 (they register their routes)
from tests.fake_hub.accounts import CALLERS, Caller, may_read
from tests.fake_hub.errors import HubError
from tests.fake_hub.faults import Fault, Faults
from tests.fake_hub.routing import Call, match
from tests.fake_hub.store import Repository, Store
from tests.fake_hub.wire import ConnectionCutError, Wire


class HubApp:
    """The application.

    Args:
        store: the repositories.
        faults: what is to go wrong.
        disconnect: closes a client's connection (address, port), by a reset or orderly.
    """

    def __init__(self, store: Store, faults: Faults, disconnect: Callable[[tuple, bool], None]):
        self.store = store
        self.faults = faults
        self.requests: list[dict] = []
        """Every request so far: endpoint name, method, path, status, account, range, user agent."""
        self.storage_url = ""
        self.storage_port = 0
        self.part_size: int | None = None
        """Bytes of a part where LFS uploads are to go in parts; None for one PUT a file."""
        self._disconnect = disconnect
        self._secret = secrets.token_bytes(16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw_path = scope["raw_path"].decode()
        host = "storage" if scope["server"][1] == self.storage_port else "hub"
        matched, parts = match(scope["method"], raw_path, host)
        name = matched.name if matched else "unknown"
        path = unquote(raw_path)
        record = {
            "endpoint": name,
            "method": scope["method"],
            "path": path,
            "status": None,
            "account": None,
            "range": request.headers.get("range"),
            "user_agent": request.headers.get("user-agent", ""),
        }
        self.requests.append(record)
        taken = {} if name == "control" else {f.effect: f for f in self.faults.take(name, scope["method"], path)}
        wire = Wire(receive, send, taken, request.headers, record, lambda reset: self._cut(scope, reset))
        try:
            if slow := taken.get("slow"):
                await asyncio.sleep(slow.seconds)
            try:
                if error := taken.get("error"):
                    raise _error(error)
                request = Request(scope, wire.receive)
                caller = None if host == "storage" else _caller(request)
                record["account"] = caller.account if caller else None
                endpoint = f"{scope['scheme']}://{request.headers['host']}"
                call = Call(request, caller, parts, endpoint, parse_qs(scope["query_string"].decode()))
                if matched is None:
                    raise HubError(404, "Sorry, we can't find the page you are looking for.")
                response = await matched.handler(self, call)
            except HubError as refusal:
                response = JSONResponse(refusal.body, refusal.status, refusal.headers)
            response.headers["X-Request-Id"] = request.headers.get("x-amzn-trace-id", secrets.token_hex(8))
            await response(scope, wire.receive, wire.send)
        except (ConnectionCutError, ClientDisconnect):
            pass

    def _cut(self, scope: Scope, reset: bool) -> None:
        self._disconnect(tuple(scope["client"]), reset)

    def repository(
        self,
        call: Call,
        kind: str | None = None,
        repository_id: str | None = None,
        *,
        write: bool = False,
        files: bool = False,
    ) -> Repository:
        """The repository a request names, if this caller may read it, change it (`write`), read its files (`files`).

        Raises:
            HubError: 401, 403 or 404 as the Hub would say it.
        """
        repository = self.store.repository(kind or call.kind, repository_id or call.parts["id"])
        if repository is None or not may_read(repository, call.caller):
            raise errors.repository_not_found(call.anonymous)
        if write:
            if call.caller is None:
                raise errors.repository_not_found(anonymous=True)
            if not call.caller.may_write(repository.owner):
                what = "a write token" if call.caller.account == repository.owner else "a token with access to it"
                raise errors.forbidden(f"You must use {what} to change {repository.id}")
        if files and repository.gated:
            account = call.caller.account if call.caller else None
            if account != repository.owner and account not in repository.granted:
                raise errors.gated(repository.id, call.anonymous)
        return repository

    def page(self, call: Call, items: list, limit: int, headers: dict[str, str] | None = None) -> Response:
        """One page of a list, with a Link header to the next."""
        start = int(call.query.get("cursor", ["0"])[0])
        headers = dict(headers or {})
        if start + limit < len(items):
            query = urlencode({**call.query, "cursor": [start + limit]}, doseq=True)
            address = call.endpoint + call.request.scope["raw_path"].decode()
            headers["Link"] = f'<{address}?{query}>; rel="next"'
        return JSONResponse(items[start : start + limit], headers=headers)

    def signed(self, method: str, what: str) -> str:
        """The query that lets its bearer do one thing at the storage host."""
        signature = hmac.new(self._secret, f"{method} {what}".encode(), hashlib.sha256).hexdigest()
        return urlencode({"X-Amz-Signature": signature})

    def check_signed(self, call: Call, method: str, what: str | None = None) -> None:
        if "authorization" in call.request.headers:
            raise HubError(400, "Only one auth mechanism allowed: a Hub token was sent to the storage host")
        given = call.query.get("X-Amz-Signature", [""])[0]
        if f"X-Amz-Signature={given}" != self.signed(method, what or call.parts["oid"]):
            raise HubError(403, "SignatureDoesNotMatch")


def _caller(request: Request) -> Caller | None:
    """The caller; None without a token.

    Raises:
        HubError: 401 for a token that doesn't exist.
    """
    if not (header := request.headers.get("authorization")):
        return None
    if (caller := CALLERS.get(header.removeprefix("Bearer ").strip())) is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return caller


def _error(fault: Fault) -> HubError:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    said = {429: "Too Many Requests", 500: "Internal Error - We're working hard to fix this as soon as possible!"}
    return HubError(fault.status, said.get(fault.status, "Service unavailable"), headers=headers)
