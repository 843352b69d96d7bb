"""A training recipe: a YAML file, checked on load. `train/recipes/` holds those that come with the project."""

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from koa_hf.errors import KoaError
from koa_hf.grading.metrics import HIGHER_IS_BETTER

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

POWERS = {"most_probable": 0.0, "root_distance": 0.5, "median": 1.0, "rounded": 2.0}
"""Ways of reading a grade from the probabilities, with the power that each is for `koa_hf.grading.calibration.read_grades`."""

READ_OUTS = (*POWERS, "tuned")
"""All ways of reading a grade from the probabilities: see `Grading`."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Augmentation(Section):
    """Random changes of the training images, each drawn uniformly and afresh for every image and epoch."""

    flip: bool = False  # mirror left and right for half of the images: a left knee becomes a right one
    rotation: float = Field(0.0, ge=0, le=180)  # degrees, either way
    scale: float = Field(0.0, ge=0, lt=1)  # zoom, as a share, either way
    shift: float = Field(0.0, ge=0, le=0.5)  # of the image's width and height, either way
    brightness: float = Field(0.0, ge=0, le=1)  # added to grey values 0 to 1, either way
    contrast: float = Field(0.0, ge=0, lt=1)  # factor around the image's mean grey, either way
    gamma: float = Field(0.0, ge=0, lt=1)  # exponent 1 - gamma to 1 + gamma on grey values
    inversion: float = Field(0.0, ge=0, le=1)  # share of images turned into photographic negatives
    # Half of the images are reduced to between 1 - resolution and 1 of their size, and enlarged again: a knee on a
    # whole film often has fewer pixels than the release's crops.
    resolution: float = Field(0.0, ge=0, lt=1)

    @property
    def active(self) -> bool:
        return any(value for _, value in self)


class Stage(Section):
    """One leg of the training: what is trained, towards what, how fast. Continues from the stage before it."""

    name: str = Field(min_length=1)
    train: Literal["head", "exit_flow", "last_20", "all"]  # see koa_hf.network.xception.TRAINABLE_PARTS
    epochs: int = Field(ge=1)
    loss: Literal["cross_entropy", "focal", "soft_ordinal"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # cross-entropy only
    focal_alpha: float = Field(0.25, gt=0)  # Keras' default
    focal_gamma: float = Field(2.0, ge=0)  # Keras' default
    ordinal_width: float = Field(0.5, gt=0)  # soft_ordinal: the target is softmax(-(distance in grades)^2 / width)
    # Share of the target that is taken from the grades of the model that the run starts from (weights: model), and not
    # from the reader's: where a reader's grade is noise, the model before has often not learned it. Furlanello et al.
    # 2018, https://arxiv.org/abs/1805.04770.
    distillation: float = Field(0.0, ge=0, le=1)
    class_weights: Literal["none", "balanced"] = "none"  # balanced: every grade weighs the same in the training loss
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"  # sgd with Nesterov momentum 0.9
    lr: float = Field(gt=0)
    head_lr_factor: float = Field(1.0, gt=0)  # the new head may learn faster than what was learned before
    layer_lr_decay: float = Field(1.0, gt=0, le=1)  # factor on the rate for every block further from the head
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the stage's steps in which the rate rises linearly from 0
    batch_norm: Literal["frozen", "batch"] = "frozen"  # frozen: running statistics everywhere, as in evaluation
    ema: float = Field(0.0, ge=0, lt=1)  # decay a step of an average of the weights, which is what counts; 0: none
    # Progressive resizing: a size for each epoch, the recipe's image_size last. Validation uses the epoch's size, and
    # only epochs at the full size can become the model. None: image_size throughout.
    image_sizes: tuple[Annotated[int, Field(ge=71, le=1024)], ...] | None = None

    @model_validator(mode="after")
    def _one_size_an_epoch(self):
        if self.image_sizes is not None and len(self.image_sizes) != self.epochs:
            raise ValueError(f"image_sizes has {len(self.image_sizes)} entries for {self.epochs} epochs")
        return self

    @model_validator(mode="after")
    def _loss_has_a_use_for_its_keys(self):
        for key, loss in _OF_LOSS.items():
            if self.loss != loss and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} belongs to the loss {loss}, and this stage's is {self.loss}")
        return self


# Keys of a stage that one loss alone has a use for.
_OF_LOSS = {
    "label_smoothing": "cross_entropy",
    "focal_alpha": "focal",
    "focal_gamma": "focal",
    "ordinal_width": "soft_ordinal",
}


class Grading(Section):
    """How grades are made from the finished network's output; `train/calibrate.py` fits what there is to fit."""

    flip_average: bool = True  # mean of the logits of the X-ray and of its mirror image
    right_negatives: bool = True  # photographic negatives are inverted first
    right_upside_down: bool = True  # X-rays that are upside down are turned first
    # most_probable; root_distance: the grade with the least expected square root of the distance from the reader's;
    # median: with the least expected distance; rounded: the expected grade, rounded; tuned: the expected grade, cut at
    # thresholds fitted for the quadratic kappa
    read_out: Literal[*READ_OUTS] = "most_probable"
    coverage: float = Field(0.9, gt=0, lt=1)  # share of knees whose grade set holds the reader's grade
    # share of validation knees, as they are and as on films, that may be called unfamiliar
    unfamiliar: float = Field(0.01, gt=0, lt=1)


