"""Training recipe: a YAML file, checked on load. `train/recipes/` holds the project's own."""

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, model_validator

from koa_hf.errors import KoaError
from koa_hf.grading.metrics import HIGHER_IS_BETTER

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, and values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]


class Disturbance(Section):
    """A change of a share of the images, by an amount drawn between a lowest and a highest value."""

    share: Share = 0.0  # of the images

    @model_validator(mode="after")
    def _range_is_in_order(self):
        for key, value in self:
            if key != "share" and value[0] > value[1]:
                raise ValueError(f"{key} is {list(value)}; give the lowest value first")
        return self


class Blur(Disturbance):
    """Gaussian blur of the stored pixels."""

    sigma: tuple[NonNegativeFloat, NonNegativeFloat] = (0.3, 1.5)  # pixels


class Noise(Disturbance):
    """Gaussian noise on the stored pixels."""

    sigma: tuple[NonNegativeFloat, NonNegativeFloat] = (1.0, 12.0)  # grey levels of 255


class Sharpen(Disturbance):
    """Unsharp mask on the stored pixels."""

    amount: tuple[NonNegativeFloat, NonNegativeFloat] = (0.3, 1.5)  # factor on the difference to the blurred image


class Compression(Disturbance):
    """JPEG of the stored pixels."""

    quality: tuple[Quality, Quality] = (20, 95)  # as libjpeg counts


class Closer(Disturbance):
    """Zoom in on the centre, as in a tight crop."""

    shown: tuple[PositiveShare, PositiveShare] = (0.55, 1)  # of the image's width and height


class Augmentation(Section):
    """Random changes of the training images, drawn uniformly for every image and epoch. All off by default."""

    flip: bool = False  # mirror half of the images: a left knee becomes a right one
    rotation: float = Field(0.0, ge=0, le=180)  # degrees, either way
    scale: float = Field(0.0, ge=0, lt=1)  # zoom factor 1 - scale to 1 + scale
    closer: Closer = Closer()
    shift: float = Field(0.0, ge=0, le=0.5)  # share of the image's width and height, either way
    brightness: float = Field(0.0, ge=0, le=1)  # added to grey values 0 to 1, either way
    contrast: float = Field(0.0, ge=0, lt=1)  # factor 1 - contrast to 1 + contrast around the image's mean grey
    gamma: float = Field(0.0, ge=0, lt=1)  # exponent 1 - gamma to 1 + gamma on grey values
    inversion: float = Field(0.0, ge=0, le=1)  # share of images turned into photographic negatives
    erasing: Share = 0.0  # share of images in which a rectangle is filled with the mean grey
    resolution: float = Field(0.0, ge=0, lt=1)  # half of the images reduced to 1 - resolution or more, and enlarged
    blur: Blur = Blur()
    noise: Noise = Noise()
    sharpen: Sharpen = Sharpen()
    compression: Compression = Compression()

    @property
    def active(self) -> bool:
        return self != Augmentation()

    @property
    def disturbs(self) -> bool:
        """True if the stored pixels are changed, before they are resized for the network."""
        return bool(self.resolution) or any(
            part.share for part in (self.blur, self.noise, self.sharpen, self.compression)
        )


