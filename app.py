"""The web demo: upload knee X-rays, read their KL grades, how sure the model is, and where it looked.

    python app.py                                     # the bundled model, at http://127.0.0.1:7860
    python app.py --model runs/paper                  # a model folder
    python app.py --model user/koa-xception           # a model on the Hugging Face Hub
    python app.py --host 0.0.0.0 --port 8080 --examples my-xrays/
    python app.py --root-path /knees                  # behind a reverse proxy that serves it there
    python app.py --disagreements corrections/        # readers may record where they disagree

From a program, the same grader (also /grade_film and /grade_many, and all three as tools at /gradio_api/mcp/):

    from gradio_client import Client, handle_file
    Client("http://127.0.0.1:7860").predict(handle_file("knee.png"), api_name="/grade")
"""

import argparse
import dataclasses
import functools
import io
import math
import os
import queue
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# What follows is read when libraries are imported.
# NumPy's threads go on spinning after each small product of the localiser's, on the cores that the network needs next.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Nothing about the visitors, or the fact that somebody runs this, leaves the
# machine; and uploads lie in a folder of our own, which `main` makes and deletes.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = str(Path(tempfile.gettempdir(), f"koa-demo-{secrets.token_hex(8)}"))

import gradio as gr
from gradio.tunneling import CURRENT_TUNNELS
from PIL import Image

from koa_hf.demo import batch, page
from koa_hf.demo.api import DESCRIPTIONS, Api
from koa_hf.demo.batch import Limits
from koa_hf.demo.disagreements import MAX_COMMENT, Disagreements
from koa_hf.demo.session import Visit, Visits
from koa_hf.demo.starting import StartingGrader
from koa_hf.demo.theme import THEME
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import delete_older
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.examination import GradedKnee, examine
from koa_hf.imaging import archive, phantom, radiograph
from koa_hf.imaging.localiser import MOST_KNEES, KneeBox
from koa_hf.imaging.radiograph import Radiograph, read
from koa_hf.network import model_folder
from koa_hf.network.engine_names import ENGINE_HELP, ENGINES, GRADER_PRECISIONS
from koa_hf.report.document import Report

UPLOADS = Path(os.environ["GRADIO_TEMP_DIR"])
MAX_EXAMPLES = 10
# What is on a page stays in memory, so that reports can be made of it: this long, and this much of all visitors'.
KEEP_SECONDS = 3600
KEEP_BYTES = 1_000_000_000
MAX_VISITORS = 100  # Gradio keeps every visitor's last page, and of more than these, none
AT_ONCE = 8  # are read and found at a time; what then waits to be graded is graded together
STATUS_SECONDS = 1  # from one word to all who wait to the next; at every grade it takes more time than it is worth
MAX_WAITING = 100  # in the queue; the next is told that it is full

FORGOTTEN = "This X-ray isn't in memory any more; upload it again."
NOT_YET = "The batch is still being graded; choose a row once it is done."
TOO_MANY = "So large a batch isn't kept in memory; upload this X-ray by itself."
NO_KNEE = (
    "No knee was found in this image, so the whole of it was graded. "
    "Where there is a knee, draw a box around it below and grade that."
)

# On a phone the result lies below the fold.
SHOW_RESULT = """() => {
    const result = document.getElementById('koa-result');
    if (result.getBoundingClientRect().top > window.innerHeight / 2) result.scrollIntoView({ behavior: 'smooth' });
}"""
SHOW_KNEE = "() => document.getElementById('koa-knee-0').scrollIntoView({ behavior: 'smooth' })"
SAVE_FILE = """(file) => {
    const link = Object.assign(document.createElement('a'), { href: file.url, download: file.orig_name });
    document.body.append(link);
    link.click();
    link.remove();
}"""


@dataclass(frozen=True)
class Slot:
    """The place of one knee on the page."""

    column: gr.Column
    result: gr.HTML
    reports: dict[str, gr.Button]  # by the suffix of the file that each makes
    sent: gr.HTML | None  # what became of a disagreement


