"""Asking the Hub again where it was busy or broken, or the connection was.

huggingface_hub repeats uploads and requests for metadata by itself; not whoami, the creation of a repository, a commit,
or a download that is answered by an error or cut by a reset.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

STATUS = (429, 500, 502, 503, 504)
SECONDS = (1, 3, 8)
LONGEST_WAIT = 60  # seconds, whatever the Hub's Retry-After asks for

T = TypeVar("T")


def retried(call: Callable[[], T], seconds: tuple[int, ...] = SECONDS) -> T:
    """What `call` returns, at the first attempt or, after so many `seconds` each, at a later one."""
    for pause in (*seconds, None):
        try:
            return call()
        except (HfHubHTTPError, httpx.TransportError) as error:
            # No connection at all is no hiccup.
            if pause is None or not may_pass(error) or isinstance(error, httpx.ConnectError):
                raise
            asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
            time.sleep(min(int(asked) if asked.isdigit() else pause, LONGEST_WAIT))
    raise AssertionError  # the last attempt returns or raises


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for."""
    return getattr(getattr(error, "response", None), "status_code", None)


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the Hub or the connection failed, rather than refused."""
    return isinstance(error, httpx.TransportError) or status_of(error) in STATUS
