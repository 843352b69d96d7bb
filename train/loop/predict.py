"""A pass over a split without training."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    network: Callable[[torch.Tensor], torch.Tensor],
    loader: DataLoader,
    input_of: Callable[[dict], torch.Tensor],
    description: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network puts out for every image, once each and in order, on all processes.

    Args:
        network: in evaluation mode; returns a row an image.
        loader: prepared by the accelerator; batches hold `label`, and whatever `input_of` takes.
        input_of: batch -> what the network takes.

    Returns:
        outputs float32 (images, ...), such as logits, and grades int64 (images,), both on the CPU.
    """
    outputs, grades = [], []
    hidden = not accelerator.is_main_process
    for batch in tqdm(loader, desc=description, disable=hidden, leave=False, unit="batch", mininterval=1):
        output = network(input_of(batch)).float()
        output, label = accelerator.gather_for_metrics((output, batch["label"]))
        outputs.append(output.cpu())
        grades.append(label.cpu())
    return torch.cat(outputs), torch.cat(grades)
