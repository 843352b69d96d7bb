import io
import random
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from koa_hf.errors import KoaError
from koa_hf.imaging import phantom, radiograph
from tests.helpers import zipped


@pytest.fixture(scope="module")
def knee() -> np.ndarray:
    return phantom.draw_knee(2, seed=0)


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_burnt_in_marker_does_not_blind_a_16_bit_file(knee, kind):
    marked = knee.astype(np.uint16) * 4  # of 65536 levels, a film uses 1020
    marked[:60, :60] = 65535
    read = radiograph.read(encoded(Image.fromarray(marked), kind)).pixels
    assert np.corrcoef(read[60:].ravel(), knee[60:].ravel())[0, 1] > 0.99
    assert np.ptp(read[60:]) == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pixels_that_are_not_square_are_resampled(knee, kind):
    squeezed = Image.fromarray(knee).resize((112, 224), Image.Resampling.BOX)
    read = radiograph.read(encoded(squeezed, kind, dpi=(100, 200)))
    assert np.abs(read.pixels.astype(int) - knee).mean() < 5
    assert "not square" in read.notes[0]


def test_a_blank_image_is_said_to_be_blank():
    noise = np.random.default_rng(0).integers(128, 131, (200, 200)).astype(np.uint8)
    for image in (Image.new("L", (300, 200), 90), Image.new("I;16", (300, 200), 900), Image.fromarray(noise)):
        with pytest.raises(KoaError, match=r"blank\.png is blank"):
            radiograph.read(encoded(image), "blank.png")


def test_a_zip_is_said_to_be_one():
    with pytest.raises(KoaError, match=r"knees\.zip is a zip; unpack it, or give it to `koa grade` or /grade_many"):
        radiograph.read(zipped({"a.png": b""}), "knees.zip")


def test_colour_and_palette_give_the_grey_they_show(knee):
    image = Image.fromarray(knee)
    assert np.array_equal(radiograph.read(encoded(image.convert("RGB"))).pixels, knee)
    palette = image.convert("P")
    assert palette.mode == "P"
    assert np.array_equal(radiograph.read(encoded(palette)).pixels, knee)


def test_cmyk_and_lab_give_the_grey_they_show(knee):
    image = Image.fromarray(knee)
    cmyk = radiograph.read(encoded(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.pixels.astype(int) - knee).mean() < 2
    neutral = Image.new("L", image.size, 128)
    assert np.array_equal(radiograph.read(encoded(Image.merge("LAB", [image, neutral, neutral]), "TIFF")).pixels, knee)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_that_uses_12_bits_is_not_black(channels):
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = radiograph.read(imagecodecs.png_encode(np.dstack([ramp] * channels))).pixels
    assert (read.min(), read.max()) == (0, 255)


def test_a_16_bit_tiff_in_which_white_is_zero_is_righted():
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = radiograph.read(encoded(Image.fromarray(ramp), "TIFF", tiffinfo={262: 0})).pixels
    assert (read[0, 0], read[-1, -1]) == (255, 0)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_of_several_pages_the_first_is_read_and_the_user_is_told(knee, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    pages = encoded(Image.fromarray(knee), kind, save_all=True, append_images=[Image.fromarray(255 - knee)], **options)
    assert np.array_equal(radiograph.read(pages).pixels, knee)
    assert radiograph.read(pages).notes == ("The file holds several pages; the first was read.",)
    assert radiograph.read(encoded(Image.fromarray(knee), kind, **options)).notes == ()


def test_the_content_decides_and_not_the_suffix(knee, tmp_path):
    path = tmp_path / "knee.dcm"
    path.write_bytes(encoded(Image.fromarray(knee)))
    assert np.array_equal(radiograph.read(path).pixels, knee)


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_damaged_file_gives_an_x_ray_or_one_sentence(kind):
    data = encoded(Image.fromarray(phantom.draw_knee(3, seed=1)).resize((48, 40)), kind)
    for length in range(0, len(data) - 100, 97):
        with pytest.raises(KoaError):
            radiograph.read(data[:length])
    chance = random.Random(0)
    for _ in range(50):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert radiograph.read(bytes(damaged)).pixels.dtype == np.uint8
        except KoaError as error:
            said = str(error)
            assert said.endswith(".") and "\n" not in said  # noqa: PT018 (either outcome is right)


# Pillow would start Ghostscript for the last one.
@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7 ...", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
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


def test_dicom_files_in_a_folder_are_known_by_their_content(tmp_path):
    preamble = bytes(128) + b"DICM"
    for name in ("IM000001", "1.2.840.113619.2.55", "film.ima", "knee.PNG", "film.dcm"):
        (tmp_path / name).write_bytes(preamble)
        assert radiograph.is_radiograph_file(tmp_path / name)
    for name, content in (("DICOMDIR", preamble), ("notes.txt", b"II*"), ("README", b"not an X-ray")):
        (tmp_path / name).write_bytes(content)
        assert not radiograph.is_radiograph_file(tmp_path / name)
    assert not radiograph.is_radiograph_file(tmp_path)
    assert not radiograph.is_radiograph_file(tmp_path / "nothing")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(KoaError, match=r"nothing\.png does not exist"):
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
