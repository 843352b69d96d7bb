"""timm's Xception for KL grades: build, cut into a frozen trunk and a trained tail, save, load.

`legacy_xception` of timm (Chollet 2017, https://arxiv.org/abs/1610.02357), which ends in average pooling and one linear
layer.
"""

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from koa_hf import checksums
from koa_hf.errors import KoaError
from koa_hf.files import replacing, write_text
from koa_hf.grades import GRADE_NAMES, NUM_GRADES
from koa_hf.network.model_folder import CONFIG_FILE, WEIGHTS_FILE, read_config
from koa_hf.network.preprocess import Preprocessing

ARCHITECTURE = "legacy_xception"

BLOCKS = tuple(f"block{i}" for i in range(1, 13))
# The network as a sequence of named steps. A cut is the name of the tail's first step. block11 is two steps, because a
# cut goes through it: `block11_start` outputs the activation after its first two separable convolutions and, for the
# residual addition, its input, stacked: (batch, 2, 728, height, width).
STEPS = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", *BLOCKS[:-2], "block11_start", *BLOCKS[-2:])
STEPS += ("conv3", "bn3", "act3", "conv4", "bn4", "act4", "global_pool", "head_drop", "fc")
_START = 6  # number of layers of block11.rep in block11_start


@dataclass(frozen=True)
class TrainablePart:
    """The parameters that a stage trains, by prefixes of their names; the tail begins at step `cut`."""

    cut: str
    prefixes: tuple[str, ...]


TRAINABLE_PARTS = {
    "head": TrainablePart("fc", ("fc.",)),
    # The last 20 layers of Keras' Xception without its top count activations, normalisations, the addition and the
    # pooling: block12_sepconv3 (activation, convolution, normalisation), its addition, blocks 13 and 14. Keras numbers
    # blocks from 1 with the stem, timm without, so Keras' block 12 is timm's block11: its third separable convolution
    # and normalisation (rep.7, rep.8), and everything after.
    "last_20": TrainablePart(
        "block11", ("block11.rep.7.", "block11.rep.8.", "block12.", "conv3.", "bn3.", "conv4.", "bn4.", "fc.")
    ),
    "exit_flow": TrainablePart("block12", ("block12.", "conv3.", "bn3.", "conv4.", "bn4.", "fc.")),
    "all": TrainablePart("conv1", ("",)),
}


class Tail(nn.Module):
    """The steps of an Xception from `first` on, sharing its parameters, buffers and parameter names.

    Equivalent to the network, but faster: batch normalisation with running statistics is folded into the preceding
    pointwise convolution in each forward pass, differentiably. No in-place operations: autograd would copy the linear
    layer's output view for each.

    forward: the activation at the cut (the image if `first` is `conv1`) -> logits, float (batch, 5).
    """

    def __init__(self, model: nn.Module, first: str):
        super().__init__()
        self.steps = STEPS[STEPS.index(first) :]
        self.drop_rate = model.drop_rate
        for step in self.steps:
            if step not in ("head_drop", "block11_start"):
                self.add_module(step, getattr(model, step))

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            if step == "head_drop":
                activation = nn.functional.dropout(activation, self.drop_rate, self.training)
            elif step in BLOCKS:
                activation = _block(getattr(self, step), activation)
            elif step in ("conv3", "conv4"):
                activation = _separable(getattr(self, step), getattr(self, f"bn{step[-1]}"), activation)
            elif step in ("act3", "act4"):
                activation = nn.functional.relu(activation)
            elif step not in ("bn3", "bn4", "block11_start"):
                activation = getattr(self, step)(activation)
        return activation


def _block(block: nn.Module, activation: torch.Tensor) -> torch.Tensor:
    """A block; a five-dimensional activation is the output of `block11_start`."""
    first, inner = (0, activation) if activation.ndim == 4 else (_START, activation[:, 0])
    shortcut = activation if activation.ndim == 4 else activation[:, 1]
    layers = list(block.rep)
    for i, layer in enumerate(layers[first:], first):
        if isinstance(layer, nn.ReLU):
            inner = nn.functional.relu(inner)
        elif i + 1 < len(layers) and isinstance(layers[i + 1], nn.BatchNorm2d):
            inner = _separable(layer, layers[i + 1], inner)
        elif not isinstance(layer, nn.BatchNorm2d):
            inner = layer(inner)
    if block.skip is not None:
        shortcut = _pointwise(block.skip, block.skipbn, shortcut)
    return inner + shortcut


def _separable(convolution: nn.Module, norm: nn.Module, activation: torch.Tensor) -> torch.Tensor:
    return _pointwise(convolution.pointwise, norm, convolution.conv1(activation))


