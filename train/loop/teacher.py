"""Teacher logits for distillation: one or several models', for every training image."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from koa_hf import Grader
from koa_hf.files import replacing
from koa_hf.network import xception
from koa_hf.network.preprocess import normalise
from train.loop.checkpoints import Checkpoints, StopRequest
from train.loop.evaluation import predict
from train.loop.knee_images import KneeImages


def teacher_logits(
    accelerator: Accelerator,
    teachers: Sequence[Grader],
    images: KneeImages,
    batch_size: int,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> torch.Tensor:
    """Mean of the teachers' log-probabilities of each image: float32 (images, 5), on the device.

    Computed once a run, at each teacher's own image size and without augmentation; a resumed run reads them from disk.
    Leaves `images` at the last teacher's size.
    """
    path = checkpoints.weights / "teacher_logits.safetensors"
    if path.exists():
        return load_file(path)["logits"].to(accelerator.device)
    logits = torch.stack(
        [_log_probabilities(accelerator, teacher, images, batch_size, stop) for teacher in teachers]
    ).mean(0)
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            save_file({"logits": logits.contiguous()}, partial)
    accelerator.wait_for_everyone()
    return logits.to(accelerator.device)


def _log_probabilities(
    accelerator: Accelerator, teacher: Grader, images: KneeImages, batch_size: int, stop: StopRequest
) -> torch.Tensor:
    images.resize_to(teacher.preprocessing.image_size, accelerator)
    loader = accelerator.prepare(DataLoader(images, batch_size))
    network = xception.folded(teacher.model).to(memory_format=torch.channels_last)

    def grade(pixels: torch.Tensor) -> torch.Tensor:
        if stop():
            raise SystemExit(143)  # only these logits are lost: --resume starts here
        with accelerator.autocast():
            return network(pixels).float()

    def input_of(batch: dict) -> torch.Tensor:
        return normalise(batch["pixels"]).contiguous(memory_format=torch.channels_last)

    logits, _ = predict(accelerator, grade, loader, input_of, f"teacher logits of {teacher.model_id}")
    accelerator.free_memory(loader)
    return logits.log_softmax(1)
