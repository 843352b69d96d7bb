"""Does the network keep its grades in int8? Post-training quantisation with NNCF, several ways, each held to a guard.

    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8
    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8 \\
        --attempts plain late_half --keep runs/int8

The guard: on the validation knees at least 99 % of the grades are those of the network in float32, and quadratic
weighted kappa is within 0.003 of its. Ranges are learnt from training knees, every other one mirrored. Each attempt is
written to attempts.json in --results as soon as it is measured; those measured before, in other runs, stay there.
--keep also writes each attempt's network for OpenVINO. Needs `pip install -r requirements-dev.txt`.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent  # see train/run.py
sys.path = [str(HERE.parent), *(path for path in sys.path if path != str(HERE))]

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from koa_hf import Grader, dataset, engines, xception
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.metrics import quadratic_weighted_kappa
from koa_hf.preprocess import normalise
from koa_hf.progress import progress_bar
from train import recipe
from train.calibrate import grading_of
from train.data import KneeImages, choose_split
from train.fitting import Fitted
from train.record import git_commit

LEAST_UNCHANGED = 0.99
LARGEST_KAPPA_CHANGE = 0.003
TIE = 0.01
"""Between the two most probable grades: either may come out ahead in another arithmetic."""

CENTRING_KNEES = 120
"""Training knees, not among those that ranges are learnt from, for an attempt's `centred`."""

BATCH_SIZE = 12
LEAST_SCALE = 0.1
"""Channels that reach less than this share of the median channel are equalised as if they reached it."""

Compute = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True)
class Attempt:
    """One way of quantising.

    Attributes:
        kept: regular expressions for the operations that stay in floating point, by OpenVINO's names for them.
        preset: NNCF's: `performance` has symmetric ranges, `mixed` asymmetric ones for activations.
        widest: ranges take in everything seen; else the mean over images of their extremes, which clips some images.
        equalised: how much of the unevenness between the channels in the middle of a separable convolution is moved
            into the weights, 0 to 1; None: none. The network computes the same, its ranges fit better.
        centred: logits are shifted so that their mean over some training knees is what it was.
        knees: training knees that ranges are learnt from.
    """

    kept: tuple[str, ...] = ()
    preset: str = "performance"
    widest: bool = True
    equalised: float | None = None
    centred: bool = False
    knees: int = 200


ADDITIONS = r".*aten::add.*"


def _through(block: int) -> tuple[str, ...]:
    """The stem, blocks 1 to `block`, every skip convolution and addition."""
    blocks = "|".join(str(i) for i in range(1, block + 1))
    return (ADDITIONS, r".*model\.conv[12]/.*", r".*skip.*", rf".*model\.block({blocks})\..*")


ATTEMPTS = {
    "plain": Attempt(widest=False),
    "mixed": Attempt(widest=False, preset="mixed"),
    "additions_in_float": Attempt(kept=(ADDITIONS,), widest=False),
    "widest_ranges": Attempt(kept=(ADDITIONS,)),
    "equalised": Attempt(kept=(ADDITIONS,), equalised=0.5),
    "start_in_float": Attempt(kept=_through(1)),
    "start_in_float_equalised": Attempt(kept=_through(1), equalised=0.5),
    "start_in_float_centred": Attempt(kept=_through(1), equalised=0.5, centred=True),
    "from_block_4": Attempt(kept=_through(3), equalised=0.7, centred=True),
    "from_block_5": Attempt(kept=_through(4), equalised=0.7, centred=True),
    "late_half": Attempt(kept=_through(7), equalised=0.7, centred=True),
}
"""From NNCF's defaults to ever fewer layers in int8."""


@dataclass(frozen=True)
class Seen:
    """What a network makes of n knees by the model's rules.

    Attributes:
        logits: float32 (n, 5), averaged with those of the mirror images where the rules say so.
        unfamiliarity: float32 (n,), or None.
    """

    logits: np.ndarray
    unfamiliarity: np.ndarray | None


@torch.inference_mode()
def see(compute: Compute, grader: Grader, pixels: torch.Tensor, what: str) -> Seen:
    """Run knees, uint8 (n, size, size), through a network as `Grader.forward` does."""
    familiarity = grader.rules.familiarity
    distance = familiarity.measure() if familiarity else None
    logits, distances = [], []
    with progress_bar(what, len(pixels), show=True) as advance:
        for batch in pixels.split(BATCH_SIZE):
            images = normalise(batch)
            both = torch.cat([images, images.flip(-1)]) if grader.rules.flip_average else images
            features, inner = compute(both)
            found = grader.model.forward_head(features)
            logits.append(found.unflatten(0, (2, -1)).mean(0) if grader.rules.flip_average else found)
            if distance:
                distances.append(distance(inner[: len(images)]))
            for _ in batch:
                advance()
    return Seen(torch.cat(logits).numpy(), torch.cat(distances).numpy() if distance else None)


