"""DICOM bytes -> greyscale pixels as a viewer displays them, with laterality, view and orientation.

Privacy: only the elements in `_ELEMENTS` are read, and no message quotes a value, so the patient's identity never
leaves the file, except by `read_header`, which tells whose film it is. Sections cited below are those of the DICOM
standard, https://dicom.nema.org/medical/dicom/current/.
"""

import io
import itertools
import logging
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_windowing, get_decoder
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from koa_hf.errors import KoaError
from koa_hf.imaging import grey_levels, laterality

# pydicom logs unexpected values; nothing from a patient's file belongs in a log.
logging.getLogger("pydicom").propagate = False

_ELEMENTS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "Modality", "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"),
        *("PatientOrientation", "PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"),
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
        *("BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames", "RepresentativeFrameNumber"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "HighBit"),
        *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
        *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
        *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    )
]
_HEADER_ELEMENTS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        "StudyInstanceUID",
        "PatientID",
        "NominalScannedPixelSpacing",
    )
]
_META_ELEMENTS: list[BaseTag | int] = [Tag("TransferSyntaxUID"), Tag("MediaStorageSOPClassUID")]

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
# Baseline JPEG is decoded by pydicom with Pillow. For the others, pydicom offers packages that are under the GPL
# (pylibjpeg-libjpeg) or crash the process on damaged files (GDCM 3.2); its own RLE decoder has no size limit.
_BY_IMAGECODECS: dict[UID, Callable[[bytes], np.ndarray]] = {
    JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    JPEGLossless: imagecodecs.jpeg8_decode,
    JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
    HTJ2KLossless: imagecodecs.jpeg2k_decode,
    HTJ2KLosslessRPCL: imagecodecs.jpeg2k_decode,
    HTJ2K: imagecodecs.jpeg2k_decode,
}

_FRONTAL = ("AP", "PA")
_VIEWS = {view: view for view in _FRONTAL}
_VIEWS |= dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "ML", "LM"), "lateral")
_VIEWS |= dict.fromkeys(("AXIAL", "SKYLINE", "SUNRISE", "TANGENTIAL", "MERCHANT"), "axial")
_VIEWS |= dict.fromkeys(("OBLIQUE", "OBL", "RLO", "LLO", "LAO", "RAO", "LPO", "RPO"), "oblique")
# View Code Sequence: SNOMED CT, and its older SNOMED RT form (PS3.16, CID 4010).
_VIEWS |= {"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "R-40888": "PA"}
_VIEWS |= dict.fromkeys(("399067008", "399198007", "R-10232", "399173006", "R-10236"), "lateral")
_VIEWS |= dict.fromkeys(("399260004", "R-10224", "399352003", "R-10228"), "lateral")
_VIEWS |= dict.fromkeys(("399061009", "399110001", "399196006", "399162004"), "axial")
_VIEWS |= dict.fromkeys(("399182000", "260426006", "260427002", "399099002", "399368009"), "oblique")
_VIEWS |= dict.fromkeys(("399160007", "399236003", "399184004", "399312000", "399059000"), "oblique")
NOT_X_RAY = ("CT", "MR", "US", "NM", "PT", "ES", "SM", "OP", "OCT", "OPT", "ECG", "SEG", "XC", "GM")
"""Modalities whose images are no radiographs."""

_FEWEST_LEVELS = 26  # grey levels, a tenth of them all: a window that shows an image in fewer is wrong
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")

T = TypeVar("T")


@dataclass(frozen=True)
class Header:
    """An image file's own statements about its image, read without decoding a pixel.

    Attributes:
        width, height: in pixels.
        spacing: mm between rows and between columns: Pixel Spacing, or else the detector's; None if unknown.
        side: `right` or `left`; None if the file states neither.
        view: `AP`, `PA`, `lateral`, `axial` or `oblique`; None if the file states none.
        modality: DICOM's code, such as DX, CR or MR; empty if unknown.
        study_uid, patient_id: Study Instance UID and Patient ID; None if unknown.
        notes: sentences for the user.
    """

    width: int
    height: int
    spacing: tuple[float, float] | None = None
    side: str | None = None
    view: str | None = None
    modality: str = ""
    study_uid: str | None = None
    patient_id: str | None = None
    notes: tuple[str, ...] = ()


def is_dicom(head: bytes) -> bool:
    """True if a file is DICOM, judged by its first 132 bytes or more.

    A file without preamble and `DICM` counts if it begins like a data set: with an element of group 2 or 8 and a
    plausible value representation or length.
    """
    if head[128:132] == b"DICM":
        return True
    group, element = head[:2], head[2:4]
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"SH", b"LO")
    if group == b"\x00\x08":  # big endian
        return explicit and element[:1] == b"\x00"
    implicit = head[5:8] == b"\0\0\0" and head[4] > 0 and head[4] % 2 == 0
    return group in (b"\x02\x00", b"\x08\x00") and element[1:] == b"\x00" and (explicit or implicit)