class Stage(Section):
    """One stage of the training: what is trained, with which loss, how fast. Continues from the stage before it."""

    name: str = Field(min_length=1)  # in the progress bar, metrics.jsonl and curves.png
    train: Literal["head", "exit_flow", "last_20", "all"]  # see koa_hf.network.xception.TRAINABLE_PARTS
    epochs: int = Field(ge=1)  # passes over the training split that the schedule is made for
    stop_after: int | None = Field(None, ge=1)  # ends the stage after so many epochs of them; None: all
    loss: Literal["cross_entropy", "focal", "soft_ordinal"] = "cross_entropy"  # see koa_hf.network.losses
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # cross_entropy only
    focal_alpha: float = Field(0.25, gt=0)  # focal only; Keras' default
    focal_gamma: float = Field(2.0, ge=0)  # focal only; Keras' default
    ordinal_width: float = Field(0.5, gt=0)  # soft_ordinal only: target softmax(-(distance in grades)^2 / width)
    distillation: Share = 0.0  # share of the loss towards the teacher logits; see below
    mixup: Share = 0.0  # parameter of the Beta distribution that pairs of images are blended by; 0: none; see below
    class_weights: Literal["none", "balanced"] = "none"  # balanced: all grades have the same weight in the loss
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"  # sgd with Nesterov momentum 0.9
    lr: float = Field(gt=0)  # highest learning rate, without the factors below
    head_lr_factor: float = Field(1.0, gt=0)  # on the head's rate: new weights may learn faster than pretrained ones
    layer_lr_decay: float = Field(1.0, gt=0, le=1)  # factor on the rate for every block further from the head
    weight_decay: float = Field(0.0, ge=0)  # L2 with adam and sgd, decoupled with adamw
    schedule: Literal["constant", "cosine"] = "constant"  # after the warm-up; cosine ends at 0
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the stage's updates in which the rate rises linearly from 0
    batch_norm: Literal["frozen", "batch"] = "frozen"  # frozen: running statistics, as in evaluation
    ema: float = Field(0.0, ge=0, lt=1)  # decay per update of the weight average that becomes the model; 0: none; below
    image_sizes: tuple[Annotated[int, Field(ge=71, le=1024)], ...] | None = None  # one for each epoch; see below

    # distillation: the teachers are those of --teacher, by default the model that the run starts from (weights: model).
    # Where a reader's grade is noise, a teacher has often not learnt it. Furlanello et al. 2018,
    # https://arxiv.org/abs/1805.04770.
    # mixup: pairs of images and their targets, blended by one share a pair. Zhang et al. 2018,
    # https://arxiv.org/abs/1710.09412.
    # ema: the decay starts low, min(ema, (1 + updates) / (10 + updates)), so that the first weights are soon forgotten.
    # image_sizes: progressive resizing, the recipe's image_size last; None: image_size in every epoch. Validation uses
    # the epoch's size, and only epochs at the full size can become the model.

    @model_validator(mode="after")
    def _one_size_an_epoch(self):
        if self.image_sizes is not None and len(self.image_sizes) != self.epochs:
            raise ValueError(f"image_sizes has {len(self.image_sizes)} entries for {self.epochs} epochs")
        return self

    @property
    def last_epoch(self) -> int:
        """Epochs that are run."""
        return self.stop_after or self.epochs

    @model_validator(mode="after")
    def _stops_within_its_schedule(self):
        if self.last_epoch > self.epochs:
            raise ValueError(f"stop_after is {self.stop_after}, but the stage has {self.epochs} epochs")
        return self

    @model_validator(mode="after")
    def _mixup_has_one_weight(self):
        if self.mixup and self.class_weights != "none":
            raise ValueError("mixup blends grades, so class_weights can't be balanced with it")
        return self

    @model_validator(mode="after")
    def _keys_belong_to_the_loss(self):
        for key, loss in _LOSS_OF_KEY.items():
            if self.loss != loss and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} belongs to the loss {loss}, and this stage's is {self.loss}")
        return self


_LOSS_OF_KEY = {
    "label_smoothing": "cross_entropy",
    "focal_alpha": "focal",
    "focal_gamma": "focal",
    "ordinal_width": "soft_ordinal",
}


class GradingOptions(Section):
    """Options of the grading rules; `train/calibrate.py` fits their parameters (grading.json)."""

    right_negatives: bool = True  # invert photographic negatives first
    right_upside_down: bool = True  # turn upside-down X-rays first
    coverage: float = Field(0.9, gt=0, lt=1)  # share of knees whose prediction set holds the reader's grade
    unfamiliar: float = Field(0.01, gt=0, lt=1)  # share of validation knees flagged as out of distribution


