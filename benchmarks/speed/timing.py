"""Medians of timed calls."""

import statistics
import time
from collections.abc import Callable

import torch


def median_seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median wall seconds of a call on a device, after one untimed call."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def median_seconds_in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each call, after one untimed round.

    The calls alternate, so that a busy moment of the machine affects all of them.
    """
    taken = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