@dataclass(frozen=True)
class DicomImage:
    """An image as a DICOM file displays it, with what the file states about it.

    Attributes:
        pixels: uint8 (rows, columns), 0 black to 255 white, after Modality LUT or rescale, the first VOI LUT or window,
            and Photometric Interpretation (MONOCHROME1 is inverted; colour becomes luma). Without a window, unsigned
            data of up to 8 bits is kept, and anything else is stretched from its 1st to its 99th percentile. Padding
            is black. Of several frames, the Representative Frame is displayed, or else the first.
        side: `right`, `left`, or None if the file states neither, or both.
        view: `AP`, `PA`, `lateral`, `axial`, `oblique` or None.
        notes: sentences for the user about choices made in reading.
        cautions: sentences for the user about why a grade may be wrong.
        orientation: directions of rows and columns in the patient (`laterality.Orientation`), or None.
    """

    pixels: np.ndarray
    side: str | None
    view: str | None
    notes: tuple[str, ...]
    cautions: tuple[str, ...]
    orientation: laterality.Orientation | None


def read_dicom(data: bytes, name: str, max_pixels: int) -> DicomImage:
    """Read a DICOM file.

    Args:
        data: the file; see `is_dicom`.
        name: the file's name, for messages.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        KoaError: damaged, truncated, too large, without an image, or in an unsupported transfer syntax.
    """
    return _guarded(_read_image, data, name, max_pixels)


def read_header(data: bytes, name: str, max_pixels: int) -> Header:
    """Read a DICOM file's header, with the patient's and the study's identifiers.

    Args:
        data: the file; see `is_dicom`.
        name: the file's name, for messages.
        max_pixels: larger images are refused.

    Raises:
        KoaError: damaged, too large, without an image, or in an unsupported transfer syntax.
    """
    return _guarded(_read_header, data, name, max_pixels)


def _guarded(read: Callable[[bytes, str, int], T], data: bytes, name: str, max_pixels: int) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote the file
            return read(data, name, max_pixels)
    except KoaError:
        raise
    except Exception:
        pass  # pydicom has no common exception for a damaged file, and what it raises may quote the file
    raise KoaError(f"{name} is a damaged DICOM file, or was cut short; export it again.")


def _read_image(data: bytes, name: str, max_pixels: int) -> DicomImage:
    dataset, syntax = _image_dataset(data, name, max_pixels, _ELEMENTS)
    frame, frames, notes = _chosen_frame(dataset)
    _complete(dataset, name, notes)
    stored, photometric = _decode_frame(dataset, syntax, frame - 1, frames)
    if stored.ndim == 3:
        pixels = _grey_from_colour(stored, photometric, int(dataset.BitsStored))
    else:
        pixels = _grey_from_stored(stored, dataset, notes)
    down, across = _spacing(dataset)
    pixels, resampled = grey_levels.with_square_pixels(pixels, 1 / across, 1 / down, max_pixels)
    notes += resampled
    statements = _statements(dataset, notes)
    return DicomImage(pixels=pixels, notes=tuple(notes), **statements)


def _read_header(data: bytes, name: str, max_pixels: int) -> Header:
    dataset, _ = _image_dataset(data, name, max_pixels, _ELEMENTS + _HEADER_ELEMENTS)
    notes = _chosen_frame(dataset)[2]
    statements = _statements(dataset, notes)
    stated = (dataset.get(f"{kind}Spacing") for kind in ("Pixel", "ImagerPixel", "NominalScannedPixel"))
    return Header(
        width=int(dataset.Columns),
        height=int(dataset.Rows),
        spacing=next((tuple(map(float, values)) for values in stated if values and len(values) == 2), None),
        side=statements["side"],
        view=statements["view"],
        modality=str(dataset.get("Modality") or ""),
        study_uid=str(dataset.get("StudyInstanceUID") or "") or None,
        patient_id=str(dataset.get("PatientID") or "") or None,
        notes=(*statements["cautions"], *notes),
    )


