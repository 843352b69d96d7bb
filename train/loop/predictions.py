"""predictions.csv: a model's predictions for each knee of a split."""

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
_SMALLEST = 1e-6  # probability, since the file has five decimals
_PROBABILITY_COLUMNS = [f"p{grade}" for grade in range(NUM_GRADES)]


@dataclass(frozen=True)
class Predictions:
    """Predictions for n knees, in the split's order.

    Attributes:
        grades: int (n,), the reader's.
        predicted: int (n,), by the model's rules.
        probabilities: float64 (n, 5).
        unfamiliarity: float (n,), out of distribution over 1; None where the model can't tell.
    """

    file_names: list[str]
    grades: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    unfamiliarity: np.ndarray | None = None

    @property
    def patients(self) -> np.ndarray:
        return np.array([patient_of(name) for name in self.file_names])

    @property
    def logits(self) -> np.ndarray:
        """Logarithms of the probabilities, float64 (n, 5): the network's logits up to temperature and a constant."""
        return np.log(np.maximum(self.probabilities, _SMALLEST))

    def write(self, folder: Path) -> None:
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        last = [] if self.unfamiliarity is None else ["unfamiliarity"]
        writer.writerow(["file_name", "grade", "predicted", *_PROBABILITY_COLUMNS, *last])
        for i, name in enumerate(self.file_names):
            probabilities = [f"{p:.5f}" for p in self.probabilities[i]]
            distance = [f"{self.unfamiliarity[i]:.4f}"] if last else []
            writer.writerow([name, self.grades[i], self.predicted[i], *probabilities, *distance])
        write_text(folder / FILE, rows.getvalue())

    @classmethod
    def read(cls, folder: Path) -> "Predictions":
        """Read from a folder that `train/run.py`, `train/validate.py` or `train/bundle.py` wrote.

        Raises:
            KoaError: the file is missing or damaged.
        """
        try:
            with (folder / FILE).open(newline="") as opened:
                rows = list(csv.DictReader(opened))
            probabilities = np.array([[float(row[name]) for name in _PROBABILITY_COLUMNS] for row in rows])
            return cls(
                [row["file_name"] for row in rows],
                np.array([int(row["grade"]) for row in rows]),
                np.array([int(row["predicted"]) for row in rows]),
                probabilities / probabilities.sum(1, keepdims=True),  # rounded in the file
                np.array([float(row["unfamiliarity"]) for row in rows]) if "unfamiliarity" in rows[0] else None,
            )
        except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise KoaError(f"{folder} has no valid {FILE}; run train/validate.py first.") from error

    @classmethod
    def of_the_same_knees(cls, folders: Sequence[Path]) -> "list[Predictions]":
        """Predictions of several models on one split.

        Raises:
            KoaError: as `read`, or the files are of different knees.
        """
        found = [cls.read(folder) for folder in folders]
        for folder, one in zip(folders, found, strict=True):
            if one.file_names != found[0].file_names:
                raise KoaError(
                    f"{folder} and {folders[0]} have predictions for different X-rays; compare models on one split."
                )
        return found
