"""The gradings of a film's knees as a DICOM structured report, for archives and programs that read them.

A Comprehensive SR after TID 1500 (Measurement Report), with a measurement group per knee: the knee joint and its
laterality, the Kellgren-Lawrence grade as a coded concept, the probability of each grade, and the model as algorithm.
DICOM's context groups have no code for Kellgren-Lawrence grades; those here are of a private coding scheme, `SCHEME`.
"""

import io
import warnings
from collections.abc import Sequence

import highdicom
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from koa_hf import __version__
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.result import Grading
from koa_hf.report.secondary_capture import SERIES_NUMBER, header_of, in_ascii

SCHEME = "99KOAHF"
KL_GRADE = sr.CodedConcept("KL", SCHEME, "Kellgren-Lawrence grade")
_LATERALITY = {"right": codes.SCT.Right, "left": codes.SCT.Left}
_FILLED_IN = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime")
_FILLED_IN += ("AccessionNumber", "ReferringPhysicianName")


def structured_report(source: bytes, gradings: Sequence[Grading]) -> bytes:
    """Make a DICOM SR object in the X-ray's study, in a series of its own.

    Args:
        source: the bytes of the DICOM file that was graded (`Radiograph.dicom`).
        gradings: of its knees, one or more.

    Returns:
        A DICOM file: Comprehensive SR, complete, not verified.

    Raises:
        KoaError: `source` is not DICOM, damaged, or lacks the UIDs needed to refer to it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's and highdicom's quote the patient
        xray = header_of(source, gradings[0].file, "SeriesInstanceUID")
        for keyword in _FILLED_IN:  # highdicom requires them to be there, if empty
            if keyword not in xray:
                setattr(xray, keyword, "" if keyword != "PatientID" else "unknown")
        observer = sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=highdicom.UID(), name=f"koa-hf {__version__}", manufacturer_name="koa-hf"
            ),
        )
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.SCT.PlainRadiography,
            imaging_measurements=[_of_one_knee(grading, xray) for grading in gradings],
            title=codes.DCM.ImagingMeasurementReport,
        )
        report = sr.ComprehensiveSR(
            evidence=[xray],
            content=content,
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="koa-hf",
            is_complete=True,
            series_description="KL grading, research use only",
        )
        file = io.BytesIO()
        report.save_as(file)
        return file.getvalue()


def _of_one_knee(grading: Grading, xray: Dataset) -> sr.MeasurementsAndQualitativeEvaluations:
    grade = sr.CodedConcept(f"KL{grading.grade}", SCHEME, f"Kellgren-Lawrence grade {grading.grade}")
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=highdicom.UID(), identifier=f"{grading.side} knee" if grading.side else "knee, side unknown"
        ),
        finding_type=KL_GRADE,
        finding_sites=[sr.FindingSite(codes.SCT.KneeJoint, laterality=_LATERALITY.get(grading.side or ""))],
        algorithm_id=sr.AlgorithmIdentification(
            name=in_ascii(grading.model)[-64:],
            version=in_ascii(grading.revision)[:64],
            parameters=[RESEARCH_USE_NOTICE, *map(in_ascii, grading.cautions)],
        ),
        measurements=[
            sr.Measurement(
                name=sr.CodedConcept(f"P{number.value}", SCHEME, f"Probability of KL {number.value}"),
                value=round(probability, 6),
                unit=codes.UCUM.NoUnits,
            )
            for number, probability in zip(GRADES, grading.probabilities, strict=True)
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(name=KL_GRADE, value=grade)],
        source_images=[sr.SourceImageForMeasurementGroup(xray.SOPClassUID, xray.SOPInstanceUID)],
    )
