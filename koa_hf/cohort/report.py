"""Figures of a cohort's results: grades by side, the two knees of a patient, failures, agreement with readers.

`summary` gives the figures, `write` a page with plots (report.html) and the figures (report.json). A film that repeats
the content of an earlier one is counted as a duplicate, and left out of everything else.
"""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pds
from matplotlib.figure import Figure

from koa_hf.cohort import REPEATS
from koa_hf.cohort.results import RUN, unwritable
from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grades import GRADE_NAMES, NUM_GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading import metrics

SIDES = ("right", "left", "unknown")
READERS = "label"
"""Column of readers' grades in the public release packaged by `koa dataset build`."""

_READ = ("file", "sha256", "side", "grade", "probabilities", "familiar", "inverted", "turned", "error")
_READ_IF_THERE = ("patient_id", "study_uid", "duplicate_of")
_PATIENTS = ("patient_id", "study_uid", "film")
_TEAL, _BLUES = "#0d9488", "Blues"


def summary(folder: str | Path, readers: str | None = None, repeats: int = REPEATS, seed: int = 0) -> dict[str, Any]:
    """The figures of the report, as JSON has them.

    Args:
        folder: results of `koa cohort grade`, all or so far.
        readers: column of readers' grades, 0 to 4 or null; `{side}` in it stands for right or left, so that `kl_{side}`
            means kl_right and kl_left. By default `label`, where there is one.
        repeats: bootstrap samples of the intervals, which resample patients (else studies, else films).

    Raises:
        KoaError: no results, a damaged file, or no such column.
    """
    folder = Path(folder)
    run, table = _read(folder, readers)
    duplicates = table["duplicate_of"].notna() if "duplicate_of" in table else pd.Series(False, table.index)
    table["film"] = table["file"] + " " + table["sha256"].fillna("")
    repeated = int(table[duplicates]["film"].nunique())
    table = table[~duplicates]
    failed, knees = table[table["error"].notna()], table[table["error"].isna()].copy()
    knees["side"] = knees["side"].fillna("unknown")
    knees["grade"] = knees["grade"].astype(int)
    films = int(knees["film"].nunique() + len(failed))
    patients = next(name for name in _PATIENTS if name in knees and knees[name].notna().any())
    knees["patient"] = knees[patients].fillna(knees["film"])
    reasons = [_reason(error, file) for error, file in zip(failed["error"], failed["file"], strict=True)]
    unfamiliar = knees["familiar"].eq(False)
    return {
        "notice": RESEARCH_USE_NOTICE,
        "run": {key: run[key] for key in run if key != "columns"},
        "shards_missing": run["shards"] - len([*folder.glob("data/*.parquet")]),
        "films": films,
        "duplicates_left_out": repeated,
        "knees": len(knees),
        "patients": {"by": patients, "number": int(knees["patient"].nunique())},
        "failed": {
            "films": len(failed),
            "share": _share(len(failed), films),
            "by_reason": {
                reason: int(number) for reason, number in pd.Series(reasons, dtype=str).value_counts().items()
            },
        },
        "unlike_the_training_knees": {"knees": int(unfamiliar.sum()), "share": _share(unfamiliar.sum(), len(knees))},
        "negatives_inverted": int(knees["inverted"].sum()),
        "upside_down_turned": int(knees["turned"].sum()),
        "grades": {side: _counts(knees[knees["side"] == side]["grade"]) for side in SIDES},
        "two_knees": _two_knees(knees, repeats, seed),
        "readers": _against_readers(knees, readers, repeats, seed),
    }


def write(folder: str | Path, figures: dict[str, Any], page: Path | None = None, data: Path | None = None) -> None:
    """Write `summary`'s figures as a page (by default report.html in `folder`) and as JSON (report.json).

    Raises:
        KoaError: a file can't be written.
    """
    folder = Path(folder)
    try:
        write_text(data or folder / "report.json", json.dumps(figures, indent=2) + "\n")
        write_text(page or folder / "report.html", as_page(figures))
    except OSError as error:
        raise unwritable(folder, error) from error


