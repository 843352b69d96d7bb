"""Laterality: right or left, decided here for every view of a result.

A single knee, by the first of these that tells:

1. Image Laterality (0020,0062), else Laterality (0020,0060), which describes the whole series: see `stated`;
2. its shape (fibula, slope of the plateau), mirrored where Patient Orientation (0020,0020) says that the film is.

Two knees: by their places. Rows run towards the side that Patient Orientation states, else towards the patient's left,
as on any frontal film, so that the knee on the film's left is the right one. A single tag is not taken for either
knee. Where their shapes contradict their places, both sides are unknown.

Contradictions are returned as cautions, sentences for the user.
"""

from collections.abc import Sequence

Orientation = tuple[str, str]
"""Directions of a film's rows (rightwards) and columns (downwards) in the patient, each one of `OPPOSITE`."""

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}

_SIDES = {"R": "right", "L": "left"}


def stated(image: str, series: str) -> tuple[str | None, tuple[str, ...]]:
    """The side that a DICOM file states, and cautions.

    Args:
        image, series: the values of Image Laterality and Laterality; empty if missing.
    """
    of_image, of_series = _SIDES.get(image), _SIDES.get(series)
    if image in ("B", "U") or of_image is None:
        return (None if image in ("B", "U") else of_series), ()
    if of_series in (None, of_image):
        return of_image, ()
    return of_image, (f"The file contradicts itself: its image is tagged {of_image}, its series {of_series}.",)


def orientation(values: Sequence[str]) -> Orientation | None:
    """The values of Patient Orientation, e.g. `["L", "F"]`; None if they state no two directions."""
    first = [str(value)[:1] for value in values]
    return (first[0], first[1]) if len(first) == 2 and set(first) <= OPPOSITE.keys() else None


def turned(film: Orientation | None, quarters: int) -> Orientation | None:
    """The orientation of a film after `numpy.rot90(pixels, quarters)`, counter-clockwise."""
    for _ in range(quarters % 4):
        film = film and (film[1], OPPOSITE[film[0]])
    return film


def decide(
    shapes: Sequence[float], certain: float, side: str | None = None, film: Orientation | None = None
) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """The sides of one or two knees on an upright film, and cautions.

    Args:
        shapes: for each knee, from the film's left to its right, the logit of being a right knee by its shape on a
            film that is not mirrored.
        certain: least absolute logit that tells.
        side: what the file states, see `stated`.
        film: the film's Patient Orientation.
    """
    mirrored = film is not None and film[0] == "R"
    rights = [-logit if mirrored else logit for logit in shapes]
    if len(rights) == 1:
        by_shape = None if abs(rights[0]) < certain else "right" if rights[0] > 0 else "left"
        if side is None or by_shape in (None, side):
            return (side or by_shape,), ()
        contradiction = (
            f"The file says {side} knee, but it is shaped like a {by_shape} one: the tag may be wrong, or the film "
            "mirrored."
        )
        return (side,), (contradiction,)
    cautions = []
    if side:
        cautions.append(f"The file is tagged {side}, but two knees were found; their sides are told by their places.")
    places = ("left", "right") if mirrored else ("right", "left")
    difference = rights[0] - rights[1] if places[0] == "right" else rights[1] - rights[0]
    if difference > -2 * certain:
        return places, tuple(cautions)
    contradiction = "The shapes of the two knees contradict their places on the film, so their sides are not told."
    return (None, None), (contradiction,)
