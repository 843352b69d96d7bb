"""From a radiograph to a calibrated grade with its prediction set and its evidence.

- `result`: `Grading`, the complete answer on one knee, and `KneeGrader`, the protocol of its makers
- `examination`: find the knees on a film and grade each
- `grader`: `Grader`, a model at work
- `rules`: grading.json, the steps between the network's logits and a grading
- `calibration`: temperature scaling, the grade read from probabilities, prediction sets
- `familiarity`: out-of-distribution detection by Mahalanobis distance
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
]