def _read(folder: Path, readers: str | None) -> tuple[dict[str, Any], pd.DataFrame]:
    try:
        run = json.loads((folder / RUN).read_text())
        files = sorted(folder.glob("data/*.parquet"))
        if not files:
            raise KoaError(f"{folder} holds no results yet; run `koa cohort grade` first.")
        source = pds.dataset(files)
        columns = [*_READ, *(name for name in _READ_IF_THERE if name in source.schema.names)]
        if readers is None:
            wanted = [READERS] if READERS in source.schema.names else []
        else:
            wanted = [readers.replace("{side}", side) for side in SIDES[:2]] if "{side}" in readers else [readers]
        if absent := [name for name in wanted if name not in source.schema.names]:
            raise KoaError(f"{folder} has no column {absent[0]!r}; its columns are {', '.join(source.schema.names)}.")
        return run, source.to_table(columns=list(dict.fromkeys([*columns, *wanted]))).to_pandas()
    except FileNotFoundError as error:
        raise KoaError(f"{folder} holds no results; give the OUT of `koa cohort grade`.") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise KoaError(f"{folder} is damaged ({str(error).splitlines()[0]}); grade again.") from error


def _reason(error: str, file: str) -> str:
    """An error without what is particular to one film: its name, and details in brackets."""
    general = re.sub(r"\s*\(.*?\)", "", error.removeprefix(file).removeprefix(Path(file).name)).strip()
    return general[:1].upper() + general[1:]


def _share(part: int, of: int) -> float | None:
    return float(part / of) if of else None


def _counts(grades: pd.Series) -> list[int]:
    return np.bincount(grades, minlength=NUM_GRADES).tolist()


def _two_knees(knees: pd.DataFrame, repeats: int, seed: int) -> dict[str, Any]:
    """Agreement of the grades of right and left: of one film, or else of the films of one study, one a side."""
    sided = knees[knees["side"] != "unknown"]
    both = sided.groupby("film")["side"].transform("nunique") == 2
    pair = sided["film"].where(both)
    if "study_uid" in sided:
        pair = pair.fillna(sided["study_uid"])
    sided = sided.assign(pair=pair)[pair.notna()]
    once = sided.groupby("pair")["side"].transform("size") == 2
    wide = (
        sided[once]
        .pivot_table("grade", "pair", "side", aggfunc="first")
        .reindex(columns=SIDES[:2])
        .dropna()
        .astype(int)
    )
    right, left = wide["right"].to_numpy(), wide["left"].to_numpy()
    found: dict[str, Any] = {"pairs": len(wide)}
    if len(wide):
        of = sided.groupby("pair")["patient"].first().loc[wide.index].to_numpy()
        kappas = [
            metrics.quadratic_weighted_kappa(right[rows], left[rows]) for rows in metrics.resamples(of, repeats, seed)
        ]
        kappas = [kappa for kappa in kappas if kappa is not None]
        found |= {
            "equal_grades": float((right == left).mean()),
            "within_one_grade": float((abs(right - left) <= 1).mean()),
            "quadratic_weighted_kappa": metrics.quadratic_weighted_kappa(right, left),
            "interval_95_by_patient": np.percentile(kappas, (2.5, 97.5)).tolist() if kappas else None,
            "right_by_left": np.bincount(right * NUM_GRADES + left, minlength=NUM_GRADES**2)
            .reshape(NUM_GRADES, -1)
            .tolist(),
        }
    return found


def _against_readers(knees: pd.DataFrame, readers: str | None, repeats: int, seed: int) -> dict[str, Any] | None:
    if readers and "{side}" in readers:
        told = pd.Series(np.nan, knees.index)
        for side in SIDES[:2]:
            told[knees["side"] == side] = knees[readers.replace("{side}", side)]
    elif readers or READERS in knees:
        told = knees[readers or READERS]
    else:
        return None
    there = told.notna()
    grades = told[there].to_numpy()
    if not all(grade in range(NUM_GRADES) for grade in grades):
        raise KoaError(f"the column {readers or READERS} holds other values than KL grades, 0 to 4, and nulls.")
    found: dict[str, Any] = {"column": readers or READERS, "knees": len(grades)}
    if len(grades):
        chosen = knees[there]
        probabilities, grades = np.stack(chosen["probabilities"].to_list()), grades.astype(int)
        predicted = chosen["grade"].to_numpy()
        found["figures"] = metrics.grade_metrics(probabilities, grades, predicted)
        found["intervals_95_by_patient"] = metrics.bootstrap_intervals(
            probabilities, grades, chosen["patient"].to_numpy(), predicted, repeats, seed
        )
    return found


