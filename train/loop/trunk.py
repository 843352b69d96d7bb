"""The frozen trunk in front of the cuts, and what can compute it: torch, and on CPUs OpenVINO."""

import importlib.util

import torch
from accelerate import Accelerator
from torch import nn

from koa_hf.network import engines, xception
from koa_hf.network.engine_names import from_accelerate
from koa_hf.network.precision import DTYPES

WORTH_CONVERTING = 1000  # images; OpenVINO takes a second or two to convert and compile the network


def channels_last(activation: torch.Tensor) -> torch.Tensor:
    """(batch, ..., channels, height, width) -> (batch, ..., height, width, channels); vectors stay as they are."""
    return activation if activation.ndim < 4 else activation.movedim(-3, -1)


def channels_first(activation: torch.Tensor) -> torch.Tensor:
    """The way back. Neither moves anything in memory."""
    return activation if activation.ndim < 4 else activation.movedim(-1, -3)


class Trunk(nn.Module):
    """What lies in front of the cuts, normalisations folded, computed by torch.

    forward: images float32 (batch, 3, size, size), values -1 to 1 -> the activation at each cut, `channels_last`.
    """

    engine = "torch"

    def __init__(self, model: nn.Module, cuts: list[str]):
        super().__init__()
        self.model = xception.folded(model).to(memory_format=torch.channels_last)
        self.cuts = sorted(cuts, key=xception.STEPS.index)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        activation, first, found = images.contiguous(memory_format=torch.channels_last), "conv1", []
        for cut in self.cuts:
            activation, first = xception.run_steps(self.model, activation, first, cut), cut
            found.append(channels_last(activation))
        return tuple(found)


class OpenVinoTrunk:
    """A trunk as OpenVINO computes it on the CPU.

    Raises:
        RuntimeError: OpenVINO can't take it, or computes something else than torch does.
    """

    def __init__(self, trunk: Trunk, precision: str, image_size: int):
        import openvino

        self.cuts, self.engine = trunk.cuts, f"openvino {openvino.__version__}"
        self.dtype = DTYPES[precision]
        converted = engines.convert_to_openvino(trunk, image_size)

        def checked(precision: str):
            ready = engines.compile_for_cpu(converted, precision, INFERENCE_NUM_THREADS=torch.get_num_threads())
            engines.check_agreement(trunk, ready, image_size, engines.TOLERANCES[precision])
            return ready

        self._compiled = checked("fp32")
        if precision != "fp32":
            self._compiled = checked(precision)

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [value.to(self.dtype) for value in engines.run_compiled(self._compiled, images)]


AnyTrunk = Trunk | OpenVinoTrunk


def ways(model: nn.Module, cuts: list[str], accelerator: Accelerator, images: int, image_size: int) -> list[AnyTrunk]:
    """All that can compute the trunk of a model in front of some cuts here, and is worth preparing for so many images.

    Which is the fastest depends on the machine, the precision and the size: `TrunkCache` measures.
    """
    trunk = Trunk(model, cuts).eval()
    found = [trunk.to(accelerator.device)]
    precision = from_accelerate(accelerator.mixed_precision)
    suits = accelerator.device.type == "cpu" and precision in ("fp32", "bf16") and images >= WORTH_CONVERTING
    if suits and importlib.util.find_spec("openvino"):
        try:
            found.append(OpenVinoTrunk(trunk, precision, image_size))
        except RuntimeError as error:
            accelerator.print(f"the trunk is left to torch: OpenVINO can't take it ({str(error).splitlines()[0]})")
    return found
