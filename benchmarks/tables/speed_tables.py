"""Tables of docs/speed.md, from what the benchmarks wrote to results/benchmarks/ and results/demo/.

    python benchmarks/tables/speed_tables.py

A benchmark without a result is listed with its command.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.all import ON_A_GPU
from benchmarks.reporting import RESULTS
from benchmarks.tables.pages import DOCS, replace_block, run_script, table
from koa_hf.errors import KoaError

PAGE = "speed.md"


class Goal(NamedTuple):
    """A row of the first table. `limit` is the value at the machine's own speed, where one is known."""

    figure: str
    goal: float
    measured: float
    unit: str = ""
    limit: float | None = None

    def cells(self) -> list[str]:
        limit = "" if self.limit is None else f"{_short(self.limit)}{self.unit}"
        return [self.figure, f"{_short(self.goal)}{self.unit}", f"{_short(self.measured)}{self.unit}", limit]


class Section(NamedTuple):
    """A result on the page: rows of the first table, a table, and a note below it."""

    goals: Sequence[Goal]
    rows: Sequence[dict[str, object]]
    note: str


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _cell(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[dict[str, object]]) -> str:
    return table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows], numbers=True)


def one_xray(result: dict) -> Section:
    differences, share = result["against_torch_fp32"], result["share_of_the_ceiling"]
    rows = [
        {
            f"engine, {result['image_size']} px": name,
            "ms, single": ms["single"],
            "ms, batches of 16": ms["in batches of 16"],
            "speed-up": result["times_the_baseline"][name],
            "share of the ceiling": share.get(name),
            "MB": result["process_megabytes"].get(name),
            "grades changed (ties)": f"{differences[name]['grades_changed']} ({differences[name]['of_these_ties']})"
            if name in differences
            else None,
            "largest change of a probability": round(differences[name]["largest_probability_change"], 3)
            if name in differences
            else None,
        }
        for name, ms in result["milliseconds"].items()
    ]
    single = {name: ms["single"] for name, ms in result["milliseconds"].items()}
    openvino = {name: ms for name, ms in single.items() if name.startswith("openvino")}
    baseline, least = next(iter(single.values())), min(result["ceiling_milliseconds_a_pass"].values())
    fastest = min(openvino.values())
    return Section(
        [
            Goal("one X-ray", 50, fastest, " ms", round(least)),
            Goal("one X-ray, times transformers' pipeline", 3, baseline / fastest, "", baseline / least),
        ],
        rows,
        "Time per X-ray from file bytes to grade and heat map; the first row is the baseline. "
        f"Changes are against torch in float32 on {result['validation_images']} "
        "validation knees. MB: a process that uses this engine alone.",
    )


def fine_tune(result: dict) -> Section:
    processes, paper, shares = result.get("cpu_processes"), result["gpus_on_paper"], result["where_time_goes"]
    rows = [
        {
            "px": row["size"],
            "variant": row["way"],
            "batch": row["batch"],
            "ms per image": row["milliseconds_an_image"],
            "images per second": round(1000 / row["milliseconds_an_image"], 1),
            "speed-up": row.get("times_the_baseline"),
            "share of the ceiling": row["share_of_the_ceiling"],
        }
        for row in result["rows"]
    ]
    least = {
        size: min(row["milliseconds_an_image"] for row in result["rows"] if row["size"] == size)
        for size in {row["size"] for row in result["rows"]}
    }
    goals = []
    if "device" in result and 299 in least:
        goals.append(Goal("full fine-tune at 299 px, images per second", 3000, 1000 / least[299]))
    if "device" not in result and 224 in least:
        goals.append(Goal("full fine-tune at 224 px, one image", 105, least[224], " ms"))
    operations = ", ".join(f"{name} {share:.0%}" for name, share in shares["share_by_operation"].items())
    kept = "; ".join(
        f"{step['step']}: "
        + ", ".join(f"{link} {by_count['8']:.0%}" for link, by_count in step["efficiency_by_link_and_gpus"].items())
        for step in paper["steps"]
    )
    note = (
        f"A step is forward, backward and AdamW. Its time at {shares['size']} px: {operations}. Augmentation adds "
        f"{result['augmenting']['milliseconds_an_image']:g} ms per image.\n\n"
    )
    if processes:
        rates = ", ".join(f"{name} {value:g}" for name, value in processes["images_a_second"].items())
        note += (
            f"CPU processes ({processes['what']}), images per second: {rates}; efficiency of two processes "
            f"{processes['efficiency_of_two_processes']:.0%}.\n\n"
        )
    note += f"Expected efficiency of eight GPUs, {paper['gradient_megabytes']:g} MB of gradients, no overlap: {kept}."
    return Section(goals, rows, note)


