"""The network in int8: most of its convolutions in 8-bit whole numbers, for CPUs that multiply these fastest.

`train/quantise.py` finds the numbers that this needs, holds the result to a guard (at least 99 % of the grades
unchanged), and writes them to int8.safetensors of the model folder: for each convolution in int8 the range of what
comes in, the size of one step of its weights, and its bias. The weights themselves are those of model.safetensors. The
rules that were fitted again for int8 are in the file's metadata.
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


class About(BaseModel):
    """What goes with the numbers.

    Attributes:
        weights: `xception.fingerprint` of the network that they belong to.
        temperature, thresholds, level: as in `koa_hf.grading.rules`, fitted to the network in int8.
        shift: added to the logits; what int8 takes from them on average.
        unfamiliarity: what distances from the training knees are divided by, so that their median is that in float32.
        measured: how the grades compare with those in float32; for people, not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, ge=1, le=1)
    weights: str
    temperature: float = Field(gt=0)
    thresholds: tuple[float, float, float, float] | None
    level: float = Field(ge=0, le=1)
    shift: tuple[float, float, float, float, float]
    unfamiliarity: float = Field(gt=0)
    measured: dict = {}


@dataclass(frozen=True)
class Int8:
    """One network's numbers.

    Attributes:
        numbers: float32, by the convolution's name in the network as `xception.folded` makes it: `NAME.range` (2, c),
            lowest and highest value that comes in, c is 1 or the number of its channels; `NAME.step` (out,), of its
            weights; `NAME.bias` (out,) where it has one. And by the name of a separable convolution `NAME.between`
            (channels,): see `even_out`.
    """

    numbers: dict[str, torch.Tensor]
    about: About

    @property
    def fingerprint(self) -> str:
        """sha256 over the numbers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.numbers.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        with replacing(folder / INT8_FILE) as temporary:
            save_file(self.numbers, temporary, metadata={_ABOUT: self.about.model_dump_json()})

    @classmethod
    def load(cls, folder: Path) -> "Int8 | None":
        """Those of a model folder; None where it has none.

        Raises:
            KoaError: the file is damaged, or was made by a later version of this project.
        """
        path = folder / INT8_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as opened:
                about = About.model_validate_json((opened.metadata() or {}).get(_ABOUT, ""))
                return cls({name: opened.get_tensor(name) for name in opened.keys()}, about)  # noqa: SIM118
        except (OSError, SafetensorError, ValidationError) as error:
            raise KoaError(
                f"{path} is damaged or made by another version of this project; get the model again, or remove it."
            ) from error


def is_fast_here() -> bool:
    """Whether this CPU has instructions for it (AVX512-VNNI or AMX); without them int8 is hardly faster."""
    return torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()


@torch.no_grad()
def even_out(network: nn.Module, between: dict[str, torch.Tensor]) -> None:
    """Move a scale for each channel from the first to the second half of separable convolutions, in place.

    Nothing lies between the halves, so the network computes the same; but the channels there reach equally far, and
    one range suits them all.

    Args:
        between: float32 (channels,) by the separable convolution's name: what its channels are divided by.
    """
    for name, scale in between.items():
        separable = network.get_submodule(name)
        separable.conv1.weight.div_(scale[:, None, None, None])
        separable.pointwise.weight.mul_(scale[None, :, None, None])


def quantised(network: nn.Module, int8: Int8) -> nn.Module:
    """A network as `xception.folded` makes it, float32 on the CPU, changed in place to compute what it does in int8.

    Torch still computes in float32, with values rounded to those that int8 has; OpenVINO makes int8 of it.

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
        raise KoaError(f"{INT8_FILE} is of another network ({error}); get the model again, or remove it.") from error
    return network


class _Rounded(nn.Module):
    """A convolution whose input and weights are rounded to 256 and 255 values."""

    def __init__(self, convolution: nn.Conv2d, range_: torch.Tensor, step: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        if len(step) != convolution.out_channels or range_.shape[1] not in (1, convolution.in_channels):
            raise RuntimeError("its numbers have other shapes")
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
