"""Adjustments that a user makes to a film before it is graded: rotation, mirroring, inversion, window.

    film = Adjustment(quarter_turns=1).applied_to(radiograph.read("film.png"))

What is graded is the adjusted film, and its notes say what was done.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from koa_hf.imaging import grey_levels, laterality, orientation
from koa_hf.imaging.radiograph import Radiograph

AUTO_PERCENTILES = 1, 99
"""Grey levels of a film between which the automatic window lies."""


@dataclass(frozen=True)
class Window:
    """The grey levels to show, in percent of the film's range: `width` around `level` becomes black to white."""

    level: float
    width: float


AS_READ = Window(50, 100)


@dataclass(frozen=True)
class Adjustment:
    """Changes of a film by its user, made in this order.

    Attributes:
        quarter_turns: rotation in steps of 90 degrees clockwise, 0 to 3.
        mirrored: left and right are exchanged.
        inverted: black and white are exchanged.
        window: see `Window`.
    """

    quarter_turns: int = 0
    mirrored: bool = False
    inverted: bool = False
    window: Window = AS_READ

    def turned(self, quarters: int) -> "Adjustment":
        """This one, and then so many quarter turns clockwise."""
        # Seen in a mirror, clockwise is counter-clockwise.
        turns = self.quarter_turns + (-quarters if self.mirrored else quarters)
        return dataclasses.replace(self, quarter_turns=turns % 4)

    def inverse(self) -> "Adjustment":
        """This one, and then black and white exchanged."""
        window = dataclasses.replace(self.window, level=100 - self.window.level)
        return dataclasses.replace(self, inverted=not self.inverted, window=window)

    def unwindowed(self) -> "Adjustment":
        """This one with all grey levels."""
        return dataclasses.replace(self, window=AS_READ)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each step; empty if nothing is done."""
        said = []
        if self.quarter_turns:
            degrees = {1: "90 degrees clockwise", 2: "180 degrees", 3: "90 degrees counter-clockwise"}
            said.append(f"The user rotated the film by {degrees[self.quarter_turns]} before grading.")
        if self.mirrored:
            said.append("The user mirrored the film before grading.")
        if self.inverted:
            said.append("The user inverted the film before grading.")
        if self.window != AS_READ:
            said.append(
                f"The user set the film's window to level {self.window.level:.0f}% and width {self.window.width:.0f}% "
                "of its grey levels before grading."
            )
        return tuple(said)

    def applied_to(self, film: Radiograph) -> Radiograph:
        """The adjusted film, with `notes` after its own; the film itself if nothing is done to it."""
        if not self.notes:
            return film
        film = orientation.rotated(film, -self.quarter_turns)
        pixels, directions = film.pixels, film.orientation
        if self.mirrored:
            pixels = pixels[:, ::-1]
            directions = directions and (laterality.OPPOSITE[directions[0]], directions[1])
        if self.inverted:
            pixels = 255 - pixels
        if self.window != AS_READ:
            low = (self.window.level - self.window.width / 2) * 2.55
            levels = (np.arange(256) - low) / (self.window.width * 2.55) * 255
            pixels = np.clip(np.round(levels), 0, 255).astype(np.uint8)[pixels]
        notes = (*film.notes, *self.notes)
        return dataclasses.replace(film, pixels=np.ascontiguousarray(pixels), orientation=directions, notes=notes)


UNADJUSTED = Adjustment()


def auto_window(film: Radiograph) -> Window:
    """The window between the `AUTO_PERCENTILES` of a film's grey levels, of large films' every other row and column."""
    low, high = np.percentile(grey_levels.sample(film.pixels), AUTO_PERCENTILES) / 2.55
    return Window(float(round((low + high) / 2)), float(max(1, round(high - low))))
