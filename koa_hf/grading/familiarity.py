"""How near an image is to the knees that the network was trained on.

A network grades whatever it is given. So the distance of an image's features to those of the training knees is
measured first: Mahalanobis distance (Lee et al. 2018, https://arxiv.org/abs/1807.03888) under a Gaussian whose
covariance is a probabilistic principal component analysis (Tipping and Bishop 1999): the leading directions as they
are, one common variance for all others. Without that, 2,048 features of a few thousand knees have no usable inverse.

Which layer and how many directions is chosen by measurement: `train/calibrate.py`.
"""

import base64

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

LEAST_VARIANCE = 1e-12


class Familiarity(BaseModel):
    """A fitted Gaussian over the features of one layer, and the distance up to which an image counts as familiar.

    Attributes:
        layer: the step of `koa_hf.network.xception.STEPS` whose output, averaged over the image, is measured.
        features: how many numbers that is (d).
        components: leading directions kept (k).
        least_familiar: distance at which an image becomes unfamiliar; `unfamiliarity` is measured in it.
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
        """Fit to training knees' features, float (n, d); `components` is under n and d."""
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

    def measure(self, device: torch.device | str = "cpu"):
        """A function: features float (n, d) -> unfamiliarity float32 (n,), 0 and up; over 1 is unfamiliar."""
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
        """The same Gaussian with another limit, given in the units of this one's unfamiliarity."""
        return self.model_copy(update={"least_familiar": self.least_familiar * least_familiar})


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _unpacked(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32))
