"""What computes the network up to its last feature map: torch, or OpenVINO, which is faster on CPUs.

An engine is a function: images float32 (batch, 3, size, size), values -1 to 1 -> the final feature map float32 (batch,
2048, height, width), and float32 (batch, channels), the output of the layer that familiarity is measured at averaged
over the image, or None. The head, the rules and everything after them stay in torch.
"""

import hashlib
import importlib.util
import os
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from koa_hf import xception
from koa_hf.engine_names import ENGINES
from koa_hf.errors import KoaError
from koa_hf.precision import autocast

SMALLEST = 71  # pixels, the least that Xception's pooling takes
_OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def build(
    wanted: str, model: nn.Module, layer: str | None, precision: str, image_size: int, device: torch.device
) -> "TorchEngine | OpenVinoEngine":
    """An engine for a network in evaluation mode, float32, on its device.

    Args:
        wanted: one of `ENGINES`. auto: OpenVINO where it is installed, the device is a CPU and OpenVINO computes the
            same there; else torch.
        layer: the step of `xception.STEPS` that familiarity is measured at, or None.
        precision: `fp32`, `bf16` or `fp16`.
        image_size: pixels.

    Raises:
        KoaError: no such engine, or it was asked for by name and can't be used here.
    """
    if wanted not in ENGINES:
        raise KoaError(f"engine is {wanted!r}; choose one of {', '.join(ENGINES)}.")
    if wanted == "torch" or (wanted == "auto" and device.type != "cpu"):
        return TorchEngine(model, layer, precision)
    try:
        return OpenVinoEngine(model, layer, precision, image_size, device)
    except KoaError:
        if wanted == "auto":
            return TorchEngine(model, layer, precision)
        raise


class TorchEngine:
    """The network as torch computes it, in any precision and on any device."""

    name = "torch"

    def __init__(self, model: nn.Module, layer: str | None, precision: str):
        self.layer, self.precision = layer, precision
        self.device = next(model.parameters()).device
        self.model = xception.folded(model)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            features, inner = xception.features(self.model, images, self.layer)
        return features.float(), inner


class OpenVinoEngine:
    """The network as OpenVINO computes it on a CPU.

    It is converted once for each set of weights, compared with torch, and kept in `cache_folder()`.

    Raises:
        KoaError: OpenVINO isn't installed, can't do this, or computes something else than torch does.
    """

    name = "openvino"

    def __init__(self, model: nn.Module, layer: str | None, precision: str, image_size: int, device: torch.device):
        if device.type != "cpu" or precision not in _OPENVINO_PRECISIONS:
            raise KoaError(
                f"the engine openvino computes on a CPU in {' or '.join(_OPENVINO_PRECISIONS)}, not on {device} in "
                f"{precision}; choose the engine torch."
            )
        if importlib.util.find_spec("openvino") is None:
            raise KoaError("OpenVINO isn't installed here; run `pip install openvino`, or choose the engine torch.")
        import openvino

        self._measures = layer is not None
        self._lock = threading.Lock()  # one computation at a time: each takes all cores
        try:
            file = _converted(model, layer, image_size)
            options = {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = openvino.Core().compile_model(file, "CPU", options)
        except (OSError, RuntimeError) as error:
            raise KoaError(
                f"OpenVINO can't take this network ({str(error).splitlines()[0]}); choose the engine torch."
            ) from error

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with self._lock:
            outputs = self._compiled([images.contiguous().numpy()], share_inputs=True)
            found = [torch.from_numpy(value.copy()) for value in outputs.values()]
        return found[0], found[1] if self._measures else None


class _Features(nn.Module):
    def __init__(self, model: nn.Module, layer: str | None):
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, images: torch.Tensor):
        features, inner = xception.features(self.model, images, self.layer)
        return features if inner is None else (features, inner)


def cache_folder() -> Path:
    """Where converted networks are kept: the environment variable KOA_CACHE, or koa-hf in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KOA_CACHE") or Path(base, "koa-hf"))


def _converted(model: nn.Module, layer: str | None, image_size: int) -> Path:
    """The network as an OpenVINO file, made and compared with torch where it isn't there yet."""
    import openvino

    version = f"{openvino.__version__} {layer} {image_size} {xception.fingerprint(model)}"
    folder = cache_folder() / hashlib.sha256(version.encode()).hexdigest()[:24]
    file = folder / "network.xml"
    if file.is_file():
        return file
    traced = _Features(xception.folded(model).float().cpu(), layer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:  # the folder appears whole
        made = Path(temporary, "made")
        made.mkdir()
        openvino.save_model(convert(traced, image_size), made / file.name, compress_to_fp16=False)
        _compare(traced, made / file.name, image_size)
        if not file.is_file():
            made.rename(folder)
    return file


def convert(network: nn.Module, image_size: int):
    """A network of images (batch, 3, image_size, image_size) as a model of OpenVINO's in float32, unchecked."""
    # OpenVINO's own converter reports its use to its maker without asking; the frontend that it is built on doesn't.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, 3, SMALLEST, SMALLEST)  # nothing in the network depends on the size
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather trace in another way
        traced = torch.jit.trace(network, example, check_trace=False)  # `_compare` checks it
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # has to outlive the conversion
    converted = frontend.convert(frontend.load(decoder))
    converted.reshape([-1, 3, image_size, image_size])
    return converted


def _compare(network: nn.Module, file: Path, image_size: int) -> None:
    import openvino

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, image_size, image_size, generator=generator) * 2 - 1
    with torch.no_grad():
        expected = network(images)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images.numpy()])
    for ours, theirs in zip(found.values(), expected, strict=True):
        if not np.allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
            raise RuntimeError("its result differs from torch's")
