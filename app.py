"""The web demo: upload knee X-rays, read their KL grades, how sure the model is, and where it looked.

    python app.py                                     # the bundled model, at http://127.0.0.1:7860
    python app.py --model runs/paper                  # a model folder
    python app.py --model user/koa-xception           # a model on the Hugging Face Hub
    python app.py --host 0.0.0.0 --port 8080 --examples my-xrays/
    python app.py --root-path /knees                  # behind a reverse proxy that serves it there
    python app.py --disagreements corrections/        # readers may record where they disagree

From a program, the same grader; all endpoints, and the same as tools for assistants: docs/api.md

    from gradio_client import Client, handle_file
    Client("http://127.0.0.1:7860").predict(handle_file("knee.png"), api_name="/grade")
"""

import os
from functools import partial
from pathlib import Path

# Read when NumPy is imported: its threads would spin after each small product of the localiser, on the network's cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gradio as gr

from koa_hf.demo import page
from koa_hf.demo.api import Api
from koa_hf.demo.batch import Limits
from koa_hf.demo.components import example_buttons, film_editor, knee_panel, results_table
from koa_hf.demo.disagreements import Disagreements
from koa_hf.demo.endpoints import PageWithApi, add_api
from koa_hf.demo.examples import Examples
from koa_hf.demo.flow import SHOW_KNEE, Flow, Parts
from koa_hf.demo.serve import exit_now, minutes_kept, serve
from koa_hf.demo.session import VISIT_SECONDS, Visit
from koa_hf.demo.starting import StartingGrader
from koa_hf.imaging.localiser import MOST_KNEES

MAX_WAITING = 100  # in the queue; the next is told that it is full
POLL_SECONDS = 0.02  # of Gradio's queue; its own millisecond takes a tenth of a core while nobody asks for anything
STATUS_SECONDS = 1  # between two updates of the position in the queue; one at every grade costs more than it is worth


def build_demo(
    grader: StartingGrader,
    examples: Examples,
    limits: Limits,
    files: Path,
    disagreements: Disagreements | None = None,
) -> gr.Blocks:
    """The page, and the API on the same server.

    Args:
        files: folder for the reports that visitors save, emptied by whoever serves the page.
        disagreements: where readers' own grades go; by default they aren't asked for.
    """
    with PageWithApi(title="Knee X-ray grading", analytics_enabled=False, fill_width=False) as demo:
        visit = gr.State(Visit(), time_to_live=VISIT_SECONDS)
        gr.HTML(page.notice_html(), elem_id="koa-notice")
        gr.HTML(page.header_html(grader), elem_id="koa-header")
        with gr.Row(elem_id="koa-main"):
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(label="Knee X-rays", height=170, file_count="multiple", elem_id="koa-upload")
                gr.HTML(page.upload_hint_html(minutes_kept(limits)))
                buttons = example_buttons(examples)
            with gr.Column(scale=5, min_width=320, elem_id="koa-result"):
                message = gr.HTML(page.empty_html(), elem_id="koa-message")
                table = results_table()
                film = film_editor(visible=False, elem_id="koa-film")
                knees = [knee_panel(i, with_disagreement=disagreements is not None) for i in range(MOST_KNEES)]
                clear = gr.Button("Clear", size="sm", visible=False, elem_id="koa-clear")
        uploaded = gr.File(visible=False, file_count="multiple")
        download = gr.DownloadButton(visible="hidden")

        parts = Parts(visit, upload, message, table, film, knees, clear, download)
        flow = Flow(parts, grader, limits, files, disagreements)
        grading = flow.grade_on(flow.say_busy_on(upload.upload, upload, uploaded), flow.start, uploaded)
        clear.click(flow.clear, visit, parts.outputs, queue=False, api_visibility="private", cancels=grading)
        for button, (_, example) in zip(buttons, examples.films, strict=True):
            flow.grade_on(flow.say_busy_on(button.click), partial(flow.show_example, example, examples.drawn))
        flow.grade_on(table.rows.select, flow.show_row, then=SHOW_KNEE, stops_a_batch=False)
        flow.grade_on(film.grade_boxes, flow.grade_boxes, film)
        flow.grade_on(film.grade_whole, flow.grade_whole)
        flow.grade_on(film.adjust, flow.adjust, then=None)
        flow.save_on(table.csv.click, flow.save_csv)
        flow.save_on(table.reports.click, flow.save_reports)
        for i, panel in enumerate(knees):
            for kind, button in panel.reports.items():
                flow.save_on(button.click, partial(flow.save_report, i, kind))
            if form := panel.disagreement:
                form.send.click(
                    partial(flow.disagree, i),
                    [*form.fields, visit],
                    [form.sent, *form.fields],
                    api_visibility="private",
                    concurrency_id="disagreements",
                )

        add_api(Api(grader, limits, files))
    demo.queue(status_update_rate=STATUS_SECONDS, max_size=MAX_WAITING)
    demo._queue.sleep_when_free = demo._queue.progress_update_sleep_when_free = POLL_SECONDS
    return demo


def main(arguments: list[str] | None = None) -> int:
    return serve(build_demo, __doc__, arguments)


if __name__ == "__main__":
    exit_now(main())
