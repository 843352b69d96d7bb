"""A grading to keep: as JSON, CSV, PDF or DICOM.

- `document`: `Report`, one graded knee with its film and time; JSON
- `pdf_page`: the report as one A4 page, PDF or picture
- `secondary_capture`: that page as a DICOM object in the study of its X-ray
- `structured_report`: the gradings of a film's knees as a DICOM structured report
- `evidence`: the heat maps of a film's knees as one picture
- `csv_table`: many gradings as a CSV file
"""

__all__ = ["csv_table", "document", "evidence", "pdf_page", "secondary_capture", "structured_report"]
