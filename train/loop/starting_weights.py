"""The network that a run starts from: ImageNet weights, random ones, or those of a finished run."""

from dataclasses import dataclass

import torch
from torch import nn

from koa_hf import Grader
from koa_hf.network import model_folder, xception
from koa_hf.network.model_folder import ModelFolder
from koa_hf.network.preprocess import normalise
from train.loop.knee_images import KneeImages
from train.loop.recipe import Recipe

STATISTICS_FROM = 64  # images that the batch-normalisation statistics of a random network are estimated from


@dataclass(frozen=True)
class StartModel:
    """A finished model that a run continues.

    Attributes:
        source: its folder, name and revision.
        grader: it without grading rules, computed by torch.
    """

    source: ModelFolder
    grader: Grader

    @classmethod
    def load(cls, name: str, device: torch.device) -> "StartModel":
        """Load by folder or Hub id."""
        source = model_folder.find_model(name)
        return cls(source, Grader.load(source, device=device, plain=True, engine="torch"))


def build_network(
    plan: Recipe, pretrained_weights: str | None, start: StartModel | None, train: KneeImages, resumed: bool
) -> nn.Module:
    """The recipe's network, on the CPU. A resumed run overwrites the weights, so it downloads and estimates nothing.

    Args:
        pretrained_weights: local copy of the ImageNet weights; None: timm's, from the Hub.
        start: the model to continue, for recipes with `weights: model`.
        train: images to estimate the normalisation statistics of random weights from.
    """
    needs_imagenet = plan.weights == "imagenet" and not resumed
    model = xception.build(pretrained_weights, pretrained=needs_imagenet, drop_rate=plan.drop_rate)
    if start is not None:
        model.load_state_dict(start.grader.model.state_dict())
    if plan.weights == "random" and not resumed:
        some = torch.stack([train[row]["pixels"] for row in range(min(STATISTICS_FROM, len(train)))])
        xception.estimate_batch_norm_statistics(model, normalise(some))
    return model