def _pointwise(convolution: nn.Conv2d, norm: nn.BatchNorm2d, activation: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution and the batch normalisation after it."""
    if norm.training:
        return norm(convolution(activation))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight, bias = convolution.weight.flatten(1) * scale[:, None], norm.bias - norm.running_mean * scale
    step = convolution.stride[0]
    # As a matrix product, whose backward pass takes 3/4 of the convolution's time on CPUs.
    pixels = activation.movedim(1, -1)[:, ::step, ::step]
    # Flattened, because without a gradient `linear` computes non-contiguous input as one small product per image.
    return nn.functional.linear(pixels.flatten(0, -2), weight, bias).unflatten(0, pixels.shape[:-1]).movedim(-1, 1)


def folded(model: nn.Module) -> nn.Module:
    """A frozen copy of a model, in evaluation mode, with batch normalisation folded into the convolutions.

    Computes the same function up to rounding, in two thirds of the time.
    """
    copied = copy.deepcopy(model).eval()
    for block in [getattr(copied, name) for name in BLOCKS]:
        for i, layer in enumerate(block.rep):
            if isinstance(layer, nn.BatchNorm2d):
                separable = block.rep[i - 1]
                separable.pointwise = fuse_conv_bn_eval(separable.pointwise, layer)
                block.rep[i] = nn.Identity()
        if block.skip is not None:
            block.skip, block.skipbn = fuse_conv_bn_eval(block.skip, block.skipbn), nn.Identity()
    for i in (1, 2):
        setattr(copied, f"conv{i}", fuse_conv_bn_eval(getattr(copied, f"conv{i}"), getattr(copied, f"bn{i}")))
        setattr(copied, f"bn{i}", nn.Identity())
    for i in (3, 4):
        separable = getattr(copied, f"conv{i}")
        separable.pointwise = fuse_conv_bn_eval(separable.pointwise, getattr(copied, f"bn{i}"))
        setattr(copied, f"bn{i}", nn.Identity())
    return copied.requires_grad_(False)


def run_steps(model: nn.Module, activation: torch.Tensor, first: str, before: str) -> torch.Tensor:
    """Run a model from step `first` up to, but excluding, step `before`; both are any of `STEPS`."""
    steps = STEPS[STEPS.index(first) : STEPS.index(before)]
    for step in steps:
        if step == "block11_start":
            if "block11" not in steps:
                pair = [model.block11.rep[:_START](activation), activation]
                activation = torch.stack([one.movedim(1, -1) for one in pair], 1).movedim(-1, 2)  # channels last
        elif activation.ndim == 5:
            inner, shortcut = activation.unbind(1)
            activation = model.block11.rep[_START + 1 :](nn.functional.relu(inner)) + shortcut
        elif step != "head_drop":
            activation = getattr(model, step)(activation)
    return activation


def features(
    model: nn.Module, images: torch.Tensor, layer: str | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The final feature map, and the spatially averaged output of one step before it.

    Args:
        images: float32 (batch, 3, size, size), values -1 to 1.
        layer: one of `STEPS` up to `act4`, or None.

    Returns:
        float (batch, 2048, height, width), and float32 (batch, channels) or None.
    """
    if layer is None:
        return model.forward_features(images), None
    after = STEPS[STEPS.index(layer) + 1]
    inner = run_steps(model, images, STEPS[0], after)
    return run_steps(model, inner, after, "global_pool"), inner.float().mean((2, 3))


def select_trainable(model: nn.Module, part: str) -> None:
    """Set `requires_grad` for the parameters of `part` (a key of `TRAINABLE_PARTS`), and clear it for all others."""
    prefixes = TRAINABLE_PARTS[part].prefixes
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))


def depth_from_head(parameter_name: str) -> int:
    """Number of blocks between a parameter and the head: 0 for `fc`, 1 for the exit convolutions, 13 for block1."""
    step = parameter_name.split(".")[0]
    if step == "fc":
        return 0
    if step.startswith("block"):
        return 14 - int(step.removeprefix("block"))
    return 1 if step in ("conv3", "bn3", "conv4", "bn4") else 14


