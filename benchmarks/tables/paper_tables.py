"""The paper's tables beside those of a run: results/paper/ and docs/training.md.

    python benchmarks/tables/paper_tables.py --run runs/paper      # copy a finished run's record, then write the tables
    python benchmarks/tables/paper_tables.py                       # write the tables from results/paper/

The paper: "Knee Osteoarthritis Classification" (ICT Department, USTH, Group 1).
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import reporting
from benchmarks.tables.pages import replace_block, table, with_interval
from koa_hf.errors import KoaError, exit_2_on_bad_input
from train.loop import run_record

PAGE = "training.md"
RESULTS = reporting.RESULTS / "paper"
RECORD = (
    *("recipe.yaml", "run.json", "metrics.jsonl", "metrics.json", "predictions.csv"),
    *("curves.png", "confusion_matrix.png"),
)

COLUMNS = ("loss", "accuracy", "keras_precision", "keras_recall", "keras_auc")
# By epoch: training loss, accuracy, precision, recall, AUC; validation loss.
TABLE_I = (
    (1.2878, 0.4586, 0.5731, 0.1826, 0.7696, 1.1919),
    (1.1897, 0.4929, 0.6073, 0.2484, 0.8055, 1.1721),
    (1.1510, 0.5116, 0.6162, 0.2837, 0.8195, 1.1572),
    (1.1306, 0.5246, 0.6345, 0.3065, 0.8269, 1.1448),
    (1.1034, 0.5277, 0.6413, 0.3228, 0.8355, 1.1310),
)
TABLE_II = (
    (0.1666, 0.4785, 0.6378, 0.1198, 0.7957, 0.2749),
    (0.1269, 0.5635, 0.6928, 0.2435, 0.8574, 0.1276),
    (0.1049, 0.6146, 0.7391, 0.3496, 0.8903, 0.1204),
    (0.0871, 0.6687, 0.7807, 0.4553, 0.9163, 0.1200),
    (0.0749, 0.6990, 0.8145, 0.5128, 0.9324, 0.1240),
    (0.0644, 0.7323, 0.8262, 0.5668, 0.9450, 0.1346),
    (0.0552, 0.7593, 0.8453, 0.6135, 0.9564, 0.1346),
    (0.0463, 0.7864, 0.8576, 0.6565, 0.9654, 0.1421),
)


TABLE_III = {  # test split; the loss is the focal one, precision, recall and AUC are Keras' defaults
    "accuracy": 0.5501,
    "keras_precision": 0.6592,
    "keras_recall": 0.4076,
    "keras_auc": 0.8610,
}


def epochs_table(paper: tuple, ours: list[dict]) -> str:
    """One of the paper's tables, each cell "paper / here", with our validation accuracy and QWK appended."""
    rows = []
    for theirs, row in zip(paper, ours, strict=True):
        own = [*(row["train"][name] for name in COLUMNS), row["validation"]["loss"]]
        cells = [f"{a:.3f} / {b:.3f}" for a, b in zip(theirs, own, strict=True)]
        extra = [f"{row['validation'][name]:.3f}" for name in ("accuracy", "quadratic_weighted_kappa")]
        rows.append([str(row["epoch"]), *cells, *extra])
    header = ["epoch", "loss", "accuracy", "precision", "recall", "AUC", "val loss", "val accuracy, here"]
    return table([*header, "val QWK, here"], rows)


def test_table() -> str:
    """Table III beside our validation figures and the owners' measurement on the official test split."""
    validation = json.loads((RESULTS / "metrics.json").read_text())
    test = json.loads((reporting.RESULTS / "official_test" / "paper.json").read_text())

    def cell(metrics: dict, name: str) -> str:
        return with_interval(metrics["figures"][name], metrics["intervals_95_by_patient"][name])

    names = [*TABLE_III, "quadratic_weighted_kappa", "mean_absolute_error", "balanced_accuracy", "macro_auc"]
    rows = [
        [
            name.replace("keras_", "").replace("auc", "AUC").replace("_", " "),
            f"{TABLE_III[name]:.3f}" if name in TABLE_III else "",
            cell(test, name),
            cell(validation, name),
        ]
        for name in names
    ]
    return table(["figure", "paper, test", "here, official test", "here, validation"], rows)


def render(folder: Path) -> dict[str, str]:
    """The blocks of the page, from a run's record."""
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "paper table I": epochs_table(TABLE_I, history[: len(TABLE_I)]),
        "paper table II": epochs_table(TABLE_II, history[len(TABLE_I) :]),
        "paper table III": test_table(),
    }


def update() -> None:
    """Rewrite the blocks of the page."""
    for name, text in render(RESULTS).items():
        replace_block(PAGE, name, text)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run of the paper recipe")
    args = parser.parse_args(argv)
    if args.run:
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in RECORD:
            if not (args.run / name).exists():
                raise KoaError(f"{args.run} has no {name}; give the folder of a finished run.")
        run_record.copy_files(args.run, RECORD, RESULTS)
    update()


if __name__ == "__main__":
    sys.exit(main())
