"""Post-training quantisation to int8 with NNCF, and the guard that a quantised network must pass."""

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from koa_hf import Grader
from koa_hf.grades import NUM_GRADES
from koa_hf.grading.metrics import quadratic_weighted_kappa
from koa_hf.network import engines, xception
from koa_hf.network.int8 import Int8, Int8Metadata, even_out
from koa_hf.network.preprocess import normalise
from koa_hf.progress import ProgressBar, progress_bar
from train.fitting.cross_fit import TIE, Fitted
from train.loop import recipe
from train.loop.knee_images import KneeImages

LEAST_UNCHANGED = 0.99  # share of grades
LARGEST_KAPPA_CHANGE = 0.003
BATCH_SIZE = 12
LEAST_SCALE = 0.1
"""Of the median channel's largest value: smaller channels are equalised as if they had this much."""


@dataclass(frozen=True)
class Attempt:
    """Settings of one quantisation.

    Attributes:
        kept: regular expressions for OpenVINO's names of the operations that stay in floating point.
        preset: of NNCF: `performance` has symmetric ranges, `mixed` asymmetric ones for activations.
        widest: ranges from the extremes over all images; else from the mean of each image's extremes, which clips.
        equalised: cross-layer equalisation in the middle of each separable convolution: the share of the unevenness
            between channels that is moved into the weights, 0 to 1; None: none. The function stays the same.
        knees: training knees that ranges are estimated from.
    """

    kept: tuple[str, ...] = ()
    preset: str = "performance"
    widest: bool = True
    equalised: float | None = None
    knees: int = 200


ADDITIONS = r".*aten::add.*"


def _through(block: int) -> tuple[str, ...]:
    """Names of the stem, blocks 1 to `block`, and every skip convolution and addition."""
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
class RuledOutput:
    """Output of a network for n knees, by the model's rules.

    Attributes:
        logits: float32 (n, 5).
        unfamiliarity: float32 (n,), or None.
    """

    logits: np.ndarray
    unfamiliarity: np.ndarray | None


def forward_all(grader: Grader, pixels: torch.Tensor, what: str) -> RuledOutput:
    """Run a grader over knees, uint8 (n, size, size)."""
    logits, distances = [], []
    with progress_bar(what, len(pixels)) as advance:
        for batch in pixels.split(BATCH_SIZE):
            output = grader.forward(normalise(batch))
            logits.append(output.logits)
            if output.unfamiliarity is not None:
                distances.append(output.unfamiliarity)
            advance(len(batch))
    return RuledOutput(torch.cat(logits).numpy(), torch.cat(distances).numpy() if distances else None)


@torch.inference_mode()
def equalisation_scales(network: nn.Module, images: torch.Tensor, share: float) -> dict[str, torch.Tensor]:
    """Divisors of the channels in the middle of every separable convolution, for `koa_hf.network.int8.even_out`.

    Cross-layer equalisation (Nagel et al. 2019, https://arxiv.org/abs/1906.04721), with the share of SmoothQuant (Xiao
    et al. 2022, https://arxiv.org/abs/2211.10438).

    Args:
        network: folded by `xception.folded`.
        images: float32 (n, 3, size, size), to measure the largest activation of each channel.
        share: 0 equalises the weights, 1 the activations.
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


def quantise_network(network: nn.Module, images: torch.Tensor, attempt: Attempt) -> dict[str, torch.Tensor]:
    """Post-training quantisation by NNCF; returns `koa_hf.network.int8.Int8.numbers`.

    Args:
        network: folded by `xception.folded`, float32 on the CPU; changed in place if the attempt equalises.
        images: float32 (n, 3, size, size), to estimate ranges from.
    """
    # Switches off NNCF's telemetry.
    os.environ["NNCF_CI"] = "1"
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    between = {}
    if attempt.equalised is not None:
        between = equalisation_scales(network, images, attempt.equalised)
        even_out(network, between)
    model = engines.convert_to_openvino(engines._Features(network, None), images.shape[-1])
    ranges = RangeEstimatorParametersSet.MINMAX if attempt.widest else RangeEstimatorParametersSet.MEAN_MINMAX
    found = nncf.quantize(
        model,
        nncf.Dataset([image[None].numpy() for image in images]),
        preset=nncf.QuantizationPreset(attempt.preset),
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=list(attempt.kept), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
    )
    return numbers_of(found) | {f"{name}.between": scale for name, scale in between.items()}


def numbers_of(model) -> dict[str, torch.Tensor]:
    """NNCF's ranges, steps and biases for each convolution of an OpenVINO network, by its name in torch."""
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
    """A grader that computes in int8, not recalibrated for it; `weights` is the fingerprint of its network."""
    about = Int8Metadata(weights=weights, temperature=1, level=0, shift=(0.0,) * NUM_GRADES, unfamiliarity=1)
    return Grader(
        grader.model, grader.preprocessing, grader.rules,
        device="cpu", precision="int8", engine="openvino", int8=Int8(numbers, about),
    )  # fmt: skip


