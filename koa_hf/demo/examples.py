"""X-rays that the page offers to try: drawings, or a folder of the person who runs the demo."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from koa_hf.errors import KoaError
from koa_hf.imaging import phantom, radiograph
from koa_hf.imaging.radiograph import Radiograph

MAX_EXAMPLES = 10


@dataclass(frozen=True)
class Examples:
    """(button text, X-ray) pairs; `drawn` if they are phantoms, not X-rays of people."""

    films: list[tuple[str, Radiograph]]
    drawn: bool


def drawn_examples() -> Examples:
    """Phantoms, called by what of the page they show; nothing is said of their grades, which mean nothing."""
    files = {
        "One knee": phantom.as_png(phantom.draw_knee(3, seed=3)),
        "Two knees": phantom.as_png(phantom.draw_film(right=3, left=1, seed=0)),
        "Negative": phantom.as_png(255 - phantom.draw_knee(1, seed=1)),
        "DICOM": _dicom(phantom.draw_knee(2, seed=2, side="left"), "L"),
    }
    return Examples([(name, radiograph.read(data, f"drawing: {name}")) for name, data in files.items()], drawn=True)


def _dicom(pixels: np.ndarray, laterality: str) -> bytes:
    """A drawing as an X-ray machine would send it."""
    xray = Dataset()
    xray.file_meta = FileMetaDataset()
    xray.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    xray.SOPClassUID = DigitalXRayImageStorageForPresentation
    xray.SOPInstanceUID, xray.StudyInstanceUID, xray.SeriesInstanceUID = (generate_uid() for _ in range(3))
    xray.PatientName, xray.PatientID = "Drawing", "0"
    xray.Modality, xray.ImageLaterality, xray.ViewPosition = "DX", laterality, "AP"
    xray.Rows, xray.Columns = pixels.shape
    xray.BitsAllocated, xray.BitsStored, xray.HighBit, xray.PixelRepresentation = 8, 8, 7, 0
    xray.SamplesPerPixel, xray.PhotometricInterpretation = 1, "MONOCHROME2"
    xray.PixelData = pixels.tobytes()
    xray["PixelData"].VR = "OB"
    file = io.BytesIO()
    xray.save_as(file, enforce_file_format=True)
    return file.getvalue()


def examples_in(folder: Path) -> Examples:
    """The first `MAX_EXAMPLES` X-rays of a folder, by name.

    Raises:
        KoaError: not a folder, without X-rays, or one of them can't be read.
    """
    if not folder.is_dir():
        raise KoaError(f"{folder} is not a folder; give --examples a folder of X-rays.")
    files = sorted(filter(radiograph.is_radiograph_file, folder.iterdir()))
    if not files:
        raise KoaError(f"{folder} holds no X-rays ({radiograph.FORMATS}).")
    return Examples([(file.stem, radiograph.read(file)) for file in files[:MAX_EXAMPLES]], drawn=False)
