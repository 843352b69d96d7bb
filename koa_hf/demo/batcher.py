"""Dynamic batching: concurrent requests share one forward pass.

A batch costs less per image than single X-rays, requests are served in the order they came, and a single thread
computes, so the numerical libraries keep their per-thread memory only once. Gradio's own batching (`batch=True`) is
weaker: it joins calls of one event only, and one unreadable X-ray fails everybody in the batch.
"""

import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from koa_hf.grading.result import Grading, KneeGrader
from koa_hf.imaging.radiograph import ImageSource

MAX_BATCH = 16
"""Images in one forward pass, unless one request has more. A knee on a film counts as three (extra crops)."""


@dataclass(frozen=True)
class _Request:
    sources: list[ImageSource]
    extra_crops: list[list[ImageSource]]  # one list per source
    answer: Future = field(default_factory=Future)

    @property
    def images(self) -> int:
        return len(self.sources) + sum(map(len, self.extra_crops))


class DynamicBatcher:
    """Grades for many threads with one grader, in a daemon thread of its own."""

    def __init__(self, grader: KneeGrader, max_batch: int = MAX_BATCH):
        self._grader = grader
        self._max_batch = max_batch
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="grader", daemon=True).start()

    def grade_batch(
        self, radiographs: Iterable[ImageSource], extra_crops: Sequence[Sequence[ImageSource]] | None = None
    ) -> list[Grading]:
        """As `Grader.grade_batch`; blocks until the request is graded."""
        sources = list(radiographs)
        crops = [list(one) for one in extra_crops or ()]
        crops += [[] for _ in sources[len(crops) :]]
        request = _Request(sources, crops[: len(sources)])
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
        batch, images, left = [first], first.images, None
        while left is None and not self._waiting.empty():
            following = self._waiting.get()  # never blocks: this thread is the only consumer
            images += following.images
            if images > self._max_batch:
                left = following
            else:
                batch.append(following)
        self._serve(batch)
        return left

    def _serve(self, batch: list[_Request]) -> None:
        sources = [source for request in batch for source in request.sources]
        extra_crops = [crops for request in batch for crops in request.extra_crops]
        try:
            gradings = iter(self._grader.grade_batch(sources, extra_crops))
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:  # one unreadable X-ray must not fail the others
                for request in batch:
                    self._serve([request])
            return
        for request in batch:
            request.answer.set_result([next(gradings) for _ in request.sources])
