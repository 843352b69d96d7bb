"""The claim made to people: from a radiograph to a calibrated grade with its range and its evidence.

- `result`: `Grading`, all that is told of one knee, and the protocol of what grades
- `examination`: find the knees on a film and grade each
- `grader`: `Grader`, a model at work
- `rules`: grading.json, the steps between the network's logits and a grading
- `calibration`: temperature scaling, the grade read from probabilities, prediction sets
- `familiarity`: out-of-distribution detection by Mahalanobis distance
- `small_knees`: correction for knees with fewer pixels than the training crops
- `heatmap`: class activation maps as pictures
- `metrics`: agreement with readers, with bootstrap intervals
"""

__all__ = [
    "calibration",
    "examination",
    "familiarity",
    "grader",
    "heatmap",
    "metrics",
    "result",
    "rules",
    "small_knees",
]
