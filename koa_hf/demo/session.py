"""Visits: what each visitor is looking at, in memory only, so that reports can still be made of it.

`gr.State` holds a visit for its session and forgets it after `VISIT_SECONDS`.
"""

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field

from koa_hf.demo.batch import Row
from koa_hf.grading.examination import Examination
from koa_hf.imaging.adjustment import UNADJUSTED, Adjustment
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import Radiograph

VISIT_SECONDS = 3600
MAX_VISIT_BYTES = 1_000_000_000  # over all visitors


class Turns:
    """One visitor's requests in their order: whoever asks for something else no longer wants what came before."""

    def __init__(self) -> None:
        self.latest = 0

    def take(self) -> int:
        """Number of a new request, the latest from now on."""
        self.latest += 1
        return self.latest


@dataclass(eq=False)
class Visit:
    """One visitor's page.

    Attributes:
        examination: the X-ray shown and its knees; None before the first and once it was forgotten.
        found: the knees that were found on the X-ray, wherever its boxes are now.
        original: the X-ray as it was read; that of the examination is adjusted.
        adjustment: what the visitor did to it.
        drawn: the X-ray is one of our phantoms.
        rows: the table of a batch.
        in_progress: a batch is still being graded.
        turns: the visitor's requests.
    """

    examination: Examination | None = None
    found: tuple[KneeBox, ...] = ()
    original: Radiograph | None = None
    adjustment: Adjustment = UNADJUSTED
    drawn: bool = False
    rows: tuple[Row, ...] = ()
    in_progress: bool = False
    turns: Turns = field(default_factory=Turns)

    @property
    def size(self) -> int:
        """Memory in bytes."""
        films = {id(film): film.size for film in (self.examination and self.examination.film, self.original) if film}
        return sum(films.values()) + sum(len(row.data) for row in self.rows)

    def forget(self) -> None:
        """Free the memory of the visit; its session still refers to it."""
        self.examination, self.original, self.rows = None, None, ()


class VisitMemory:
    """Bound on the memory of all visits together, which `gr.State` lacks. Thread-safe.

    References are weak, because Gradio calls no `delete_callback` for the sessions beyond its `state_session_capacity`.
    """

    def __init__(self, max_bytes: int = MAX_VISIT_BYTES):
        self.max_bytes = max_bytes
        self._visits: OrderedDict[weakref.ref[Visit], None] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def use(self, visit: Visit, instead_of: Visit | None = None) -> Visit:
        """Mark a visit as the most recently used; it stays, however large it is.

        Beyond `max_bytes`, the visits that were unused for longest are forgotten. `instead_of` is one that it replaces,
        with which it may share data: no longer counted.
        """
        with self._lock:
            for moved in filter(None, (visit, instead_of)):
                self._visits.pop(weakref.ref(moved), None)
            self._visits[weakref.ref(visit)] = None
            alive = [kept for reference in self._visits if (kept := reference()) is not None and kept.size]
            self._visits = OrderedDict.fromkeys(map(weakref.ref, alive))
            total = sum(kept.size for kept in alive)
            for kept in alive:
                if total <= self.max_bytes or kept is visit:
                    break
                total -= kept.size
                kept.forget()
        return visit
