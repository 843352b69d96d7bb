"""What visitors are looking at, in memory only and for a while: so that a report can still be made of it."""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from koa_hf.demo.batch import Row
from koa_hf.grading.examination import Examination


@dataclass(frozen=True)
class Visit:
    """One visitor's page: the X-ray on it, `drawn` if it is a phantom of ours, and the rows of the table."""

    examination: Examination | None = None
    drawn: bool = False
    rows: tuple[Row, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return (self.examination.film.size if self.examination else 0) + sum(len(row.data) for row in self.rows)


class Visits:
    """Visits by unguessable tokens, in memory. Thread-safe.

    Beyond `max_bytes`, those are forgotten that nobody looked at for longest; after `seconds`, all that are as old,
    once `expire` is called.
    """

    def __init__(self, max_bytes: int, seconds: float):
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._visits: OrderedDict[str, tuple[float, Visit]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, visit: Visit, instead_of: str | None = None) -> str:
        """Keep a visit, in the place of an earlier one, and return its token. It stays, however large it is."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._visits.pop(instead_of, None)
            self._visits[token] = time.monotonic(), visit
            while len(self._visits) > 1 and sum(kept.size for _, kept in self._visits.values()) > self.max_bytes:
                self._visits.popitem(last=False)
        return token

    def get(self, token: str | None) -> Visit:
        """The visit with a token; an empty one where it was forgotten."""
        with self._lock:
            if token not in self._visits:
                return Visit()
            self._visits.move_to_end(token)
            return self._visits[token][1]

    def forget(self, token: str | None) -> None:
        """Drop a visit; fine where there is none."""
        with self._lock:
            self._visits.pop(token, None)

    def expire(self) -> None:
        """Drop what is too old."""
        with self._lock:
            limit = time.monotonic() - self.seconds
            for token in [token for token, (kept_at, _) in self._visits.items() if kept_at < limit]:
                del self._visits[token]
