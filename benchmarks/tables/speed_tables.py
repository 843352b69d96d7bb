"""The README's tables of benchmarks, from what they wrote to results/benchmarks/ and results/demo/.

    python benchmarks/tables/speed_tables.py

A part that wasn't measured yet says by which command it is. Also writes results/benchmarks/tables.md.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.all import ON_A_GPU
from benchmarks.tables import readme
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text

ROOT = Path(__file__).resolve().parents[2]

RESULTS = ROOT / "results"


def table(rows: Sequence[dict[str, object]]) -> str:
    """Rows as Markdown; the keys of the first are the header, and all but the first column are numbers."""
    header = list(rows[0])
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *([_cell(row[key]) for key in header] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _goal(what: str, wanted: float, reached: float, unit: str, limit: str, more: bool = False) -> str:
    """What was aimed at and what came of it, by how much it was missed and why."""
    ratio = reached / wanted if more else wanted / reached
    measured = f"{reached:.3g}" if reached < 1000 else f"{reached:,.0f}"
    said = f"{what}: goal {wanted:g}{unit}, measured {measured}{unit}"
    return f"{said}, so reached." if ratio >= 1 else f"{said}: missed by {abs(reached / wanted - 1):.0%}. {limit}"


def one_xray(result: dict) -> str:
    differences, share = result["against_torch_fp32"], result["share_of_the_ceiling"]
    taken = {way: one["single"] for way, one in result["milliseconds"].items()}
    rows = [
        {
            f"one X-ray at {result['image_size']} px": way,
            "passes": result["passes_through_the_network"][way],
            **{f"{key}, ms an X-ray": value for key, value in one.items()},
            "times the baseline": result["times_the_baseline"][way],
            "share of the ceiling": share.get(way),
            "MB": result["process_megabytes"].get(way),
            "grades changed (ties)": f"{differences[way]['grades_changed']} ({differences[way]['of_these_ties']})"
            if way in differences
            else None,
            "largest change of a probability": round(differences[way]["largest_probability_change"], 3)
            if way in differences
            else None,
        }
        for way, one in result["milliseconds"].items()
    ]
    whole = {way: ms for way, ms in taken.items() if way.startswith("openvino") and "(" not in way}
    floats, eights = ({way: ms for way, ms in whole.items() if ("int8" in way) == eight} for eight in (False, True))
    least = ", ".join(f"{taken:.0f} ms in {precision}" for precision, taken in _ceilings(result).items())
    limit = f"The two passes that it takes with the mirror image would take {least} as one matrix product."
    goals = [_goal("Without quantisation", 44, min(floats.values()), " ms", limit)]
    if eights:
        goals.append(_goal("In int8", 25, min(eights.values()), " ms", _rest_of_int8(result)))
    times = next(iter(taken.values())) / min(whole.values())
    at_the_ceiling = next(iter(taken.values())) / min(_ceilings(result).values())
    limit = (
        f"The pipeline goes through the network once; at their ceiling the two passes would be {at_the_ceiling:.1f}."
    )
    goals.append(_goal("Times the pipeline", 6, times, "", limit, more=True))
    return (
        table(rows) + "\n\nThe baseline is the first row; the last three go through the network without the "
        f"mirror image, as it does. Changes are those of {result['validation_images']} validation knees against "
        f"torch in float32. MB: what a process that goes this one way holds. {' '.join(goals)}"
    )


def _rest_of_int8(result: dict) -> str:
    """What stays in floating point beside int8, and what that would take at the ceiling."""
    attempts = json.loads((RESULTS / "int8" / "attempts.json").read_text())["attempts"].values()
    rest = 1 - max(attempt["share_in_int8"] for attempt in attempts if attempt["passes"])
    return (
        f"The guard lets pass what keeps {rest:.0%} of the multiplications in float32, which alone would take "
        f"{rest * _ceilings(result)['fp32']:.0f} ms as one matrix product."
    )


def _ceilings(result: dict) -> dict[str, float]:
    """Precision -> what the passes of the Grader through the network would take at the ceiling, ms."""
    passes = max(result["passes_through_the_network"].values())
    return {precision: passes * taken for precision, taken in result["ceiling_milliseconds_a_pass"].items()}


def fine_tune(result: dict) -> str:
    processes, paper, shares = result["cpu_processes"], result["gpus_on_paper"], result["where_time_goes"]
    rates = ", ".join(f"{name} {value:g}" for name, value in processes["images_a_second"].items())
    kept = "; ".join(
        f"{step['step']} ({step['milliseconds']:g} ms): "
        + ", ".join(f"{link} {by_count['8']:.0%}" for link, by_count in step["efficiency_by_link_and_gpus"].items())
        for step in paper["steps"]
    )
    operations = ", ".join(f"{name} {share:.0%}" for name, share in shares["share_by_operation"].items())
    least = {
        size: min(row["milliseconds_an_image"] for row in result["rows"] if row["size"] == size)
        for size in {row["size"] for row in result["rows"]}
    }
    text = table(
        [
            {
                "full fine-tune": row["way"],
                "px": row["size"],
                "batch": row["batch"],
                "ms an image": row["milliseconds_an_image"],
                "images a second": round(1000 / row["milliseconds_an_image"], 1),
                "times the baseline": row.get("times_the_baseline"),
                "share of the ceiling": row["share_of_the_ceiling"],
            }
            for row in result["rows"]
        ]
    ) + (
        f"\n\nForward, backward and AdamW step. Where the time goes at {shares['size']} px: {operations}. Images a "
        f"second ({processes['what']}): {rates}; so two processes keep "
        f"{processes['efficiency_of_two_processes']:.0%} of "
        f"twice one's. On paper, what eight GPUs keep of eight times one's when {paper['gradient_megabytes']:g} MB of "
        f"gradients are averaged after every step, at the links' nominal rates: {kept}. Augmentation takes "
        f"{result['augmenting']['milliseconds_an_image']:g} ms an image at {result['augmenting']['size']} px."
    )
    if "device" in result and 299 in least:
        published = "498 a second are published for an RTX 3090."
        text += " " + _goal("Images a second at 299 px", 3000, 1000 / least[299], "", published, more=True)
    if "device" not in result and 224 in least:
        text += " " + _goal("An image at 224 px", 105, least[224], " ms", "")
    return text


def reading(result: dict) -> str:
    rows = [
        {
            "images for training": row["way"],
            "images a second": row["images_a_second"],
            "times the baseline": row["times_the_baseline"],
            "share of the ceiling": row["share_of_the_ceiling"],
        }
        for row in result["rows"]
    ]
    text = table(rows) + (
        f"\n\nBatches as `train/run.py` gets them: {result['what']}. The baseline is the first row; images are kept in "
        "memory where a quarter of what is free holds them all, without trunk cache and `--workers`. The ceiling is a "
        f"copy in memory, {result['memory_copy_images_a_second']} images a second."
    )
    if goal := result.get("goal_images_a_second"):
        fastest = max(row["images_a_second"] for row in result["rows"])
        text += " " + _goal("Images a second, for an H100", goal, fastest, "", "It would wait for them.", more=True)
    return text


def trunk_cache(result: dict) -> str:
    cached, plain = result["ways"]["cached"], result["ways"]["plain"]["minutes"]["whole recipe"]
    losses = result["largest_loss_difference_from_the_plain_loop"]
    return table(
        [
            {
                "paper recipe": way,
                **{f"{name}, min": taken for name, taken in found["minutes"].items()},
                "its ceiling, min": found["minutes_at_the_ceiling"],
                "share of the ceiling": round(found["minutes_at_the_ceiling"] / found["minutes"]["whole recipe"], 2),
                "times the baseline": found["times_the_plain_loop"],
            }
            for way, found in result["ways"].items()
        ]
    ) + (
        f"\n\nThe baseline is the plain loop, in torch's default layout: {result['what']}; {result['precision']}. "
        "Uncached: channels last and frozen normalisations folded. Largest difference of a loss from the plain loop's: "
        f"{max(losses.values()):.1g}. "
        + _goal(
            "The whole recipe",
            25,
            cached["minutes"]["whole recipe"],
            " minutes",
            f"At the speed of the matrix product, {next(iter(result['matrix_product_gflops'].values()))} GFLOP/s, it "
            f"would take {cached['minutes_at_the_ceiling']:.1f}.",
        )
        + _paper_run()
        + " "
        + _goal(
            "Times the baseline",
            8,
            cached["times_the_plain_loop"],
            "",
            f"At its ceiling it would be {plain / cached['minutes_at_the_ceiling']:.1f} times.",
            more=True,
        )
    )


def _paper_run() -> str:
    """How long the paper's recipe took as it was run, where its record is kept."""
    record = RESULTS / "paper" / "run.json"
    if not record.is_file():
        return ""
    minutes = json.loads(record.read_text())["seconds"]["this_process"] / 60
    return (
        f" The run in results/paper took {minutes:.1f}, with reading, the last evaluation in float32 and the plots, "
        "and with other work beside it at times."
    )


