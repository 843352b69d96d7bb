"""Hostile uploads to a running demo: each is refused in one sentence, and the server stays up."""

import io
import os
import re
import signal
import struct
import zlib

import numpy as np
import psutil
import pydicom
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from koa_hf.demo.api import DESCRIPTIONS
from koa_hf.imaging import phantom
from tests.demo import running_demo
from tests.helpers import dicom_of, zipped

KNEE = Image.fromarray(phantom.draw_knee(2, seed=1))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def without_pixels() -> bytes:
    xray = pydicom.dcmread(io.BytesIO(dicom_of(np.asarray(KNEE))))
    del xray.PixelData
    buffer = io.BytesIO()
    xray.save_as(buffer)
    return buffer.getvalue()


REFUSED = {
    **{
        f"cut.{kind}": (encoded(KNEE, kind)[:900], "damaged or cut short|not an image")
        for kind in ("png", "jpeg", "tiff", "webp", "bmp", "gif")
    },
    "cut.dcm": (dicom_of(np.asarray(KNEE))[:2000], "damaged|cut short"),
    "bomb.png": (png_that_claims(60_000, 60_000), "has more than 20 million pixels"),
    "large.png": (encoded(Image.new("1", (5_000, 5_000)), "PNG"), "has more than 20 million pixels"),
    "nan.tiff": (encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF"), "no finite pixel"),
    "no-pixels.dcm": (without_pixels(), "damaged DICOM file, or was cut short"),
    "encrypted.dcm": (
        b"\x30\x82\x10\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03" + os.urandom(4000),
        "not an image",
    ),
    "page.png": (b"<html><script>alert(1)</script></html>", "not an image"),
    "empty.png": (b"", "not an image|empty"),
    "one-pixel.png": (encoded(Image.new("L", (1, 1)), "PNG"), "is blank"),
    "constant.png": (encoded(Image.new("L", (300, 300), 90), "PNG"), "is blank"),
}
GRADED = {
    "a-photo.dcm": encoded(KNEE, "JPEG"),
    "moving.gif": encoded(KNEE, "GIF", save_all=True, append_images=[Image.new("L", KNEE.size)]),
}


def encrypted_zip() -> bytes:
    data = bytearray(zipped({"secret.png": encoded(KNEE, "PNG")}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


ZIPS = {
    "traversal.zip": (zipped({"../../evil.png": encoded(KNEE, "PNG")}), "names a place outside the zip"),
    "bomb.zip": (zipped({"zeros.bmp": bytes(25_000_000)}), "which no X-ray does"),
    "nested.zip": (zipped({"inner.zip": zipped({"a.png": b"x"})}), "is a zip within the zip"),
    "encrypted.zip": (encrypted_zip(), "is encrypted"),
    "cut.zip": (zipped({"a.png": encoded(KNEE, "PNG")})[:200], "is a damaged zip"),
}
UPLOADED = {"_type": "gradio.FileData"}
NOT_FETCHED = "no X-ray could be fetched from what was given; pass "
NO_FILES = [
    ("knee.png", "'knee.png' is not a file that this server can open; pass "),
    ("/etc/passwd", "'/etc/passwd' is not a file that this server can open; pass "),
    ("", "'' is not a file that this server can open; pass "),
    ("https://127.0.0.1:9/knee.png", NOT_FETCHED),
    ({"path": "/etc/passwd", "meta": UPLOADED}, NOT_FETCHED),
    ({"path": "/etc/passwd", "meta": UPLOADED, "size": "large"}, NOT_FETCHED),
    ({"path": "knee.png"}, NOT_FETCHED),
    ({"path": "knee.png", "meta": 3}, NOT_FETCHED),
    ([], "no files were given; pass |" + NOT_FETCHED),
    ([["knee.png"]], "'knee.png' is not a file that this server can open; pass "),
    (5, NOT_FETCHED),
    (True, NOT_FETCHED),
    (None, "no X-ray was given; pass |no files were given; pass "),
]
"""Inputs that are no files, and the beginning of what each endpoint says to them."""

SCRIPT_NAME = "<img src=x onerror=alert(1)>${1}.png"


def test_hostile_files_get_their_sentence_and_leave_nothing_behind(model_folder, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    contents = {name: data for name, (data, _) in (REFUSED | ZIPS).items()} | GRADED
    contents["names.zip"] = zipped({SCRIPT_NAME: encoded(KNEE, "PNG")})
    for name, data in contents.items():
        (files / name).write_bytes(data)
    large = files / "large.bmp"
    large.write_bytes(bytes(6_000_000))

    server_files = tmp_path / "server"
    server_files.mkdir()
    options = ("--model", str(model_folder), "--engine", "torch", "--max-megapixels", "20", "--max-megabytes", "5")
    with running_demo(*options, env={**os.environ, "TMPDIR": str(server_files)}) as demo:
        client = Client(demo.url, verbose=False)

        def send_all() -> None:
            for name, (_, sentence) in REFUSED.items():
                with pytest.raises(AppError, match=sentence) as refused:
                    client.predict(handle_file(files / name), api_name="/grade")
                assert str(refused.value).startswith(name)
                assert "\n" not in str(refused.value)
            for name in GRADED:
                assert client.predict(handle_file(files / name), api_name="/grade")["grade"] in range(5), name
            rows = client.predict([handle_file(files / name) for name in (*ZIPS, "names.zip")], api_name="/grade_many")
            for row, (_, sentence) in zip(rows, ZIPS.values(), strict=False):
                assert sentence in row["error"]
            assert (rows[-1]["file"], "error" in rows[-1]) == (SCRIPT_NAME, False)

        for endpoint in DESCRIPTIONS:
            for given, sentence in NO_FILES:
                said = demo.refusal(endpoint, [[given]] if endpoint == "grade_many" and given else [given])
                assert re.match(sentence, said), (endpoint, given)
                assert "\n" not in said
            assert re.match(NOT_FETCHED, demo.refusal(endpoint, []))
        assert demo.refusal("grade", ["data:image/png;base64,%%%"]).startswith("file.png is not an image")
        too_large = f"data:image/png;base64,{'A' * 8_000_000}"
        assert demo.refusal("grade", [too_large]) == "file.png is larger than 5 MB; crop it to the knee."

        send_all()
        server = psutil.Process(demo.process.pid)
        before = server.memory_info().rss
        send_all()
        assert server.memory_info().rss - before < 60_000_000
        with pytest.raises(Exception, match=r"(?i)size|large|413"):
            client.predict(handle_file(large), api_name="/grade")
        assert client.predict(handle_file(files / "moving.gif"), api_name="/grade")["grade"] in range(5)
        assert "Traceback" not in demo.written()
        assert [path.name[:9] for path in server_files.iterdir()] == ["koa-demo-"]
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(timeout=15) == 0
    assert not list(server_files.iterdir())
    assert not (tmp_path / "evil.png").exists()