def reading(result: dict) -> Section:
    rows = [
        {
            "images": row["way"],
            "per second": row["images_a_second"],
            "speed-up": row["times_the_baseline"],
            "share of the ceiling": row["share_of_the_ceiling"],
        }
        for row in result["rows"]
    ]
    goals = []
    if goal := result.get("goal_images_a_second"):
        fastest = max(row["images_a_second"] for row in result["rows"])
        goals.append(Goal("reading for training, images per second", goal, fastest))
    return Section(
        goals,
        rows,
        f"{result['what'].capitalize()}. Images are kept in memory where a quarter of the free memory holds them. The "
        f"ceiling is a memory copy, {result['memory_copy_images_a_second']:,} images per second.",
    )


def cached_trunk(result: dict) -> Section:
    variants = result["ways"]
    cached, plain = variants["cached"], variants["plain"]["minutes"]["whole recipe"]
    rows = [
        {
            "paper recipe": name,
            **{f"{part}, min": minutes for part, minutes in found["minutes"].items()},
            "ceiling, min": found["minutes_at_the_ceiling"],
            "share of the ceiling": round(found["minutes_at_the_ceiling"] / found["minutes"]["whole recipe"], 2),
            "speed-up": found["times_the_plain_loop"],
        }
        for name, found in variants.items()
    ]
    ceiling = cached["minutes_at_the_ceiling"]
    goals = [
        Goal("paper recipe with the trunk cache", 25, cached["minutes"]["whole recipe"], " min", ceiling),
        Goal("the same, times a plain training loop", 8, cached["times_the_plain_loop"], "", plain / ceiling),
    ]
    losses = result["largest_loss_difference_from_the_plain_loop"]
    return Section(
        goals,
        rows,
        f"Estimated for the whole release from medians of real steps, in {result['precision']}. Plain: torch's default "
        "layout. Uncached: channels last, folded normalisations in the frozen trunk. Largest difference of a loss from "
        f"the plain loop's: {max(losses.values()):.1g}.",
    )


STEPS_OF_A_START = {
    "start_to_page": "process start to first page",
    "page_to_first_grade": "first page to first grade",
    "later_grade_with_upload_and_queue": "later grade, with upload and queue",
    "start_to_first_grade": "process start to first grade",
    "start_to_first_grade_when_nothing_is_converted_yet": "the same with an empty cache",
}