def train_mode(model: nn.Module, batch_norm: str) -> None:
    """Set training mode; batch normalisation that is frozen stays in evaluation mode.

    Args:
        batch_norm: `frozen` keeps all running statistics (scale and shift train where unfrozen); `batch` uses and
            updates batch statistics where scale and shift are unfrozen.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            trained = batch_norm == "batch" and any(p.requires_grad for p in module.parameters())
            module.train(trained)


def build(weights: str | os.PathLike | None = None, pretrained: bool = True, drop_rate: float = 0.0) -> nn.Module:
    """Build an Xception with a new 5-way head, float32, on the CPU.

    Args:
        weights: safetensors file of ImageNet weights; None: timm downloads them.
        pretrained: False: random weights, no file and no download.

    Raises:
        KoaError: the file is missing or not an Xception, or the download failed.
    """
    if not pretrained:
        return timm.create_model(ARCHITECTURE, num_classes=NUM_GRADES, drop_rate=drop_rate)
    overlay = None
    if weights is not None:
        if not Path(weights).is_file():
            raise KoaError(f"no ImageNet weights at {weights}; give the path of a safetensors file.")
        overlay = {"file": str(weights)}
    try:
        return timm.create_model(
            ARCHITECTURE, pretrained=True, num_classes=NUM_GRADES, drop_rate=drop_rate, pretrained_cfg_overlay=overlay
        )
    except Exception as error:
        if weights is not None:
            raise KoaError(f"{weights} doesn't hold the weights of timm's {ARCHITECTURE} ({error}).") from error
        raise KoaError(
            "the ImageNet weights can't be downloaded; connect to the internet once, or give a local copy with "
            "--pretrained-weights PATH (or the environment variable KOA_WEIGHTS)."
        ) from error


def estimate_batch_norm_statistics(model: nn.Module, images: torch.Tensor) -> None:
    """Set all running means and variances to those of one batch, float32 (batch, 3, height, width).

    Needed before the trunk of a randomly initialised network is frozen: with the initial statistics (mean 0, variance
    1) activations grow from block to block.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def fingerprint(model: nn.Module, before: str | None = None) -> str:
    """SHA-256 of names, shapes and values of all parameters and buffers before step `before` (None: all)."""
    kept = STEPS if before is None else STEPS[: STEPS.index(before)]
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if _step_of(name) in kept:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _step_of(parameter_name: str) -> str:
    step, _, rest = parameter_name.partition(".")
    in_start = step == "block11" and int(rest.split(".")[1]) < _START
    return "block11_start" if in_start else step


def average(model: nn.Module, others: Sequence[nn.Module]) -> None:
    """Replace a network's weights and batch statistics by their mean with those of other networks, in place."""
    states = [network.state_dict() for network in (model, *others)]
    model.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
            for name, tensor in states[0].items()
        }
    )


def save_model(
    model: nn.Module, folder: str | os.PathLike, image_size: int, note: str = "", dtype: torch.dtype | None = None
) -> None:
    """Write config.json, model.safetensors and checksums.json, loadable by this project, timm and transformers.

    Args:
        note: notice to all users of the model, stored as `koa_note`.
        dtype: storage type of the weights (inference stays float32); None: unchanged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": NUM_GRADES,
        "num_features": model.num_features,
        "global_pool": "avg",
        "label_names": list(GRADE_NAMES),
        **({"koa_note": note} if note else {}),
        "dtype": "float32",  # transformers would compute in whatever the weights are stored in
        # No `model_args.num_classes`: with it transformers' AutoModelForImageClassification raises a TypeError.
        "pretrained_cfg": {
            "architecture": ARCHITECTURE,
            "tag": "kl",
            "custom_load": False,
            **Preprocessing(image_size).pretrained_cfg(),
            "num_classes": NUM_GRADES,
            "pool_size": [10, 10],
            "first_conv": "conv1",
            "classifier": "fc",
            "license": "apache-2.0",
        },
    }
    save_weights(model, folder / WEIGHTS_FILE, dtype=dtype)
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    checksums.write_checksums(folder)


def load_model(folder: str | os.PathLike) -> tuple[nn.Module, Preprocessing]:
    """Load a model folder: the network in evaluation mode, float32, and its preprocessing.

    Raises:
        KoaError: the folder is not a model of this project, or is damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        architecture, size = config["architecture"], config["pretrained_cfg"]["input_size"][-1]
    except (KeyError, TypeError, IndexError) as error:
        raise KoaError(f"{folder / CONFIG_FILE} is damaged or not a timm config; download the model again.") from error
    if architecture != ARCHITECTURE or config.get("num_classes") != NUM_GRADES:
        raise KoaError(
            f"{folder} holds a {architecture} with {config.get('num_classes')} classes; "
            f"this project grades with a {ARCHITECTURE} of {NUM_GRADES}."
        )
    with torch.device("meta"):  # random weights, to be overwritten at once, would double the time
        model = timm.create_model(ARCHITECTURE, num_classes=NUM_GRADES).float()
    model.to_empty(device="cpu")
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval(), Preprocessing(size)


def save_weights(
    model: nn.Module,
    path: str | os.PathLike,
    instead: dict[str, torch.Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write all parameters and buffers as safetensors, atomically.

    Args:
        instead: tensors to write in place of the model's own, by name.
        dtype: storage type of floating-point tensors; None: unchanged.
    """
    state = {**model.state_dict(), **(instead or {})}
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in state.items()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(path)) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.chmod(0o644)  # safetensors creates owner-only files


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a file written by `save_weights` into a model, in place.

    Raises:
        KoaError: the file is damaged or belongs to another network.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise KoaError(f"{path} is damaged or belongs to another network; download the model again.") from error