class Recipe(Section):
    """Everything that decides what a run learns. Device, processes and paths are command-line options."""

    name: str = Field(min_length=1)  # of the run, in its record and card
    description: str = ""  # one sentence, for the model card
    note: str = ""  # carried into the model folder and shown wherever the model grades
    image_size: int = Field(299, ge=71, le=1024)  # pixels a side; 71 is the least that Xception's pooling takes
    stored_size: int = Field(224, ge=8, le=1024)  # pixels a side at which files are disturbed; see below
    weights: Literal["imagenet", "random", "model"] = "imagenet"  # model: a finished run's, named by --start-from
    drop_rate: float = Field(0.0, ge=0, lt=1)  # dropout in front of the head
    batch_size: int = Field(32, ge=1)  # images per update, over all processes and accumulation steps; Keras' default
    seed: int = 0  # of new weights, image order, dropout and augmentation
    best_metric: Literal["last", "loss", *HIGHER_IS_BETTER] = "loss"  # picks the last stage's epoch by validation
    augmentation: Augmentation = Augmentation()  # none
    stages: tuple[Stage, ...] = Field(min_length=1)  # in order
    grading: GradingOptions = GradingOptions()  # for train/bundle.py and train/calibrate.py; training ignores it

    # stored_size: augmentation's resolution, blur, noise, sharpen and compression happen to a file's own pixels, before
    # these are resized for the network. The default is the release's size, so nothing of it is lost.

    @model_validator(mode="after")
    def _ends_at_full_size(self):
        last = self.stages[-1]
        if (size := self.size_in(last, last.last_epoch - 1)) != self.image_size:
            raise ValueError(f"the last stage ends at {size} px, but image_size is {self.image_size}")
        return self

    def size_in(self, stage: Stage, epoch: int) -> int:
        """Image size in pixels of a stage's epoch, counted from 0."""
        return self.image_size if stage.image_sizes is None else stage.image_sizes[epoch]

    def loaded_size(self, stage: Stage, epoch: int) -> int:
        """Size in pixels at which an epoch's training images are loaded."""
        return self.stored_size if self.augmentation.disturbs else self.size_in(stage, epoch)

    @property
    def distils(self) -> bool:
        return any(stage.distillation for stage in self.stages)

    @property
    def varies(self) -> bool:
        """True if an image isn't the same in every epoch, so that nothing computed from it can be kept."""
        return self.augmentation.active or self.resizes or any(stage.mixup for stage in self.stages)

    @property
    def resizes(self) -> bool:
        """True with progressive resizing."""
        return any(stage.image_sizes is not None for stage in self.stages)

    @property
    def largest(self) -> int:
        """Largest image size of any epoch, in pixels."""
        return max([self.image_size, *(size for stage in self.stages for size in stage.image_sizes or ())])

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def available_recipes() -> list[str]:
    """Names of the recipes in `train/recipes/`."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str | os.PathLike, overrides: list[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply overrides such as `stages.1.lr=3e-5`, and check every key.

    Raises:
        KoaError: no such recipe, not YAML, or a key or value that isn't allowed; the message names key, value and the
            allowed ones.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KoaError(
            f"no recipe {str(name_or_path)!r}; give the path of a YAML file, or one of: "
            f"{', '.join(available_recipes())}."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KoaError(f"{path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise KoaError(f"{path} is not a recipe: a mapping of keys to values is expected.")
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
        sections = {"stages": Stage, "augmentation": Augmentation, "grading": GradingOptions}
        section = sections.get(problem["loc"][0], Recipe)
        return f"unknown key {key!r}; allowed here: {', '.join(section.model_fields)}."
    if problem["type"] == "missing":
        return f"the key {key!r} is missing."
    if problem["type"] == "value_error":
        return f"{key + ': ' if key else ''}{problem['ctx']['error']}."
    return f"{key} is {problem['input']!r}, but {problem['msg'][0].lower()}{problem['msg'][1:]}."
