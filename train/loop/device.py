"""What the machine offers, in Accelerate's words."""

import ctypes
import os
import sys

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from koa_hf.network.engine_names import for_accelerate
from koa_hf.network.precision import choose_precision


def mixed_precision(wanted: str, force_cpu: bool) -> str:
    """A precision's name for `Accelerator`, for the device that it will choose; the same in all processes."""
    state = PartialState(cpu=force_cpu or parse_flag_from_env("ACCELERATE_USE_CPU"))
    # One chooses for all: what is measured could come out differently in each.
    chosen = [choose_precision(wanted, state.device) if state.is_main_process or wanted != "auto" else None]
    broadcast_object_list(chosen)
    return for_accelerate(chosen[0])


def share_cores(accelerator: Accelerator) -> None:
    """Give each process its share of the cores.

    `accelerate launch` without `--cpu` sets OMP_NUM_THREADS to 1, which suits GPUs and leaves all cores but one idle
    where there is none. `--num_cpu_threads_per_process` of the launcher, where it is over 1, is left as it is.
    """
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // accelerator.num_processes))


def keep_freed_memory() -> None:
    """Keep what the process frees, for its next activations; where the C library is not glibc, do nothing.

    glibc maps every large block anew and gives it back when it is freed. The kernel then clears each activation's
    pages once more in every step.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
