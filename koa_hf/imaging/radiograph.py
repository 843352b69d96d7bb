"""Any image or DICOM file, bytes, PIL image or array -> one greyscale `Radiograph`."""

import contextlib
import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from koa_hf.errors import KoaError
from koa_hf.imaging import archive, dicom, grey_levels
from koa_hf.imaging.dicom import Header
from koa_hf.imaging.laterality import Orientation

MAX_PIXELS = 100_000_000
"""A full-leg film digitised at 0.1 mm has about 50 million pixels; more than twice that is a mistake or an attack."""

FILE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
"""For finding X-rays in a folder (see `is_radiograph_file`); once a file is named, its content decides."""

FORMATS = "DICOM, PNG, JPEG, TIFF, WebP or BMP"

# What Pillow may open. Others have no use here, and some are dangerous: for EPS, Pillow starts Ghostscript.
_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
_SEVERAL_PAGES = "The file holds several pages; the first was read."
_WHITE_IS_ZERO = 0  # TIFF tag 262, PhotometricInterpretation


@dataclass(frozen=True)
class Radiograph:
    """One X-ray: a whole film, or one knee cut out of it.

    Attributes:
        pixels: uint8 (height, width), 0 black to 255 white.
        name: the input file's name, for messages and tables.
        side: `right` or `left` where a DICOM file states it, else None; of a knee cut from a film, the side that was
            decided (`koa_hf.imaging.laterality`).
        view: `AP`, `PA`, `lateral`, `axial` or `oblique` where a DICOM file states it, else None.
        notes: sentences for the user about choices made in reading, such as which of several frames was read.
        sha256: SHA-256 of the input file, 64 hexadecimal digits; None for arrays and PIL images.
        dicom: the input file's bytes where it is DICOM, so that a report can join its study; else None.
        cautions: sentences about why a grade may be wrong, such as a lateral view.
        orientation: the directions of rows and columns in the patient where a DICOM file states them, else None.
    """

    pixels: np.ndarray
    name: str
    side: str | None = None
    view: str | None = None
    notes: tuple[str, ...] = ()
    sha256: str | None = None
    dicom: bytes | None = dataclasses.field(default=None, repr=False)
    cautions: tuple[str, ...] = ()
    orientation: Orientation | None = None

    @property
    def size(self) -> int:
        """Memory in bytes."""
        return self.pixels.nbytes + len(self.dicom or b"")

    @property
    def image(self) -> Image.Image:
        """The X-ray as an 8-bit greyscale PIL image (mode `L`)."""
        return Image.fromarray(self.pixels)


ImageSource = Radiograph | str | os.PathLike | bytes | Image.Image | np.ndarray