def build_demo(
    grader: StartingGrader,
    examples: list[tuple[str, Radiograph]],
    drawn: bool,
    limits: Limits,
    visits: Visits,
    disagreements: Disagreements | None = None,
) -> gr.Blocks:
    """The page and the API.

    Args:
        examples: (button text, X-ray).
        drawn: the examples are phantoms, no real X-rays.
        visits: where what the visitors see is kept.
        disagreements: where readers' own grades go; by default they aren't asked for.
    """
    with gr.Blocks(title="Knee X-ray grading", analytics_enabled=False, fill_width=False) as demo:
        token = gr.State()
        gr.HTML(f'<p class="notice" role="note">{page.text(RESEARCH_USE_NOTICE)}</p>', elem_id="koa-notice")
        gr.HTML(page.header_html(grader), elem_id="koa-header")
        with gr.Row(elem_id="koa-main"):
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(label="Knee X-rays", height=170, file_count="multiple", elem_id="koa-upload")
                gr.HTML(
                    '<p class="hint">A knee from the front, cropped or a whole film; several files or a zip for a '
                    "table. DICOM, PNG, JPEG, TIFF, WebP or BMP. Files are deleted within "
                    f"{math.ceil(file_age(limits) / 60) + 1} minutes; what the page shows stays in memory, for "
                    "reports, until you clear it, at most an hour.</p>"
                )
                buttons = example_buttons([label for label, _ in examples], drawn)
            with gr.Column(scale=5, min_width=320, elem_id="koa-result"):
                message = gr.HTML(page.empty_html(), elem_id="koa-message")
                with gr.Column(visible=False, elem_id="koa-batch") as table_column:
                    table = gr.Dataframe(
                        headers=list(batch.TABLE_COLUMNS),
                        datatype=["number", "str", "str", "str", "str", "number", "str"],
                        column_widths=["38px", "112px", "58px", "106px", "66px", "92px", "170px"],
                        label="Results: choose a row to see that X-ray",
                        interactive=False,
                        wrap=True,
                        max_height=420,
                        buttons=["fullscreen"],
                        elem_id="koa-table",
                    )
                    table_csv = gr.Button("Download as CSV", size="sm", elem_id="koa-csv")
                film = gr.HTML(visible=False, js_on_load=page.SCRIPT, elem_id="koa-film")
                slots = [knee_slot(i, token, visits, disagreements) for i in range(MOST_KNEES)]
                clear = gr.Button("Clear", size="sm", visible=False, elem_id="koa-clear")
        download = gr.DownloadButton(visible="hidden")
        gr.HTML('<footer><a href="?view=api">Grade from a program (API and MCP)</a></footer>', elem_id="koa-footer")

        everything = [upload, token, message, table_column, table, film, clear]
        everything += [
            part for slot in slots for part in (slot.column, slot.result, slot.reports["dcm"], slot.sent) if part
        ]

        def say(html: str) -> dict:
            return {message: gr.update(value=html, visible=bool(html))}

        def show(visit: Visit) -> dict:
            """The knees of a visit, whatever else is on the page."""
            knees = visit.examination.knees if visit.examination else ()
            updates = {clear: gr.update(visible=True)}
            for i, slot in enumerate(slots):
                updates[slot.column] = gr.update(visible=i < len(knees))
                if i < len(knees):
                    examined = visit.examination
                    updates[slot.result] = page.knee_html(knees[i], i, examined.film, visit.drawn)
                    updates[slot.reports["dcm"]] = gr.update(visible=examined.film.dicom is not None)
                    if slot.sent:
                        updates[slot.sent] = ""
            return updates

        def show_film(visit: Visit) -> dict:
            """The film and its boxes, where the image wasn't a crop to begin with."""
            examined = visit.examination
            if examined.whole or visit.drawn:
                return say("") | {film: gr.update(visible=False)}
            html = page.film_html(examined.film, examined.boxes, MOST_KNEES)
            caution = "" if examined.boxes else page.message_html("No knee was found", NO_KNEE, "caution")
            return say(caution) | {film: gr.update(value=html, visible=True)}

        def show_none(html: str) -> dict:
            return {**say(html), film: gr.update(visible=False), **show(Visit())}

        def start(paths: list[str], old: str | None) -> Iterator[dict]:
            visits.forget(old)
            # The upload field is emptied, so that the next X-ray can be dropped on it straight away.
            cleared = {upload: None, token: None, table_column: gr.update(visible=False)}
            files = [Path(path) for path in paths]
            if len(files) > 1 or archive.is_archive(files[0]):
                total = batch.count(files)
                yield cleared | show_none(page.batch_html([], total))
                yield from show_table(files, total)
                return
            try:
                film = read(files[0], max_pixels=limits.pixels)
            except KoaError as error:
                yield cleared | show_none(page.error_html(str(error)))
            else:
                yield cleared | show_one(film)

        def show_one(film: Radiograph, drawn: bool = False) -> dict:
            visit = Visit(examine(grader, [film], as_it_is=drawn)[0], drawn)
            return show_film(visit) | show(visit) | {token: visits.keep(visit)}

        def show_example(film: Radiograph, old: str | None) -> dict:
            visits.forget(old)
            return {table_column: gr.update(visible=False)} | show_one(film, drawn)

        def show_table(files: list[Path], total: int) -> Iterator[dict]:
            rows: list[batch.Row] = []
            for more in batch.grade_all(grader, files, limits):
                rows += more
                cells = [[i, *row.cells] for i, row in enumerate(rows, start=1)]
                yield {table_column: gr.update(visible=True), table: cells} | say(page.batch_html(rows, total))
            yield {token: visits.keep(Visit(rows=tuple(rows)))}

        def show_row(chosen: gr.SelectData, old: str | None) -> dict:
            visit = visits.get(old)
            if not visit.rows:
                raise gr.Error(FORGOTTEN if old else NOT_YET, print_exception=False)
            row = visit.rows[int(chosen.row_value[0]) - 1]
            if not row.data:
                raise gr.Error(row.error or TOO_MANY, print_exception=False)
            film = read(row.data, Path(row.file).name, limits.pixels)
            visit = dataclasses.replace(visit, examination=examine(grader, [film])[0])
            return show_film(visit) | show(visit) | {token: visits.keep(visit, old)}

        def regrade(old: str | None, boxes: list[KneeBox] | None) -> dict:
            visit = visits.get(old)
            if visit.examination is None:
                raise gr.Error(FORGOTTEN, print_exception=False)
            try:
                again = examine(grader, [visit.examination.film], boxes, as_it_is=boxes is None)[0]
            except KoaError as error:
                raise gr.Error(str(error), print_exception=False) from error
            visit = dataclasses.replace(visit, examination=again)
            return {**say(""), **show(visit), token: visits.keep(visit, old)}

        def grade_boxes(drawn_boxes: gr.EventData, old: str | None) -> dict:
            return regrade(old, [knee_in(box) for box in drawn_boxes.boxes])

        def grade_whole(old: str | None) -> dict:
            return regrade(old, None)

        def show_nothing(old: str | None) -> dict:
            visits.forget(old)
            return {
                upload: None,
                token: None,
                table_column: gr.update(visible=False),
                **show_none(page.empty_html()),
                clear: gr.update(visible=False),
            }

        def on(event, function, inputs, then: str = SHOW_RESULT):
            """Everything that grades waits in one queue, whose position shows on the upload field."""
            graded = event(
                function,
                inputs,
                everything,
                api_visibility="private",
                show_progress="full",
                show_progress_on=upload,
                concurrency_id="grader",
                concurrency_limit=AT_ONCE,
            )
            graded.then(None, js=then, api_visibility="private")
            return graded

        grading = on(upload.upload, start, [upload, token])
        clear.click(show_nothing, token, everything, queue=False, api_visibility="private", cancels=grading)
        on(table.select, show_row, token, SHOW_KNEE)
        on(film.grade_boxes, grade_boxes, token)
        on(film.grade_whole, grade_whole, token)
        for button, (_, example) in zip(buttons, examples, strict=True):
            on(button.click, functools.partial(show_example, example), token)

        def save_csv(old: str | None) -> str:
            if not (rows := visits.get(old).rows):
                raise gr.Error(FORGOTTEN, print_exception=False)
            return file_to_save("knee-grades.csv", batch.as_csv(rows).encode("utf-8", "backslashreplace"))

        offer(table_csv.click, save_csv, token, download)
        for i, slot in enumerate(slots):
            for kind, button in slot.reports.items():
                offer(button.click, functools.partial(save_report, visits, i, kind), token, download)

        add_api(grader, limits)
    demo.queue(status_update_rate=STATUS_SECONDS, max_size=MAX_WAITING)
    return demo


