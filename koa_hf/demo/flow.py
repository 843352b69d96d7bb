"""Event handlers of the page: upload, grade, correct the boxes, show a row of the table, save a report, clear.

Each returns a dict of the components that change, so they are methods of one object that knows the components.
"""

import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from koa_hf.demo import batch, page
from koa_hf.demo.batch import Limits
from koa_hf.demo.components import KneePanel, ResultsTable, changed, film_update, heat_map_update, knee_boxes
from koa_hf.demo.disagreements import Disagreements
from koa_hf.demo.endpoints import GRADING_QUEUE, in_one_sentence
from koa_hf.demo.session import Visit, VisitMemory
from koa_hf.demo.starting import StartingGrader
from koa_hf.errors import KoaError
from koa_hf.files import write_apart
from koa_hf.grading.examination import Examination, GradedKnee, examine
from koa_hf.grading.result import Grading
from koa_hf.imaging import archive, localiser
from koa_hf.imaging.adjustment import UNADJUSTED
from koa_hf.imaging.localiser import KneeBox
from koa_hf.imaging.radiograph import Radiograph, read
from koa_hf.report.document import Report

FORGOTTEN = "This X-ray is no longer in memory; upload it again."
CSV_NAME = "knee-grades.csv"
NOT_YET = "Select a row once the batch is done."
TOO_MANY = "Batches this large are not kept in memory; upload this X-ray on its own."
NO_KNEE = "The whole image was graded. If it shows a knee, draw a box around it below and grade that."

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
class Parts:
    """The components that handlers change, and `visit`, which the page carries from one event to the next."""

    visit: gr.State
    upload: gr.File
    message: gr.HTML
    table: ResultsTable
    film: gr.HTML
    knees: list[KneePanel]
    clear: gr.Button
    download: gr.DownloadButton

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        alone = [self.visit, self.upload, self.message, self.table.column, self.table.rows, self.film, self.clear]
        return alone + [output for panel in self.knees for output in panel.outputs]


