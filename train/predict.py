"""A pass over a split without training."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    network: nn.Module,
    loader: DataLoader,
    input_of: Callable[[dict], torch.Tensor],
    description: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of every image, once each and in order, on all processes.

    Args:
        network: prepared by the accelerator; set to evaluation mode here.
        loader: prepared by the accelerator; batches hold `label`, and whatever `input_of` takes.
        input_of: batch -> what the network takes.

    Returns:
        logits float32 (images, 5) and grades int64 (images,), both on the CPU.
    """
    network.eval()
    logits, grades = [], []
    hidden = not accelerator.is_main_process
    for batch in tqdm(loader, desc=description, disable=hidden, leave=False, unit="batch", mininterval=1):
        output = network(input_of(batch)).float()
        output, label = accelerator.gather_for_metrics((output, batch["label"]))
        logits.append(output.cpu())
        grades.append(label.cpu())
    return torch.cat(logits), torch.cat(grades)