def example_buttons(labels: Sequence[str], drawn: bool) -> list[gr.Button]:
    if not labels:
        return []
    heading = "Or try a drawn knee" if drawn else "Examples"
    aside = "<p>Drawings with a known grade, not X-rays of people.</p>" if drawn else ""
    gr.HTML(f'<div class="hint"><h2>{heading}</h2>{aside}</div>')
    with gr.Row(elem_id="koa-examples"):
        return [gr.Button(label, size="sm", min_width=0, elem_id=f"koa-example-{i}") for i, label in enumerate(labels)]


def knee_slot(index: int, token: gr.State, visits: Visits, disagreements: Disagreements | None) -> Slot:
    with gr.Column(visible=False, elem_id=f"koa-knee-{index}", elem_classes="koa-knee") as column:
        result = gr.HTML(js_on_load=page.SCRIPT)
        with gr.Row(elem_classes="koa-reports"):
            reports = {
                kind: gr.Button(label, size="sm", min_width=120)
                for kind, label in {"pdf": "PDF report", "json": "JSON", "dcm": "DICOM report"}.items()
            }
        sent = disagreement_form(index, token, visits, disagreements) if disagreements else None
    return Slot(column, result, reports, sent)


def disagreement_form(index: int, token: gr.State, visits: Visits, disagreements: Disagreements) -> gr.HTML:
    with gr.Accordion("I disagree", open=False, elem_classes="koa-disagree"):
        grade = gr.Radio([(f"KL {g.value} {g.name}", g.value) for g in GRADES], label="Your grade")
        comment = gr.Textbox(label="Why (optional; nothing that tells who the patient is)", lines=2)
        comment.max_length = MAX_COMMENT
        allowed = gr.Checkbox(False, label="Keep this X-ray with my remark, for research")
        send = gr.Button("Send", size="sm", elem_classes="koa-send")
        sent = gr.HTML()

    def keep(old: str | None, grade: int | None, comment: str, with_image: bool) -> tuple:
        try:
            disagreements.add(chosen_knee(visits, index, old), grade, comment or "", with_image)
        except KoaError as error:
            return page.sent_html(str(error), failed=True), grade, comment, with_image
        image = "with the X-ray" if with_image else "without the X-ray"
        return page.sent_html(f"Thank you: your grade was recorded, {image}."), None, "", False

    send.click(
        keep,
        [token, grade, comment, allowed],
        [sent, grade, comment, allowed],
        api_visibility="private",
        concurrency_id="disagreements",
    )
    return sent