class Flow:
    """The state machine of the page.

    Args:
        files: folder of uploads and reports, whose files are deleted after a while.
        disagreements: where readers' own grades go; None if they aren't asked for.
    """

    def __init__(
        self,
        parts: Parts,
        grader: StartingGrader,
        limits: Limits,
        files: Path,
        disagreements: Disagreements | None = None,
    ):
        self.parts, self.grader, self.limits, self.files = parts, grader, limits, files
        self.disagreements = disagreements
        self.memory = VisitMemory()

    # How events are wired

    def grade_on(
        self,
        event: Callable,
        handler: Callable,
        *inputs: gr.blocks.Block,
        then: str | None = SHOW_RESULT,
        stops_a_batch: bool = True,
    ):
        """Run a handler that grades. All of them wait in one queue, whose position shows on the upload field.

        The last one wins: what an earlier one has yet to say is dropped, and a batch ends there.
        """
        parts = self.parts
        graded = event(
            in_one_sentence(self.last_wins(handler, stops_a_batch)),
            [*inputs, parts.visit],
            parts.outputs,
            api_visibility="private",
            show_progress="full",
            show_progress_on=parts.upload,
            trigger_mode="multiple",  # Gradio drops an event that comes while its like is pending
            **GRADING_QUEUE,
        )
        if then:
            graded.then(None, js=then, api_visibility="private")
        return graded

    def last_wins(self, handler: Callable, stops_a_batch: bool = True) -> Callable:
        """A handler whose answers are dropped once its visitor has asked for something else."""

        @functools.wraps(handler)
        def answer(*arguments) -> Iterator[dict]:
            visit: Visit = arguments[-1]
            turns = visit.turns
            turn = turns.take() if stops_a_batch or not visit.in_progress else turns.latest
            unchanged = {self.parts.clear: gr.skip()}  # Gradio empties everything for a handler that says nothing
            try:
                answered = handler(*arguments)
                for update in [answered] if isinstance(answered, dict) else answered:
                    if turn != turns.latest:
                        yield unchanged
                        return
                    if self.parts.visit in update:
                        update[self.parts.visit].turns = turns
                    yield update
            except KoaError:
                if turn == turns.latest:
                    raise
                yield unchanged

        return answer

    def say_busy_on(self, event: Callable, *fields: gr.blocks.Block) -> Callable:
        """Say at once, without asking the server, that an X-ray is being graded; the style sheet hides the last one.

        Args:
            fields: one to empty at the same time, so that the next X-ray can be dropped on it straight away, and one
                that gets what was in it.

        Returns:
            The event that follows, once this is done.
        """
        busy = f"{{ __type__: 'update', value: {json.dumps(page.busy_html())}, visible: true }}"
        js = f"(given) => [{busy}, null, given]" if fields else f"() => ({busy})"
        said = event(None, fields[:1], [self.parts.message, *fields], js=js, api_visibility="private")
        return said.then

    def save_on(self, event: Callable, handler: Callable) -> None:
        """Make a file on demand and hand it to the browser."""
        made = event(
            in_one_sentence(handler),
            self.parts.visit,
            self.parts.download,
            api_visibility="private",
            concurrency_id="reports",
        )
        made.success(None, self.parts.download, js=SAVE_FILE, api_visibility="private")

    # Handlers that grade

    def start(self, paths: list[str], old: Visit) -> Iterator[dict]:
        """Grade an upload: one X-ray, or a batch into the table."""
        old.forget()
        files = [Path(path) for path in paths]
        if len(files) > 1 or archive.is_archive(files[0]):
            yield from self.show_table(files)
            return
        yield self.show_one(partial(read, files[0], max_pixels=self.limits.pixels))

    def show_example(self, film: Radiograph, drawn: bool, old: Visit) -> dict:
        old.forget()
        return self.show_one(lambda: film, drawn)

    def show_one(self, read_film: Callable[[], Radiograph], drawn: bool = False) -> dict:
        """Grade one X-ray, or say why that is not possible."""
        emptied = {self.parts.upload: None, **self.no_table()}
        try:
            visit = self.examined(Visit(original=read_film(), drawn=drawn))
        except KoaError as error:
            return emptied | self.show_message(page.error_html(str(error))) | {self.parts.visit: Visit()}
        return emptied | self.show_film(visit) | self.show_knees(visit) | self.keep(visit)

    def show_table(self, files: list[Path]) -> Iterator[dict]:
        """Grade a batch; rows appear as they are done."""
        parts, total = self.parts, batch.count(files)
        started = {parts.upload: None, parts.visit: Visit(in_progress=True), **self.no_table()}
        yield started | self.show_message(page.batch_html([], total))
        rows: list[batch.Row] = []
        for more in batch.grade_all(self.grader, files, self.limits):
            rows += more
            cells = [[i, *row.cells] for i, row in enumerate(rows, start=1)]
            progress = self.say(page.batch_html(rows, total))
            yield {parts.table.column: gr.update(visible=True), parts.table.rows: cells, **progress}
        yield self.keep(Visit(rows=tuple(rows)))

    def show_row(self, selected: gr.SelectData, visit: Visit) -> dict:
        """Show the X-ray of a row."""
        rows = visit.rows
        if visit.in_progress:
            gr.Info(NOT_YET, title="Still grading")
            return {self.parts.visit: visit}
        if not rows:
            raise KoaError(FORGOTTEN)
        row = rows[int(selected.row_value[0]) - 1]
        if not row.data:
            raise KoaError(row.error or TOO_MANY)
        film = read(row.data, Path(row.file).name, self.limits.pixels)
        chosen = self.examined(Visit(original=film, rows=rows))
        return self.show_film(chosen) | self.show_knees(chosen) | self.keep(chosen, visit)

    def adjust(self, change: gr.EventData, visit: Visit) -> dict:
        """Rotate, mirror, invert or window the film, and grade what knees are found on it then."""
        if visit.original is None:
            raise KoaError(FORGOTTEN)
        adjusted = self.examined(dataclasses.replace(visit, adjustment=changed(visit.adjustment, change._data)))
        return self.show_film(adjusted) | self.show_knees(adjusted) | self.keep(adjusted, visit)

    def examined(self, visit: Visit) -> Visit:
        """The visit with its X-ray graded as it is adjusted."""
        examination = examine(self.grader, [visit.adjustment.applied_to(visit.original)])[0]
        return dataclasses.replace(visit, examination=examination, found=examination.boxes)

    def grade_boxes(self, drawn: list[dict], visit: Visit) -> dict:
        return self.regrade(visit, knee_boxes(drawn))

    def grade_whole(self, visit: Visit) -> dict:
        return self.regrade(visit, None)

    def regrade(self, visit: Visit, boxes: list[KneeBox] | None) -> dict:
        """Grade the X-ray on the page again, in these boxes or as a whole."""
        if (before := visit.examination) is None:
            raise KoaError(FORGOTTEN)
        again = examine(self.grader, [before.film], boxes, as_it_is=boxes is None)[0]
        corrected = dataclasses.replace(visit, examination=again)
        film = {self.parts.film: film_update(visit.original, decided_boxes(again), visit.found, visit.adjustment)}
        return self.say("") | film | self.show_knees(corrected) | self.keep(corrected, visit)

    # Other handlers

    def clear(self, old: Visit) -> dict:
        """Back to the empty page; what was on it is forgotten, and what is being graded for it is dropped."""
        old.forget()
        old.turns.take()
        parts = self.parts
        emptied = {parts.upload: None, parts.visit: Visit(turns=old.turns), **self.no_table()}
        return emptied | self.show_message(page.empty_html()) | {parts.clear: gr.update(visible=False)}

    def save_csv(self, visit: Visit) -> str:
        if not visit.rows:
            raise KoaError(FORGOTTEN)
        return write_apart(self.files, CSV_NAME, csv_of(visit))

    def save_reports(self, visit: Visit) -> str:
        """Write a zip of the table as CSV and of a PDF and a JSON report for each of its knees."""
        if not visit.rows:
            raise KoaError(FORGOTTEN)
        rows = [(i, row) for i, row in enumerate(visit.rows, start=1) if row.data and row.grading]
        gr.Info(f"The reports of {len(rows)} knees are being written.", title="One moment")
        from koa_hf.report import pdf_page

        reports = io.BytesIO()
        with zipfile.ZipFile(reports, "w", zipfile.ZIP_DEFLATED) as archived:
            archived.writestr(CSV_NAME, csv_of(visit))
            for i, row in rows:
                film = read(row.data, Path(row.file).name, self.limits.pixels)
                box = row.grading.box
                report = Report(GradedKnee(row.grading, localiser.crop(film, box) if box else film), film)
                for kind, content in (("pdf", pdf_page.pdf(report)), ("json", report.json())):
                    archived.writestr(f"{i:04d}-{report_name(row.grading, kind)}", content)
        return write_apart(self.files, "knee-reports.zip", reports.getvalue())

    def save_report(self, index: int, kind: str, visit: Visit) -> str:
        """Write the report of a knee; `kind` is `pdf`, `json` or `dcm`."""
        film, knee = self.knee_of(visit, index)
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
        return write_apart(self.files, report_name(knee.grading, kind), content)

    def disagree(self, index: int, grade: int | None, comment: str, with_image: bool, visit: Visit) -> tuple:
        """Record a reader's own grade; returns the answer and the form's fields, emptied once it is recorded."""
        try:
            _, knee = self.knee_of(visit, index)
            self.disagreements.add(knee, grade, comment or "", with_image)
        except KoaError as error:
            return page.sent_html(str(error), failed=True), grade, comment, with_image
        image = "with the X-ray" if with_image else "without the X-ray"
        return page.sent_html(f"Thank you: your grade was recorded, {image}."), None, "", False

    # What handlers have in common

    def keep(self, visit: Visit, instead_of: Visit | None = None) -> dict:
        return {self.parts.visit: self.memory.use(visit, instead_of)}

    def knee_of(self, visit: Visit, index: int) -> tuple[Radiograph, GradedKnee]:
        """A knee of a visit, after the film that it is in."""
        examination = self.memory.use(visit).examination
        if examination is None or index >= len(examination.knees):
            raise KoaError(FORGOTTEN)
        return examination.film, examination.knees[index]

    def say(self, html: str) -> dict:
        return {self.parts.message: gr.update(value=html, visible=bool(html))}

    def no_table(self) -> dict:
        return {self.parts.table.column: gr.update(visible=False)}

    def show_message(self, html: str) -> dict:
        """A message in the place of film and knees."""
        return self.say(html) | {self.parts.film: gr.update(visible=False)} | self.show_knees(Visit())

    def show_film(self, visit: Visit) -> dict:
        """The film and its boxes, unless the image was a crop to begin with."""
        examination = visit.examination
        if examination.whole and visit.adjustment == UNADJUSTED:
            return self.say("") | {self.parts.film: gr.update(visible=False)}
        nothing = not examination.boxes and not examination.whole
        caution = page.message_html("No knee was found", NO_KNEE, "caution") if nothing else ""
        update = film_update(visit.original, decided_boxes(examination), adjustment=visit.adjustment)
        return self.say(caution) | {self.parts.film: update}

    def show_knees(self, visit: Visit) -> dict:
        """A panel for each knee of a visit; the other panels are hidden."""
        examination = visit.examination
        knees = examination.knees if examination else ()
        updates = {self.parts.clear: gr.update(visible=True)}
        for i, panel in enumerate(self.parts.knees):
            updates[panel.column] = gr.update(visible=i < len(knees))
            if i >= len(knees):
                continue
            film = examination.film
            updates[panel.result] = page.knee_html(knees[i], i, film, visit.drawn)
            updates[panel.heat_map] = heat_map_update(i, knees[i])
            updates[panel.reports["dcm"]] = gr.update(visible=film.dicom is not None)
            if panel.disagreement:
                updates[panel.disagreement.sent] = ""
        return updates


def csv_of(visit: Visit) -> bytes:
    """The table of a batch as a CSV file."""
    return batch.as_csv(visit.rows).encode("utf-8", "backslashreplace")


def report_name(grading: Grading, kind: str) -> str:
    """Name of a report's file; not the X-ray's own, which may be the patient's."""
    side = f"-{grading.side}" if grading.side else ""
    return f"knee-report-{grading.sha256[:8]}{side}.{kind}"


def decided_boxes(examination: Examination) -> list[KneeBox]:
    """The boxes of a film with the sides that their gradings state."""
    pairs = zip(examination.boxes, examination.knees, strict=False)  # an image graded as it is has a knee and no box
    return [dataclasses.replace(box, side=knee.grading.side) for box, knee in pairs]
