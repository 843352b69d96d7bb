"""The endpoints of `koa_hf.demo.api` on the page's server, as controls that nobody sees."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator

import gradio as gr

from koa_hf.demo.api import DESCRIPTIONS, Api
from koa_hf.errors import KoaError
from koa_hf.imaging import radiograph

GRADING_QUEUE = {"concurrency_id": "grader", "concurrency_limit": 8}
"""One queue for everything that grades. So many requests read X-rays and find knees at a time; the batcher then grades
their knees together."""


def add_api(api: Api) -> None:
    """Add the endpoints to the `gr.Blocks` around this call."""
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
            **GRADING_QUEUE,
        )


def in_one_sentence(function: Callable) -> Callable:
    """Turn a `KoaError` of a handler into the answer that its caller gets, without a traceback in the server's log."""

    @functools.wraps(function)
    def call(*arguments):
        with _koa_errors_as_answers():
            return function(*arguments)

    @functools.wraps(function)
    def generate(*arguments):
        with _koa_errors_as_answers():
            yield from function(*arguments)

    return generate if inspect.isgeneratorfunction(function) else call


@contextlib.contextmanager
def _koa_errors_as_answers() -> Iterator[None]:
    try:
        yield
    except KoaError as error:
        raise gr.Error(str(error), print_exception=False) from error