def demo_start(result: dict) -> Section:
    packages = list(result["imports"]["packages"].items())[:5]
    slowest = ", ".join(f"{name} {taken['with_what_it_imports']:g} s" for name, taken in packages)
    seconds, goals, server = result["seconds"], result["targets"], result["at_the_server"]
    parts = {
        kind: ", ".join(
            f"{step.replace('_', ' ')} {taken / steps['all']:.0%}" for step, taken in steps.items() if step != "all"
        )
        for kind, steps in server.items()
    }
    beside = seconds["later_grade_with_upload_and_queue"] - server["crop"]["read"] - server["crop"]["grade"]
    height, width = result["film_pixels"]
    return Section(
        [
            Goal("demo, start to first page", goals["start_to_page"], seconds["start_to_page"], " s"),
            Goal("demo, first page to first grade", goals["page_to_first_grade"], seconds["page_to_first_grade"], " s"),
            Goal("demo, a crop at the server", goals["crop"], server["crop"]["all"], " s"),
            Goal("demo, a film of two knees at the server", goals["film"], server["film"]["all"], " s"),
        ],
        [
            *({"step": label, "seconds": seconds[name]} for name, label in STEPS_OF_A_START.items()),
            {"step": "server alone, a crop, from its file to the page", "seconds": server["crop"]["all"]},
            {"step": f"server alone, a film of two knees, {width} x {height}", "seconds": server["film"]["all"]},
        ],
        f"Where the time at the server goes ({result['engine']}): a crop: {parts['crop']}; the film: {parts['film']}. "
        f"Upload, queue and Gradio's own work add {1000 * beside:.0f} ms to a grade by `/grade`. "
        f"Imports before the first page take {result['imports']['all']:g} s under measurement; "
        f"the slowest, nested imports included: {slowest}.",
    )


def demo_load(result: dict) -> Section:
    batches, rows = result["batches"], result["rows"]
    most, last = max(rows, key=lambda row: row["grades_a_second"]), rows[-1]
    sizes = ", ".join(f"{size}: {value:g}" for size, value in batches["milliseconds_an_image"].items())
    clients, goals = f"demo, {last['clients']} clients", []
    goals.append(Goal(f"{clients}, rate relative to the Grader's own in batches", 0.85, last["share_of_the_ceiling"]))
    if last["grades_a_second"]:
        wait = last["clients"] / last["grades_a_second"]  # unavoidable for clients that ask again at once
        late = last["p95_seconds"] / wait
        goals.append(Goal(f"{clients}, p95 relative to the wait that the rate makes unavoidable", 1.15, late))
    if minute := last["megabytes_after_a_minute"]:
        goals.append(Goal(f"{clients}, memory at the end relative to a minute on", 1, last["megabytes_last"] / minute))
    return Section(
        goals,
        [
            {
                "clients": row["clients"],
                "grades per second": row["grades_a_second"],
                "speed-up": row["times_one_client"],
                "share of the ceiling": row["share_of_the_ceiling"],
                "p50, s": row["p50_seconds"],
                "p95, s": row["p95_seconds"],
                "errors": row["errors"],
                "MB: start, peak, end": " / ".join(str(row[f"megabytes_{at}"]) for at in ("start", "peak", "end")),
            }
            for row in rows
        ],
        "Clients without pause, upload and queue included, on the same machine, of whose processor they take "
        f"{most['clients_share_of_the_processor']:.0%}. The ceiling is the Grader without a server in batches of "
        f"{batches['best']} ({result['engine']}). Milliseconds per X-ray by batch size: {sizes}.",
    )


def growth(result: dict) -> Section:
    rows = [
        {
            "step": name,
            "images": row["images"],
            "seconds": row["seconds"],
            "seconds per image": row["seconds_an_image"],
            "relative to proportional": row["times_proportion"],
            "peak, MB": row["peak_megabytes"],
        }
        for name, step in result["steps"].items()
        for row in step["rows"]
    ]
    marginal = [step["linearity"] for step in result["steps"].values() if step.get("linearity")]
    goals = []
    if marginal:
        goals.append(Goal("16 times the data, marginal cost per image (1 is linear), worst step", 1, max(marginal)))
    peaks = [step["peak_times_the_baseline"] for step in result["steps"].values() if "peak_times_the_baseline" in step]
    if peaks:
        goals.append(Goal("16 times the data, peak memory relative to the base, worst step", 1, max(peaks)))
    return Section(
        goals,
        rows,
        "Marginal cost per image, largest size relative to smallest: "
        + ", ".join(f"{name} {step['linearity']}" for name, step in result["steps"].items() if "linearity" in step)
        + ". Peak memory excludes memory-mapped files. Steps dominated by the network start from part of the release.",
    )