@torch.inference_mode()
def equalise(network: nn.Module, images: torch.Tensor, share: float) -> None:
    """Even out the channels between the two convolutions of every separable one, in place; the function stays the same.

    Nothing but a scale for each channel lies between them, so it can move from one to the other (Nagel et al. 2019,
    https://arxiv.org/abs/1906.04721; how much of it, as Xiao et al. 2022, https://arxiv.org/abs/2211.10438).

    Args:
        network: as `xception.folded` makes it.
        images: float32 (n, 3, size, size), to see how far each channel reaches.
        share: 0 evens out the weights, 1 the activations.
    """
    separable = {name: module for name, module in network.named_modules() if hasattr(module, "pointwise")}
    reach: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            largest = output.abs().amax((0, 2, 3))
            reach[name] = torch.maximum(reach.get(name, largest), largest)

        return hook

    hooks = [module.conv1.register_forward_hook(watch(name)) for name, module in separable.items()]
    for batch in images.split(BATCH_SIZE):
        network.forward_features(batch)
    for hook in hooks:
        hook.remove()
    for name, module in separable.items():
        weights = module.pointwise.weight.abs().amax((0, 2, 3))
        activations, weights = (x.clamp(min=LEAST_SCALE * float(x.median())) for x in (reach[name], weights))
        scale = activations**share / weights ** (1 - share)
        scale = scale / scale.log().mean().exp()
        module.conv1.weight.div_(scale[:, None, None, None])
        module.pointwise.weight.mul_(scale[None, :, None, None])


def quantised(network: nn.Module, layer: str | None, images: torch.Tensor, how: Attempt):
    """An OpenVINO network in int8.

    Args:
        network: as `xception.folded` makes it, float32 on the CPU; changed in place where `how` equalises.
        layer: as `koa_hf.engines.build` takes it.
        images: float32 (n, 3, size, size), to learn ranges from.
    """
    # NNCF reports its use to its maker unless told that this is a test.
    os.environ["NNCF_CI"] = "1"
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    from openvino._offline_transformations import apply_moc_transformations

    nncf.set_log_level(logging.ERROR)
    if how.equalised is not None:
        equalise(network, images, how.equalised)
    model = engines.convert(engines._Features(network, layer), images.shape[-1])
    apply_moc_transformations(model, False)  # NNCF looks for biases that are constants
    ranges = RangeEstimatorParametersSet.MINMAX if how.widest else RangeEstimatorParametersSet.MEAN_MINMAX
    return nncf.quantize(
        model,
        nncf.Dataset([image[None].numpy() for image in images]),
        preset=nncf.QuantizationPreset(how.preset),
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=list(how.kept), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
    )


