"""Drawn anteroposterior knees with a known KL grade, for tests, demo examples, and runs without the release.

A phantom shows the features of the Kellgren-Lawrence scale (joint space, osteophytes, sclerosis, deformity) where a
radiograph shows them. It exercises software; it says nothing about a model's accuracy.
"""

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from koa_hf.errors import KoaError
from koa_hf.grades import NUM_GRADES

SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}
"""The folders of the release, and the share of patients in each."""

MIN_PATIENTS = 3
"""Fewest patients per split: six knees, so that all five grades occur."""

FIRST_PATIENT = 1_000_001
"""Patient numbers of the Osteoarthritis Initiative begin with 9, so a phantom is recognised by its file name."""

_OVERSAMPLING = 3

# All lengths are in half-widths of the femoral condyles; x runs from lateral (-1) to medial (+1), y downwards.
_MEDIAL_JOINT_SPACE = (0.135, 0.115, 0.09, 0.05, 0.008)  # by grade; narrows first
_LATERAL_JOINT_SPACE = (0.14, 0.135, 0.125, 0.11, 0.08)
_OSTEOPHYTES = (0.0, 0.035, 0.075, 0.115, 0.19)
_SCLEROSIS = (0.0, 0.0, 0.0, 0.5, 1.0)
_DEFORMITY = (0.0, 0.0, 0.0, 0.15, 1.0)


def draw_knee(grade: int, seed: int, side: str = "right", size: int = 224) -> np.ndarray:
    """Draw a knee.

    Args:
        grade: KL grade, 0 to 4.
        seed: patient: build, position, rotation, exposure, texture. Deterministic.
        side: `right` (fibula on the image's left, as on any anteroposterior radiograph) or `left`.
        size: width and height in pixels.

    Returns:
        uint8 (size, size), bone bright.

    Raises:
        ValueError: no such grade or side.
    """
    if grade not in range(NUM_GRADES):
        raise ValueError(f"grade is {grade}; it must be 0 to {NUM_GRADES - 1}")
    if side not in ("right", "left"):
        raise ValueError(f"side is {side!r}; it must be 'right' or 'left'")
    rng = np.random.default_rng([seed, grade])
    canvas = _Canvas(
        size,
        scale=rng.uniform(0.405, 0.46),
        centre=(0.5 + rng.normal(0, 0.012), 0.56 + rng.normal(0, 0.018)),
        rotation=np.deg2rad(rng.normal(0, 2.0)),
    )

    femur, tibia, plateau, condyles = _bones(grade, rng)
    femur_mask, tibia_mask = canvas.area(femur), canvas.area(tibia)
    fibula_mask = canvas.area(_ellipse(-0.93 + rng.normal(0, 0.03), 0.68, 0.2, 0.3)) + canvas.area(
        _outline([(-1.06, 0.75), (-0.79, 0.75), (-0.84, 1.2), (-0.86, 2.0), (-1.12, 2.0), (-1.1, 1.2)])
    )
    fibula_mask = np.minimum(fibula_mask, 1)
    bone = np.maximum(np.maximum(femur_mask, tibia_mask), 0.55 * fibula_mask)

    # Attenuation, layer by layer. Soft tissue first: thick in the middle, none beyond the skin.
    x, y = canvas.coordinates()
    skin = rng.uniform(1.12, 1.42) * (1 + 0.1 * (y < 0) * np.minimum(y**2, 1.5) * rng.uniform(-0.6, 0.6))
    attenuation = 0.42 * np.sqrt(np.clip(1 - (x / skin) ** 2, 0, 1))
    attenuation += bone * (0.25 + 0.07 * np.exp(-((x / 0.7) ** 2) - ((y + 1.0) / 0.8) ** 2))
    for mask, strength in ((femur_mask, 0.17), (tibia_mask, 0.15), (fibula_mask, 0.1)):
        attenuation += strength * _cortex(mask, size)
    attenuation += 0.07 * canvas.area(_ellipse(rng.normal(0, 0.04), -0.85, 0.42, 0.46), blur=0.012)  # patella
    # The plates of bone on either side of the joint, and what is left of the growth plate.
    attenuation += 0.16 * canvas.line(plateau, width=0.035, blur=0.006) * tibia_mask
    attenuation += 0.08 * canvas.line(condyles, width=0.03, blur=0.006) * femur_mask
    growth_plate = [(-0.8, 0.36), (-0.4, 0.32), (0.0, 0.36), (0.4, 0.31), (0.8, 0.37)]
    attenuation += 0.04 * canvas.line(_curve(growth_plate), width=0.02, blur=0.006) * tibia_mask
    if _SCLEROSIS[grade]:
        # Dense bone below and above the joint, where it bears weight: mostly medial.
        near_joint = np.exp(-(((y - 0.06) / 0.17) ** 2))
        where = np.exp(-(((x - 0.58) / 0.3) ** 2)) + 0.35 * np.exp(-(((x + 0.55) / 0.3) ** 2))
        attenuation += 0.2 * _SCLEROSIS[grade] * rng.uniform(0.7, 1.2) * near_joint * where * bone
    attenuation += 0.1 * bone * _trabeculae(size, rng)

    # Exposure: some films are flat, some burnt out in the middle, as in the release.
    attenuation += 0.05 * rng.normal() * x / 1.2 + 0.05 * rng.normal() * y / 1.2
    level = rng.uniform(0.02, 0.14) + rng.uniform(0.75, 1.2) * attenuation
    film = 255 * np.clip(level, 0, 1) ** rng.uniform(0.8, 1.15)
    film += rng.uniform(1.5, 4) * rng.standard_normal((size, size), np.float32)
    pixels = np.clip(np.round(film), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1]) if side == "left" else pixels


