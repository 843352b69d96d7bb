"""What several threads ask for at the same time is graded in one forward pass, by one thread.

A batch takes less time an image than single X-rays do, whoever has waited longest comes first, and the memory that
numerical libraries keep for every thread which they compute in is kept once.
"""

import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from koa_hf.grading.grader import Grader, Grading
from koa_hf.imaging.radiograph import ImageSource

MOST = 16
"""Images in one forward pass, unless somebody asks for more at once; a knee on a film is graded in three cuts."""


@dataclass(frozen=True)
class _Asked:
    sources: list[ImageSource]
    again: list[list[ImageSource]]  # as many
    answer: Future = field(default_factory=Future)

    @property
    def images(self) -> int:
        return len(self.sources) + sum(map(len, self.again))


class Together:
    """Grades for many threads with one grader. It lives as long as the process does."""

    def __init__(self, grader: Grader, most: int = MOST):
        self._grader = grader
        self._most = most
        self._waiting: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="grader", daemon=True).start()

    def grade_batch(
        self, sources: Iterable[ImageSource], again: Sequence[Sequence[ImageSource]] | None = None
    ) -> list[Grading]:
        """As `Grader.grade_batch`."""
        sources = list(sources)
        others = [list(cuts) for cuts in again or ()]
        others += [[] for _ in sources[len(others) :]]
        asked = _Asked(sources, others[: len(sources)])
        self._waiting.put(asked)
        return asked.answer.result()

    def _work(self) -> None:
        first = self._waiting.get()
        while True:
            first = self._answer_with_others(first)
            # What was graded is let go of before anybody else is waited for.
            first = first or self._waiting.get()

    def _answer_with_others(self, first: _Asked) -> _Asked | None:
        """Answer what waits, and return what no longer fitted."""
        together, images, left = [first], first.images, None
        while left is None and not self._waiting.empty():
            following = self._waiting.get()  # nobody else takes from it
            images += following.images
            if images > self._most:
                left = following
            else:
                together.append(following)
        self._answer(together)
        return left

    def _answer(self, together: list[_Asked]) -> None:
        sources = [source for asked in together for source in asked.sources]
        again = [cuts for asked in together for cuts in asked.again]
        try:
            gradings = iter(self._grader.grade_batch(sources, again))
        except Exception as error:
            if len(together) == 1:
                together[0].answer.set_exception(error)
            else:  # an X-ray that can't be read is the fault of one of them
                for asked in together:
                    self._answer([asked])
            return
        for asked in together:
            asked.answer.set_result([next(gradings) for _ in asked.sources])
