"""A grader that loads in the background: importing torch and reading a model take seconds, the page needs neither."""

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from koa_hf.demo.batcher import DynamicBatcher
from koa_hf.errors import KoaError
from koa_hf.grading.examination import examine
from koa_hf.grading.result import Grading
from koa_hf.imaging.radiograph import ImageSource, Radiograph
from koa_hf.network.model_folder import ModelFolder

if TYPE_CHECKING:
    from koa_hf.grading.grader import Grader


ON_ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
"""True on a Space whose GPU is lent for single calls (https://huggingface.co/docs/hub/spaces-zerogpu)."""

GPU_SECONDS = 15  # asked for at each call; a visitor's daily quota pays for what is used


class StartingGrader:
    """A `Grader` whose description is known at once, and whose gradings wait until it is loaded.

    Attributes:
        model_id, revision, note: as in `Grader`.
    """

    def __init__(self, found: ModelFolder):
        self.model_id, self.revision, self.note = found.model_id, found.revision, found.note
        self._found = found
        self._grade_batch: Callable[..., list[Grading]] | None = None
        self._ready = threading.Event()

    def load(self, device: str | None, precision: str, engine: str, warm_up: Radiograph) -> "Grader":
        """Load the model, grade one film to warm it up, then serve the requests that wait.

        On ZeroGPU, this must be called before the page is launched, in the same thread: the GPU is only emulated there,
        and the launch takes the weights out of memory. The GPU is then lent to each call of `grade_batch` in a process
        of its own, so there is nothing to warm up, and dynamic batching would hide who asks for it.

        Raises:
            KoaError: as `Grader.from_pretrained`.
        """
        try:
            if ON_ZERO_GPU:
                import spaces  # before torch
            # Imported here: the page is served while torch is being imported.
            from koa_hf.grading.grader import Grader

            grader = Grader.load(self._found, device, precision, engine=engine)
            if ON_ZERO_GPU:
                self._grade_batch = spaces.GPU(grader.grade_batch, duration=GPU_SECONDS)
            else:
                examine(grader, [warm_up])  # the first forward pass is slow; no visitor should wait for it
                self._grade_batch = DynamicBatcher(grader).grade_batch
        finally:
            self._ready.set()
        return grader

    def grade_batch(self, radiographs: Iterable[ImageSource]) -> list[Grading]:
        """As `Grader.grade_batch`, once the model is loaded, batched with concurrent requests.

        Raises:
            KoaError: an image can't be read, or the model could not be loaded.
        """
        self._ready.wait()
        if self._grade_batch is None:
            raise KoaError("the model could not be loaded; this demo is about to end.")
        return self._grade_batch(radiographs)
