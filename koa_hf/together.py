"""What several threads ask for at the same time is graded in one forward pass, by one thread.

A batch takes less time an image than single X-rays do, whoever has waited longest comes first, and the memory that
numerical libraries keep for every thread which they compute in is kept once.
"""

import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from koa_hf.grader import Grader, Grading
from koa_hf.radiograph import ImageSource

MOST = 16
"""X-rays in one forward pass, unless somebody asks for more at once."""


@dataclass(frozen=True)
class _Asked:
    sources: list[ImageSource]
    again: list[Sequence[ImageSource]]  # as many
    answer: Future = field(default_factory=Future)


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
        asked = _Asked(sources, list(again or [()] * len(sources)))
        self._waiting.put(asked)
        return asked.answer.result()

    def _work(self) -> None:
        following = None
        while True:
            together = [following or self._waiting.get()]
            images, following = _images(together[0]), None
            while not self._waiting.empty():
                following = self._waiting.get()  # nobody else takes from it
                images += _images(following)
                if images > self._most:
                    break  # it comes first next time
                together.append(following)
                following = None
            self._answer(together)

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


def _images(asked: _Asked) -> int:
    return len(asked.sources) + sum(map(len, asked.again))
