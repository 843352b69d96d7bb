"""The gradings of a film as a DICOM structured report, read back by highdicom, which checks TID 1500."""

import io

import numpy as np
import pydicom
import pytest
from highdicom import sr
from pydicom.sr.codedict import codes

from koa_hf.errors import KoaError
from koa_hf.grades import RESEARCH_USE_NOTICE
from koa_hf.imaging import phantom
from koa_hf.report.structured_report import KL_GRADE, structured_report
from tests.helpers import dicom_of, grading

GRADINGS = [
    grading(side="right", box=(0, 0, 90, 90), model="C:\\модель", cautions=("The file says lateral view.",)),
    grading(side=None, grade=4, name="severe", probabilities=(0.0, 0.05, 0.1, 0.2, 0.65)),
]


@pytest.fixture(scope="module")
def written() -> tuple[pydicom.Dataset, sr.ComprehensiveSR]:
    """A DICOM X-ray, and the report on two knees in it as highdicom reads it back."""
    source = dicom_of(phantom.draw_knee(2, seed=2))
    return pydicom.dcmread(io.BytesIO(source)), sr.srread(io.BytesIO(structured_report(source, GRADINGS)))


def test_it_lies_in_the_patients_study_and_refers_to_the_x_ray(written):
    xray, report = written
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert report[keyword].value == xray[keyword].value
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == xray.SOPInstanceUID


def test_each_knee_has_its_grade_its_probabilities_its_side_and_the_model(written):
    _, report = written
    assert isinstance(report.content, sr.MeasurementReport)
    groups = report.content.get_image_measurement_groups()
    for group, one in zip(groups, GRADINGS, strict=True):
        (evaluation,) = group.get_qualitative_evaluations(KL_GRADE)
        assert evaluation.value.meaning == f"Kellgren-Lawrence grade {one.grade}"
        assert [float(value.value) for value in group.get_measurements()] == pytest.approx(one.probabilities)
        (site,) = group.finding_sites
        assert site.value == codes.SCT.KneeJoint
        assert site.laterality == (codes.SCT.Right if one.side else None)
    said = report.to_json()
    for told in (RESEARCH_USE_NOTICE, "The file says lateral view.", "C:/??????"):
        assert told in said


def test_an_x_ray_without_patient_data_gets_one_and_one_without_its_series_is_refused():
    knee = phantom.draw_knee(2, seed=2)
    xray = pydicom.dcmread(io.BytesIO(dicom_of(knee)))
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyDate", "AccessionNumber"):
        delattr(xray, keyword)
    bare = io.BytesIO()
    xray.save_as(bare)
    assert sr.srread(io.BytesIO(structured_report(bare.getvalue(), GRADINGS))).PatientName == ""
    with pytest.raises(KoaError, match="has no SeriesInstanceUID"):
        structured_report(dicom_of(knee, SeriesInstanceUID=""), GRADINGS)
    with pytest.raises(KoaError, match="is not DICOM"):
        structured_report(np.zeros(400, np.uint8).tobytes(), GRADINGS)
