"""What the machine offers, in Accelerate's words."""

import os

import torch
from accelerate import Accelerator

from koa_hf.precision import choose_precision


def mixed_precision(wanted: str, force_cpu: bool) -> str:
    """A precision's name for `Accelerator`, for the device that it will choose."""
    on_gpu = torch.cuda.is_available() and not force_cpu and os.environ.get("ACCELERATE_USE_CPU") != "true"
    chosen = choose_precision(wanted, "cuda" if on_gpu else "cpu")
    return "no" if chosen == "fp32" else chosen


def share_cores(accelerator: Accelerator) -> None:
    """Give each process its share of the cores.

    `accelerate launch` without `--cpu` sets OMP_NUM_THREADS to 1, which suits GPUs and leaves all cores but one idle
    where there is none. `--num_cpu_threads_per_process` of the launcher, where it is over 1, is left as it is.
    """
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // accelerator.num_processes))