def _image_dataset(data: bytes, name: str, max_pixels: int, elements: Sequence[BaseTag | int]) -> tuple[Dataset, UID]:
    """These elements of a file that holds an image of an acceptable size, and its transfer syntax."""
    dataset, syntax = _dataset(data, name, max_pixels, elements)
    if not _pixel_keyword(dataset):
        kind = UID(dataset.get("SOPClassUID") or "")
        if "Rows" in dataset or "Image" in kind.name or not dataset:
            raise ValueError("cut short before the pixels")
        what = f" ({kind.name})" if kind.name != kind else ""
        raise KoaError(f"{name} is a DICOM file without an image{what}; give the X-ray itself.")
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if not str(dataset.get(keyword, "")):
            raise KoaError(f"{name} is a DICOM file without {keyword}, which its pixels need; export it again.")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1:
        raise KoaError(f"{name} is a DICOM file whose image has {rows} rows and {columns} columns; export it again.")
    if rows * columns > max_pixels:
        raise KoaError(f"{name} has more than {max_pixels / 1e6:.0f} million pixels; crop it to the knee.")
    return dataset, syntax


def _pixel_keyword(dataset: Dataset) -> str | None:
    """The element that holds the pixels."""
    return next((key for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if key in dataset), None)


def _complete(dataset: Dataset, name: str, notes: list[str]) -> None:
    """Fill in elements that an image can be displayed without. Appends to `notes`.

    Raises:
        KoaError: an element has a value with which the pixels can't be read; it is named.
    """
    samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.BitsAllocated)
    if samples not in (1, 3):
        raise KoaError(f"{name} has {samples} samples in each pixel (SamplesPerPixel); export it as greyscale.")
    if bits not in ((1, 8, 16, 32) if _pixel_keyword(dataset) == "PixelData" else (32, 64)):
        raise KoaError(
            f"{name} has {bits} bits for a pixel (BitsAllocated), which can't be read here; export it with 16."
        )
    if not dataset.get("PhotometricInterpretation"):
        dataset.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
        if samples == 1:
            notes.append("The file does not say whether its lowest value is black or white; black was assumed.")
    if not dataset.get("BitsStored"):
        high = dataset.get("HighBit")
        dataset.BitsStored = bits if high is None else int(high) + 1


def _chosen_frame(dataset: Dataset) -> tuple[int, int, list[str]]:
    """Number of the frame to display, from 1, the number of frames, and sentences for the user on the choice."""
    notes = []
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    frame = int(dataset.get("RepresentativeFrameNumber") or 1)
    if not 1 <= frame <= frames:
        frame = 1
    if frames > 1:
        notes.append(f"The file holds {frames} frames; frame {frame} was read.")
    return frame, frames, notes