def offer(event, make: Callable[[str | None], str], token: gr.State, download: gr.DownloadButton) -> None:
    """Make a file on demand and hand it to the browser."""
    event(make, token, download, api_visibility="private", concurrency_id="reports").success(
        None, download, js=SAVE_FILE, api_visibility="private"
    )


def chosen_knee(visits: Visits, index: int, token: str | None) -> GradedKnee:
    examined = visits.get(token).examination
    if examined is None or index >= len(examined.knees):
        raise KoaError(FORGOTTEN)
    return examined.knees[index]


def save_report(visits: Visits, index: int, kind: str, token: str | None) -> str:
    try:
        knee, film = chosen_knee(visits, index, token), visits.get(token).examination.film
        report = Report(knee, film)
        if kind == "json":
            content = report.json().encode()
        elif kind == "pdf":
            # Imported here, as below: drawing takes most of a second to import, which the start need not wait for.
            from koa_hf.report import pdf_page

            content = pdf_page.pdf(report)
        else:
            from koa_hf.report import pdf_page
            from koa_hf.report.secondary_capture import secondary_capture

            content = secondary_capture(film.dicom, knee.grading, pdf_page.picture(report))
    except KoaError as error:
        raise gr.Error(str(error), print_exception=False) from error
    # Not the X-ray's own name: people write their patients' into it.
    side = f"-{knee.grading.side}" if knee.grading.side else ""
    return file_to_save(f"knee-report-{knee.grading.sha256[:8]}{side}.{kind}", content)