def compiled(model) -> Compute:
    """An OpenVINO network as an engine that computes what isn't int8 in float32."""
    import openvino

    network = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def compute(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = [torch.from_numpy(value.copy()) for value in network([images.contiguous().numpy()]).values()]
        return found[0], found[1] if len(found) > 1 else None

    return compute


def share_in_int8(model) -> float:
    """The share of the multiplications in convolutions whose input is quantised, 0 to 1."""
    counted = {True: 0, False: 0}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in ("Convolution", "GroupConvolution"):
            positions = int(np.prod([side.get_length() for side in list(operation.get_output_partial_shape(0))[2:]]))
            weights = int(np.prod(operation.input_value(1).get_shape()))
            low = operation.input_value(0).get_node().get_type_name() == "FakeQuantize"
            counted[low] += positions * weights
    return counted[True] / sum(counted.values())


def judge(found: Seen, expected: Seen, grades: np.ndarray, grader: Grader, how: recipe.Grading) -> dict:
    """How far a network's grades are from those expected, whether the guard lets it pass, and its own calibration.

    Args:
        grades: the reader's, int (n,).
        how: of the model's recipe.
    """
    ours, theirs = (grader.rules.probabilities(seen.logits) for seen in (found, expected))
    read, before = grader.rules.grades(ours), grader.rules.grades(theirs)
    changed = read != before
    low, high = np.sort(theirs, axis=1)[:, -2:].T
    kappa_change = quadratic_weighted_kappa(read, grades) - quadratic_weighted_kappa(before, grades)
    difference = (found.logits - expected.logits).astype(np.float64)
    difference -= difference.mean(1, keepdims=True)
    fitted = Fitted.to(found.logits, grades, how.read_out, how.coverage)
    familiar = None
    if expected.unfamiliarity is not None:
        familiar = int(((found.unfamiliarity <= 1) != (expected.unfamiliarity <= 1)).sum())
    unchanged = float(1 - changed.mean())
    return {
        "grades_unchanged": unchanged,
        "grades_changed": int(changed.sum()),
        "of_these_ties": int((changed & (high - low < TIE)).sum()),
        "kappa_change": float(kappa_change),
        "largest_probability_change": float(np.abs(ours - theirs).max()),
        "mean_largest_probability_change": float(np.abs(ours - theirs).max(1).mean()),
        "familiarity_changed": familiar,
        "logits_off_by": float(np.sqrt(np.square(difference).mean())),
        "of_this_the_same_for_all_knees": float(np.sqrt(np.square(difference.mean(0)).mean())),
        "refitted": {"temperature": fitted.temperature, "thresholds": fitted.thresholds, "level": fitted.level},
        "passes": unchanged >= LEAST_UNCHANGED and abs(kappa_change) <= LARGEST_KAPPA_CHANGE,
    }


def try_out(
    how: Attempt, grader: Grader, train: torch.Tensor, validation: torch.Tensor, keep: Path | None
) -> tuple[Seen, float]:
    """Quantise in one way, and see the validation knees; also the share of the multiplications that are in int8."""
    familiarity = grader.rules.familiarity
    layer = familiarity.layer if familiarity else None
    learnt_from, centring = train[: how.knees], train[how.knees : how.knees + CENTRING_KNEES]
    images = normalise(learnt_from).clone()
    images[1::2] = images[1::2].flip(-1)
    model = quantised(xception.folded(grader.model).float(), layer, images, how)
    if keep:
        import openvino

        openvino.save_model(model, keep, compress_to_fp16=False)
    compute, share = compiled(model), share_in_int8(model)
    shift: np.ndarray | float = 0.0
    if how.centred:
        reference = engines.build(
            "openvino", grader.model, layer, "fp32", grader.preprocessing.image_size, grader.device
        )
        now, then = (see(one, grader, centring, "centring").logits for one in (compute, reference))
        shift = (now - then).mean(0)
    seen = see(compute, grader, validation, "validation knees in int8")
    return Seen(seen.logits - shift, seen.unfamiliarity), share


def pixels_of(split: Dataset, grader: Grader, what: str) -> torch.Tensor:
    """A split as the network sees it, negatives righted: uint8 (n, size, size)."""
    knees = KneeImages(split, grader.preprocessing, grader.rules)
    with progress_bar(f"reading {what}", len(knees), show=True) as advance:
        rows = []
        for i in range(len(knees)):
            rows.append(knees[i]["pixels"])
            advance()
    return torch.stack(rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id, with the rules it is served with")
    parser.add_argument("--dataset", required=True, help="a built data set's folder, or its id on the Hub")
    parser.add_argument("--results", required=True, type=Path, help="gets attempts.json")
    parser.add_argument("--attempts", nargs="+", choices=ATTEMPTS, default=list(ATTEMPTS), metavar="NAME",
                        help=f"by default all: {', '.join(ATTEMPTS)}")  # fmt: skip
    parser.add_argument("--knees", type=int, metavar="N", help="of validation, drawn at random (default: all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="also write each network there, for OpenVINO")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        versions = {name: version(name) for name in ("nncf", "openvino", "torch")}
    except ImportError as error:
        raise KoaError(f"{error.name} isn't installed here; run `pip install -r requirements-dev.txt`.") from error
    grader = Grader.from_pretrained(args.model, device="cpu", engine="openvino")
    how = grading_of(Path(args.model))
    data = dataset.load(args.dataset)
    validation, train = (choose_split(data, split, args.dataset) for split in ("validation", "train"))
    random = np.random.default_rng(0)
    needed = max(ATTEMPTS[name].knees for name in args.attempts) + CENTRING_KNEES
    train = train.select(random.permutation(len(train))[:needed])
    if args.knees:
        validation = validation.select(np.sort(random.permutation(len(validation))[: args.knees]))
    training, knees = pixels_of(train, grader, "training knees"), pixels_of(validation, grader, "validation knees")
    layer = grader.rules.familiarity.layer if grader.rules.familiarity else None
    reference = engines.build("openvino", grader.model, layer, "fp32", grader.preprocessing.image_size, grader.device)
    expected, grades = see(reference, grader, knees, "validation knees in float32"), np.array(validation["label"])

    args.results.mkdir(parents=True, exist_ok=True)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    file = args.results / "attempts.json"
    before = json.loads(file.read_text())["attempts"] if file.is_file() else {}
    for name in args.attempts:
        found, share = try_out(
            ATTEMPTS[name], grader, training, knees, args.keep / f"{name}.xml" if args.keep else None
        )
        verdict = {
            "how": asdict(ATTEMPTS[name]),
            "share_in_int8": share,
            "knees": len(knees),
            **judge(found, expected, grades, grader, how),
            "model": f"{grader.model_id}, {grader.revision}",
            "packages": versions,
            "git_commit": git_commit(),
        }
        before[name] = verdict
        result = {
            "what": "int8 against float32, both by OpenVINO, on validation knees by the model's rules",
            "guard": {"least_unchanged": LEAST_UNCHANGED, "largest_kappa_change": LARGEST_KAPPA_CHANGE},
            "attempts": {one: before[one] for one in ATTEMPTS if one in before},
        }
        write_text(file, json.dumps(result, indent=2) + "\n")
        print(
            f"{name}: {verdict['grades_unchanged']:.2%} unchanged ({verdict['grades_changed']} changed, "
            f"{verdict['of_these_ties']} of them ties), kappa {verdict['kappa_change']:+.4f}, "
            f"{share:.0%} in int8: {'passes' if verdict['passes'] else 'fails'}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
