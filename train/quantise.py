"""Does the network keep its grades in int8? Post-training quantisation with NNCF, several ways, each held to a guard.

    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8
    python train/quantise.py --model models/koa-xception --dataset data/knee-kl --results results/int8 \\
        --attempts from_block_4 from_block_5 --write

The guard: on the validation knees at least 99 % of the grades are those of the network in float32, and quadratic
weighted kappa is within 0.003 of its. Ranges are learnt from training knees, every other one mirrored. Each attempt is
written to attempts.json in --results as soon as it is measured; those measured before, in other runs, stay there.
With --write, of the attempts that pass the one with the most in int8 goes into the model folder, as int8.safetensors,
with the calibration fitted again for it, and is told in its card. Needs `pip install -r requirements-dev.txt`.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from koa_hf import Grader, checksums
from koa_hf.data.load import load_dataset
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.metrics import quadratic_weighted_kappa
from koa_hf.hub import model_card
from koa_hf.network import engines, xception
from koa_hf.network.int8 import Int8, Int8Metadata, even_out
from koa_hf.network.preprocess import normalise
from koa_hf.progress import progress_bar
from train.calibrate import grading_of
from train.fitting.cross_fit import Fitted
from train.loop import recipe
from train.loop.knee_images import KneeImages, choose_split
from train.loop.record import git_commit

LEAST_UNCHANGED = 0.99
LARGEST_KAPPA_CHANGE = 0.003
TIE = 0.01
"""Between the two most probable grades: either may come out ahead in another arithmetic."""

BATCH_SIZE = 12
LEAST_SCALE = 0.1
"""Channels that reach less than this share of the median channel are equalised as if they reached it."""


@dataclass(frozen=True)
class Attempt:
    """One way of quantising.

    Attributes:
        kept: regular expressions for the operations that stay in floating point, by OpenVINO's names for them.
        preset: NNCF's: `performance` has symmetric ranges, `mixed` asymmetric ones for activations.
        widest: ranges take in everything seen; else the mean over images of their extremes, which clips some images.
        equalised: how much of the unevenness between the channels in the middle of a separable convolution is moved
            into the weights, 0 to 1; None: none. The network computes the same, its ranges fit better.
        knees: training knees that ranges are learnt from.
    """

    kept: tuple[str, ...] = ()
    preset: str = "performance"
    widest: bool = True
    equalised: float | None = None
    knees: int = 200


ADDITIONS = r".*aten::add.*"


def _through(block: int) -> tuple[str, ...]:
    """The stem, blocks 1 to `block`, every skip convolution and addition."""
    blocks = "|".join(str(i) for i in range(1, block + 1))
    return (ADDITIONS, r".*model\.conv[12]/.*", r".*skip.*", rf".*model\.block({blocks})\..*")


ATTEMPTS = {
    "plain": Attempt(widest=False),
    "equalised": Attempt(kept=(ADDITIONS,), equalised=0.5),
    "from_block_2": Attempt(kept=_through(1), equalised=0.7),
    "from_block_4": Attempt(kept=_through(3), equalised=0.7),
    "from_block_5": Attempt(kept=_through(4), equalised=0.7),
    "from_block_8": Attempt(kept=_through(7), equalised=0.7),
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


def see(grader: Grader, pixels: torch.Tensor, what: str) -> Seen:
    """What a grader makes of knees, uint8 (n, size, size)."""
    logits, distances = [], []
    with progress_bar(what, len(pixels), show=True) as advance:
        for batch in pixels.split(BATCH_SIZE):
            output = grader.forward(normalise(batch))
            logits.append(output.logits)
            if output.unfamiliarity is not None:
                distances.append(output.unfamiliarity)
            for _ in batch:
                advance()
    return Seen(torch.cat(logits).numpy(), torch.cat(distances).numpy() if distances else None)


@torch.inference_mode()
def reach_evenly(network: nn.Module, images: torch.Tensor, share: float) -> dict[str, torch.Tensor]:
    """What to divide the channels in the middle of every separable convolution by: `koa_hf.network.int8.even_out`.

    Nagel et al. 2019, https://arxiv.org/abs/1906.04721; how much of it, as Xiao et al. 2022,
    https://arxiv.org/abs/2211.10438.

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
    between = {}
    for name, module in separable.items():
        weights = module.pointwise.weight.abs().amax((0, 2, 3))
        activations, weights = (x.clamp(min=LEAST_SCALE * float(x.median())) for x in (reach[name], weights))
        scale = activations**share / weights ** (1 - share)
        between[name] = scale / scale.log().mean().exp()
    return between


