"""Any image file to upright, bone-bright pixels, and the knees on it. Needs no torch.

- `radiograph`: image file, DICOM file, PIL image or array -> `Radiograph`
- `dicom`: DICOM bytes -> displayed greyscale pixels, laterality, view
- `archive`: the files in a zip, under limits
- `grey_levels`: range of grey levels, square pixels, blank images
- `collimation`: removal of collimation borders, padding and screenshot frames
- `polarity`: bone bright or bone dark
- `orientation`: upright or upside down
- `laterality`: right or left
- `adjustment`: rotation, mirroring, inversion and window as the user sets them
- `hog`: histograms of oriented gradients
- `localiser`: knee localisation, and crops framed as in the release
- `phantom`: drawn knees with a known KL grade
"""

__all__ = [
    "adjustment",
    "archive",
    "collimation",
    "dicom",
    "grey_levels",
    "hog",
    "laterality",
    "localiser",
    "orientation",
    "phantom",
    "polarity",
    "radiograph",
]
