"""The Kellgren-Lawrence (KL) scale: grades, names and definitions.

Kellgren JH, Lawrence JS. Radiological assessment of osteo-arthrosis. Ann Rheum Dis 1957;16:494-502.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grade:
    """One KL grade. `value` is 0 to 4 and is also the class index of every model and data set here."""

    value: int
    name: str
    definition: str


GRADES = (
    Grade(0, "none", "No radiographic feature of osteoarthritis."),
    Grade(1, "doubtful", "Doubtful narrowing of the joint space and possible osteophytic lipping."),
    Grade(2, "minimal", "Definite osteophytes and possible narrowing of the joint space."),
    Grade(
        3,
        "moderate",
        "Multiple moderate osteophytes, definite narrowing of the joint space, some sclerosis "
        "and possible deformity of the bone ends.",
    ),
    Grade(
        4,
        "severe",
        "Large osteophytes, marked narrowing of the joint space, severe sclerosis "
        "and definite deformity of the bone ends.",
    ),
)

GRADE_NAMES = tuple(grade.name for grade in GRADES)
NUM_GRADES = len(GRADES)

RESEARCH_USE_NOTICE = (
    "Research software, not a medical device: it must not be used to diagnose or to decide about treatment."
)