def quantise(network: nn.Module, images: torch.Tensor, how: Attempt) -> dict[str, torch.Tensor]:
    """A network's numbers for int8: `koa_hf.network.int8.Int8.numbers`.

    Args:
        network: as `xception.folded` makes it, float32 on the CPU; changed in place where `how` equalises.
        images: float32 (n, 3, size, size), to learn ranges from.
    """
    # NNCF reports its use to its maker unless told that this is a test.
    os.environ["NNCF_CI"] = "1"
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    between = {}
    if how.equalised is not None:
        between = reach_evenly(network, images, how.equalised)
        even_out(network, between)
    model = engines.convert_to_openvino(engines._Features(network, None), images.shape[-1])
    ranges = RangeEstimatorParametersSet.MINMAX if how.widest else RangeEstimatorParametersSet.MEAN_MINMAX
    found = nncf.quantize(
        model,
        nncf.Dataset([image[None].numpy() for image in images]),
        preset=nncf.QuantizationPreset(how.preset),
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=list(how.kept), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
    )
    return numbers_of(found) | {f"{name}.between": scale for name, scale in between.items()}


def numbers_of(model) -> dict[str, torch.Tensor]:
    """What NNCF decided for each convolution of an OpenVINO network, by the convolution's name in torch."""
    numbers = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        rounding, weights = (operation.input_value(i).get_node() for i in (0, 1))
        if rounding.get_type_name() != "FakeQuantize":
            continue
        name = operation.get_friendly_name().removeprefix("__module.model.").split("/")[0]
        low, high = (_constant(rounding.input_value(i)) for i in (1, 2))
        numbers[f"{name}.range"] = torch.stack([low, high])
        numbers[f"{name}.step"] = _constant(weights.input_value(1))
        after = [one.get_node() for one in operation.output(0).get_target_inputs()]
        if len(after) == 1 and after[0].get_type_name() == "Add":
            numbers[f"{name}.bias"] = _constant(after[0].input_value(1))
    return numbers


def _constant(output) -> torch.Tensor:
    return torch.from_numpy(output.get_node().get_data().copy()).float().flatten()


def in_int8(grader: Grader, weights: str, numbers: dict[str, torch.Tensor]) -> Grader:
    """A grader whose network is computed in int8, not calibrated for it; `weights` is that network's fingerprint."""
    about = Int8Metadata(
        weights=weights, temperature=1, thresholds=None, level=0, shift=(0.0,) * NUM_GRADES, unfamiliarity=1
    )
    return Grader(
        grader.model, grader.preprocessing, grader.rules,
        device="cpu", precision="int8", engine="openvino", int8=Int8(numbers, about),
    )  # fmt: skip


