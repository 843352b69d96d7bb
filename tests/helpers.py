"""Files, gradings and comparisons that several test modules make."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from koa_hf.grading.result import Grading
from koa_hf.imaging import radiograph


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these contents, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def dicom_of(pixels: np.ndarray, **attributes) -> bytes:
    """A drawn knee as a radiography machine would write it, with a patient in Cyrillic letters."""
    xray = Dataset()
    xray.file_meta = FileMetaDataset()
    xray.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    xray.SpecificCharacterSet = "ISO_IR 144"
    xray.SOPClassUID = DigitalXRayImageStorageForPresentation
    xray.SOPInstanceUID, xray.StudyInstanceUID, xray.SeriesInstanceUID = (generate_uid() for _ in range(3))
    xray.PatientName, xray.PatientID, xray.PatientBirthDate, xray.PatientSex = "Коленкин^Олег", "Ж-7", "19500102", "M"
    xray.StudyDate, xray.StudyTime, xray.StudyID, xray.AccessionNumber = "20200304", "050607", "S1", "A1"
    xray.Modality, xray.ImageLaterality = "DX", "R"
    xray.Rows, xray.Columns = pixels.shape
    xray.BitsAllocated, xray.BitsStored, xray.HighBit, xray.PixelRepresentation = 8, 8, 7, 0
    xray.SamplesPerPixel, xray.PhotometricInterpretation = 1, "MONOCHROME2"
    xray.PixelData = pixels.tobytes()
    xray["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(xray, keyword, value)
    file = io.BytesIO()
    xray.save_as(file, enforce_file_format=True)
    return file.getvalue()


def grading(**said) -> Grading:
    """A grading as a model with every rule makes it, KL 2, with what `said` changes."""
    values = {
        "file": "knee.png",
        "grade": 2,
        "name": "minimal",
        "probabilities": (0.1, 0.3, 0.5, 0.1, 0.0),
        "calibrated": True,
        "expected_grade": 1.6,
        "grade_set": (1, 2),
        "coverage": 0.9,
        "familiar": True,
        "unfamiliarity": 0.4,
        "inverted": False,
        "turned": False,
        "model": "m",
        "revision": "r",
        "seconds": 0.1,
        "heatmap": np.zeros((5, 4, 4), np.float32),
    }
    return Grading(**{**values, **said})


class Stub:
    """Grades everything KL 2."""

    model_id, revision, note = "stub", "0", ""

    def grade_batch(self, radiographs):
        read = [radiograph.read(one) for one in radiographs]
        return [
            grading(file=one.name, side=one.side, notes=one.notes, cautions=one.cautions, sha256=one.sha256)
            for one in read
        ]


SMALL = [
    *("--recipe", "phantom", "--cpu", "--precision", "fp32"),
    *("--set", "image_size=71", "--set", "batch_size=12", "--set", "best_metric=last"),
    *("--set", "stages.0.epochs=1", "--set", "stages.1.epochs=2", "--set", "stages.1.lr=3e-5"),
]
"""Options of a training that takes seconds: random weights and the least image size. Of 40 training images, batches of
12 leave a last one that is short and can't be shared out evenly; at the low rate, rounding differences do not grow."""


def history(run: Path) -> list[dict]:
    """Rows of a training run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row[split]["loss"] for row in history(run) for split in ("train", "validation")]


def assert_same_losses(one: Path, other: Path) -> None:
    """Two runs of `SMALL` went the same way up to rounding, each over all 40 training images in every epoch."""
    assert losses(other) == pytest.approx(losses(one), rel=1e-3)
    for expected, actual in zip(history(one), history(other), strict=True):
        assert actual["train"]["images"] == 40
        assert actual["validation"]["confusion_matrix"] == expected["validation"]["confusion_matrix"]