def cohort(result: dict) -> Section:
    rows = [
        {
            "what": row["what"],
            "way": row["way"],
            "films per second": row["films_a_second"],
            "knees per second": row["knees_a_second"],
            "speed-up": row["times_the_plain_loop"],
            "share of the ceiling": row["share_of_the_ceiling"],
        }
        for row in result["rows"]
    ]
    cohorts = [row for row in result["rows"] if row["way"] != "plain loop"]
    crops = [row["share_of_the_ceiling"] for row in cohorts if row["what"].startswith("crops")]
    films = [row["times_the_plain_loop"] for row in cohorts if row["what"].startswith("films")]
    goals = []
    if crops:
        goals.append(Goal("cohort of crops, share of the network's own rate", 0.85, max(crops)))
    if films:
        goals.append(Goal("cohort of films, times the plain loop", 2, max(films)))
    steps = result["milliseconds_a_film_in_one_process"].items()
    taken = "; ".join(f"{what}: " + ", ".join(f"{step} {ms:g}" for step, ms in each.items()) for what, each in steps)
    peaks = ", ".join(f"{row['peak_megabytes']:,} MB for {row['films']:,} films" for row in result["memory"])
    paper = ", ".join(
        f"{row['machines']} of these machines: {row['hours']:g} h ({row['read_megabytes_a_second']:g} MB/s read)"
        for row in result["a_million_films_on_paper"]
        if row["what"] == "films, DICOM JPEG 2000"
    )
    return Section(
        goals,
        rows,
        f"{result['what']}. The ceiling is the network alone in batches; the rates of processes include the start of "
        f"their readers, which weighs in so short a run. Milliseconds a film in one process: {taken}. Peak memory, "
        f"with a small network: {peaks}. On paper, a million films of two knees as DICOM: {paper}.",
    )


def install(result: dict) -> Section:
    brought: dict[str, list[dict]] = {}
    for row in result["rows"]:
        brought.setdefault(row["brought_by"], []).append(row)
    sums = {name: math.fsum(row["megabytes"] for row in rows) for name, rows in brought.items()}
    rows = []
    for name in sorted(sums, key=lambda name: -sums[name])[:10]:
        largest = ", ".join(f"{row['package']} {row['megabytes']:.0f}" for row in brought[name][:4])
        rows.append({"requirement": name, "MB": round(sums[name]), "packages": len(brought[name]), "largest": largest})
    of_cuda = [row for row in result["rows"] if row["package"].startswith(("nvidia", "cuda", "triton"))]
    cuda = math.fsum(row["megabytes"] for row in of_cuda)
    commands = result["seconds_of_commands"]
    return Section(
        [
            Goal("koa --help", 0.5, commands["koa --help"], " s"),
            Goal("koa grade, a new process", 6, commands["koa grade one.png"], " s", commands["import torch, timm"]),
        ],
        rows,
        f"{result['packages_installed']} packages, {result['megabytes'] / 1000:.1f} GB in all, each counted with the "
        f"first requirement that brings it. {cuda / 1000:.1f} GB are torch's CUDA libraries and triton; a machine "
        "without a GPU does without them where torch and torchvision are installed first, as a pair, from PyTorch's "
        "CPU index. Seconds of new processes: "
        f"{', '.join(f'`{name}` {taken:g}' for name, taken in commands.items())}.",
    )


