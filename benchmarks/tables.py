"""The README's tables of benchmarks, from what they wrote to results/benchmarks/ and results/demo/.

    python benchmarks/tables.py

A part that wasn't measured yet says by which command it is. Also writes results/benchmarks/tables.md.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import readme
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text

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


def one_xray(result: dict) -> str:
    differences, share = result["against_torch_fp32"], result["share_of_the_ceiling"]
    return table(
        [
            {
                f"one X-ray at {result['image_size']} px": way,
                "passes": result["passes_through_the_network"][way],
                **{f"{key}, ms an X-ray": value for key, value in taken.items()},
                "times the baseline": result["times_the_baseline"][way],
                "share of the ceiling": share.get(way),
                "MB": result["process_megabytes"][way],
                "grades changed (ties)": f"{differences[way]['grades_changed']} ({differences[way]['of_these_ties']})"
                if way in differences
                else None,
            }
            for way, taken in result["milliseconds"].items()
        ]
    ) + (
        f"\n\nThe baseline is the first row. Grades changed: of {result['validation_images']} validation knees, "
        f"against torch in float32. The goals were 44 ms, 25 ms in int8 and six times the baseline; the network alone, "
        f"as fast as the matrix product, would take {_least(result)}. MB: what a process that goes this one way holds."
    )


def _least(result: dict) -> str:
    """What the passes of the Grader through the network would take at the ceiling, by precision."""
    passes = max(result["passes_through_the_network"].values())
    return ", ".join(
        f"{passes * taken:.0f} ms in {name}" for name, taken in result["ceiling_milliseconds_a_pass"].items()
    )


def fine_tune(result: dict) -> str:
    processes, paper = result["cpu_processes"], result["gpus_on_paper"]
    rates = ", ".join(f"{name} {value:g}" for name, value in processes["images_a_second"].items())
    waits = ", ".join(
        f"{2 * paper['gradient_megabytes'] / speed:.3g} ms over {link}"
        for link, speed in paper["link_gigabytes_a_second"].items()
    )
    text = table(
        [
            {
                "full fine-tune": row["way"],
                "px": row["size"],
                "batch": row["batch"],
                "ms an image": row["milliseconds_an_image"],
                "times the baseline": row["times_the_baseline"],
                "share of the ceiling": row["share_of_the_ceiling"],
            }
            for row in result["rows"]
        ]
    ) + (
        f"\n\nForward, backward and AdamW step. Images a second ({processes['what']}): {rates}; so two processes keep "
        f"{processes['efficiency_of_two_processes']:.0%} of twice one's. On paper, GPUs that average "
        f"{paper['gradient_megabytes']:g} MB of gradients wait at most {waits} a step, however many they are."
    )
    if reading := result.get("reading"):
        text += (
            f" One process reads {reading['images_a_second_read_by_one_process']:.0f} images a second, and here "
            f"{reading['images_a_second_trained']:g} a second are trained at {reading['size']} px."
        )
    return text


def trunk_cache(result: dict) -> str:
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
        "Uncached: channels last and frozen normalisations folded. The goal was 25 minutes on two cores with "
        "AVX512-BF16, and 8 times the baseline. Largest difference of a loss from the plain loop's: "
        f"{max(losses.values()):.1g}."
    )


def demo(result: dict) -> str:
    packages = list(result["imports"]["packages"].items())[:5]
    return table([{"demo": _words(name), "seconds": value} for name, value in result["seconds"].items()]) + (
        f"\n\nThe goal for the first page is {result['target_start_to_page']} s. Imports until then: "
        f"{result['imports']['all']:g} s (measured by itself, which slows it), with what they import: "
        + ", ".join(f"{name} {taken['with_what_it_imports']:g} s" for name, taken in packages)
        + "."
    )


def load(result: dict) -> str:
    together = result["batches"]
    sizes = ", ".join(f"{size}: {value:g}" for size, value in together["milliseconds_an_image"].items())
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
        f"\n\n{result['what'].capitalize()}. The baseline is one client; the ceiling is `Grader.grade` in a loop, "
        f"{result['ceiling_grades_a_second']:g} a second, and clients and demo share the machine. The goals "
        "were 20 grades a second, and a p95 under 5 s with 64 clients. "
        f"Several X-rays in one forward pass, ms an X-ray by the number of them: {sizes}; the best gains "
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
    return table(rows) + (
        "\n\nThe baseline of each step is its first row. What an image more takes at the end, in what it takes at the "
        f"beginning (1: a straight line): {straight}. Memory without the files that are mapped into it."
    )


PARTS: tuple[tuple[str, str, str, Callable[[dict], str]], ...] = (
    ("One X-ray", "benchmarks/one_xray", "one_xray.py --dataset data/knee-kl", one_xray),
    ("Full fine-tune", "benchmarks/fine_tune", "fine_tune.py --dataset data/knee-kl", fine_tune),
    ("Trunk cache", "benchmarks/trunk_cache", "trunk_cache.py --dataset data/knee-kl", trunk_cache),
    ("The demo's start", "demo/demo", "demo.py", demo),
    ("The demo under load", "demo/load", "demo_load.py", load),
    ("Growth with the data", "benchmarks/growth", "growth.py", growth),
)
"""Title, result without its suffix, command, and what makes text of it."""


def render(parts: Iterable[tuple[str, str, str, Callable[[dict], str]]] = PARTS, results: Path = RESULTS) -> str:
    """All parts as Markdown, with links that hold beside README.md.

    Raises:
        KoaError: a result isn't what its benchmark writes.
    """
    said = []
    for title, name, command, text in parts:
        file = results / f"{name}.json"
        said.append(f"**{title}** (`python benchmarks/{command}`)")
        if not file.is_file():
            said.append("Not measured yet.")
            continue
        try:
            result = json.loads(file.read_text())
            said.append(text(result))
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