def _spacing(dataset: Dataset) -> tuple[float, float]:
    """Height and width of a pixel, in any unit; (1, 1) if the file does not tell."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        values = dataset.get(keyword) or ()
        try:
            height, width = map(float, values)
        except (TypeError, ValueError):
            continue
        if height > 0 and width > 0:
            return height, width
    return 1.0, 1.0


def _statements(dataset: Dataset, notes: list[str]) -> dict[str, Any]:
    """Side, view, cautions and orientation, as in `DicomImage`. Appends to `notes`."""
    image_laterality, modality = (str(dataset.get(keyword) or "") for keyword in ("ImageLaterality", "Modality"))
    if image_laterality == "B":
        notes.append("The file says that it shows both sides.")
    side, cautions = laterality.stated(image_laterality, str(dataset.get("Laterality") or ""))
    codes = [str(code.get("CodeValue")) for code in dataset.get("ViewCodeSequence") or ()]
    said = (str(dataset.get("ViewPosition")).upper(), *codes)
    view = next((_VIEWS[code] for code in said if code in _VIEWS), None)
    if modality in NOT_X_RAY:
        cautions += (f"The file says that it is not a radiograph; its modality is {modality}.",)
    if view and view not in _FRONTAL:
        cautions += (f"The file says {view} view; the model was trained on frontal ones, so this grade means little.",)
    orientation = laterality.orientation(dataset.get("PatientOrientation") or ())
    return {"side": side, "view": view, "cautions": cautions, "orientation": orientation}


def _dataset(data: bytes, name: str, max_pixels: int, elements: Sequence[BaseTag | int]) -> tuple[Dataset, UID]:
    """Parse these elements, and the transfer syntax."""
    opened = io.BytesIO(data)
    opened.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(
        opened,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag.group != 2,
        specific_tags=_META_ELEMENTS,
    )
    if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise KoaError(f"{name} is a DICOMDIR, a list of other files; give the image files that it lists.")
    syntax = UID(meta.get("TransferSyntaxUID") or _guess_syntax(data[opened.tell() :][:6]))
    if syntax not in _NATIVE and syntax not in _BY_IMAGECODECS and syntax not in (JPEGBaseline8Bit, RLELossless):
        how = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
        raise KoaError(f"{name} is compressed in a way that can't be read here ({how}); export it uncompressed.")
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom inflates without a size limit.
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        opened = io.BytesIO(inflate.decompress(data[opened.tell() :], 3 * max_pixels))
        if inflate.unconsumed_tail:
            raise KoaError(f"{name} is far larger inside than outside; export it uncompressed.")
    dataset = read_dataset(
        opened,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        specific_tags=list(elements),
    )
    return dataset, syntax


def _guess_syntax(start: bytes) -> UID:
    """The transfer syntax of a data set without file meta information, from its first 6 bytes."""
    if not start[4:6].isalpha():
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if start[:2] == b"\x00\x08" else ExplicitVRLittleEndian


def _decode_frame(dataset: Dataset, syntax: UID, frame: int, frames: int) -> tuple[np.ndarray, str]:
    """Stored values (rows, columns) or (rows, columns, 3) of one frame, and their photometric interpretation."""
    keyword = _pixel_keyword(dataset)
    data = dataset[keyword].value
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": int(dataset.get("SamplesPerPixel") or 1),
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "planar_configuration": int(dataset.get("PlanarConfiguration") or 0),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.get("PixelRepresentation") or 0),
        "pixel_keyword": keyword,
        "pixel_vr": dataset[keyword].VR,
        "number_of_frames": frames,
    }
    if syntax not in _NATIVE:
        data, frame, options["number_of_frames"] = get_frame(data, frame, number_of_frames=frames), 0, 1
        if syntax == JPEGBaseline8Bit:
            _check_codestream(data, options)
            data = encapsulate([data])
        else:
            # Decompressed here; pydicom then handles signs, unused bits and planes.
            data = _decode_rle(data, options) if syntax == RLELossless else _decode_codestream(data, syntax, options)
            syntax = ExplicitVRLittleEndian
            options["pixel_vr"] = "OW"
            if options["photometric_interpretation"] == "YBR_FULL_422":
                options["photometric_interpretation"] = "YBR_FULL"
    stored, properties = get_decoder(syntax).as_array(
        data,
        index=frame,
        raw=True,
        decoding_plugin="pillow" if syntax == JPEGBaseline8Bit else "",
        transfer_syntax_uid=syntax,
        **options,
    )
    return stored, str(properties["photometric_interpretation"])


def _decode_rle(data: bytes, options: dict) -> bytes:
    """Decompress an RLE frame into planes (PS3.5 Annex G); updates `options` to describe the result."""
    size = options["rows"] * options["columns"]
    header = np.frombuffer(data[:64], "<u4")
    ends = [*map(int, header[1 : header[0] + 1]), len(data)]
    depth = options["bits_allocated"] // 8
    if len(header) != 16 or header[0] != depth * options["samples_per_pixel"]:
        raise ValueError("number of RLE segments differs from the header")
    planes = np.empty((options["samples_per_pixel"], size, depth), np.uint8)
    segment = np.empty(size + 256, np.uint8)  # some writers pad
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        if len(imagecodecs.packbits_decode(data[start:end], out=segment)) < size:
            raise ValueError("an RLE segment is too short")
        planes[i // depth, :, depth - 1 - i % depth] = segment[:size]  # the most significant byte comes first
    options["planar_configuration"] = 1
    return planes.tobytes()


def _decode_codestream(data: bytes, syntax: UID, options: dict) -> bytes:
    """Decompress a JPEG, JPEG-LS or JPEG 2000 frame; updates `options` to describe the result."""
    if options["photometric_interpretation"] in ("YBR_RCT", "YBR_ICT"):
        options["photometric_interpretation"] = "RGB"  # OpenJPEG inverts this transform
    if data.startswith(b"\0\0\0\x0cjP  "):  # a JP2 file around the JPEG 2000 codestream
        data = data[max(0, data.find(b"\xff\x4f\xff\x51")) :]
    precision = _check_codestream(data, options)
    # CharLS 2.4 reads past the end of some damaged streams, for seconds; trailing zeros stop it.
    pixels = _BY_IMAGECODECS[syntax](data + bytes(4096))
    shape = (options["rows"], options["columns"], options["samples_per_pixel"])
    if pixels.reshape(*pixels.shape[:2], -1).shape != shape:
        raise ValueError("shape of the compressed image differs from the header")
    options["planar_configuration"] = 0
    options["bits_allocated"] = 8 * pixels.itemsize
    # JPEG has no signed samples and leaves them to Bits Stored; the other codecs' own precision takes precedence.
    bits = options["bits_stored"] if _BY_IMAGECODECS[syntax] is imagecodecs.jpeg8_decode else precision
    options["bits_stored"] = min(bits, options["bits_allocated"])
    return pixels.tobytes()


def _check_codestream(data: bytes, options: dict) -> int:
    """Bits per sample of a JPEG, JPEG-LS or JPEG 2000 codestream, after a check of its declared size.

    Decoders allocate what the codestream declares, and some overflow where two headers disagree.

    Raises:
        ValueError: its size differs from the data set's, or it is damaged before its first scan.
    """
    frames = []  # (rows, columns, samples, bits) of each frame header
    if data.startswith(b"\xff\x4f\xff\x51"):  # ISO/IEC 15444-1 A.5.1
        right, bottom, left, top = (int.from_bytes(data[i : i + 4], "big") for i in (8, 12, 16, 20))
        frames.append((bottom - top, right - left, int.from_bytes(data[40:42], "big"), (data[42] & 0x7F) + 1))
    else:  # ISO/IEC 10918-1 B.2: segments up to the first start of scan
        position = 2
        while (marker := data[position + 1]) != 0xDA:
            if data[position] != 0xFF:
                raise ValueError("the compressed image is damaged")
            if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
                bits, *size, samples = data[position + 4 : position + 10]
                rows, columns = size[0] << 8 | size[1], size[2] << 8 | size[3]
                frames.append((rows, columns, samples, bits))
            # 0xFF is a fill byte; anything else is followed by its length.
            position += 1 if marker == 0xFF else 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    expected = (options["rows"], options["columns"], options["samples_per_pixel"])
    if len(frames) != 1 or frames[0][:3] != expected:
        raise ValueError("size of the compressed image differs from the header")
    return frames[0][3]


def _grey_from_colour(stored: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """Luma, uint8 (rows, columns), of colour (rows, columns, 3); of YBR it is the first channel."""
    luma = stored[..., 0] if photometric.startswith("YBR") else stored @ _LUMA
    return _as_uint8(luma / (2.0**bits - 1))


def _grey_from_stored(stored: np.ndarray, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """Stored values as displayed, uint8 (rows, columns). Appends to `notes`."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    padding = _padding(stored, dataset)
    sample = grey_levels.sample(stored)
    if padding is not None and not (padded := grey_levels.sample(padding)).all():
        sample = sample[~padded]
    brightness = _brightness(sample, dataset, notes)
    grey = np.empty(stored.shape, np.uint8)
    if stored.itemsize <= 2:
        # A lookup table over all possible values; `row` indexes it by bit pattern, signed or not.
        values = np.arange(256**stored.itemsize, dtype=f"u{stored.itemsize}")
        table = _as_uint8(brightness(values.view(stored.dtype)))
        for shown, row in zip(grey, stored.view(values.dtype), strict=True):
            shown[:] = table[row]
    else:
        for shown, row in zip(grey, stored, strict=True):  # by row, to save memory
            shown[:] = _as_uint8(brightness(row))
    if padding is not None:
        grey[padding] = 0
    return grey


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Mask of padding pixels (bool, PS3.3 C.7.5.1.1.2); None without padding, or if it would cover the image."""
    ends = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    # Some writers store the padding value of signed pixels as unsigned.
    ends = [int(np.array(int(end)).astype(stored.dtype)) for end in ends if end is not None]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return None if padding.all() else padding


def _brightness(sample: np.ndarray, dataset: Dataset, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The display pipeline: a function from stored values to brightness, 0 black to 1 white.

    `sample` holds some of the stored values, without padding. Appends to `notes`.
    """
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        tables = [_table(dataset, f"{colour}PaletteColorLookupTable", dataset) for colour in ("Red", "Green", "Blue")]
        entries = np.array([entries for _, entries in tables])
        return _lookup(tables[0][0], _LUMA @ entries / (entries.max() or 1))

    modality = _modality(dataset)
    window = _voi_function(dataset)
    values = modality(sample)
    low, high = grey_levels.display_range(values[np.isfinite(values)])
    if window is not None and low < high and _levels_shown(window, low, high) < _FEWEST_LEVELS:
        notes.append("The window stored in the file shows nearly nothing, so its grey levels were stretched instead.")
        window = None
    elif window is None and dataset.BitsStored <= 8 and not dataset.get("PixelRepresentation"):
        ends = modality(np.arange(2**dataset.BitsStored))
        window = _ramp(ends.min(), ends.max())
    elif window is None:
        notes.append("No window is stored in the file, so its grey levels were stretched.")
    if window is None:
        window = _ramp(low, high)
    if photometric == "MONOCHROME1":
        return lambda values: 1 - np.clip(window(modality(values)), 0, 1)
    return lambda values: window(modality(values))


