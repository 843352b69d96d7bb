"""Dynamic batching: concurrent requests share one forward pass."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from koa_hf import Grader
from koa_hf.demo.batcher import DynamicBatcher
from koa_hf.errors import KoaError
from koa_hf.imaging import phantom, radiograph


class Watched:
    """A grader that says how many X-rays each forward pass had, and that holds the first one up."""

    def __init__(self, grader: Grader):
        self.grader, self.passes, self.begun, self.go_on = grader, [], threading.Event(), threading.Event()

    def grade_batch(self, radiographs):
        self.begun.set()
        assert self.go_on.wait(60)
        self.passes.append(len(radiographs))
        return self.grader.grade_batch(radiographs)


def until_waiting(batcher: DynamicBatcher, count: int) -> None:
    end = time.monotonic() + 60
    while batcher._waiting.qsize() < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_waits_is_graded_in_one_pass_and_everybody_gets_their_own(grader, tmp_path):
    knees = [phantom.draw_knee(grade, seed=grade) for grade in range(5)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    watched = Watched(grader)
    batcher = DynamicBatcher(watched, max_batch=5)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.grade_batch, knees[:1])
        assert watched.begun.wait(60)
        twice = pool.submit(batcher.grade_batch, knees[1:3])
        until_waiting(batcher, 1)
        single = pool.submit(batcher.grade_batch, knees[3:4])
        until_waiting(batcher, 2)
        unread = pool.submit(batcher.grade_batch, [broken])
        until_waiting(batcher, 3)
        many = pool.submit(batcher.grade_batch, knees)
        until_waiting(batcher, 4)
        watched.go_on.set()
        found = [first.result(), twice.result(), single.result(), many.result()]
        with pytest.raises(KoaError, match=r"broken\.png"):
            unread.result()
    for gradings, asked in zip(found, (knees[:1], knees[1:3], knees[3:4], knees), strict=True):
        expected = grader.grade_batch(asked)
        assert [one.grade for one in gradings] == [one.grade for one in expected]
        for one, other in zip(gradings, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    # The four that waited came together, then one by one for the broken file's sake; the many alone.
    assert watched.passes == [1, 4, 2, 1, 1, 5]


def test_an_x_ray_is_let_go_of_once_it_is_graded(grader):
    batcher = DynamicBatcher(grader)
    knee = radiograph.Radiograph(phantom.draw_knee(2, seed=2), "knee")
    there = weakref.ref(knee)
    batcher.grade_batch([knee])
    del knee
    end = time.monotonic() + 10
    while there() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert there() is None