def demo(result: dict) -> str:
    packages = list(result["imports"]["packages"].items())[:5]
    return table([{"demo": _words(name), "seconds": value} for name, value in result["seconds"].items()]) + (
        "\n\nStart to page: until `/` is answered, with nothing of the model in memory yet. "
        + _goal("First page", result["target_start_to_page"], result["seconds"]["start_to_page"], " s", "")
        + " Imports until then: "
        f"{result['imports']['all']:g} s (measured by itself, which slows it), with what they import: "
        + ", ".join(f"{name} {taken['with_what_it_imports']:g} s" for name, taken in packages)
        + "."
    )


def load(result: dict) -> str:
    together = result["batches"]
    sizes = ", ".join(f"{size}: {value:g}" for size, value in together["milliseconds_an_image"].items())
    most, last = max(result["rows"], key=lambda row: row["grades_a_second"]), result["rows"][-1]
    grading, asking = most["share_of_the_ceiling"], most["clients_share_of_the_processor"]
    memory = ", ".join(f"{row['megabytes_end']} after {row['clients']} clients" for row in result["rows"])
    return table(
        [
            {
                "clients": row["clients"],
                "grades a second": row["grades_a_second"],
                "times the baseline": row["times_one_client"],
                "share of the ceiling": row["share_of_the_ceiling"],
                "p50, s": row["p50_seconds"],
                "p95, s": row["p95_seconds"],
                "errors": row["errors"],
                "MB: start, peak, end": " / ".join(str(row[f"megabytes_{at}"]) for at in ("start", "peak", "end")),
            }
            for row in result["rows"]
        ]
    ) + (
        f"\n\n{result['what'].capitalize()}. The baseline is one client; the ceiling is the grader without a server, "
        f"in batches of {together['best']} ({result['engine']}): {result['ceiling_grades_a_second']:g} a second. "
        + _goal(
            "Grades a second",
            20,
            most["grades_a_second"],
            "",
            f"The ceiling itself is {result['ceiling_grades_a_second']:g}: at its speed grading is {grading:.0%} of "
            f"the time; the clients take {asking:.0%} of the processor; the other {1 - grading - asking:.0%} are the "
            "server's (upload, queue, heat maps, page), or nobody's.",
            more=True,
        )
        + " "
        + _goal(
            f"p95 with {result['rows'][-1]['clients']} clients",
            5,
            result["rows"][-1]["p95_seconds"],
            " s",
            f"Those who wait are served in turn: {last['clients']} over {last['grades_a_second']:g} a second are "
            f"{last['clients'] / last['grades_a_second']:.1f} s.",
        )
        + f" Memory: goal flat; {result['rows'][0]['megabytes_start']} MB at the start, {memory}: missed by what the "
        "first passes of several X-rays take, and flat after them (the last row)."
        + f" Several X-rays in one forward pass, ms an X-ray by the number of them: {sizes}; the best gains "
        f"{together['gain_of_the_best'] - 1:.0%}"
        + (
            "."
            if together["worth_it"]
            else ", too little for requests to wait for each other: they are graded one by one."
        )
    )


