"""The frozen trunk in front of the cuts, by torch or (on CPUs) by OpenVINO; and a batch's way through it."""

import importlib.util
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from koa_hf.network import engines, xception
from koa_hf.network.engine_names import from_accelerate
from koa_hf.network.precision import DTYPES
from koa_hf.network.preprocess import normalise
from train.loop.augment import Draws, Mixture, augment, disturb, resized
from train.loop.recipe import Augmentation, Recipe

WORTH_CONVERTING = 1000  # images; converting and compiling the network for OpenVINO takes a second or two


def channels_last(activation: torch.Tensor) -> torch.Tensor:
    """(batch, ..., channels, height, width) -> (batch, ..., height, width, channels), a view; vectors unchanged."""
    return activation if activation.ndim < 4 else activation.movedim(-3, -1)


def channels_first(activation: torch.Tensor) -> torch.Tensor:
    """Inverse of `channels_last`."""
    return activation if activation.ndim < 4 else activation.movedim(-1, -3)


def cuts_from(plan: Recipe, index: int) -> list[str]:
    """Cuts of stage `index` and of later stages that one pass can serve: no stage in between trains the trunk."""
    cuts, depth = [], len(xception.STEPS)
    for stage in plan.stages[index:]:
        cut = xception.TRAINABLE_PARTS[stage.train].cut
        if (cuts and xception.STEPS.index(cut) > depth) or cut == "conv1":
            break
        depth = min(depth, xception.STEPS.index(cut))
        cuts.append(cut)
    return sorted(set(cuts), key=cuts.index)


@dataclass(frozen=True)
class TailInput:
    """Batch -> activation at the cut, which is what the tail takes.

    Attributes:
        trunk: computes it from images; None where the tail is the whole network or the batch holds cached activations.
        augmentation: of images, applied where random numbers are given.
        image_size: pixels a side that the network gets.
    """

    accelerator: Accelerator
    cut: str
    trunk: nn.Module | None
    augmentation: Augmentation
    image_size: int

    def __call__(
        self, batch: dict[str, torch.Tensor], draws: Draws | None = None, mixture: Mixture | None = None
    ) -> torch.Tensor:
        """A batch of `KneeImages` or `CachedActivations` -> float (batch, ...), channels first."""
        if "activation" in batch:
            return channels_first(batch["activation"])
        grey = batch["pixels"]
        if draws is not None and self.augmentation.active:
            grey = grey.float() / 255
            if self.augmentation.disturbs:
                grey = resized(disturb(grey, self.augmentation, draws), self.image_size)
            grey = augment(grey, self.augmentation, draws)
        if mixture is not None:
            grey = mixture.images(grey.float() / 255 if grey.dtype == torch.uint8 else grey)
        pixels = normalise(grey).contiguous(memory_format=torch.channels_last)
        if self.trunk is None:
            return pixels
        with torch.no_grad(), self.accelerator.autocast():
            return xception.run_steps(self.trunk, pixels, "conv1", self.cut)


class Trunk(nn.Module):
    """The layers in front of the cuts, batch normalisation folded, computed by torch.

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
    """A trunk computed by OpenVINO on the CPU.

    Raises:
        RuntimeError: OpenVINO can't convert it, or its output differs from torch's beyond the tolerance.
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


def candidate_trunks(
    model: nn.Module, cuts: list[str], accelerator: Accelerator, images: int, image_size: int
) -> list[AnyTrunk]:
    """The trunk for each engine that can compute it here and is worth preparing for so many images.

    `TrunkCache` measures which is the fastest: that depends on machine, precision and image size.
    """
    trunk = Trunk(model, cuts).eval()
    found = [trunk.to(accelerator.device)]
    precision = from_accelerate(accelerator.mixed_precision)
    suits = accelerator.device.type == "cpu" and precision in ("fp32", "bf16") and images >= WORTH_CONVERTING
    if suits and importlib.util.find_spec("openvino"):
        try:
            found.append(OpenVinoTrunk(trunk, precision, image_size))
        except RuntimeError as error:
            accelerator.print(f"torch computes the trunk, because OpenVINO can't ({str(error).splitlines()[0]})")
    return found
