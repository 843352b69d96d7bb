"""The Grader: a model folder or Hub id on one side, radiographs in and gradings out on the other.

    from koa_hf import Grader

    grader = Grader.from_pretrained()          # the bundled model; or a folder, or an id on the Hub
    grading = grader.grade("knee.png")
    print(grading.grade, grading.name, grading.probabilities)

A folder and a Hub repository hold the same files, and everything here takes either.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES
from koa_hf.grading import calibration
from koa_hf.grading.result import Grading
from koa_hf.grading.rules import Rules
from koa_hf.imaging import radiograph
from koa_hf.imaging.radiograph import ImageSource, Radiograph
from koa_hf.network import engines, model_folder, xception
from koa_hf.network.engine_names import PRECISIONS
from koa_hf.network.model_folder import ModelFolder
from koa_hf.network.precision import choose_precision
from koa_hf.network.preprocess import Preprocessing


@dataclass(frozen=True)
class Output:
    """The network's output for a batch, on its device.

    Attributes:
        logits: float32 (batch, 5), not calibrated.
        maps: float32 (batch, 5, height, width), class activation maps.
        unfamiliarity: float32 (batch,), distance from the training knees; None where the model can't tell.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    unfamiliarity: torch.Tensor | None


class Grader:
    """Grades radiographs with one model. Safe to call from several threads.

    Attributes:
        rules: the steps between the network's output and a grading (grading.json).
        model_id: the folder or Hub id that it was loaded from.
        revision: Hub commit, or the first 12 hexadecimal digits of the weights' SHA-256.
        precision: `fp32`, `bf16` or `fp16`, in which the network is computed.
        engine: `torch` or `openvino`, by which the network is computed.
        note: notice from the model's maker to every user (`koa_note` in config.json); may be empty.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        rules: Rules | None = None,
        *,
        model_id: str = "unnamed",
        revision: str = "unknown",
        note: str = "",
        device: str | torch.device | None = None,
        precision: str = "fp32",
        engine: str = "torch",
    ):
        self.device = _device(device)
        if precision not in PRECISIONS:
            raise KoaError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
        # Convolutions run fastest on channels-last tensors, on CPUs as on tensor cores.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()
        self.preprocessing = preprocessing
        self.rules = rules or Rules()
        self.precision, familiarity = choose_precision(precision, self.device), self.rules.familiarity
        network = engines.Network(self.model, familiarity.layer if familiarity else None, preprocessing.image_size)
        self._compute = engines.build_engine(engine, network, self.precision)
        self.engine = self._compute.name
        self._unfamiliarity = familiarity.measure(self.device) if familiarity else None
        self.model_id = model_id
        self.revision = revision
        self.note = note

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        plain: bool = False,
        engine: str = "auto",
    ) -> "Grader":
        """Load a model folder or a Hub repository in the same layout.

        Args:
            model: a folder, or a Hub id such as `user/koa-xception`, also with a revision, `user/koa-xception@v1.0`; a
                folder of that name wins. By default `model_folder.default_model()`, the bundled one.
            revision: branch, tag or commit on the Hub.
            device: `cpu`, `cuda`, ...; by default a GPU where there is one.
            precision: one of `koa_hf.network.engine_names.PRECISIONS`. `fp32` agrees with timm and
                transformers; `bf16` is twice as fast on some CPUs that have it, and moves probabilities a little and
                one grade in a hundred; `auto` chooses.
            plain: ignore the model's rules and report the network's own softmax, as timm and transformers do.
            engine: one of `koa_hf.network.engine_names.ENGINES`. auto: on CPUs OpenVINO, the faster, where it is
                installed and agrees with torch; else torch.

        Raises:
            KoaError: no such model, not one of ours, damaged, or the Hub can't be reached or refuses.
        """
        return cls.load(model_folder.find_model(model, revision), device, precision, plain, engine)

    @classmethod
    def load(
        cls,
        found: ModelFolder,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        plain: bool = False,
        engine: str = "auto",
    ) -> "Grader":
        """Like `from_pretrained`, for a model folder that was found already."""
        network, preprocessing = xception.load_model(found.folder)
        return cls(
            network,
            preprocessing,
            Rules() if plain else Rules.load(found.folder),
            model_id=found.model_id,
            revision=found.revision,
            note=found.note,
            device=device,
            precision=precision,
            engine=engine,
        )

    def grade(self, source: ImageSource, name: str | None = None) -> Grading:
        """Grade one radiograph: anything `koa_hf.imaging.radiograph.read` takes, called `name` in the result.

        Raises:
            KoaError: the radiograph can't be read.
        """
        start = time.perf_counter()
        return self._grade([radiograph.read(source, name)], start)[0]

    def grade_batch(self, radiographs: Iterable[ImageSource]) -> list[Grading]:
        """Grade several radiographs in one forward pass; the results are in their order.

        Args:
            radiographs: anything `koa_hf.imaging.radiograph.read` takes.

        Raises:
            KoaError: one of them can't be read; the message names it.
        """
        start = time.perf_counter()
        return self._grade([radiograph.read(source) for source in radiographs], start)

    def _grade(self, radiographs: Sequence[Radiograph], start: float) -> list[Grading]:
        if not radiographs:
            return []
        rules = self.rules
        righted = [rules.righted(one) for one in radiographs]
        output = self.forward(torch.stack([self.preprocessing(one.xray) for one in righted]))
        # In float64, so that five probabilities sum to 1 in any arithmetic.
        probabilities = rules.probabilities(output.logits.cpu().numpy())
        grades = probabilities.argmax(1)
        ranges = calibration.grade_sets(probabilities, rules.sets.level).tolist() if rules.sets else None
        distances = None if output.unfamiliarity is None else output.unfamiliarity.tolist()
        maps = output.maps.cpu().numpy()
        seconds = (time.perf_counter() - start) / len(radiographs)
        return [
            Grading(
                file=one.name,
                sha256=one.sha256,
                side=one.side,
                view=one.view,
                notes=one.notes,
                cautions=one.cautions,
                grade=int(grades[i]),
                name=GRADE_NAMES[grades[i]],
                probabilities=tuple(probabilities[i].tolist()),
                calibrated=rules.temperature is not None,
                expected_grade=float(calibration.expected_grade(probabilities[i])),
                grade_set=tuple(ranges[i]) if ranges else None,
                coverage=rules.sets.coverage if rules.sets else None,
                familiar=distances[i] <= 1 if distances else None,
                unfamiliarity=distances[i] if distances else None,
                inverted=righted[i].inverted,
                turned=righted[i].turned,
                model=self.model_id,
                revision=self.revision,
                model_note=self.note,
                seconds=seconds,
                heatmap=maps[i, :, ::-1, ::-1] if righted[i].turned else maps[i],
            )
            for i, one in enumerate(radiographs)
        ]

    def forward(self, images: torch.Tensor) -> Output:
        """One pass through the network.

        Args:
            images: float32 (batch, 3, size, size), values -1 to 1, as `preprocess` makes them.
        """
        with torch.inference_mode():
            images = images.to(self.device)
            features, inner = self._compute(images)
            # The head stays in float32: it costs nothing there, and the maps then add up to exactly these logits.
            logits = self.model.forward_head(features)
            maps = class_activation_map(features, self.model.fc)
            distances = self._unfamiliarity(inner) if self._unfamiliarity else None
            return Output(logits, maps, distances)


def class_activation_map(features: torch.Tensor, fc: nn.Linear) -> torch.Tensor:
    """The contribution of each cell of the final feature map to each logit (see `koa_hf.grading.heatmap`).

    Args:
        features: the network's last activation, float (batch, 2048, height, width).
        fc: the linear layer behind the average pooling.

    Returns:
        float32 (batch, 5, height, width); its mean over height and width, plus `fc.bias`, is the logit.
    """
    return torch.einsum("bchw,gc->bghw", features.float(), fc.weight.float())


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise KoaError(f"there is no device {str(device)!r} here; leave device out, or give cpu.") from error
    return device
