"""Dynamic batching: concurrent requests share one forward pass.

A batch costs less per image than single X-rays, requests are served in the order they came, and a single thread
computes, so the numerical libraries keep their per-thread memory only once. Gradio's own batching (`batch=True`) is
weaker: it joins calls of one event only, and one unreadable X-ray fails everybody in the batch.
"""

import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from koa_hf.grading.result import Grading, KneeGrader
from koa_hf.imaging.radiograph import ImageSource

MAX_BATCH = 16
"""Images in one forward pass, unless one request has more."""


@dataclass(frozen=True)
class _Request:
    sources: list[ImageSource]
    answer: Future = field(default_factory=Future)


class DynamicBatcher:
    """Grades for many threads with one grader, in a daemon thread of its own."""

    def __init__(self, grader: KneeGrader, max_batch: int = MAX_BATCH):
        self._grader = grader
        self._max_batch = max_batch
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="grader", daemon=True).start()

    def grade_batch(self, radiographs: Iterable[ImageSource]) -> list[Grading]:
        """As `Grader.grade_batch`; blocks until the request is graded."""
        request = _Request(list(radiographs))
        self._waiting.put(request)
        return request.answer.result()

    def _work(self) -> None:
        first = self._waiting.get()
        while True:
            first = self._serve_with_others(first)
            # `first` no longer refers to the graded request here, so its X-rays are freed while this thread waits.
            first = first or self._waiting.get()

    def _serve_with_others(self, first: _Request) -> _Request | None:
        """Serve the waiting requests as one batch; returns the first that no longer fitted."""
        batch, images, left = [first], len(first.sources), None
        while left is None and not self._waiting.empty():
            following = self._waiting.get()  # never blocks: this thread is the only consumer
            images += len(following.sources)
            if images > self._max_batch:
                left = following
            else:
                batch.append(following)
        self._serve(batch)
        return left

    def _serve(self, batch: list[_Request]) -> None:
        sources = [source for request in batch for source in request.sources]
        try:
            gradings = iter(self._grader.grade_batch(sources))
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:  # one unreadable X-ray must not fail the others
                for request in batch:
                    self._serve([request])
            return
        for request in batch:
            request.answer.set_result([next(gradings) for _ in request.sources])