def file_age(limits: Limits) -> float:
    """Seconds after which a file is deleted: a batch may last so long, and has to find it."""
    return limits.seconds + 60


def file_to_save(name: str, content: bytes) -> str:
    """A file among the uploads, which is deleted as they are."""
    path = Path(tempfile.mkdtemp(dir=UPLOADS), name)
    path.write_bytes(content)
    return str(path)


def knee_in(drawn: dict) -> KneeBox:
    """A box from the page, as the visitor left it."""
    try:
        left, top, right, bottom = (int(edge) for edge in drawn["box"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise gr.Error("a box has no four edges; load the page again.", print_exception=False) from error
    side = drawn.get("side")
    return KneeBox((left, top, right, bottom), side if side in ("right", "left") else None, score=1.0, whole=False)


def add_api(grader: StartingGrader, limits: Limits) -> None:
    """The endpoints of `koa_hf.demo.api`, on controls that nobody sees."""
    api = Api(grader, limits)
    one = gr.File(label=f"One knee X-ray ({radiograph.FORMATS})", visible=False)
    many = gr.File(label=f"Knee X-rays ({radiograph.FORMATS}), or zips of them", file_count="multiple", visible=False)
    answer = gr.JSON(label="Grading", visible=False)
    for endpoint, files in ((api.grade, one), (api.grade_film, one), (api.grade_many, many)):
        name = endpoint.__name__
        gr.Button(visible=False).click(
            in_one_sentence(endpoint),
            files,
            answer,
            api_name=name,
            api_description=DESCRIPTIONS[name],
            concurrency_id="grader",
            concurrency_limit=AT_ONCE,
        )


def in_one_sentence(function: Callable) -> Callable:
    """A `KoaError` as the answer that clients get, without a traceback in the server's log."""

    @functools.wraps(function)
    def wrapper(given):
        try:
            return function(given)
        except KoaError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapper


def drawn_examples() -> list[tuple[str, Radiograph]]:
    """One drawn knee for each grade."""
    examples = []
    for grade in GRADES:
        png = io.BytesIO()
        Image.fromarray(phantom.draw_knee(grade.value, seed=grade.value)).save(png, "PNG")
        examples.append((f"KL {grade.value}", read(png.getvalue(), f"drawn knee, KL {grade.value}")))
    return examples


def examples_in(folder: Path) -> list[tuple[str, Radiograph]]:
    """The first X-rays of a folder, by name."""
    if not folder.is_dir():
        raise KoaError(f"{folder} is not a folder; give --examples a folder of X-rays.")
    files = sorted(filter(radiograph.is_radiograph_file, folder.iterdir()))
    if not files:
        raise KoaError(f"{folder} holds no X-rays ({radiograph.FORMATS}).")
    return [(file.stem, read(file)) for file in files[:MAX_EXAMPLES]]


# Gradio confines its `css` to the inside of the page; the margins around it are set from the head.
HEAD = "<style>@media (max-width: 640px) { .gradio-container .main { padding: 12px !important; } }</style>"


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder or Hub id; by default KOA_MODEL, else the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ...; by default a GPU where there is one")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=ENGINE_HELP)
    parser.add_argument(
        "--precision", choices=GRADER_PRECISIONS, default="auto", help="default: the fastest worth having here"
    )
    # A Space sets Gradio's own two variables.
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT", "7860")
    parser.add_argument("--host", default=host, help="0.0.0.0 lets other machines in (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="default: %(default)s")
    parser.add_argument("--root-path", metavar="/PATH", help="where a reverse proxy serves this, if not at its root")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's relay")
    parser.add_argument("--examples", type=Path, help="folder of X-rays to offer; by default drawn knees")
    usual = Limits()
    for name, default, what in (
        ("--max-megabytes", usual.megabytes, "largest file that may be uploaded"),
        ("--max-megapixels", usual.megapixels, "largest image that is read"),
        ("--timeout", usual.seconds, "seconds after which a batch ends with what it has"),
    ):
        parser.add_argument(name, type=positive, default=default, metavar="N", help=f"{what} (default: {default:g})")
    parser.add_argument(
        "--disagreements", type=Path, metavar="FOLDER", help="let readers record their own grades there"
    )
    parser.add_argument("--disagreements-repo", metavar="USER/NAME", help="push that folder to a private Hub data set")
    parsed = parser.parse_args(arguments)
    if parsed.disagreements_repo and not parsed.disagreements:
        parser.error("--disagreements-repo needs --disagreements with a folder")
    return parsed


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


@exit_2_on_bad_input
def main(arguments: list[str] | None = None) -> None:
    given = options(arguments)
    grader = StartingGrader(model_folder.find_model(given.model, given.revision))
    examples = examples_in(given.examples) if given.examples else drawn_examples()
    disagreements = Disagreements(given.disagreements, given.disagreements_repo) if given.disagreements else None
    limits = Limits(given.max_megabytes, given.max_megapixels, given.timeout)
    visits = Visits(KEEP_BYTES, KEEP_SECONDS)

    # A handler that raised could be swallowed by whatever it interrupts; a queue may be filled at any moment.
    stop = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.put(number))
    UPLOADS.mkdir(mode=0o700)
    demo = None
    try:
        demo = build_demo(grader, examples, given.examples is None, limits, visits, disagreements)
        launch(demo, given, [example for _, example in examples])
        # Somebody who opens the page now has it, and an upload waits for the rest.
        threading.Thread(target=load, args=(grader, given, examples[0][1], stop), daemon=True).start()
        while (reason := why_to_stop(stop)) is None:
            delete_older(UPLOADS, file_age(limits))
            visits.expire()
        if isinstance(reason, Exception):
            raise reason
    finally:
        if demo:
            demo.close(verbose=False)
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()
        shutil.rmtree(UPLOADS, ignore_errors=True)
        if disagreements:
            disagreements.close()


def load(grader: StartingGrader, given: argparse.Namespace, first: Radiograph, stop: queue.SimpleQueue) -> None:
    """Load the grader; where that fails, stop the demo."""
    try:
        loaded = grader.load(given.device, given.precision, given.engine, first)
    except Exception as error:  # a thread of its own would end without anybody noticing
        stop.put(error)
    else:
        print(
            f"grading with {loaded.model_id}, version {loaded.revision[:12]}, computed by {loaded.engine} in "
            f"{loaded.precision}",
            flush=True,
        )


def launch(demo: gr.Blocks, given: argparse.Namespace, examples: Sequence[Radiograph]) -> None:
    """Serve the page, without waiting for its end."""
    try:
        demo.launch(
            server_name=given.host,
            server_port=given.port,
            root_path=given.root_path,
            share=given.share,
            theme=THEME,
            css=page.style(examples),
            head=HEAD,
            footer_links=[],
            ssr_mode=False,
            mcp_server=True,
            max_file_size=int(given.max_megabytes * 1e6),
            state_session_capacity=MAX_VISITORS,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise KoaError(
            f"can't serve at {given.host}:{given.port}: the port is taken or the host isn't this machine's; "
            "give another --port or --host."
        ) from error


def why_to_stop(stop: queue.SimpleQueue, seconds: float = 60) -> int | Exception | None:
    """Wait that long for a signal, or for an error in the background."""
    try:
        return stop.get(timeout=seconds)
    except queue.Empty:
        return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an ordinary exit would wait for threads that wait for requests
