"""The Grader: a model folder or Hub id on one side, X-rays in and gradings out on the other.

    from koa_hf import Grader

    grader = Grader.from_pretrained()          # the bundled model; or a folder, or an id on the Hub
    grading = grader.grade("knee.png")
    print(grading.grade, grading.name, grading.probabilities)

A folder and a Hub repository hold the same files, and everything here takes either.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES, NUM_GRADES
from koa_hf.grading import calibration, heatmap
from koa_hf.imaging import radiograph
from koa_hf.imaging.radiograph import ImageSource, Radiograph
from koa_hf.network import model_folder
from koa_hf.network.model_folder import ModelFolder

# Torch and timm take seconds to import. Whoever only shows gradings, or serves a page before it grades, does without:
# here they are imported by the methods that compute.
if TYPE_CHECKING:
    import torch
    from torch import nn

    from koa_hf.grading.rules import Rules
    from koa_hf.network.engines import OpenVinoEngine, TorchEngine
    from koa_hf.network.int8 import Int8
    from koa_hf.network.preprocess import Preprocessing


@dataclass(frozen=True)
class Grading:
    """What a model says about one X-ray.

    Attributes:
        source: the file's name.
        grade, name: KL 0 to 4 and its name, as the model's rules read it from the probabilities.
        probabilities: five floats, KL 0 to 4, that sum to 1.
        calibrated: whether they were made to mean what they say, on knees that the network wasn't trained on.
        expected_grade: their mean on the 0 to 4 scale.
        grade_set: lowest and highest grade of the range that holds a reader's grade in a share `coverage` of knees;
            both None where the model states none.
        unfamiliarity: distance from the training knees, 0 and up; None where the model can't tell.
        familiar: whether that is at most 1, the limit.
        inverted: the X-ray was a photographic negative, and was righted before it was graded.
        turned: the X-ray was upside down, and was turned before it was graded.
        model, revision: folder or Hub id, and the Hub commit or the beginning of the sha256 of the weights.
        seconds: from file to result, a batch's time shared equally.
        heatmap: float32 (5, height, width), what each cell of the final feature map contributed to each grade's logit
            (see `koa_hf.grading.heatmap`); it lies on the X-ray as it was given, also where that was turned.
    """

    source: str
    grade: int
    name: str
    probabilities: tuple[float, ...]
    calibrated: bool
    expected_grade: float
    grade_set: tuple[int, int] | None
    coverage: float | None
    familiar: bool | None
    unfamiliarity: float | None
    inverted: bool
    turned: bool
    model: str
    revision: str
    seconds: float = field(compare=False)
    heatmap: np.ndarray = field(compare=False, repr=False)

    def to_dict(self) -> dict:
        """Everything but the heat map, in types that JSON has."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "heatmap"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def range_in_words(self) -> str:
        """The grade set for people, e.g. `could be KL 1 to 2`; empty where the model states none."""
        if self.grade_set is None:
            return ""
        low, high = self.grade_set
        return f"could be KL {low} to {high}" if low < high else "the only grade in its range"

    @property
    def remarks(self) -> list[str]:
        """What has to be known before the grade is believed, in a few words each."""
        found = []
        if self.familiar is False:
            found.append("unlike the training knees")
        if self.inverted:
            found.append("a negative, righted")
        if self.turned:
            found.append("upside down, turned")
        return found

    @property
    def certainty(self) -> str:
        """One phrase on how far ahead of the others the grade is, e.g. `Leans to KL 2 (58%); KL 1 is next (22%)`."""
        runner_up = max((g for g in range(NUM_GRADES) if g != self.grade), key=self.probabilities.__getitem__)
        first, second = self.probabilities[self.grade], self.probabilities[runner_up]
        if first >= 0.9:
            return f"Clearly KL {self.grade} to the model ({percent(first)})"
        following = f"KL {runner_up} is next ({percent(second)})"
        if first >= 0.7:
            return f"Fairly sure of KL {self.grade} ({percent(first)}); {following}"
        if first >= 0.5 or first - second >= 0.2:
            return f"Leans to KL {self.grade} ({percent(first)}); {following}"
        low, high = sorted((self.grade, runner_up))
        return f"Unsure, chiefly between KL {low} ({percent(self.probabilities[low])}) and KL {high} " + (
            f"({percent(self.probabilities[high])})"
        )