@torch.inference_mode()
def share_in_int8(network: nn.Module, numbers: dict[str, torch.Tensor], image: torch.Tensor) -> float:
    """Share of the convolutions' multiplications that are in int8, 0 to 1."""
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


def judge(
    found: RuledOutput, expected: RuledOutput, grades: np.ndarray, grader: Grader, options: recipe.GradingOptions
) -> dict:
    """Compare an int8 network with float32, apply the guard, and refit the calibration.

    Args:
        grades: the reader's, int (n,).
        options: of the model's recipe.
    """
    ours, theirs = (grader.rules.probabilities(seen.logits) for seen in (found, expected))
    read, before = ours.argmax(1), theirs.argmax(1)
    changed = read != before
    low, high = np.sort(theirs, axis=1)[:, -2:].T
    kappa_change = quadratic_weighted_kappa(read, grades) - quadratic_weighted_kappa(before, grades)
    difference = (found.logits - expected.logits).astype(np.float64)
    difference -= difference.mean(1, keepdims=True)
    fitted = Fitted.to(found.logits, grades, options.coverage)
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
            "level": fitted.level,
            "unfamiliarity": farther,
        },
        "passes": unchanged >= LEAST_UNCHANGED and abs(kappa_change) <= LARGEST_KAPPA_CHANGE,
    }


def try_attempt(
    attempt: Attempt, grader: Grader, weights: str, train: torch.Tensor, of_train: RuledOutput, validation: torch.Tensor
) -> tuple[dict[str, torch.Tensor], np.ndarray, RuledOutput, float]:
    """Quantise with one attempt's settings and run the result.

    Args:
        weights: `xception.fingerprint` of the grader's network.
        train, validation: knees, uint8 (n, size, size).
        of_train: float32 output for the training knees.

    Returns:
        The numbers; the mean shift of the logits by int8 over the training knees, float (5,), which is added back; the
        output for the validation knees, shift included; and the share of the multiplications in int8.
    """
    images = normalise(train[: attempt.knees]).clone()
    images[1::2] = images[1::2].flip(-1)
    network = xception.folded(grader.model).float()
    numbers = quantise_network(network, images, attempt)
    quick = in_int8(grader, weights, numbers)
    shift = (of_train.logits - forward_all(quick, train, "training knees in int8").logits).mean(0)
    seen = forward_all(quick, validation, "validation knees in int8")
    seen = dataclasses.replace(seen, logits=seen.logits + shift)
    return numbers, shift, seen, share_in_int8(network, numbers, images[0])


def network_pixels(split: Dataset, grader: Grader, what: str) -> torch.Tensor:
    """A split as the grader's network gets it, before normalisation: uint8 (n, size, size)."""
    knees = KneeImages(split, grader.preprocessing, grader.rules)
    return torch.stack([knees[i]["pixels"] for i in ProgressBar(range(len(knees)), f"reading {what}")])