def growth(result: dict) -> str:
    rows = []
    for name, step in result["steps"].items():
        for row in step["rows"]:
            rows.append(
                {
                    "step": name,
                    "images": row["images"],
                    "seconds": row["seconds"],
                    "s an image": row["seconds_an_image"],
                    "times the baseline": row["times_the_baseline"],
                    "of proportional growth": row["times_proportion"],
                    "peak, MB": row["peak_megabytes"],
                }
            )
    straight = ", ".join(f"{name} {step['linearity']}" for name, step in result["steps"].items() if "linearity" in step)
    peaks = ", ".join(f"{name} {step['peak_times_the_baseline']:g}" for name, step in result["steps"].items())
    slopes = ", ".join(f"{name} {step['megabytes_more_in_100000'] / 100:.3g}" for name, step in result["steps"].items())
    return table(rows) + (
        "\n\nThe baseline of each step is its first row. What an image more takes at the end, in what it takes at the "
        f"beginning (1: a straight line): {straight}. Memory without the files that are mapped into it. Goal: "
        f"flat; the last peak in times the first: {peaks}; MB more for 1000 images more, by the last two rows: "
        f"{slopes}. Build, verify and the evaluation of small images by an untrained network begin with the whole "
        "release (of which validation is evaluated); the others with a part, since a trunk cache of sixteen times the "
        "release would need 111 GB of disk, and the bundled model hours."
    )


