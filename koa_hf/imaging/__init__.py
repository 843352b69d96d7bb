"""Any image file to upright, bone-bright pixels, and the knees on it. Needs no torch.

- `radiograph`: image file, DICOM file, PIL image or array -> `Radiograph`
- `dicom`: DICOM bytes -> displayed greyscale pixels, laterality, view
- `archive`: the files in a zip, under limits
- `collimation`: removal of collimation borders, padding and screenshot frames
- `polarity`: bone bright or bone dark
- `orientation`: upright or upside down
- `hog`: histograms of oriented gradients
- `localiser`: knee localisation, and crops framed as in the release
- `phantom`: drawn knees with a known KL grade
"""

__all__ = [
    "archive",
    "collimation",
    "dicom",
    "hog",
    "localiser",
    "orientation",
    "phantom",
    "polarity",
    "radiograph",
]
