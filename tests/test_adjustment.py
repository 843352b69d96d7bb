import dataclasses

import numpy as np
import pytest

from koa_hf.imaging.adjustment import Adjustment, Window, auto_window
from koa_hf.imaging.radiograph import Radiograph

FILM = Radiograph(np.arange(6, dtype=np.uint8).reshape(2, 3) * 20, "film.png", notes=("The first page was read.",))


def test_a_film_is_rotated_mirrored_and_inverted_and_its_notes_say_so():
    adjusted = Adjustment(quarter_turns=1, mirrored=True, inverted=True).applied_to(FILM)
    assert adjusted.pixels.tolist() == [[255, 195], [235, 175], [215, 155]]
    assert adjusted.notes == (
        "The first page was read.",
        "The user rotated the film by 90 degrees clockwise before grading.",
        "The user mirrored the film before grading.",
        "The user inverted the film before grading.",
    )
    assert Adjustment().applied_to(FILM) is FILM


def test_the_directions_that_a_file_states_are_rotated_and_mirrored_too():
    film = dataclasses.replace(FILM, orientation=("L", "F"))
    assert Adjustment(mirrored=True).applied_to(film).orientation == ("R", "F")
    assert Adjustment(quarter_turns=2).applied_to(film).orientation == ("R", "H")


@pytest.mark.parametrize("mirrored", [False, True])
def test_turns_are_as_they_look_on_a_mirrored_film_too(mirrored):
    before = Adjustment(mirrored=mirrored, quarter_turns=3)
    shown, turned = before.applied_to(FILM), before.turned(1).applied_to(FILM)
    assert (turned.pixels == np.rot90(shown.pixels, -1)).all()


def test_a_window_shows_its_grey_levels_from_black_to_white():
    grey = Radiograph(np.array([[0, 51, 102, 153, 204, 255]], np.uint8), "film.png")
    windowed = Adjustment(window=Window(level=50, width=60)).applied_to(grey)
    assert windowed.pixels.tolist() == [[0, 0, 85, 170, 255, 255]]
    assert "level 50% and width 60%" in windowed.notes[0]
    dark = Radiograph(np.tile(np.arange(52, dtype=np.uint8), (4, 1)), "film.png")
    assert auto_window(dark) == Window(10, 20)
    assert auto_window(dataclasses.replace(dark, pixels=dark.pixels.repeat(600, axis=0))) == Window(10, 20)


def test_a_window_stays_on_its_bones_when_the_film_is_inverted():
    window = Adjustment(window=Window(level=30, width=60))
    assert window.inverse().applied_to(FILM).pixels.tolist() == (255 - window.applied_to(FILM).pixels).tolist()