class Recipe(Section):
    """Everything that decides what a run learns. Where and how fast it runs is left to the command line."""

    name: str = Field(min_length=1)
    description: str = ""
    note: str = ""  # carried into the model folder and shown wherever the model grades
    image_size: int = Field(299, ge=71, le=1024)  # pixels; 71 is the least that Xception's pooling takes
    weights: Literal["imagenet", "random", "model"] = "imagenet"  # model: a finished run's, named by --start-from
    drop_rate: float = Field(0.0, ge=0, lt=1)  # dropout in front of the head
    batch_size: int = Field(32, ge=1)  # images an optimiser step, over all processes and accumulated parts
    seed: int = 0
    # The epoch of the last stage whose validation figure is best becomes the model; `last` takes the last one.
    best_metric: Literal["last", "loss", *HIGHER_IS_BETTER] = "loss"
    augmentation: Augmentation = Augmentation()
    stages: tuple[Stage, ...] = Field(min_length=1)
    grading: Grading = Grading()

    @model_validator(mode="after")
    def _ends_at_full_size(self):
        sizes = self.stages[-1].image_sizes
        if sizes is not None and sizes[-1] != self.image_size:
            raise ValueError(f"the last stage ends at {sizes[-1]} px, but image_size is {self.image_size}")
        return self

    @model_validator(mode="after")
    def _distils_from_a_model(self):
        if self.weights != "model" and any(stage.distillation for stage in self.stages):
            raise ValueError("distillation needs a model to start from; set weights to model, or distillation to 0")
        return self

    def size_in(self, stage: Stage, epoch: int) -> int:
        """Image size in pixels of a stage's epoch, counted from 0."""
        return self.image_size if stage.image_sizes is None else stage.image_sizes[epoch]

    @property
    def resizes(self) -> bool:
        return any(stage.image_sizes is not None for stage in self.stages)

    @property
    def largest(self) -> int:
        """Of all epochs' image sizes, in pixels."""
        return max([self.image_size, *(size for stage in self.stages for size in stage.image_sizes or ())])

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def available() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load(name_or_path: str | os.PathLike, overrides: list[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply overrides such as `stages.1.lr=3e-5`, and check every key.

    Raises:
        KoaError: no such recipe, not YAML, or a key or value that isn't allowed (the message names key, value and
            what is allowed).
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KoaError(
            f"no recipe {str(name_or_path)!r}; give the path of a YAML file or one of: {', '.join(available())}."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KoaError(f"{path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise KoaError(f"{path} doesn't hold a recipe: a mapping of keys to values is expected.")
    for override in overrides:
        _set(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise KoaError(f"{path}: {_first_problem(error)}") from error


def _set(values: dict, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise KoaError(f"--set {override!r} is not of the form key=value, such as stages.1.lr=3e-5.")
    *parents, last = (int(key) if key.isdigit() else key for key in dotted.split("."))
    place = values
    try:
        for key in parents:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if isinstance(place, list):
            place[last]  # a stage that isn't there is a mistake, not a new stage
        place[last] = yaml.safe_load(text)
    except (IndexError, TypeError, AttributeError) as error:
        raise KoaError(f"--set {override!r}: the recipe has no {dotted!r}.") from error
    except yaml.YAMLError as error:
        raise KoaError(f"--set {override!r}: the value is not valid YAML.") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        sections = {"stages": Stage, "augmentation": Augmentation, "grading": Grading}
        section = sections.get(problem["loc"][0], Recipe)
        return f"unknown key {key!r}; allowed here: {', '.join(section.model_fields)}."
    if problem["type"] == "missing":
        return f"the key {key!r} is missing."
    if problem["type"] == "value_error":
        return f"{key + ': ' if key else ''}{problem['ctx']['error']}."
    return f"{key} is {problem['input']!r}, but {problem['msg'][0].lower()}{problem['msg'][1:]}."