def percent(probability: float) -> str:
    """A probability for people: `58%`, and never a flat 0 or 100% that isn't one."""
    if 0 < probability < 0.005:
        return "<1%"
    if 0.995 <= probability < 1:
        return ">99%"
    return f"{probability * 100:.0f}%"


@dataclass(frozen=True)
class Output:
    """What comes out of the network for a batch, on its device.

    Attributes:
        logits: float32 (batch, 5), averaged with those of the mirror images where the rules say so, not calibrated.
        maps: float32 (batch, 5, height, width), class activation maps, averaged likewise.
        unfamiliarity: float32 (batch,), or None where the model can't tell.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    unfamiliarity: torch.Tensor | None


class Grader:
    """Grades X-rays with one model. Safe to call from several threads.

    Attributes:
        rules: what lies between the network's output and a grading (grading.json).
        model_id: the folder or Hub id it came from.
        revision: Hub commit, or the first 12 hexadecimal digits of the weights' sha256.
        precision: `fp32`, `bf16`, `fp16` or `int8`: what it computes in.
        engine: `torch` or `openvino`: what it computes with.
        note: what the model's maker wants every user to read (`koa_note` in config.json); may be empty.
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
        int8: Int8 | None = None,
    ):
        import torch

        from koa_hf.grading.rules import Rules
        from koa_hf.network.engine_names import GRADER_PRECISIONS

        self.device = _device(device)
        if precision not in GRADER_PRECISIONS:
            raise KoaError(f"precision is {precision!r}; choose one of {', '.join(GRADER_PRECISIONS)}.")
        # Convolutions run fastest on channels-last tensors, on CPUs as on tensor cores.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()
        self.preprocessing = preprocessing
        self.rules = rules or Rules()
        self._compute, self.precision = self._built(engine, precision, int8)
        self.engine = self._compute.name
        self._shift = torch.zeros(NUM_GRADES, device=self.device)
        if self.precision == "int8":
            self.rules, self._shift = int8.rules(self.rules), torch.tensor(int8.about.shift)
        familiarity = self.rules.familiarity
        self._unfamiliarity = familiarity.measure(self.device) if familiarity else None
        self.model_id = model_id
        self.revision = revision
        self.note = note

    def _built(self, engine: str, precision: str, numbers: Int8 | None) -> tuple[TorchEngine | OpenVinoEngine, str]:
        """What computes the network, and the precision that it really does so in."""
        from koa_hf.network import engines, int8
        from koa_hf.network.precision import choose_precision

        familiarity = self.rules.familiarity
        network = engines.Network(
            self.model, familiarity.layer if familiarity else None, self.preprocessing.image_size, numbers
        )
        chosen = choose_precision(precision, self.device)
        # Where bfloat16 pays, int8 is hardly faster.
        rather = precision == "auto" and chosen == "fp32" and numbers and self.device.type == "cpu"
        if rather and engine != "torch" and int8.is_fast_here():
            try:
                return engines.build_engine(engine, network, "int8"), "int8"
            except KoaError:  # OpenVINO isn't installed, or computes something else on this CPU
                pass
        return engines.build_engine(engine, network, chosen), chosen

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        plain: bool = False,
        engine: str = "auto",
    ) -> Grader:
        """Load a model folder or a Hub repository in the same layout.

        Args:
            model: a folder, or a Hub id such as `user/koa-xception`, also with a revision, `user/koa-xception@v1.0`; a
                folder of that name wins. By default `model_folder.default_model()`, the bundled one.
            revision: branch, tag or commit on the Hub.
            device: `cpu`, `cuda`, ...; by default a GPU where there is one.
            precision: one of `koa_hf.network.engine_names.GRADER_PRECISIONS`. `fp32` agrees with timm and transformers; `bf16`
                is twice as fast on some CPUs that have it, `int8` on most where the model has it, and either moves
                probabilities a little and one grade in a hundred; `auto` chooses.
            plain: leave the model's rules aside and take the network at its word, as timm and transformers do.
            engine: one of `koa_hf.network.engine_names.ENGINES`: what computes the network. auto: on CPUs OpenVINO,
                the faster, where it is installed and computes the same as torch; else torch.

        Raises:
            KoaError: no such model, not one of ours, damaged, or the Hub can't be reached or says no.
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
    ) -> Grader:
        """As `from_pretrained`, of a model that was found already."""
        from koa_hf.grading.rules import Rules
        from koa_hf.network import xception
        from koa_hf.network.int8 import Int8

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
            int8=Int8.load(found.folder) if precision in ("auto", "int8") else None,
        )

    def grade(self, source: ImageSource, name: str | None = None) -> Grading:
        """Grade one X-ray: anything `koa_hf.imaging.radiograph.read` takes, called `name` in the result.

        Raises:
            KoaError: the X-ray can't be read.
        """
        start = time.perf_counter()
        return self._grade([radiograph.read(source, name)], start)[0]

    def grade_batch(
        self, sources: Iterable[ImageSource], again: Sequence[Sequence[ImageSource]] | None = None
    ) -> list[Grading]:
        """Grade several X-rays in one forward pass; the results are in the order of `sources`.

        Args:
            again: for each X-ray other cuts of the same knee, which may be none: its logits are the mean over all of
                them. Heat map and familiarity are those of the X-ray itself.

        Raises:
            KoaError: one of them can't be read; the message names it.
        """
        start = time.perf_counter()
        others = [[radiograph.read(source) for source in cuts] for cuts in again or ()]
        return self._grade([radiograph.read(source) for source in sources], start, others)

    def _grade(
        self, radiographs: Sequence[Radiograph], start: float, again: Sequence[Sequence[Radiograph]] = ()
    ) -> list[Grading]:
        import torch

        if not radiographs:
            return []
        knees, rules = len(radiographs), self.rules
        cuts = [*radiographs, *(cut for others in again for cut in others)]
        # Which knee each cut shows.
        of = np.array([*range(knees), *(i for i, others in enumerate(again) for _ in others)])
        righted = [rules.righted(one) for one in radiographs]
        righted += [rules.righted(cut, like=righted[i]) for cut, i in zip(cuts[knees:], of[knees:], strict=True)]
        output = self.forward(torch.stack([self.preprocessing(one.xray) for one in righted]))
        logits = rules.at_width(output.logits.cpu().numpy(), [min(cut.pixels.shape) for cut in cuts])
        # In float64, so that five probabilities sum to 1 in any arithmetic.
        probabilities = rules.probabilities(np.stack([logits[of == i].mean(0) for i in range(knees)]))
        grades = rules.grades(probabilities)
        ranges = calibration.grade_sets(probabilities, grades, rules.sets.level).tolist() if rules.sets else None
        distances = None if output.unfamiliarity is None else output.unfamiliarity.tolist()
        maps = output.maps.cpu().numpy()
        seconds = (time.perf_counter() - start) / len(radiographs)
        return [
            Grading(
                source=one.name,
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
                seconds=seconds,
                heatmap=maps[i, :, ::-1, ::-1] if righted[i].turned else maps[i],
            )
            for i, one in enumerate(radiographs)
        ]

    def forward(self, images: torch.Tensor) -> Output:
        """One pass through the network, or two where the rules average with the mirror image.

        Args:
            images: float32 (batch, 3, size, size), values -1 to 1, as `preprocess` makes them.
        """
        import torch

        with torch.inference_mode():
            images = images.to(self.device)
            both = torch.cat([images, images.flip(-1)]) if self.rules.flip_average else images
            features, inner = self._compute(both)
            # The head stays in float32: it costs nothing there, and the maps then add up to exactly these logits.
            logits = self.model.forward_head(features) + self._shift
            maps = heatmap.class_activation_map(features, self.model.fc)
            if self.rules.flip_average:
                logits = logits.unflatten(0, (2, -1)).mean(0)
                maps = (maps[: len(images)] + maps[len(images) :].flip(-1)) / 2
            distances = self._unfamiliarity(inner[: len(images)]) if self._unfamiliarity else None
            return Output(logits, maps, distances)


def _device(device: str | torch.device | None) -> torch.device:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise KoaError(f"there is no device {str(device)!r} here; leave device out, or give cpu.") from error
    return device
