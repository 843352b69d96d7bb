"""Pictures to train and measure on that the release does not have.

composites  plausible films composed of the release's crops, with known boxes
not_knees   images that are no ordinary knee radiograph, by kind
"""

__all__ = ["composites", "not_knees"]
