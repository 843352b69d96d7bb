"""Figures of runs and of reports, as PNG files."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from koa_hf.files import replacing
from koa_hf.grades import GRADE_NAMES
from koa_hf.grading.metrics import CALIBRATION_BINS

CURVES = (
    ("loss", "loss"),
    ("cross_entropy", "cross-entropy"),
    ("accuracy", "accuracy"),
    ("quadratic_weighted_kappa", "quadratic weighted kappa"),
    ("mean_absolute_error", "mean absolute error, grades"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_auc", "macro AUC"),
    ("keras_auc", "micro AUC (Keras)"),
)


def plot_curves(history: list[dict], path: Path) -> None:
    """Training and validation metrics by epoch, stages side by side; `history` is the rows of metrics.jsonl."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.4), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    starts = [i for i, row in enumerate(history) if i == 0 or row["stage"] != history[i - 1]["stage"]]
    for axis, (name, label) in zip(axes.flat, CURVES, strict=True):
        for begin, end in zip(starts, [*starts[1:], len(history)], strict=True):
            for split, colour, style in (("train", "#c2571a", "--o"), ("validation", "#1f5fa8", "-s")):
                values = [np.nan if row[split][name] is None else row[split][name] for row in history[begin:end]]
                axis.plot(epochs[begin:end], values, style, color=colour, ms=4, label=split if begin == 0 else None)
            if begin:
                axis.axvline(epochs[begin] - 0.5, color="0.7", lw=1)
        if name == "loss":
            if len(starts) > 1:  # stages may have different losses, on different scales
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter("")
            for begin in starts:
                axis.text(epochs[begin], 1.01, history[begin]["stage"], transform=axis.get_xaxis_transform(), size=9)
        axis.set_title(label, size=11, pad=16 if name == "loss" else 6)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    _save_figure(figure, path)


def plot_confusion_matrix(counts: list[list[int]], title: str, path: Path) -> None:
    """Counts and row shares; rows are the reader's grades, columns the predicted ones."""
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axis = plt.subplots(figsize=(6, 5.4), layout="constrained")
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{share:.0%}\n{counts[row, column]}"
        axis.text(column, row, text, ha="center", va="center", size=10, color="white" if share > 0.55 else "black")
    names = [f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES)]
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted KL grade")
    axis.set_ylabel("reader's KL grade")
    figure.suptitle(title, size=11)
    figure.colorbar(picture, label="share of the reader's grade")
    _save_figure(figure, path)


def reliability_bins(probabilities: np.ndarray, grades: np.ndarray) -> list[dict]:
    """Reliability diagram: bins of the highest probability, with mean probability, accuracy and number of knees."""
    top, right = probabilities.max(1), probabilities.argmax(1) == grades
    which = np.minimum((top * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "from": b / CALIBRATION_BINS,
            "probability": float(top[which == b].mean()),
            "right": float(right[which == b].mean()),
            "knees": int((which == b).sum()),
        }
        for b in np.unique(which)
    ]


