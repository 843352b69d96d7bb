"""Readers' disagreements with the model, collected as a data set for `datasets.load_dataset`.

    knees = load_dataset("disagreements", split="train")   # the folder, or the Hub id that it is pushed to

Each disagreement is a small Parquet file of its own: concurrent ones can't damage each other, and none is rewritten.
Neither the X-ray's file name nor its patient data is kept, and the image only if the reader allowed it.
"""

import io
import uuid
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.files import replacing, write_text
from koa_hf.grades import GRADE_NAMES, NUM_GRADES
from koa_hf.grading.examination import GradedKnee

MAX_COMMENT = 2000  # characters
PUSH_MINUTES = 5

_CARD = """---
pretty_name: Readers' disagreements with a knee X-ray grading model
task_categories:
- image-classification
tags:
- medical
- x-ray
- knee
- kellgren-lawrence
configs:
- config_name: default
  data_files: data/*.parquet
---

# Readers' disagreements

Knees that a reader graded differently from the model, one row each, collected by the demo of koa-hf.

| column | meaning |
|---|---|
| `image` | the knee as it was read, before any inversion or rotation; null unless the reader allowed it |
| `reader_grade` | the reader's Kellgren-Lawrence grade, 0 to 4 |
| `comment` | the reader's comment; may be empty |
| `model_grade`, `probabilities` | the model's grade, and its probability of each |
| `model`, `revision` | the model and its version |
| `familiar`, `side`, `box`, `sha256`, `time` | as in the demo's JSON report; `sha256` is of the file |
"""


class Disagreements:
    """A data set in a folder, optionally pushed to the Hub every few minutes.

    Raises:
        KoaError: the folder can't be written, or the Hub repository can't be made.
    """

    def __init__(self, folder: Path, repo_id: str | None = None):
        # Imported here: it takes seconds, which only those who collect should wait.
        import datasets

        datasets.disable_progress_bars()
        label = datasets.ClassLabel(names=list(GRADE_NAMES))
        self._datasets = datasets
        self._features = datasets.Features(
            {
                "image": datasets.Image(),
                "reader_grade": label,
                "comment": datasets.Value("string"),
                "model_grade": label,
                "probabilities": datasets.List(datasets.Value("float32"), length=NUM_GRADES),
                "model": datasets.Value("string"),
                "revision": datasets.Value("string"),
                "familiar": datasets.Value("bool"),
                "side": datasets.Value("string"),
                "box": datasets.List(datasets.Value("int32")),
                "sha256": datasets.Value("string"),
                "time": datasets.Value("string"),
            }
        )
        self.folder = folder
        try:
            (folder / "data").mkdir(parents=True, exist_ok=True)
            if not (folder / "README.md").exists():
                write_text(folder / "README.md", _CARD)
        except OSError as error:
            raise KoaError(f"{folder} can't be written ({error.strerror or error}); name another folder.") from error
        self._scheduler = _scheduler(folder, repo_id) if repo_id else None

    def add(self, knee: GradedKnee, reader_grade: int, comment: str = "", with_image: bool = False) -> Path:
        """Record one disagreement; returns its file.

        Args:
            knee: the knee as the model graded it.
            reader_grade: 0 to 4.
            comment: at most `MAX_COMMENT` characters.
            with_image: keep the image too: the knee that was graded, not the film around it.

        Raises:
            KoaError: no such grade, a comment too long, or a full disk.
        """
        if reader_grade not in range(NUM_GRADES):
            raise KoaError(f"the reader's grade is {reader_grade!r}; choose one from KL 0 to {NUM_GRADES - 1}.")
        if len(comment) > MAX_COMMENT:
            raise KoaError(f"the comment has {len(comment)} characters; write at most {MAX_COMMENT}.")
        grading = knee.grading
        image = None
        if with_image:
            png = io.BytesIO()
            knee.radiograph.image.save(png, "PNG")
            image = {"bytes": png.getvalue(), "path": None}
        row = {
            "image": image,
            "reader_grade": reader_grade,
            "comment": comment.strip(),
            "model_grade": grading.grade,
            "probabilities": grading.probabilities,
            "model": grading.model,
            "revision": grading.revision,
            "familiar": grading.familiar,
            "side": grading.side,
            "box": grading.box,
            "sha256": grading.sha256,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        path = self.folder / "data" / f"{uuid.uuid4()}.parquet"
        dataset = self._datasets.Dataset.from_list([row], features=self._features)
        try:
            with self._no_push_meanwhile(), replacing(path) as partial:
                dataset.to_parquet(partial)
        except OSError as error:
            raise KoaError(f"your grade could not be recorded: {error.strerror or error}.") from error
        return path

    def close(self) -> None:
        """Push the files that haven't been pushed yet. If the Hub refuses, they stay for the next start."""
        if self._scheduler is None:
            return
        try:
            self._scheduler.trigger().result(timeout=30)
        except Exception as error:  # any network failure: the demo is ending, and must end
            print(f"the last disagreements could not be pushed ({error}); they stay in {self.folder}.", flush=True)
        self._scheduler.stop()

    def _no_push_meanwhile(self) -> AbstractContextManager:
        return self._scheduler.lock if self._scheduler else nullcontext()


def _scheduler(folder: Path, repo_id: str):
    from huggingface_hub import CommitScheduler

    try:
        return CommitScheduler(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            every=PUSH_MINUTES,
            private=True,
            allow_patterns=["README.md", "data/*.parquet"],
        )
    except Exception as error:  # of the HTTP client, of the Hub, of the token
        raise KoaError(
            f"{repo_id} can't be pushed to ({error}); check the name, run `hf auth login`, or leave the option out."
        ) from error