@torch.inference_mode()
def share_in_int8(network: nn.Module, numbers: dict[str, torch.Tensor], image: torch.Tensor) -> float:
    """The share of the multiplications in convolutions that are in int8, 0 to 1."""
    counted = {True: 0, False: 0}

    def count(name: str) -> Callable:
        def hook(convolution: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            counted[f"{name}.step" in numbers] += output[0, 0].numel() * convolution.weight.numel()

        return hook

    hooks = [m.register_forward_hook(count(n)) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    network.forward_features(image[None])
    for hook in hooks:
        hook.remove()
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
    familiar, farther = None, 1.0
    if expected.unfamiliarity is not None:
        farther = float(np.median(found.unfamiliarity / expected.unfamiliarity))
        familiar = int(((found.unfamiliarity <= farther) != (expected.unfamiliarity <= 1)).sum())
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
        "refitted": {
            "temperature": fitted.temperature,
            "thresholds": fitted.thresholds,
            "level": fitted.level,
            "unfamiliarity": farther,
        },
        "passes": unchanged >= LEAST_UNCHANGED and abs(kappa_change) <= LARGEST_KAPPA_CHANGE,
    }


def try_out(
    how: Attempt, grader: Grader, weights: str, train: torch.Tensor, of_train: Seen, validation: torch.Tensor
) -> tuple[dict[str, torch.Tensor], np.ndarray, Seen, float]:
    """Quantise in one way.

    Args:
        weights: `xception.fingerprint` of the grader's network.
        train, validation: knees, uint8 (n, size, size).
        of_train: what the network in float32 makes of the training knees.

    Returns:
        The numbers; what int8 takes from the logits on average over the training knees, (5,); what it makes of the
        validation knees with that given back; and the share of the multiplications that are in int8.
    """
    images = normalise(train[: how.knees]).clone()
    images[1::2] = images[1::2].flip(-1)
    network = xception.folded(grader.model).float()
    numbers = quantise(network, images, how)
    quick = in_int8(grader, weights, numbers)
    shift = (of_train.logits - see(quick, train, "training knees in int8").logits).mean(0)
    seen = see(quick, validation, "validation knees in int8")
    seen = dataclasses.replace(seen, logits=seen.logits + shift)
    return numbers, shift, seen, share_in_int8(network, numbers, images[0])


def pixels_of(split: Dataset, grader: Grader, what: str) -> torch.Tensor:
    """A split as the network sees it, righted: uint8 (n, size, size)."""
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
    parser.add_argument("--write", action="store_true", help="the best that passes, into the model folder")
    return parser.parse_args(argv)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        versions = {name: version(name) for name in ("nncf", "openvino", "torch")}
    except ImportError as error:
        raise KoaError(f"{error.name} isn't installed here; run `pip install -r requirements-dev.txt`.") from error
    if args.write and (args.knees or not Path(args.model).is_dir()):
        raise KoaError("--write needs a local model folder and all validation knees; leave --knees out.")
    grader = Grader.from_pretrained(args.model, device="cpu", engine="openvino")
    how = grading_of(Path(args.model))
    data = load_dataset(args.dataset)
    validation, train = (choose_split(data, split, args.dataset) for split in ("validation", "train"))
    random = np.random.default_rng(0)
    train = train.select(random.permutation(len(train))[: max(ATTEMPTS[name].knees for name in args.attempts)])
    if args.knees:
        validation = validation.select(np.sort(random.permutation(len(validation))[: args.knees]))
    training, knees = pixels_of(train, grader, "training knees"), pixels_of(validation, grader, "validation knees")
    of_train = see(grader, training, "training knees in float32")
    expected = see(grader, knees, "validation knees in float32")
    grades, weights = np.array(validation["label"]), xception.fingerprint(grader.model)

    args.results.mkdir(parents=True, exist_ok=True)
    file = args.results / "attempts.json"
    measured = json.loads(file.read_text())["attempts"] if file.is_file() else {}
    best: tuple[float, Int8] | None = None
    for name in args.attempts:
        numbers, shift, found, share = try_out(ATTEMPTS[name], grader, weights, training, of_train, knees)
        verdict = {"share_in_int8": share, "knees": len(knees), **judge(found, expected, grades, grader, how)}
        verdict["refitted"]["shift"] = shift.tolist()
        measured[name] = {
            "how": dataclasses.asdict(ATTEMPTS[name]),
            **verdict,
            "model": f"{grader.model_id}, {grader.revision}",
            "packages": versions,
            "git_commit": git_commit(),
        }
        result = {
            "what": "int8 against float32, both by OpenVINO, on validation knees by the model's rules",
            "guard": {"least_unchanged": LEAST_UNCHANGED, "largest_kappa_change": LARGEST_KAPPA_CHANGE},
            "attempts": measured,
        }
        write_text(file, json.dumps(result, indent=2) + "\n")
        print(
            f"{name}: {verdict['grades_unchanged']:.2%} unchanged ({verdict['grades_changed']} changed, "
            f"{verdict['of_these_ties']} of them ties), kappa {verdict['kappa_change']:+.4f}, "
            f"{share:.0%} in int8: {'passes' if verdict['passes'] else 'fails'}",
            flush=True,
        )
        if verdict["passes"] and (best is None or share > best[0]):
            best = share, Int8(numbers, Int8Metadata(weights=weights, **verdict.pop("refitted"), measured=verdict))
    if args.write:
        if best is None:
            raise KoaError("no attempt passes the guard; the model folder stays as it was.")
        best[1].save(Path(args.model))
        checksums.write_checksums(args.model)
        model_card.write(Path(args.model))
        print(f"{args.model} has a network in int8, {best[0]:.0%} of its multiplications")


if __name__ == "__main__":
    sys.exit(main())
