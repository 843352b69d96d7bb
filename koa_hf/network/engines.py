"""Inference engines, torch and OpenVINO (faster on CPUs), for the network up to its last feature map.

An engine is a callable: images float32 (batch, 3, size, size), values -1 to 1 -> the final feature map float32 (batch,
2048, height, width), and the spatially averaged output of the layer used for out-of-distribution detection, float32
(batch, channels), or None. The head and all that follows stay in torch.
"""

import contextlib
import hashlib
import importlib.util
import os
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from koa_hf.errors import KoaError
from koa_hf.network import xception
from koa_hf.network.engine_names import ENGINES
from koa_hf.network.precision import DTYPES

SMALLEST = 71  # pixels, Xception's minimum input size
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}
"""Largest deviation of OpenVINO from torch in float32, relative to the largest value."""

LARGEST_BATCH = 8  # images; larger batches need more memory at the same time per image

_OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True)
class Network:
    """A network for an engine.

    Attributes:
        model: in evaluation mode, float32, on the device to compute on.
        layer: step of `xception.STEPS` whose output out-of-distribution detection uses, or None.
        image_size: pixels.
    """

    model: nn.Module
    layer: str | None
    image_size: int

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def build_engine(wanted: str, network: Network, precision: str) -> "TorchEngine | OpenVinoEngine":
    """Build an engine for a network.

    Args:
        wanted: one of `ENGINES`. auto: OpenVINO on a CPU, if it is installed and agrees with torch; else torch.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        KoaError: unknown engine, or the requested one can't be used on this machine.
    """
    if wanted not in ENGINES:
        raise KoaError(f"engine is {wanted!r}; choose one of {', '.join(ENGINES)}.")
    if wanted == "torch" or (wanted == "auto" and network.device.type != "cpu"):
        return TorchEngine(network, precision)
    try:
        return OpenVinoEngine(network, precision)
    except KoaError:
        if wanted == "auto":
            return TorchEngine(network, precision)
        raise


class TorchEngine:
    """Torch: any floating-point precision, any device."""

    name = "torch"

    def __init__(self, network: Network, precision: str):
        self.layer, self.device, self.precision = network.layer, network.device, precision
        # Cast once: autocast would cast all weights in every forward pass.
        self.model = xception.folded(network.model).to(DTYPES[precision])

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        images = images.to(self.device, DTYPES[self.precision]).contiguous(memory_format=torch.channels_last)
        features, inner = xception.features(self.model, images, self.layer)
        return features.float(), inner


class OpenVinoEngine:
    """OpenVINO on a CPU.

    The network is converted once for each set of weights, compared with torch, and cached in `cache_folder()`. The
    cache key holds the CPU's instruction set, because agreement on one does not imply agreement on another.

    Raises:
        KoaError: OpenVINO is not installed, can't compile the network, or disagrees with torch.
    """

    name = "openvino"

    def __init__(self, network: Network, precision: str):
        if network.device.type != "cpu" or precision not in _OPENVINO_PRECISIONS:
            raise KoaError(
                f"the engine openvino computes on a CPU in {', '.join(_OPENVINO_PRECISIONS)}, not on "
                f"{network.device} in {precision}; choose the engine torch."
            )
        if importlib.util.find_spec("openvino") is None:
            raise KoaError("OpenVINO isn't installed here; run `pip install openvino`, or choose the engine torch.")
        self._measures = network.layer is not None
        self._lock = threading.Lock()  # one computation at a time: each takes all cores
        try:
            file = _converted(network)
            # As many threads as torch: by OMP_NUM_THREADS, several processes share the cores of one machine.
            options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            self._compiled = compile_for_cpu(file, precision, **options)
            if precision == "bf16":
                _check_in_bf16(network, self._compiled, file.with_name("bf16-is-close"))
        except (OSError, RuntimeError) as error:
            raise KoaError(
                f"OpenVINO can't run this network in {precision} ({str(error).splitlines()[0]}); choose the engine "
                "torch."
            ) from error

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with self._lock:
            parts = [run_compiled(self._compiled, part) for part in images.split(batch_sizes(len(images)))]
        found = [torch.cat(values) for values in zip(*parts, strict=True)]
        return found[0], found[1] if self._measures else None


