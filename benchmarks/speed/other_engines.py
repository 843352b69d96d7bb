"""torch.compile and ONNX Runtime as engines of a Grader, for benchmarks/speed/one_xray.py.

Both have the interface of the engines in koa_hf/network/engines.py.
"""

import importlib.util
import tempfile
from pathlib import Path

import torch
from torch import nn

from koa_hf.errors import KoaError
from koa_hf.grading.grader import Grader
from koa_hf.network import xception
from koa_hf.network.engines import TorchEngine
from koa_hf.network.precision import DTYPES

COMPILED, ONNX = "torch.compile", "onnx runtime"


class CompiledTorch:
    """The folded network by torch.compile; needs a C++ compiler."""

    name = COMPILED

    def __init__(self, engine: TorchEngine):
        self._dtype = DTYPES[engine.precision]
        self._features = torch.compile(
            lambda images: xception.features(engine.model, images, engine.layer), options={"freezing": True}
        )

    @torch.no_grad()  # freezing does not happen in inference mode
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        features, inner = self._features(images.to(self._dtype).contiguous(memory_format=torch.channels_last))
        return features.float(), inner


class _Export(nn.Module):
    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.model, self.layer = engine.model, engine.layer

    def forward(self, images: torch.Tensor):
        features, inner = xception.features(self.model, images, self.layer)
        return features if inner is None else (features, inner)


class OnnxRuntime:
    """The folded network by ONNX Runtime, which computes in float32 on CPUs."""

    name = ONNX

    def __init__(self, engine: TorchEngine, image_size: int):
        import onnxruntime

        images = torch.zeros(2, 3, image_size, image_size)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "network.onnx")
            torch.onnx.export(
                _Export(engine).eval(), (images,), file, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            # Spinning threads would slow down whatever is measured next.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = [torch.from_numpy(value) for value in self._session.run(None, {self._input: images.numpy()})]
        return found[0], found[1] if len(found) > 1 else None


def with_engine(grader: Grader, name: str) -> Grader:
    """Replace the torch engine of a Grader by the one of that name.

    Raises:
        KoaError: a package of it is not installed.
    """
    own = grader._compute
    if name == ONNX:
        lacking = [one for one in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(one) is None]
        if lacking:
            raise KoaError(f"not installed: {', '.join(lacking)} (see requirements-bench.txt).")
        grader._compute = OnnxRuntime(own, grader.preprocessing.image_size)
    else:
        grader._compute = CompiledTorch(own)
    grader.engine = name
    return grader