def draw_film(right: int, left: int, seed: int, size: int = 224) -> np.ndarray:
    """Draw a film of both knees, the right one on the film's left, with shafts and soft tissue around them.

    Args:
        right, left: KL grades, 0 to 4.
        seed: patient. Deterministic.
        size: width and height of a knee in pixels, as in `draw_knee`.

    Returns:
        uint8 (2 * size, 3 * size), bone bright.
    """
    limbs = []
    for grade, side in ((right, "right"), (left, "left")):
        knee = draw_knee(grade, seed, side, size).astype(np.float32)
        edges = (knee[:6], knee[-6:])  # rows, averaged so that the noise makes no stripes
        above, below = (np.repeat(rows.mean(0, keepdims=True), size // 2, axis=0) for rows in edges)
        limb = np.concatenate([above, knee, below])
        limbs.append(np.pad(limb, ((0, 0), (size // 4, size // 4)), "linear_ramp", end_values=8))
    film = np.hstack(limbs)
    film += 2 * np.random.default_rng(seed).standard_normal(film.shape, np.float32)
    return np.clip(np.round(film), 0, 255).astype(np.uint8)


def write_release(
    folder: str | Path,
    patients: int | Mapping[str, int] = 60,
    seed: int = 0,
    splits: Sequence[str] = tuple(SPLITS),
    auto_test: bool = False,
) -> Path:
    """Write phantoms in the layout of the public release: `<split>/<grade>/<patient><L|R>.png`, 224 x 224, 8 bit.

    Args:
        folder: must not exist, or be empty.
        patients: number of patients, two knees each: in total, divided as in the release, or per split. At least
            `MIN_PATIENTS` per split. About half of the pairs share their grade.
        seed: other seeds draw other patients.
        splits: any of `train`, `val` and `test`.
        auto_test: also write `auto_test/<grade>/<patient>_<1|2>.png` (1 right, 2 left): the test knees, framed
            slightly differently.

    Returns:
        The folder.

    Raises:
        KoaError: the folder is not empty, or there are too few patients.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KoaError(f"{folder} exists and is not an empty folder; name a new one.")
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"no such split: {sorted(unknown)}; choose from {sorted(SPLITS)}")
    if auto_test and "test" not in splits:
        raise ValueError("auto_test shows the patients of test again, so it needs test")
    if isinstance(patients, Mapping):
        counts = {split: patients[split] for split in splits}
    else:
        total = sum(SPLITS[split] for split in splits)
        counts = {split: max(MIN_PATIENTS, round(patients * SPLITS[split] / total)) for split in splits}
        largest = max(counts, key=lambda split: counts[split])
        counts[largest] += patients - sum(counts.values())
    if min(counts.values()) < MIN_PATIENTS:
        raise KoaError(
            f"too few patients: every split needs at least {MIN_PATIENTS} for all five grades, "
            f"so ask for {MIN_PATIENTS * len(counts)} or more."
        )

    rng = np.random.default_rng(seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}.{os.getpid()}"
    scratch.mkdir()
    try:
        patient = FIRST_PATIENT
        for split, count in counts.items():
            for grades in _grade_pairs(count, rng):
                for number, (side, grade) in enumerate(zip(("right", "left"), grades, strict=True), start=1):
                    image = Image.fromarray(draw_knee(grade, seed=int(rng.integers(2**31)), side=side))
                    _save_png(image, scratch / split / str(grade) / f"{patient}{side[0].upper()}.png")
                    if auto_test and split == "test":
                        left, top = rng.integers(0, 12, 2)
                        crop = image.crop((left, top, left + 212, top + 212))
                        again = crop.resize(image.size, Image.Resampling.BICUBIC)
                        _save_png(again, scratch / "auto_test" / str(grade) / f"{patient}_{number}.png")
                patient += 1
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def as_png(pixels: np.ndarray) -> bytes:
    """The PNG file of a drawing, uint8 (height, width)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _save_png(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _grade_pairs(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(right, left) grades of `count` patients: all grades occur, about half of the pairs are equal."""
    pairs = [(0, 1), (2, 3), (4, 4)]
    while len(pairs) < count:
        right = int(rng.integers(NUM_GRADES))
        neighbour = right + 1 if right == 0 or (right < NUM_GRADES - 1 and rng.random() < 0.5) else right - 1
        pairs.append((right, right if rng.random() < 0.5 else neighbour))
    return [pairs[i] for i in rng.permutation(count)]


def _bones(grade: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Outlines of femur and tibia, and the polylines of the tibial plateau and the condyles, each (points, 2)."""
    medial = _MEDIAL_JOINT_SPACE[grade] * rng.uniform(0.9, 1.1)
    lateral = _LATERAL_JOINT_SPACE[grade] * rng.uniform(0.92, 1.08)
    deformity = _DEFORMITY[grade] * rng.uniform(0.7, 1.2)
    notch = rng.uniform(0.27, 0.37)
    # Femur lateral, femur medial, tibia lateral, tibia medial; the medial compartment suffers first.
    spurs = _OSTEOPHYTES[grade] * np.array([0.7, 1.0, 0.75, 1.1]) * rng.uniform(0.75, 1.2, 4)
    if grade == 1:
        spurs *= np.array([0.0, 1.0, 0.3, 1.0])

    condyle_points = [
        (-0.97, -0.3 - 0.4 * spurs[0]),
        *_spur((-0.92, -0.16), -1, spurs[0]),
        (-0.74, -0.045),
        (-0.52, 0.0),
        (-0.32, -0.05),
        (-0.18, -0.22 + 0.04 * deformity),
        (0.0, -notch),
        (0.18, -0.21),
        (0.32, -0.04),
        (0.54, 0.0 - 0.015 * deformity),
        (0.76, -0.035 + 0.03 * deformity),
        *_spur((0.93, -0.15), 1, spurs[1]),
        (0.98, -0.3 - 0.4 * spurs[1]),
    ]
    femur = [
        (-0.60, -2.2),
        (-0.66, -1.5),
        (-0.82, -1.12),
        (-0.97, -0.82),
        (-0.99, -0.5),
        *condyle_points,
        (1.0, -0.5),
        (1.01, -0.72),
        (0.93, -0.98),
        (0.72, -1.35),
        (0.64, -2.2),
    ]

    def top(x: float) -> float:
        """Height of a flat tibial plateau: the joint space, from one compartment to the other."""
        return lateral + (medial - lateral) * (x + 0.55) / 1.1

    spines = rng.uniform(0.8, 1.2)
    sunk = 0.05 * deformity  # a worn medial plateau slopes away
    plateau_points = [
        *_spur((-0.93, top(-0.93) + 0.05), -1, spurs[2], up=True),
        (-0.74, top(-0.74) - 0.005),
        (-0.52, top(-0.52) + 0.008),
        (-0.3, top(-0.3) - 0.02),
        (-0.13, top(-0.13) - 0.12 * spines - 0.03 * deformity),
        (-0.02, top(-0.02) - 0.06 * spines),
        (0.1, top(0.1) - 0.15 * spines - 0.03 * deformity),
        (0.28, top(0.28) - 0.02),
        (0.52, top(0.52) + 0.008),
        (0.75, top(0.75) + 0.01 + 0.4 * sunk),
        *_spur((0.93, top(0.93) + 0.05 + 0.6 * sunk), 1, spurs[3], up=True),
    ]
    tibia = [
        *plateau_points,
        (0.95, top(0.94) + 0.24 + 0.8 * spurs[3]),
        (0.84, 0.58),
        (0.66, 0.95),
        (0.58, 2.0),
        (-0.5, 2.0),
        (-0.6, 0.95),
        (-0.82, 0.58),
        (-0.95, top(-0.94) + 0.24 + 0.8 * spurs[2]),
    ]
    build = 1 + rng.normal(0, 0.02)  # femur to tibia
    sideways = rng.normal(0, 0.012) - 0.05 * deformity  # a severe knee subluxes laterally
    tibia_outline, plateau = _outline(tibia), _curve(plateau_points)
    for points in (tibia_outline, plateau):
        points *= (build, 1)
        points += (sideways, 0)
    return _outline(femur), tibia_outline, plateau, _curve(condyle_points)


def _spur(corner: tuple[float, float], towards: int, length: float, up: bool = False) -> list[tuple[float, float]]:
    """Control points of a bone's corner with an osteophyte: outwards, and towards the other bone."""
    x, y = corner
    if not length:
        return [(x, y)]
    to_joint = -1 if up else 1
    shoulder = (x + 0.4 * towards * length, y - 0.75 * to_joint * length)
    tip = (x + towards * length, y + 0.3 * to_joint * length)
    root = (x - 0.06 * towards, y + 0.04 * to_joint)
    # Femur and tibia both run from lateral to medial along the joint: the lateral corner is met from outside, the
    # medial one from the joint.
    return [shoulder, tip, root] if towards < 0 else [root, tip, shoulder]


def _curve(points: Sequence[tuple[float, float]], closed: bool = False, steps: int = 8) -> np.ndarray:
    """A smooth curve (uniform Catmull-Rom) through the points, (points * steps, 2)."""
    p = np.asarray(points, float)
    p = np.vstack([p[-1], p, p[0], p[1]]) if closed else np.vstack([p[0], p, p[-1]])
    t = (np.arange(steps) / steps)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _outline(points: Sequence[tuple[float, float]]) -> np.ndarray:
    return _curve(points, closed=True)


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], axis=1)


def _cortex(mask: np.ndarray, size: int) -> np.ndarray:
    """The dense shell of a bone, seen edge on: bright just inside the outline, fading inwards."""
    blurred = _blur(mask, 0.014 * size)
    return np.clip(2 * mask * (1 - blurred), 0, 1) ** 1.5


def _trabeculae(size: int, rng: np.random.Generator) -> np.ndarray:
    """Spongy bone: fine streaks along the load (vertical), and slow mottling. Mean about 0, (size, size)."""
    fine = Image.fromarray(rng.standard_normal((size // 5, size), np.float32))
    slow = Image.fromarray(rng.standard_normal((size // 16, size // 16), np.float32))
    square = (size, size)
    return 0.22 * np.asarray(fine.resize(square, Image.Resampling.BICUBIC)) + 0.3 * np.asarray(
        slow.resize(square, Image.Resampling.BICUBIC)
    )


def _blur(mask: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


class _Canvas:
    """Turns knee coordinates (half-widths of the condyles, origin in the joint) into pixels."""

    def __init__(self, size: int, scale: float, centre: tuple[float, float], rotation: float):
        self.size = size
        self.scale = scale * size
        self.centre = np.array(centre) * size
        cos, sin = np.cos(rotation), np.sin(rotation)
        self.rotation = np.array([[cos, -sin], [sin, cos]])

    def _pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        at = (np.asarray(points) @ self.rotation.T) * self.scale + self.centre
        return [tuple(point) for point in at * _OVERSAMPLING]

    def _finish(self, image: Image.Image, blur: float) -> np.ndarray:
        image = image.reduce(_OVERSAMPLING)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(image, np.float32) / 255

    def _blank(self) -> Image.Image:
        return Image.new("L", (self.size * _OVERSAMPLING,) * 2)

    def area(self, outline: np.ndarray, blur: float = 0) -> np.ndarray:
        """A filled outline: float32 (size, size), 0 to 1. `blur` is in fractions of the image."""
        image = self._blank()
        ImageDraw.Draw(image).polygon(self._pixels(outline), fill=255)
        return self._finish(image, blur)

    def line(self, points: np.ndarray, width: float, blur: float = 0) -> np.ndarray:
        """A polyline `width` half-widths thick: float32 (size, size), 0 to 1."""
        image = self._blank()
        thickness = max(1, round(width * self.scale * _OVERSAMPLING))
        ImageDraw.Draw(image).line(self._pixels(points), fill=255, width=thickness, joint="curve")
        return self._finish(image, blur)

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Knee coordinates x, y of every pixel, each (size, size)."""
        rows, columns = np.mgrid[: self.size, : self.size].astype(np.float32) + 0.5
        at = (np.stack([columns, rows], axis=-1) - self.centre) / self.scale @ self.rotation
        return at[..., 0].astype(np.float32), at[..., 1].astype(np.float32)
