"""The demo behind a reverse proxy that serves it under a path, as nginx with `location /knees/` does."""

import contextlib
import http.client
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import Page, expect

from tests.demo import running_demo

PATH = "/knees"
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@contextlib.contextmanager
def proxy_to(url: str) -> Iterator[str]:
    """Serve `url` under PATH, on a port of its own and nothing else there; yields the address."""
    backend = urlsplit(url).netloc

    class Proxy(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(f"{PATH}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(backend, timeout=60)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path.removeprefix(PATH), body, sent)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()  # HTTP/1.0: the end of the connection is the end of the answer
            while part := answer.read1(65536):  # events go on as they come
                self.wfile.write(part)
                self.wfile.flush()
            connection.close()

        do_GET = do_POST = do_HEAD = forward

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PATH}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.browser
def test_page_and_api_work_behind_a_proxy_that_serves_them_under_a_path(model_folder, knee_png, page: Page):
    options = ("--model", str(model_folder), "--engine", "torch", "--root-path", PATH)
    with running_demo(*options) as demo, proxy_to(demo.url) as url:
        failed = []
        page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
        page.goto(url)
        page.set_input_files("#koa-upload input[type=file]", [knee_png])
        expect(page.locator("#koa-knee-0").get_by_text(re.compile(r"^KL \d means"))).to_be_visible(timeout=30_000)
        assert failed == []
        assert Client(url, verbose=False).predict(handle_file(knee_png), api_name="/grade")["grade"] in range(5)
