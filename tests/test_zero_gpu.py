"""The demo as a ZeroGPU Space starts it, with the Space's own package `spaces` and without the GPU."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.demo import running_demo

pytest.importorskip("spaces")


@pytest.fixture
def device_api():
    """What lends GPUs on the Hub's machines: its address, and the paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.slow
def test_on_zero_gpu_the_model_is_on_the_device_before_the_page_is_launched(model_folder, device_api, tmp_path):
    address, asked = device_api
    space = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": address, "HOME": str(tmp_path)}
    with running_demo("--model", str(model_folder), env=os.environ | space, fresh=True) as demo:
        said = demo.written()
    # `spaces` initialises no CUDA, moves the weights out of memory at the launch, and reports the function that
    # computes; it ends a Space that has none.
    assert "computed by torch in bf16" in said
    assert "ZeroGPU tensors packing" in said
    assert asked == ["/startup-report"]
    assert "Traceback" not in said
