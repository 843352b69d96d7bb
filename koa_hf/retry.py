"""Retries of Hub requests after transient failures.

huggingface_hub itself retries uploads and metadata requests, but not whoami, create_repo, commits, or downloads that
fail with an HTTP error or a connection reset.
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
    """Call until it succeeds, with a pause of so many `seconds` before each retry; returns its result.

    Raises the last attempt's error, and at once an error that a retry can't mend.
    """
    for pause in (*seconds, None):
        try:
            return call()
        except (HfHubHTTPError, httpx.TransportError) as error:
            # ConnectError: offline, so a retry would only delay the message.
            if pause is None or not may_pass(error) or isinstance(error, httpx.ConnectError):
                raise
            asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
            time.sleep(min(int(asked) if asked.isdigit() else pause, LONGEST_WAIT))
    raise AssertionError  # the last attempt returns or raises


def status_of(error: BaseException) -> int | None:
    """HTTP status code of an error's response; None without a response."""
    return getattr(getattr(error, "response", None), "status_code", None)


def may_pass(error: BaseException) -> bool:
    """True for transient failures: a broken connection, or a status in `STATUS`."""
    return isinstance(error, httpx.TransportError) or status_of(error) in STATUS
