"""The paper's tables beside those of a run, in results/paper/ and in the README.

    python benchmarks/tables/paper_tables.py --run runs/paper      # a finished run: copy its record, write the tables
    python benchmarks/tables/paper_tables.py                       # write the tables again from results/paper/

The paper: "Knee Osteoarthritis Classification" (ICT Department, USTH, Group 1).
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.tables import readme
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from koa_hf.grading.metrics import table_rows
from train.loop import record

ROOT = Path(__file__).resolve().parents[2]

RESULTS = ROOT / "results" / "paper"
RECORD = (
    *("recipe.yaml", "run.json", "metrics.jsonl", "metrics.json", "predictions.csv"),
    *("curves.png", "confusion_matrix.png"),
)

COLUMNS = ("loss", "accuracy", "keras_precision", "keras_recall", "keras_auc")
# Epoch by epoch: training loss, accuracy, precision, recall, AUC; validation loss.
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


def epochs_table(title: str, paper: tuple, ours: list[dict]) -> str:
    """One of the paper's tables, each cell "paper / ours", and our validation accuracy and kappa behind it."""
    lines = [
        f"**{title}** (each cell: paper / ours)",
        "",
        "| epoch | loss | accuracy | precision | recall | AUC | val loss | our val accuracy | our val QWK |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for theirs, row in zip(paper, ours, strict=True):
        own = [*(row["train"][name] for name in COLUMNS), row["validation"]["loss"]]
        cells = [f"{a:.3f} / {b:.3f}" for a, b in zip(theirs, own, strict=True)]
        extra = [f"{row['validation'][name]:.3f}" for name in ("accuracy", "quadratic_weighted_kappa")]
        lines.append(f"| {row['epoch']} | {' | '.join([*cells, *extra])} |")
    return "\n".join(lines)


def render(folder: Path) -> str:
    """The section between the README's markers, from a run's record."""
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics, run = json.loads((folder / "metrics.json").read_text()), json.loads((folder / "run.json").read_text())
    stage_1, stage_2 = history[: len(TABLE_I)], history[len(TABLE_I) :]
    best = min(stage_2, key=lambda row: row["validation"]["loss"])
    seconds, machine = run["seconds"], run["machine"]
    figures = table_rows(metrics["figures"], metrics["intervals_95_by_patient"])
    parts = [
        epochs_table("Table I, stage 1: head only, cross-entropy", TABLE_I, stage_1),
        epochs_table("Table II, stage 2: last 20 Keras layers, focal loss", TABLE_II, stage_2),
        f"The model is the epoch of stage 2 with the least validation loss, epoch {best['epoch']}. "
        f"On the {metrics['figures']['images']} validation knees (float32; intervals by bootstrap over patients):",
        "| figure | value | 95 % interval |\n|---|---|---|\n" + "\n".join(f"| {' | '.join(row)} |" for row in figures),
        f"Wall time of the whole run: {seconds['this_process'] / 60:.1f} minutes on {machine['processor']} "
        f"({machine['precision']}): {seconds['trunk_cache'] / 60:.1f} for the frozen trunk, once, and "
        f"{seconds['epochs'] / 60:.1f} for the 13 epochs; the rest is loading, the final float32 evaluation and plots.",
    ]
    return "\n\n".join(parts)


@exit_2_on_bad_input
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run of the paper recipe")
    args = parser.parse_args(argv)
    if args.run:
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in RECORD:
            if not (args.run / name).exists():
                raise KoaError(f"{args.run} is not the folder of a finished run: it has no {name}.")
        record.keep(args.run, RECORD, RESULTS)
    tables = render(RESULTS)
    write_text(RESULTS / "tables.md", tables + "\n")
    readme.put("paper tables", tables)


if __name__ == "__main__":
    sys.exit(main())
