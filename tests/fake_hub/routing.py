"""From a request to what answers it.

Routes are matched on the path as it was sent, since clients put a revision with slashes into one segment
(`refs%2Fpr%2F1`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from tests.fake_hub.accounts import Caller
from tests.fake_hub.errors import HubError

if TYPE_CHECKING:
    from tests.fake_hub.app import HubApp

PAGE = 1000
"""Entries of a listing on one page; 50 with `expand`."""

_PARTS = {
    "{kind}": "(?P<kind>model|dataset|space)s",
    "{prefix}": "(?P<prefix>datasets/|spaces/|)",
    "{id}": "(?P<id>[^/]+(?:/[^/]+)?)",
    "{revision}": "(?P<revision>[^/]+)",
    "{name}": "(?P<name>[^/]+)",
    "{path}": "(?P<path>.+)",
    "{oid}": "(?P<oid>[0-9a-f]{64})",
}


@dataclass
class Route:
    """An endpoint: how it is asked for, its name in faults and logs, and what answers."""

    methods: tuple[str, ...]
    pattern: re.Pattern
    name: str
    host: str
    literal: int
    """Characters outside placeholders. Where two routes match, the one with more of them is meant."""
    handler: Callable[[HubApp, Call], Awaitable[Response]]


@dataclass
class Call:
    """One request, as the handlers see it."""

    request: Request
    caller: Caller | None
    parts: dict[str, str]
    endpoint: str
    """The address that the client used, without a path."""
    query: dict[str, list[str]] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        return self.caller is None

    @property
    def kind(self) -> str:
        if "kind" in self.parts:
            return self.parts["kind"]
        return {"": "model", "datasets/": "dataset", "spaces/": "space"}[self.parts["prefix"]]

    @property
    def revision(self) -> str:
        return self.parts.get("revision") or "main"

    def flag(self, name: str) -> bool:
        """A switch in the query, in any of the ways that clients write it."""
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")

    def values(self, name: str) -> list[str]:
        """A list in the query: `name=a&name=b` or `name[]=a`."""
        return self.query.get(name, []) + self.query.get(f"{name}[]", [])

    async def json(self) -> dict:
        """The body.

        Raises:
            HubError: 400 where it isn't a JSON object.
        """
        try:
            value = json.loads(await self.request.body())
        except ValueError:
            raise HubError(400, "Invalid JSON body") from None
        if not isinstance(value, dict):
            raise HubError(400, "The body must be a JSON object")
        return value


ROUTES: list[Route] = []


def route(methods: str, path: str, name: str, host: str = "hub"):
    """Register a handler for a path with the placeholders of `_PARTS`."""
    pattern = re.sub(r"\{\w+\}", lambda part: _PARTS[part[0]], path)

    literal = len(re.sub(r"\{\w+\}|\(\?:.*?\)\?", "", path))

    def register(handler):
        ROUTES.append(Route(tuple(methods.split()), re.compile(pattern), name, host, literal, handler))
        ROUTES.sort(key=lambda route: -route.literal)
        return handler

    return register


def match(method: str, path: str, host: str) -> tuple[Route | None, dict[str, str]]:
    for candidate in ROUTES:
        if candidate.host == host and method in candidate.methods and (match := candidate.pattern.fullmatch(path)):
            return candidate, {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
    return None, {}