def batch_sizes(images: int) -> list[int]:
    """Split a number of images into powers of two up to `LARGEST_BATCH`, largest first.

    OpenVINO keeps memory for the largest batch that it has seen, and a prepared graph for each size.
    """
    sizes = [LARGEST_BATCH] * (images // LARGEST_BATCH)
    rest = images % LARGEST_BATCH
    return sizes + [1 << bit for bit in reversed(range(LARGEST_BATCH.bit_length())) if rest >> bit & 1]


class _Features(nn.Module):
    def __init__(self, model: nn.Module, layer: str | None):
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, images: torch.Tensor):
        features, inner = xception.features(self.model, images, self.layer)
        return features if inner is None else (features, inner)


def cache_folder() -> Path:
    """Folder of converted networks: the environment variable KOA_CACHE, or koa-hf in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KOA_CACHE") or Path(base, "koa-hf"))


def _converted(network: Network) -> Path:
    """The network as an OpenVINO file; converted and compared with torch unless it is cached."""
    import openvino  # optional, and 0.2 s, which the engine torch does not need

    what = f"{network.layer} {network.image_size} {xception.fingerprint(network.model)}"
    computes = f"{openvino.__version__} {torch.backends.cpu.get_cpu_capability()}"
    folder = cache_folder() / hashlib.sha256(f"{computes} {what}".encode()).hexdigest()[:24]
    file = folder / "network.xml"
    if file.is_file():
        return file
    traced = _Features(xception.folded(network.model).float().cpu(), network.layer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:  # renamed at the end: atomic
        made = Path(temporary, "made")
        made.mkdir()
        openvino.save_model(convert_to_openvino(traced, network.image_size), made / file.name, compress_to_fp16=False)
        check_agreement(traced, compile_for_cpu(made / file.name, "fp32"), network.image_size, TOLERANCES["fp32"])
        if not file.is_file():
            made.rename(folder)
    return file


def _check_in_bf16(network: Network, found, checked: Path) -> None:
    """Compare OpenVINO in bfloat16 with torch in float32, once: the file `checked` records success."""
    if not checked.exists():
        folded = _Features(xception.folded(network.model).float().cpu(), network.layer)
        check_agreement(folded, found, network.image_size, TOLERANCES["bf16"])
        with contextlib.suppress(OSError):  # a read-only cache: compared at every start
            checked.touch()


def convert_to_openvino(network: nn.Module, image_size: int):
    """Convert a network of images (batch, 3, image_size, image_size) to an OpenVINO model in float32, unchecked."""
    # openvino.convert_model sends telemetry without asking; the frontend underneath does not.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, 3, SMALLEST, SMALLEST)  # the graph does not depend on the size
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated; this frontend needs it
        traced = torch.jit.trace(network, example, check_trace=False)  # `check_agreement` checks it
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # has to outlive the conversion
    converted = frontend.convert(frontend.load(decoder))
    converted.reshape([-1, 3, image_size, image_size])
    return converted


def compile_for_cpu(model, precision: str, **options):
    """Compile an OpenVINO model, or the file of one, for the CPU in `fp32` or `bf16`."""
    import openvino

    options["INFERENCE_PRECISION_HINT"] = _OPENVINO_PRECISIONS[precision]
    return openvino.Core().compile_model(model, "CPU", options)


def run_compiled(ready, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of a compiled model for images float32 (batch, 3, size, size), copied out of its buffers."""
    outputs = ready([images.contiguous().numpy()], share_inputs=True)
    return [torch.from_numpy(value.copy()) for value in outputs.values()]


def check_agreement(network: nn.Module, ready, image_size: int, tolerance: float) -> None:
    """Raise a RuntimeError if a compiled model deviates from torch by more than `tolerance`; see `TOLERANCES`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, image_size, image_size, generator=generator) * 2 - 1
    with torch.no_grad():
        expected = network(images)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, theirs in zip(run_compiled(ready, images), expected, strict=True):
        if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())):
            raise RuntimeError("its result differs from torch's")