def plot_reliability(found: dict, path: Path) -> None:
    """Reliability diagrams before and after calibration; `found` is the key `calibration` of calibration.json."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 5), layout="constrained", sharey=True)
    titles = {"before": "uncalibrated", "held_out": "calibrated, patients held out"}
    for axis, (when, title) in zip(axes, titles.items(), strict=True):
        rows = found[f"bins_{when}"]
        width = 1 / CALIBRATION_BINS
        axis.bar([row["from"] for row in rows], [row["right"] for row in rows], width, align="edge",
                 color="#9db8c9", edgecolor="white")  # fmt: skip
        share = np.array([row["right"] for row in rows])
        deviation = np.sqrt(share * (1 - share) / [row["knees"] for row in rows])
        axis.errorbar([row["probability"] for row in rows], share, deviation, fmt="o", color="#1f3d57", ms=5)
        axis.plot([0, 1], [0, 1], "--", color="0.4", lw=1)
        for row in rows:
            axis.text(row["from"] + width / 2, 0.015, row["knees"], ha="center", size=8, color="0.25")
        axis.set_title(f"{title}: expected calibration error {found[f'error_{when}']:.3f}", size=11)
        axis.set_xlabel("probability of the most probable grade")
        axis.set(xlim=(0.2, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("share equal to the reader's grade (numbers: knees)")
    _save_figure(figure, path)


def plot_familiarity(chosen: dict, path: Path) -> None:
    """Catch rate by kind of out-of-distribution image; `chosen` as in calibration.json."""
    kinds = sorted(chosen["caught"], key=chosen["caught"].get)
    figure, axis = plt.subplots(figsize=(8, 0.34 * len(kinds) + 1.2), layout="constrained")
    axis.barh(kinds, [chosen["caught"][kind] for kind in kinds], color="#9db8c9")
    for row, kind in enumerate(kinds):
        axis.text(0.01, row, f"{chosen['caught'][kind]:.0%}   AUROC {chosen['auroc'][kind]:.3f}", va="center", size=9)
    axis.set_xlabel("share flagged as out of distribution, or corrected")
    axis.set_xlim(0, 1)
    axis.set_title(f"Out-of-distribution images ({chosen['method']})", size=11)
    _save_figure(figure, path)


def plot_recall(grades: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Shares of exact, one-off and worse predictions for each reader's grade; both arguments int (n,)."""
    off = np.abs(grades - predicted)
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    left = np.zeros(len(GRADE_NAMES))
    parts = (("the same", off == 0, "#1f5fa8"), ("one grade off", off == 1, "#9db8c9"), ("more", off > 1, "#c2571a"))
    labels = [f"{g} {name} ({(grades == g).sum()})" for g, name in enumerate(GRADE_NAMES)]
    for label, rows, colour in parts:
        share = np.array([rows[grades == g].mean() if (grades == g).any() else 0.0 for g in range(len(GRADE_NAMES))])
        axis.barh(labels, share, left=left, color=colour, label=label)
        for row, value in enumerate(share):
            if value >= 0.04:
                text = {"color": "black" if colour == "#9db8c9" else "white", "size": 9}
                axis.text(left[row] + value / 2, row, f"{value:.0%}", ha="center", va="center", **text)
        left += share
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="share of the knees", ylabel="reader's KL grade (knees)")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    _save_figure(figure, path)


def plot_deletion(found: dict[str, np.ndarray], path: Path) -> None:
    """Distribution of the lost probability for each deletion; `found` is of `deletion_test.delete_hottest`."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    whole, *rest = found.items()
    for (name, left), colour in zip(rest, ("#c2571a", "#1f5fa8", "#7a8a3a"), strict=True):
        lost = np.sort(whole[1] - left)
        axis.plot(lost, np.linspace(0, 1, len(lost)), color=colour, label=f"{name}: mean {lost.mean():.3f}")
    axis.axvline(0, color="0.7", lw=1)
    axis.set_xlabel("loss of the grade's probability")
    axis.set_ylabel("cumulative share of knees")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    _save_figure(figure, path)


def plot_differences(rows: list[dict], value: str, label: str, path: Path, band: tuple[float, float]) -> None:
    """Forest plot: each row has `row`, `{value}` and `{value}_95` (low, high); `band` is the range due to chance."""
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    places = np.arange(len(rows))
    middle = np.array([row[value] for row in rows])
    low, high = np.array([row[f"{value}_95"] for row in rows]).T
    axis.errorbar(middle, places, xerr=(middle - low, high - middle), fmt="o", ms=5, color="#1f5fa8", capsize=3)
    axis.axvspan(*band, color="0.9", label="due to chance")
    axis.axvline(0, color="0.7", lw=1)
    axis.legend(frameon=False, fontsize=8)
    axis.set_yticks(places, [row["row"].replace("_", " ") for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(label)
    axis.grid(alpha=0.25, axis="x")
    _save_figure(figure, path)


def _save_figure(figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
