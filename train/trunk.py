"""The frozen trunk in front of the cuts, and what computes it: torch, or OpenVINO, which is faster on CPUs."""

import importlib.util

import torch
from accelerate import Accelerator
from torch import nn

from koa_hf import engines, xception

WORTH_CONVERTING = 1000  # images; OpenVINO takes a second or two to convert and compile the network
_OPENVINO_PRECISIONS = {"no": "f32", "bf16": "bf16"}  # by Accelerate's names


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

    def __init__(self, trunk: Trunk, mixed_precision: str, image_size: int):
        import openvino

        self.cuts, self.engine = trunk.cuts, f"openvino {openvino.__version__}"
        self.dtype = torch.bfloat16 if mixed_precision == "bf16" else torch.float32
        converted = engines.convert(trunk, image_size)

        def compiled(precision: str):
            options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            return openvino.Core().compile_model(converted, "CPU", options)

        self._compiled = compiled("f32")
        image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            expected = trunk(image)
        for ours, theirs in zip(self._outputs(image), expected, strict=True):
            if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
                raise RuntimeError("its result differs from torch's")
        if self.dtype != torch.float32:
            self._compiled = compiled(_OPENVINO_PRECISIONS[mixed_precision])

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [value.to(self.dtype) for value in self._outputs(images)]

    def _outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        found = self._compiled([images.contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(value.copy()) for value in found.values()]


def fastest(model: nn.Module, cuts: list[str], accelerator: Accelerator, images: int, image_size: int):
    """The trunk of a model in front of some cuts, as this machine computes it fastest for so many images."""
    trunk = Trunk(model, cuts).eval()
    precision = accelerator.mixed_precision
    suits = accelerator.device.type == "cpu" and precision in _OPENVINO_PRECISIONS and images >= WORTH_CONVERTING
    if suits and importlib.util.find_spec("openvino"):
        try:
            return OpenVinoTrunk(trunk, precision, image_size)
        except RuntimeError as error:
            accelerator.print(f"the trunk is left to torch: OpenVINO can't take it ({str(error).splitlines()[0]})")
    return trunk.to(accelerator.device)