def student(result: dict) -> Section:
    rows = [
        {
            "beside": f"{name}, {row['revision']}",
            "same grade": f"{row['same_grade']:.3f} ({row['same_grade_95'][0]:.3f} to {row['same_grade_95'][1]:.3f})",
            "its accuracy": round(row["accuracy"], 3),
            "its time, ms": result["milliseconds"][name],
            "times its speed": row["times_its_speed"],
        }
        for name, row in result["agreement"].items()
    ]
    bundle, states = next(iter(result["agreement"].values())), dict(result["states"])
    clean = states.pop("clean")
    kept = ", ".join(f"{name} {row['kept']:.3f} ({row['accuracy']:.3f})" for name, row in states.items())
    return Section(
        [
            Goal("small student, share of knees given the bundle's grade", 0.95, bundle["same_grade"]),
            Goal("small student, times the bundle's speed", 3, bundle["times_its_speed"]),
        ],
        rows,
        f"The student: {result['image_size']} px, {result['milliseconds']['student']:g} ms an X-ray, accuracy "
        f"{clean['accuracy']:.3f} on {result['knees']} validation knees. Its own grades kept on disturbed knees "
        f"(accuracy): {kept}. One pass, most probable grade.",
    )


class Part(NamedTuple):
    """A section of the page: title, result without its suffix, command of the benchmark, what makes text of it."""

    title: str
    result: str
    command: str
    section: Callable[[dict], Section]


PARTS = (
    Part("One X-ray", "benchmarks/one_xray", "one_xray.py --dataset data/knee-kl", one_xray),
    Part("A small student", "benchmarks/student", "student.py --dataset data/knee-kl --student RUN", student),
    Part("Full fine-tune", "benchmarks/fine_tune", "fine_tune.py", fine_tune),
    Part("Full fine-tune on a GPU", "benchmarks/fine_tune_cuda", f"fine_tune.py {ON_A_GPU}", fine_tune),
    Part("Reading images for training", "benchmarks/reading", "reading.py --dataset data/knee-kl", reading),
    Part("Trunk cache", "benchmarks/trunk_cache", "cached_trunk.py --dataset data/knee-kl", cached_trunk),
    Part("Start of the demo", "demo/demo", "demo_start.py", demo_start),
    Part("Demo under load", "demo/load", "demo_load.py", demo_load),
    Part("Cohorts", "benchmarks/cohort", "cohort.py", cohort),
    Part("Growth with the data", "benchmarks/growth", "growth.py", growth),
    Part("Installation", "benchmarks/install", "install.py", install),
)


def render(parts: Iterable[Part] = PARTS, results: Path = RESULTS) -> tuple[str, str]:
    """The table of goals, and a section for each part, as Markdown with links from docs/.

    Raises:
        KoaError: a result is not what its benchmark writes.
    """
    goals, sections = [], []
    for part in parts:
        file = results / f"{part.result}.json"
        heading = f"### {part.title}"
        if not file.is_file():
            sections += [heading, f"Not measured yet: `python benchmarks/speed/{part.command}`"]
            continue
        try:
            result = json.loads(file.read_text())
            section = part.section(result)
            machine, command = result.get("device") or result["machine"], result["command"].split()
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            script = f"benchmarks/speed/{part.command.split()[0]}"
            raise KoaError(f"{file} is not what {script} writes today ({error!r}); run it again.") from error
        goals += [[*goal.cells(), machine] for goal in section.goals]
        link = os.path.relpath(file, DOCS)
        # The script may have moved since; its options are those of the measurement.
        run = " ".join(["python", f"benchmarks/speed/{part.command.split()[0]}", *command[2:]])
        sections += [heading, f"`{run}` on {machine} ([JSON]({link})).", _table(section.rows), section.note]
        if file.with_suffix(".png").is_file():
            sections.append(f"![{part.title}]({Path(link).with_suffix('.png')})")
    header = ["figure", "goal", "measured", "at the machine's limit", "machine"]
    return table(header, goals) if goals else "Nothing measured yet.", "\n\n".join(sections)


def update() -> None:
    """Rewrite the blocks of the page."""
    goals, sections = render()
    replace_block(PAGE, "goals", goals)
    replace_block(PAGE, "benchmarks", sections)


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