def read(source: ImageSource, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Read an X-ray.

    Args:
        source: a path, the bytes of a file, a PIL image, an array (height, width) or (height, width, 3 or 4) of any
            integer, boolean or floating type, or a `Radiograph`, which is returned as it is. 8-bit data is taken as
            it is; anything deeper (16-bit PNG and TIFF, floats) is scaled by `grey_levels.display_range`, because
            nothing in such a file says how many of its bits are used. DICOM is displayed as
            `koa_hf.imaging.dicom.DicomImage` describes. Pixels that are not square are resampled. Of several pages or
            frames, the first is read (of DICOM, the representative one). Notes say what was chosen.
        name: what to call it in messages; by default the file's name.
        max_pixels: larger images are refused before they are decoded (Pillow's own limit, about 179 million, stays).

    Raises:
        KoaError: no such file, not an image, truncated, too large, without any finite value, or a blank file.
    """
    if isinstance(source, Radiograph):
        return source
    if isinstance(source, np.ndarray):
        return Radiograph(_grey_from_array(source, name or "array", max_pixels), name or "array")
    if isinstance(source, Image.Image):
        name = name or Path(getattr(source, "filename", None) or "").name or "image"
        try:
            return Radiograph(_grey_from_image(source, name, max_pixels), name)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes lazily
            raise KoaError(_damaged_message(name, error)) from error
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "uploaded file"
        data = bytes(source)
    else:
        path = Path(source)
        name = name or path.name
        if path.is_dir():
            raise KoaError(f"{path} is a folder; name the image files in it.")
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise KoaError(f"{name} does not exist; check the path, or upload the file again.") from error
        except OSError as error:
            raise KoaError(f"{name} can't be read: {error.strerror or error}.") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if dicom.is_dicom(data):
        film = Radiograph(name=name, sha256=sha256, dicom=data, **vars(dicom.read_dicom(data, name, max_pixels)))
    elif data[:4] in archive.MAGIC:
        raise KoaError(f"{name} is a zip; unpack it, or give it to `koa grade` or /grade_many, which open zips.")
    else:
        film = dataclasses.replace(_decode_image(data, name, max_pixels), sha256=sha256)
    if grey_levels.is_blank(film.pixels):
        raise KoaError(f"{name} is blank: it has one grey level all over, so there is nothing to grade.")
    return film


def read_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the size of an image file, and what DICOM says about it, without decoding its pixels.

    Args:
        data: the file.
        name: what to call it in messages.
        max_pixels: larger images are refused.

    Raises:
        KoaError: not an image, its header is damaged, or too large. A file whose pixels are damaged passes.
    """
    if dicom.is_dicom(data):
        return dicom.read_header(data, name, max_pixels)
    with _opened(data, name, max_pixels) as image:
        width, height = image.size
        # Pillow decodes a PNG to look for Exif behind its pixels.
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        sideways = exif.get(ExifTags.Base.Orientation, 1) >= 5  # as `ImageOps.exif_transpose`
        notes = (_SEVERAL_PAGES,) if _has_pages(image) else ()
        return Header(*((height, width) if sideways else (width, height)), notes=notes)


def is_radiograph_file(path: Path) -> bool:
    """True if a file in a folder may be an X-ray: by its suffix, or else by its DICOM header.

    PACS export DICOM files without a suffix, or as `1.2.840.113619.2.55`. DICOMDIR, their index, is excluded.
    """
    if path.suffix.lower() in FILE_SUFFIXES:
        return True
    try:
        if not path.is_file() or path.name.upper() == "DICOMDIR":
            return False
        with path.open("rb") as opened:
            return dicom.is_dicom(opened.read(132))
    except OSError:
        return False


def _decode_image(data: bytes, name: str, max_pixels: int) -> Radiograph:
    with _opened(data, name, max_pixels) as image:
        if image.format == "PNG" and image.mode.startswith("RGB") and ";16" in str(image.tile):
            # Pillow keeps the upper 8 of 16 bits in colour: nearly black, if a scanner used the lower 12.
            deep = imagecodecs.png_decode(data)
            pixels = _grey_from_array(deep[..., 0] if deep.shape[2] == 2 else deep, name, max_pixels)
        else:
            pixels = _grey_from_image(image, name, max_pixels)
        across, down = image.info.get("dpi") or (1, 1)  # dots per inch of a PNG, JPEG or TIFF file
        pixels, resampled = grey_levels.with_square_pixels(pixels, float(across), float(down), max_pixels)
        return Radiograph(pixels, name, notes=(*([_SEVERAL_PAGES] if _has_pages(image) else []), *resampled))


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the opened image; whatever fails in the block is told in one sentence."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above a limit of its own; ours is checked below, before any pixel is decoded.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise KoaError(_too_large(name, max_pixels))
                yield image
    except KoaError:
        raise
    except UnidentifiedImageError as error:
        raise KoaError(f"{name} is not an image that can be read here; give a {FORMATS} file.") from error
    except Image.DecompressionBombError as error:
        raise KoaError(_too_large(name, max_pixels)) from error
    except Exception as error:  # on damaged files Pillow raises almost anything
        raise KoaError(_damaged_message(name, error)) from error


def _has_pages(image: Image.Image) -> bool:
    """True if the file holds several pages; further images in a phone's MPO file are previews."""
    return getattr(image, "is_animated", False) and image.format != "MPO"


def _damaged_message(name: str, error: Exception) -> str:
    return f"{name} is damaged or cut short ({error}); export or download it again."


def _too_large(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels / 1e6:.0f} million pixels; crop it to the knee or reduce its size."


def _grey_from_image(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    if image.width * image.height > max_pixels:
        raise KoaError(_too_large(name, max_pixels))
    white_is_zero = getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO
    image = ImageOps.exif_transpose(image)
    # `.convert("L")` clips 16-bit and float images to white, so they are converted as arrays.
    if image.mode.startswith("I") or image.mode == "F":
        grey = _grey_from_array(np.asarray(image), name, max_pixels)
        return 255 - grey if white_is_zero else grey  # Pillow inverts up to 8 bits itself
    if image.mode == "LAB":
        return np.array(image.getchannel("L"))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # Transparent pixels have no defined colour; black resembles the air around a limb.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image.convert("L"))


def _grey_from_array(array: np.ndarray, name: str, max_pixels: int) -> np.ndarray:
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise KoaError(f"{name} has shape {array.shape}; an X-ray is (height, width) or (height, width, 3).")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise KoaError(_too_large(name, max_pixels))
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 1 else array
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return np.array(array) if array.ndim == 2 else _grey_from_image(Image.fromarray(array), name, max_pixels)
    if array.dtype.kind not in "iuf":
        raise KoaError(f"{name} holds values of type {array.dtype}; give numbers.")
    grey = array.astype(np.float64)
    if grey.ndim == 3:
        grey = grey[..., :3] @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma, as Pillow's convert("L")
    finite = np.isfinite(grey)
    if not finite.any():
        raise KoaError(f"{name} has no finite pixel; there is nothing to grade.")
    seen = grey_levels.sample(grey)
    low, high = grey_levels.display_range(seen[np.isfinite(seen)] if np.isfinite(seen).any() else grey[finite])
    if low == high:
        return np.zeros(grey.shape, np.uint8)
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
    return np.round(np.clip((grey - low) / (high - low), 0, 1) * 255).astype(np.uint8)