PARTS: tuple[tuple[str, str, str, Callable[[dict], str]], ...] = (
    ("One X-ray", "benchmarks/one_xray", "one_xray.py --dataset data/knee-kl", one_xray),
    ("Full fine-tune", "benchmarks/fine_tune", "fine_tune.py", fine_tune),
    (
        "Full fine-tune on a GPU",
        "benchmarks/fine_tune_cuda",
        f"fine_tune.py {ON_A_GPU}",
        fine_tune,
    ),
    ("Reading the images", "benchmarks/reading", "reading.py --dataset data/knee-kl", reading),
    ("Trunk cache", "benchmarks/trunk_cache", "trunk_cache.py --dataset data/knee-kl", trunk_cache),
    ("The demo's start", "demo/demo", "demo.py", demo),
    ("The demo under load", "demo/load", "demo_load.py", load),
    ("Growth with the data", "benchmarks/growth", "growth.py", growth),
)
"""Title, result without its suffix, the command where it wasn't measured yet, and what makes text of it."""


NOT_MEASURED = {
    "benchmarks/fine_tune_cuda": "Not measured yet. No GPU was at hand, so nothing about one is known here."
}
"""What is said beside the command where there is more to say."""


def render(parts: Iterable[tuple[str, str, str, Callable[[dict], str]]] = PARTS, results: Path = RESULTS) -> str:
    """All parts as Markdown, with links that hold beside README.md.

    Raises:
        KoaError: a result isn't what its benchmark writes.
    """
    said = []
    for title, name, command, text in parts:
        file = results / f"{name}.json"
        if not file.is_file():
            said += [f"**{title}** (`python benchmarks/{command}`)", NOT_MEASURED.get(name, "Not measured yet.")]
            continue
        try:
            result = json.loads(file.read_text())
            said += [f"**{title}** (`{result['command']}`)", text(result)]
            machine = result.get("device") or result["machine"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise KoaError(
                f"{file} isn't what benchmarks/{command.split()[0]} writes today ({error!r}); run it again."
            ) from error
        link = os.path.relpath(file, ROOT)
        said.append(f"Measured on {machine}: [{link}]({link})")
        if file.with_suffix(".png").is_file():
            said.append(f"![{title}]({Path(link).with_suffix('.png')})")
    return "\n\n".join(said)


@exit_2_on_bad_input
def main() -> None:
    text = render()
    # From where this file lies, the links go up first.
    write_text(RESULTS / "benchmarks" / "tables.md", text.replace("](results/", "](../") + "\n")
    readme.put("benchmark tables", text)


if __name__ == "__main__":
    sys.exit(main())