def _levels_shown(window: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> int:
    """Number of grey levels in which a window shows the values between two."""
    return len(np.unique(_as_uint8(window(np.linspace(low, high, 256)))))


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


def _ramp(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Linear ramp, 0 at `low` and 1 at `high`; a step if both are equal."""
    low, high = float(low), float(high)
    return lambda values: (values - low) / (high - low) if high > low else (values > low).astype(float)


def _modality(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """Modality transform: stored values -> the values that windows refer to (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        return _lookup(*_table(dataset.ModalityLUTSequence[0], "LUT", dataset))
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        return _unchanged
    return lambda values: values * slope + intercept


def _voi_function(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray] | None:
    """VOI transform: values after `_modality` -> brightness, by the first VOI LUT or window (PS3.3 C.11.2)."""
    if dataset.get("VOILUTSequence"):
        first, entries = _table(dataset.VOILUTSequence[0], "LUT", dataset)
        # Tables often use fewer bits than they declare, so their largest entry is white.
        return _lookup(first, entries / (entries.max() or 1))
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width <= 0 or (width < 1 and function == "LINEAR"):
        return None
    window = Dataset()
    # Of one unsigned bit, so that pydicom scales its output to 0 to 1.
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 1
    window["WindowCenter"], window["WindowWidth"] = dataset["WindowCenter"], dataset["WindowWidth"]
    window.VOILUTFunction = function
    return lambda values: apply_windowing(values, window)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """An element's first value; None if it is missing, empty or not finite, which pydicom would raise for."""
    try:
        value = dataset.get(keyword)
        number = float(value[0] if isinstance(value, MultiValue) else value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _table(item: Dataset, prefix: str, dataset: Dataset) -> tuple[int, np.ndarray]:
    """Parse a lookup table: the value that its first entry maps, and its entries as floats.

    Own code, because pydicom's apply_voi and apply_color_lut wrap 8-bit tables at 256 entries, and its LUT functions
    reject tables packed as bytes. PS3.3 C.11.1.1 and C.7.6.3.1.5.

    Args:
        item: the data set that holds the table, an item of a sequence of `dataset` or `dataset` itself.
        prefix: of the keywords of its `Descriptor` and `Data`.
        dataset: the whole data set; its byte order and Pixel Representation apply.
    """
    length, first, _ = (int(value) for value in item[prefix + "Descriptor"].value)
    length = length or 2**16
    if first >= 2**15 and dataset.get("PixelRepresentation"):
        first -= 2**16  # a negative value, stored as unsigned
    entries = item[prefix + "Data"].value
    if isinstance(entries, bytes):
        words = "<u2" if dataset.original_encoding[1] else ">u2"
        entries = np.frombuffer(entries, "u1" if len(entries) < 2 * length else words)[:length]
    return first, np.array(entries, np.float64).reshape(-1)


def _lookup(first: int, entries: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A table as a function; values outside it get its first or last entry."""
    return lambda values: entries[np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)]


def _as_uint8(brightness: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(np.nan_to_num(brightness), 0, 1)).astype(np.uint8)
