"""Out-of-distribution detection: the distance of an image from the knees that the network was trained on.

A network grades whatever it is given. Its features are therefore compared with those of the training knees by
Mahalanobis distance (Lee et al. 2018, https://arxiv.org/abs/1807.03888), with the covariance of a probabilistic
principal component analysis (Tipping and Bishop 1999): the leading directions with their own variances, one common
variance for all others. The plain covariance of 2,048 features over a few thousand knees has no usable inverse.

`train/calibrate.py` chooses the layer and the number of directions by measurement.
"""

import base64
from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

LEAST_VARIANCE = 1e-12


class Familiarity(BaseModel):
    """A fitted Gaussian over the features of one layer, and the distance beyond which an image is out of distribution.

    Attributes:
        layer: the step of `koa_hf.network.xception.STEPS` whose output, averaged over the image, is measured.
        features: number of features (d).
        components: number of leading directions kept (k).
        least_familiar: distance beyond which an image is out of distribution; the unit of `unfamiliarity`.
        mean, directions, scales, rest: float16 little-endian in base64: (d,), (k, d) with orthonormal rows, (k,)
            standard deviations along them, (1,) standard deviation of the rest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    layer: str
    features: int = Field(gt=0)
    components: int = Field(ge=0)
    least_familiar: float = Field(gt=0)
    mean: str
    directions: str
    scales: str
    rest: str

    @classmethod
    def fit(cls, layer: str, features: np.ndarray, components: int, least_familiar: float = 1.0) -> "Familiarity":
        """Fit to the features of training knees, float (n, d); `components` must be less than n and d."""
        features = np.asarray(features, np.float64)
        mean = features.mean(0)
        _, singular, directions = np.linalg.svd(features - mean, full_matrices=False)
        variances = singular**2 / (len(features) - 1)
        rest = variances[components:].sum() / (features.shape[1] - components)
        return cls(
            layer=layer,
            features=features.shape[1],
            components=components,
            least_familiar=least_familiar,
            mean=_packed(mean),
            directions=_packed(directions[:components]),
            scales=_packed(np.sqrt(variances[:components].clip(LEAST_VARIANCE))),
            rest=_packed(np.sqrt([max(rest, LEAST_VARIANCE)])),
        )

    def measure(self, device: torch.device | str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from features, float (n, d), to unfamiliarity, float32 (n,): over 1 is out of distribution."""
        mean, scales, rest = (_unpacked(text).to(device) for text in (self.mean, self.scales, self.rest))
        directions = _unpacked(self.directions).view(self.components, self.features).to(device)

        def unfamiliarity(features: torch.Tensor) -> torch.Tensor:
            centred = features.float() - mean
            along = centred @ directions.T
            beside = (centred.square().sum(1) - along.square().sum(1)).clamp(min=0)
            squared = (along / scales).square().sum(1) + beside / rest.square()
            return (squared / self.features).sqrt() / self.least_familiar

        return unfamiliarity

    def with_limit(self, least_familiar: float) -> "Familiarity":
        """The same Gaussian with another limit, in units of the present one."""
        return self.model_copy(update={"least_familiar": self.least_familiar * least_familiar})


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _unpacked(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32))
