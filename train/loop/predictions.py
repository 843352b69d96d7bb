"""predictions.csv: what a model said of each knee of a split."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koa_hf.data.release import patient_of
from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES

FILE = "predictions.csv"
_LEAST = 1e-6  # probabilities are kept with five digits
_CHANCES = [f"p{grade}" for grade in range(NUM_GRADES)]


@dataclass(frozen=True)
class Predictions:
    """One row a knee, in the split's order."""

    file_names: list[str]
    grades: np.ndarray  # int (n,), the reader's
    predicted: np.ndarray  # int (n,), by the model's rules
    probabilities: np.ndarray  # float64 (n, 5)
    unfamiliarity: np.ndarray | None = None  # float (n,), over 1 is unfamiliar

    @property
    def patients(self) -> np.ndarray:
        return np.array([patient_of(name) for name in self.file_names])

    @property
    def logits(self) -> np.ndarray:
        """float64 (n, 5): logarithms of the probabilities, which are the network's logits over its own temperature."""
        return np.log(np.maximum(self.probabilities, _LEAST))

    def write(self, folder: Path) -> None:
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        last = [] if self.unfamiliarity is None else ["unfamiliarity"]
        writer.writerow(["file_name", "grade", "predicted", *_CHANCES, *last])
        for i, name in enumerate(self.file_names):
            chances = [f"{p:.5f}" for p in self.probabilities[i]]
            distance = [f"{self.unfamiliarity[i]:.4f}"] if last else []
            writer.writerow([name, self.grades[i], self.predicted[i], *chances, *distance])
        write_text(folder / FILE, rows.getvalue())

    @classmethod
    def read(cls, folder: Path) -> "Predictions":
        """From a folder that `train/run.py`, `train/validate.py` or `train/bundle.py` wrote.

        Raises:
            KoaError: there is no predictions.csv, or it isn't one.
        """
        try:
            with (folder / FILE).open(newline="") as opened:
                rows = list(csv.DictReader(opened))
            probabilities = np.array([[float(row[name]) for name in _CHANCES] for row in rows])
            return cls(
                [row["file_name"] for row in rows],
                np.array([int(row["grade"]) for row in rows]),
                np.array([int(row["predicted"]) for row in rows]),
                probabilities / probabilities.sum(1, keepdims=True),  # they were rounded
                np.array([float(row["unfamiliarity"]) for row in rows]) if "unfamiliarity" in rows[0] else None,
            )
        except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise KoaError(f"{folder} has no {FILE} of train/validate.py; run that first.") from error

    @classmethod
    def of_the_same_knees(cls, folders: Sequence[Path]) -> "list[Predictions]":
        """What several models said of one split.

        Raises:
            KoaError: as `read`, or they are about different knees.
        """
        found = [cls.read(folder) for folder in folders]
        for folder, one in zip(folders, found, strict=True):
            if one.file_names != found[0].file_names:
                raise KoaError(f"{folder} is not about the same X-rays as {folders[0]}.")
        return found
