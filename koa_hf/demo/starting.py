"""A grader that is still being loaded: importing torch and reading a model take seconds, and a page needs neither."""

import threading
from collections.abc import Iterable, Sequence

from koa_hf.demo.batcher import Together
from koa_hf.demo.quick_imports import quick_imports
from koa_hf.errors import KoaError
from koa_hf.grading.examination import examine
from koa_hf.grading.grader import Grader, Grading
from koa_hf.imaging.radiograph import ImageSource, Radiograph
from koa_hf.network.model_folder import ModelFolder


class StartingGrader:
    """What a page has to know of a `Grader`, at once; and its gradings, once it is loaded.

    Attributes:
        model_id, revision, note: as in `Grader`.
    """

    def __init__(self, found: ModelFolder):
        self.model_id, self.revision, self.note = found.model_id, found.revision, found.note
        self._found = found
        self._grader: Together | None = None
        self._ready = threading.Event()

    def load(self, device: str | None, precision: str, engine: str, first: Radiograph) -> Grader:
        """Load it and grade a first film; then everybody who waits for a grading goes on.

        Raises:
            KoaError: as `Grader.from_pretrained`.
        """
        try:
            with quick_imports():
                grader = Grader.load(self._found, device, precision, engine=engine)
            examine(grader, [first])  # the first forward pass is slow; let no visitor wait for it
            self._grader = Together(grader)
        finally:
            self._ready.set()
        return grader

    def grade_batch(
        self, sources: Iterable[ImageSource], again: Sequence[Sequence[ImageSource]] | None = None
    ) -> list[Grading]:
        """As `Grader.grade_batch`, after waiting for the grader, and together with whoever else waits.

        Raises:
            KoaError: one of them can't be read, or there is no grader, as its loading failed.
        """
        self._ready.wait()
        if self._grader is None:
            raise KoaError("the model could not be loaded; this demo is about to end.")
        return self._grader.grade_batch(sources, again)
