"""A grading as a DICOM secondary capture, next to the X-ray in any viewer or archive.

The capture is the report's page with everything burned in: every viewer shows it, and nobody can separate the grade
from the notice. For programs there is `koa_hf.report.structured_report`, which few viewers show.
"""

import io
import warnings

import highdicom
import numpy as np
import pydicom
from highdicom.sc import SCImage
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from koa_hf import __version__
from koa_hf.errors import KoaError
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading
from koa_hf.imaging import dicom

# Archives file an object by these, so they are copied unchanged, with the character set that they are written in. The
# last three state lossy compression of the X-ray, which holds for anything derived from it.
COPIED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
FOUND_BY = ("StudyInstanceUID", "SOPClassUID", "SOPInstanceUID")
SERIES_NUMBER = 9000  # far from the numbers that X-ray machines assign


def secondary_capture(source: bytes, grading: Grading, image: Image.Image) -> bytes:
    """Make a DICOM object in the X-ray's study, in a series of its own.

    Args:
        source: the bytes of the DICOM file that was graded (`Radiograph.dicom`).
        grading: of that file.
        image: the page, e.g. `pdf_page.picture(report)`; it must show the grade and the research-use notice.

    Returns:
        A DICOM file: Secondary Capture Image, RGB, 8 bit, uncompressed, with new series and instance UIDs.

    Raises:
        KoaError: `source` is not DICOM, damaged, or lacks the UIDs needed to refer to it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's and highdicom's quote the patient
        return _secondary_capture(header_of(source, grading.file), grading, image)


def header_of(source: bytes, name: str, *required: str) -> Dataset:
    """The elements of an X-ray that place it in its study, and others by their keywords.

    Raises:
        KoaError: `source` is not DICOM, damaged, or lacks the UIDs needed to refer to it, or another required element.
    """
    if not dicom.is_dicom(source):
        raise KoaError(f"{name} is not DICOM, so it has no study for a DICOM report; write a PDF.")
    required = (*FOUND_BY, *required)
    keywords = [*COPIED, *required]
    try:
        # force: some files lack the preamble.
        header = pydicom.dcmread(io.BytesIO(source), stop_before_pixels=True, force=True, specific_tags=keywords)
        header.decode()
    except Exception:  # many kinds, whose messages quote the file
        header = None
    if header is None:
        raise KoaError(f"{name} is a damaged or truncated DICOM file; export it again.")
    for keyword in required:
        if not header.get(keyword):
            raise KoaError(f"{name} has no {keyword}, so a DICOM report can't refer to it; write a PDF.")
    return header


def _secondary_capture(xray: Dataset, grading: Grading, image: Image.Image) -> bytes:
    model = in_ascii(grading.model)[-64:]  # the longest that DICOM allows
    doubt = "Not certain: unlike the training knees. " if grading.familiar is False else ""
    capture = SCImage(
        pixel_array=np.asarray(image.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # required here, removed below
        study_instance_uid=xray.StudyInstanceUID,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        series_description="KL grading, research use only",
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="koa-hf",
        manufacturer_model_name=model,
        software_versions=f"koa-hf {__version__}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for keyword in COPIED:
        if keyword in xray:
            capture[keyword] = xray[keyword]
    capture.Laterality = {"right": "R", "left": "L"}.get(grading.side or "")
    capture.BodyPartExamined = "KNEE"
    capture.AnatomicRegionSequence = [highdicom.sr.CodedConcept(*codes.SCT.Knee)]
    capture.PatientOrientation = None  # a page has none
    capture.ConversionType = "WSD"  # workstation
    capture.BurnedInAnnotation = "YES"
    edges = " ".join(map(str, grading.box or ()))
    what = [
        f"{doubt}KL {grading.grade} ({grading.name})",
        f"{grading.side} knee" if grading.side else "side unknown",
        f"box {edges} (left top right bottom, pixels)" if grading.box else "the whole image",
        f"by {model}, version {in_ascii(grading.revision)[:64]}",
    ]
    capture.DerivationDescription = f"{', '.join(what)}. {RESEARCH_USE_NOTICE}"
    capture.ImageComments = RESEARCH_USE_NOTICE
    reference = Dataset()
    reference.ReferencedSOPClassUID = xray.SOPClassUID
    reference.ReferencedSOPInstanceUID = xray.SOPInstanceUID
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    reference.PurposeOfReferenceCodeSequence = [highdicom.sr.CodedConcept(*purpose)]
    capture.SourceImageSequence = [reference]

    file = io.BytesIO()
    capture.save_as(file)
    return file.getvalue()


def in_ascii(text: str) -> str:
    """Text in ASCII, which every character set includes; a backslash would separate two values."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")