_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Cohort report</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2526; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .25rem .75rem; border-bottom: 1px solid #d5dcdc; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
.notice {{ border-left: 4px solid #c2571a; padding-left: 1rem; }}
</style>
<h1>Cohort report</h1>
<p class="notice">{notice}</p>
{body}
</html>
"""


def as_page(figures: dict[str, Any]) -> str:
    """One HTML page of the figures; needs nothing else."""
    run, failed, unlike = figures["run"], figures["failed"], figures["unlike_the_training_knees"]
    missing = figures["shards_missing"]
    parts = [
        _table(
            ["", ""],
            [
                ["data set", f"{run['dataset']}, split {run['split']}"],
                ["model", f"{run['model']}, revision {run['model_revision']}"],
                ["films", figures["films"]],
                ["repeated films, left out", figures["duplicates_left_out"]],
                ["films that failed", _of(failed["films"], failed["share"])],
                ["knees", figures["knees"]],
                [f"patients (by {figures['patients']['by']})", figures["patients"]["number"]],
                ["knees unlike the training knees", _of(unlike["knees"], unlike["share"])],
                ["negatives, inverted", figures["negatives_inverted"]],
                ["upside down, turned", figures["upside_down_turned"]],
            ],
        )
    ]
    if missing:
        parts.append(f"<p>{missing} of {run['shards']} files of results are still missing.</p>")
    names = [f"KL {grade} {name}" for grade, name in enumerate(GRADE_NAMES)]
    sides = {side: counts for side, counts in figures["grades"].items() if sum(counts)}
    parts += ["<h2>Grades</h2>", _table(["side", *names], [[side, *counts] for side, counts in sides.items()])]
    if sides:
        parts.append(_picture(_grades_plot(sides), "share of each grade by side"))
    two = figures["two_knees"]
    parts.append("<h2>The two knees of a patient</h2>")
    if two["pairs"]:
        kappa, interval = two["quadratic_weighted_kappa"], two["interval_95_by_patient"]
        between = " ({:.3f} to {:.3f})".format(*interval) if interval else ""
        parts += [
            f"<p>{two['pairs']} pairs: equal grades in {two['equal_grades']:.1%}, at most one grade apart in "
            f"{two['within_one_grade']:.1%}, quadratic weighted kappa "
            f"{'undefined' if kappa is None else f'{kappa:.3f}{between}'}.</p>",
            _picture(_matrix_plot(two["right_by_left"], "left knee", "right knee"), "right by left grades"),
        ]
    else:
        parts.append("<p>No film or study shows both.</p>")
    if readers := figures["readers"]:
        parts.append(
            f"<h2>Against readers' grades ({html.escape(readers['column'])})</h2><p>{readers['knees']} knees.</p>"
        )
        if readers["knees"]:
            rows = metrics.table_rows(readers["figures"], readers["intervals_95_by_patient"])
            matrix = _matrix_plot(readers["figures"]["confusion_matrix"], "model", "reader")
            parts += [_table(["figure", "value", "95 % interval"], rows), _picture(matrix, "confusion matrix")]
    if failed["films"]:
        parts += ["<h2>Films that failed</h2>", _table(["reason", "films"], failed["by_reason"].items())]
    return _PAGE.format(notice=html.escape(figures["notice"]), body="\n".join(parts))


def _of(number: int, share: float | None) -> str:
    return f"{number}" if share is None else f"{number} ({share:.1%})"


def _table(head: list[str], rows) -> str:
    def line(cells, tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    return "\n".join(
        ["<table>", *([line(head, "th")] if any(head) else []), *(line(row, "td") for row in rows), "</table>"]
    )


def _picture(figure: Figure, description: str) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return f'<img alt="{description}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'


def _grades_plot(sides: dict[str, list[int]]) -> Figure:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(sides)
    for place, ((side, counts), colour) in enumerate(zip(sides.items(), (_TEAL, "#1f5fa8", "#9aa5a6"), strict=False)):
        at = np.arange(NUM_GRADES) + (place - (len(sides) - 1) / 2) * width
        axes.bar(at, 100 * np.array(counts) / sum(counts), width, color=colour, label=f"{side} ({sum(counts)} knees)")
    axes.set_xticks(range(NUM_GRADES), [f"KL {grade}" for grade in range(NUM_GRADES)])
    axes.set_ylabel("% of knees")
    axes.legend(frameon=False)
    return figure


def _matrix_plot(counts: list[list[int]], columns: str, rows: str) -> Figure:
    """Counts, coloured by the share of their row."""
    numbers = np.asarray(counts)
    shares = numbers / np.maximum(numbers.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(4.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap=_BLUES, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, f"{numbers[row, column]}", ha="center", va="center", color=colour)
    axes.set_xlabel(f"KL grade, {columns}")
    axes.set_ylabel(f"KL grade, {rows}")
    return figure
