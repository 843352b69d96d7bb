"""The faults that strike bodies on their way in and out."""

import contextlib
from collections.abc import Callable

from tests.fake_hub.faults import Fault


class ConnectionCutError(Exception):
    """The connection was cut on purpose; nobody is there to answer any more."""


class Wire:
    """A request's `receive` and `send`, with the faults that strike bodies on their way."""

    def __init__(self, receive, send, taken: dict[str, Fault], headers, record: dict, cut: Callable[[bool], None]):
        self._receive, self._send, self._cut = receive, send, cut
        self._taken, self._record = taken, record
        self._incoming = int(headers.get("content-length", 0))
        self._received = self._sent = self._outgoing = 0

    async def receive(self) -> dict:
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        body = message.get("body", b"")
        self._received += len(body)
        if fault := self._taken.get("cut_upload"):
            if self._received >= _limit(fault, self._incoming) or not message.get("more_body"):
                self._cut(fault.reset)
                raise ConnectionCutError
        elif "corrupt" in self._taken and self._incoming and body and self._record["method"] in ("PUT", "POST"):
            del self._taken["corrupt"]
            message = {**message, "body": bytes([body[0] ^ 0xFF]) + body[1:]}
        return message

    async def send(self, message: dict) -> None:
        if message["type"] == "http.response.start":
            self._record["status"] = message["status"]
            self._outgoing = int(dict(message["headers"]).get(b"content-length", 0))
            if (fault := self._taken.get("cut")) and _limit(fault, self._outgoing) == 0:
                self._cut(fault.reset)
                raise ConnectionCutError
            await self._send(message)
            return
        body = message.get("body", b"")
        if fault := self._taken.get("cut"):
            limit = _limit(fault, self._outgoing)
            if self._sent + len(body) > limit or not message.get("more_body"):
                with contextlib.suppress(OSError):
                    await self._send({**message, "body": body[: max(limit - self._sent, 0)], "more_body": True})
                self._cut(fault.reset)
                raise ConnectionCutError
        elif "corrupt" in self._taken and body:
            at = self._outgoing // 2 - self._sent
            if 0 <= at < len(body):
                del self._taken["corrupt"]
                body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        self._sent += len(body)
        await self._send({**message, "body": body})


def _limit(fault: Fault, length: int) -> int:
    return int(fault.after * length) if isinstance(fault.after, float) else fault.after
