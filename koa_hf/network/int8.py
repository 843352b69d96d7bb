"""The int8 quantised network: most convolutions in 8-bit integers, for CPUs with fast int8 instructions.

`train/quantise.py` finds the quantisation parameters, requires at least 99 % of the grades to be unchanged, and writes
int8.safetensors in the model folder: for each int8 convolution its input range, the step of its weights, and its bias.
The weights themselves stay in model.safetensors. Calibration refitted for int8 is in the file's metadata.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from koa_hf.errors import KoaError
from koa_hf.files import replacing
from koa_hf.network.model_folder import INT8_FILE

_ABOUT = "int8"


class Int8Metadata(BaseModel):
    """Metadata of the quantisation parameters.

    Attributes:
        weights: `xception.fingerprint` of the network they belong to.
        temperature, level: as in `koa_hf.grading.rules`, refitted to the int8 network.
        shift: added to the logits; their mean difference between float32 and int8.
        unfamiliarity: divisor of the distances from the training knees that restores float32's median.
        measured: agreement of the grades with float32, for the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(2, ge=2, le=2)
    weights: str
    temperature: float = Field(gt=0)
    level: float = Field(ge=0, le=1)
    shift: tuple[float, float, float, float, float]
    unfamiliarity: float = Field(gt=0)
    measured: dict = {}


@dataclass(frozen=True)
class Int8:
    """Quantisation parameters of one network.

    Attributes:
        numbers: float32, by the convolution's name in the network that `xception.folded` returns: `NAME.range` (2, c),
            lowest and highest input value, c is 1 or the number of channels; `NAME.step` (out,), step of the weights;
            `NAME.bias` (out,) if it has one. For separable convolutions also `NAME.between` (channels,), see
            `even_out`.
    """

    numbers: dict[str, torch.Tensor]
    about: Int8Metadata

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the numbers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.numbers.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `INT8_FILE` into a model folder."""
        with replacing(folder / INT8_FILE) as temporary:
            save_file(self.numbers, temporary, metadata={_ABOUT: self.about.model_dump_json()})

    @classmethod
    def load(cls, folder: Path) -> "Int8 | None":
        """Read a model folder's `INT8_FILE`; None if there is none.

        Raises:
            KoaError: the file is damaged, or written by another version of this project.
        """
        path = folder / INT8_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as opened:
                about = Int8Metadata.model_validate_json((opened.metadata() or {}).get(_ABOUT, ""))
                return cls({name: opened.get_tensor(name) for name in opened.keys()}, about)  # noqa: SIM118
        except (OSError, SafetensorError, ValidationError) as error:
            raise KoaError(
                f"{path} is damaged or was made by another version of this project; download the model again, "
                "or delete the file."
            ) from error


def is_fast_here() -> bool:
    """True if this CPU has int8 instructions (AVX512-VNNI or AMX); without them int8 is hardly faster."""
    return torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()


@torch.no_grad()
def even_out(network: nn.Module, between: dict[str, torch.Tensor]) -> None:
    """Equalise channel ranges inside separable convolutions, in place (Nagel et al. 2019).

    Cross-layer equalisation, https://arxiv.org/abs/1906.04721: divides the depthwise convolution's channels by a scale,
    and multiplies the pointwise convolution's inputs by it. There is nothing between the two, so the output is
    unchanged, but all channels fit one range.

    Args:
        between: float32 (channels,), the scale, by the separable convolution's name.
    """
    for name, scale in between.items():
        separable = network.get_submodule(name)
        separable.conv1.weight.div_(scale[:, None, None, None])
        separable.pointwise.weight.mul_(scale[None, :, None, None])


def quantised(network: nn.Module, int8: Int8) -> nn.Module:
    """Insert fake quantisation into a network that `xception.folded` returned, float32 on the CPU, in place.

    Torch still computes in float32, with values rounded to int8's; OpenVINO turns it into int8.

    Raises:
        KoaError: the numbers don't fit the network.
    """
    numbers = int8.numbers
    try:
        even_out(network, {n.removesuffix(".between"): t for n, t in numbers.items() if n.endswith(".between")})
        for name in [name.removesuffix(".step") for name in numbers if name.endswith(".step")]:
            parent, _, last = name.rpartition(".")
            range_, step = numbers[f"{name}.range"], numbers[f"{name}.step"]
            rounded = _Rounded(network.get_submodule(name), range_, step, numbers.get(f"{name}.bias"))
            setattr(network.get_submodule(parent), last, rounded)
    except (AttributeError, KeyError, RuntimeError) as error:
        raise KoaError(
            f"{INT8_FILE} belongs to another network ({error}); download the model again, or delete the file."
        ) from error
    return network


class _Rounded(nn.Module):
    """A convolution with fake-quantised input (256 levels) and weights (255 levels)."""

    def __init__(self, convolution: nn.Conv2d, range_: torch.Tensor, step: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        if len(step) != convolution.out_channels or range_.shape[1] not in (1, convolution.in_channels):
            raise RuntimeError("shapes differ")
        self.convolution = convolution
        if bias is not None:
            convolution.bias = nn.Parameter(bias, requires_grad=False)
        low, high = range_
        self.lowest, self.highest = (-128, 127) if bool((low < 0).any()) else (0, 255)
        self.step_of_all = float((high - low)[0] / 255) if len(low) == 1 else None
        self.register_buffer("step_in", (high - low) / 255)
        self.register_buffer("step", step)
        self.register_buffer("zeros_in", torch.zeros(len(low), dtype=torch.int32))
        self.register_buffer("zeros", torch.zeros(len(step), dtype=torch.int32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.step_of_all is not None:
            values = torch.fake_quantize_per_tensor_affine(values, self.step_of_all, 0, self.lowest, self.highest)
        else:
            values = torch.fake_quantize_per_channel_affine(
                values, self.step_in, self.zeros_in, 1, self.lowest, self.highest
            )
        one = self.convolution
        weight = torch.fake_quantize_per_channel_affine(one.weight, self.step, self.zeros, 0, -127, 127)
        return functional.conv2d(values, weight, one.bias, one.stride, one.padding, one.dilation, one.groups)
