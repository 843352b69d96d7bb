"""Device, precision, threads and memory, in Accelerate's terms."""

import argparse
import ctypes
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration, PartialState
from accelerate.utils import ProjectConfiguration, broadcast_object_list, parse_flag_from_env

from koa_hf.cores import available_cores
from koa_hf.network.engine_names import for_accelerate
from koa_hf.network.precision import choose_precision
from train.loop.settings import requested_precision


def make_accelerator(args: argparse.Namespace, seed: int) -> Accelerator:
    """The accelerator of a training run; also sets threads and memory of this process.

    Args:
        args: of `train/run.py`.
        seed: of the order of the training images.
    """
    keep_freed_memory()
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=mixed_precision(requested_precision(args), args.cpu),
        gradient_accumulation_steps=args.accumulate,
        log_with="tensorboard",
        project_config=ProjectConfiguration(
            project_dir=args.output_dir, logging_dir=str(Path(args.output_dir, "tensorboard"))
        ),
        # A loader's batch is the global one, split over the processes: their number doesn't change the result.
        dataloader_config=DataLoaderConfiguration(
            split_batches=True,
            use_seedable_sampler=True,
            data_seed=seed,
            non_blocking=torch.cuda.is_available(),
        ),
    )
    share_cores(accelerator)
    return accelerator


def mixed_precision(wanted: str, force_cpu: bool) -> str:
    """Accelerate's name of a precision, for the device that it will choose; the same in all processes."""
    state = PartialState(cpu=force_cpu or parse_flag_from_env("ACCELERATE_USE_CPU"))
    # `auto` is measured, which could come out differently in each process: the main process decides.
    chosen = [choose_precision(wanted, state.device) if state.is_main_process or wanted != "auto" else None]
    broadcast_object_list(chosen)
    return for_accelerate(chosen[0])


def share_cores(accelerator: Accelerator) -> None:
    """Divide the CPU cores among the processes, where the CPU computes; one thread each where a GPU does.

    `accelerate launch` without `--cpu` sets OMP_NUM_THREADS to 1, which suits GPUs and leaves all but one core idle
    on a CPU. A `--num_cpu_threads_per_process` over 1 is respected.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        on_cpu = accelerator.device.type == "cpu"
        torch.set_num_threads(cores_per_process(accelerator) if on_cpu else 1)


def cores_per_process(accelerator: Accelerator) -> int:
    """CPU cores that each of the run's processes may use, at least 1."""
    return max(1, available_cores() // accelerator.num_processes)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next activations; does nothing with other C libraries.

    By default glibc maps every large block anew and unmaps it when freed, and the kernel clears the pages of each
    activation in every step.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
