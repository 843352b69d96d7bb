import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from koa_hf import phantom, radiograph
from koa_hf.errors import KoaError


@pytest.fixture(scope="module")
def knee() -> np.ndarray:
    return phantom.draw(2, seed=0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_greyscale_png_is_read_as_it_is(knee, tmp_path):
    path = tmp_path / "9000001R.png"
    Image.fromarray(knee).save(path)
    read = radiograph.read(path)
    assert read.name == "9000001R.png"
    assert np.array_equal(read.pixels, knee)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_lossless_formats_give_the_same_pixels(knee, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(radiograph.read(encoded(Image.fromarray(knee), kind, **options)).pixels, knee)


def test_a_jpeg_is_read(knee):
    read = radiograph.read(encoded(Image.fromarray(knee), "JPEG", quality=95))
    assert np.abs(read.pixels.astype(int) - knee).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [4095, 65535])
def test_16_bit_pixels_are_scaled_and_not_clipped_to_white(kind, top):
    ramp = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = radiograph.read(encoded(Image.fromarray(ramp), kind)).pixels
    assert read.dtype == np.uint8
    assert (read.min(), read.max()) == (0, 255)
    assert abs(np.median(read) - 127.5) <= 1


def test_colour_and_palette_give_the_grey_they_show(knee):
    image = Image.fromarray(knee)
    assert np.array_equal(radiograph.read(encoded(image.convert("RGB"))).pixels, knee)
    palette = image.convert("P")
    assert palette.mode == "P"
    assert np.array_equal(radiograph.read(encoded(palette)).pixels, knee)


def test_transparent_pixels_are_black(knee):
    alpha = np.full_like(knee, 255)
    alpha[:, :50] = 0
    read = radiograph.read(encoded(Image.fromarray(np.dstack([knee, alpha]), "LA"))).pixels
    assert not read[:, :50].any()
    assert np.array_equal(read[:, 50:], knee[:, 50:])


def test_a_photo_is_turned_the_way_its_camera_noted(knee):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    assert np.array_equal(radiograph.read(encoded(Image.fromarray(knee), exif=exif)).pixels, np.rot90(knee, -1))


def test_floats_are_scaled_and_what_is_not_finite_is_ignored():
    array = np.array([[0.0, 0.5], [1.0, np.nan]])
    assert radiograph.read(array).pixels.tolist() == [[0, 128], [255, 0]]


def test_a_bool_array_is_black_and_white():
    assert radiograph.read(np.array([[False, True]])).pixels.tolist() == [[0, 255]]


def test_a_file_cut_short_is_named(knee):
    data = encoded(Image.fromarray(knee))
    with pytest.raises(KoaError, match=r"9000001R\.png is damaged or cut short"):
        radiograph.read(data[: len(data) // 2], name="9000001R.png")


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7 ..."])
def test_what_is_not_an_image_is_refused(data):
    with pytest.raises(KoaError, match="not an image"):
        radiograph.read(data)


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(KoaError, match="more than 100 million pixels"):
        radiograph.read(bomb)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(KoaError, match=r"nothing\.png can't be read: No such file"):
        radiograph.read(tmp_path / "nothing.png")
    with pytest.raises(KoaError, match="is a folder"):
        radiograph.read(tmp_path)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((2, 3, 4, 5)), "has shape"),
        (np.zeros((4, 0), np.uint8), "has shape"),
        (np.zeros((4, 4, 2), np.uint8), "has shape"),
        (np.zeros((4, 4), complex), "holds values of type complex128"),
        (np.full((4, 4), np.nan), "no finite pixel"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array, what):
    with pytest.raises(KoaError, match=what):
        radiograph.read(array)
