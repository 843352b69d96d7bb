"""Pictures of a run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from koa_hf.files import replacing
from koa_hf.grades import GRADE_NAMES

CURVES = (
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("quadratic_weighted_kappa", "quadratic weighted kappa"),
    ("mean_absolute_error", "mean absolute error, grades"),
    ("balanced_accuracy", "balanced accuracy"),
    ("keras_auc", "micro AUC (Keras)"),
)


def curves(history: list[dict], path: Path) -> None:
    """Training and validation figures by epoch, stages side by side; `history` as in metrics.jsonl."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
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
            # Stages may differ in their loss, and so in its scale.
            axis.set_yscale("log")
            for begin in starts:
                axis.text(epochs[begin], 1.01, history[begin]["stage"], transform=axis.get_xaxis_transform(), size=9)
        axis.set_title(label, size=11, pad=16 if name == "loss" else 6)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    _save(figure, path)


def confusion_matrix(counts: list[list[int]], title: str, path: Path) -> None:
    """Counts and row shares; rows the reader's grade, columns the predicted one."""
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
    axis.set_title(title, size=11)
    figure.colorbar(picture, label="share of the reader's grade")
    _save(figure, path)


def _save(figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
