"""A grading as a DICOM secondary capture, to be read beside the X-ray in any viewer or archive.

The capture is the report's page with grade, notice and all burned in: what every viewer shows, and nobody can separate
from the notice. A structured report would be shown by few, and neither DICOM nor the codes that come with pydicom
have a code for Kellgren-Lawrence grades, so no other program could tell what it says; `Report.json` is for programs.
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

# An archive files an object by these, so they are taken over as they stand, with the character set they are written
# in. The last three say that the X-ray has been compressed with loss, which stays true of what is made from it.
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
SERIES_NUMBER = 9000  # far from those that an X-ray machine gives


def secondary_capture(source: bytes, grading: Grading, image: Image.Image) -> bytes:
    """A new DICOM object in the X-ray's study, in a series of its own.

    Args:
        source: the bytes of the DICOM file that was graded (`Radiograph.dicom`).
        grading: of that file.
        image: what to show, e.g. `pdf_page.picture(report)`; grade and research-use notice have to be in it.

    Returns:
        A DICOM file: Secondary Capture Image, RGB, 8 bit, uncompressed, with new series and instance UIDs.

    Raises:
        KoaError: `source` is not DICOM, damaged, or lacks the UIDs by which it is found again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's and highdicom's quote the patient
        return _secondary_capture(_header(source, grading.file), grading, image)


def _header(source: bytes, name: str) -> Dataset:
    """Of an X-ray, what says where it belongs."""
    if not dicom.is_dicom(source):
        raise KoaError(f"{name} is not DICOM, and only a DICOM X-ray has a study to report into; write a PDF.")
    keywords = [*COPIED, *FOUND_BY, "Laterality", "ImageLaterality"]
    try:
        # force: some come without the preamble.
        header = pydicom.dcmread(io.BytesIO(source), stop_before_pixels=True, force=True, specific_tags=keywords)
        header.decode()
    except Exception:  # of many kinds, and quoting the file
        header = None
    if header is None:
        raise KoaError(f"{name} is a damaged DICOM file, or was cut short; export it again.")
    for keyword in FOUND_BY:
        if not header.get(keyword):
            raise KoaError(f"{name} has no {keyword}, so no DICOM report can refer to it; write a PDF.")
    return header


def _secondary_capture(xray: Dataset, grading: Grading, image: Image.Image) -> bytes:
    model = _ascii(grading.model)[-64:]  # as long as DICOM lets it be
    doubt = "Not certain: unlike the training knees. " if grading.familiar is False else ""
    capture = SCImage(
        pixel_array=np.asarray(image.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # demanded, and taken out again below
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
    side = xray.get("Laterality") or xray.get("ImageLaterality")
    capture.Laterality = side if side in ("L", "R") else None
    capture.PatientOrientation = None  # of a page
    capture.ConversionType = "WSD"  # made by a workstation
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = (
        f"{doubt}KL {grading.grade} ({grading.name}) by {model}, version {_ascii(grading.revision)[:64]}. "
        f"{RESEARCH_USE_NOTICE}"
    )
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


def _ascii(text: str) -> str:
    """What any character set holds; a backslash would part two values."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")
