"""The endpoints of `koa_hf.demo.api` on the page's server, as controls that nobody sees."""

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import gradio as gr
from gradio import processing_utils
from gradio.components.api_component import Api as Answer
from gradio.context import LocalContext
from gradio_client import handle_file
from gradio_client.utils import is_http_url_like

from koa_hf.demo.api import DESCRIPTIONS, SCHEMAS, Api
from koa_hf.errors import KoaError
from koa_hf.imaging import radiograph

GRADING_QUEUE = {"concurrency_id": "grader", "concurrency_limit": 8}
"""One queue for everything that grades. So many requests read X-rays and find knees at a time; the batcher then grades
their knees together."""

ONE_FILE = "handle_file('knee.png') of gradio_client, a public https URL of the file, or a data URI (data:;base64,...)"


class PageWithApi(gr.Blocks):
    """`gr.Blocks` whose endpoints for programs answer any wrong input in one sentence."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        """As Gradio's; the files of an endpoint for programs may be URLs and data URIs, too.

        Raises:
            gr.Error: of one sentence, if an input can't be received.
        """
        if block_fn.api_name not in DESCRIPTIONS:
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        with _koa_errors_as_answers():
            try:
                cache = block_fn.inputs[0].GRADIO_CACHE
                inputs = [await anyio.to_thread.run_sync(_received, given, cache) for given in inputs]
                return await super().preprocess_data(block_fn, inputs, *arguments, **options)
            except (gr.Error, KoaError):
                raise
            except Exception as error:  # a wrong type, a file that nobody uploaded, an address without an answer
                wanted = ONE_FILE if block_fn.inputs[0].file_count == "single" else f"a list, each file as {ONE_FILE}"
                raise KoaError(f"no X-ray could be fetched from what was given; pass {wanted}.") from error


def _received(given: Any, cache: str) -> Any:
    """An input as a program passed it, with Gradio's file objects in place of URLs and of data URIs, which are cached.

    Raises:
        KoaError: a text that is neither.
    """
    if isinstance(given, list):
        return [_received(one, cache) for one in given]
    if not isinstance(given, str):
        return given
    if given.startswith("data:"):
        return handle_file(processing_utils.save_base64_to_cache(given, cache))
    if is_http_url_like(given):
        return handle_file(given)
    raise KoaError(f"{given[:80]!r} is not a file that this server can open; pass {ONE_FILE}.")


def _xrays(label: str, file_count: str, schema: dict) -> gr.File:
    """An input for files, described as strings, which every client can write.

    In Gradio's own description, several files are a reference to nowhere, which MCP clients refuse.
    """
    files = gr.File(label=label, file_count=file_count, visible=False)
    # Not as a subclass: Gradio would write a .pyi file beside this module.
    files.api_info = lambda: schema | {"additional_description": schema["description"]}
    return files


def add_api(api: Api) -> None:
    """Add the endpoints to the `PageWithApi` around this call."""
    file = {"type": "string", "description": f"{radiograph.FORMATS} file: {ONE_FILE}"}
    files = f"{radiograph.FORMATS} files and zips of them, each as {ONE_FILE}"
    one = _xrays("One X-ray", "single", file)
    many = _xrays("X-rays, or zips of them", "multiple", {"type": "array", "items": file, "description": files})
    for endpoint in (api.grade, api.grade_film, api.grade_many, api.heat_map, api.report):
        name = endpoint.__name__
        answer = Answer(None, SCHEMAS[name], "Result") if name in SCHEMAS else gr.File(label="File", visible=False)
        gr.Button(visible=False).click(
            in_one_sentence(_as_text_for_assistants(endpoint)),
            many if endpoint == api.grade_many else one,
            answer,
            api_name=name,
            api_description=DESCRIPTIONS[name],
            **GRADING_QUEUE,
        )


def _as_text_for_assistants(endpoint: Callable) -> Callable:
    """Answer Gradio's MCP server with JSON text; of anything else it makes Python's notation."""

    @functools.wraps(endpoint)
    def call(*arguments):
        answer = endpoint(*arguments)
        request = LocalContext.request.get(None)
        asked_by_assistant = request is not None and request.headers.get("x-gradio-user") == "mcp"
        return json.dumps(answer) if asked_by_assistant and not isinstance(answer, str) else answer

    return call


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
