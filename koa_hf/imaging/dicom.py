"""DICOM bytes -> the greyscale picture that a viewer would show, with side and view.

Who the patient is stays in the file: only the elements in `_ELEMENTS` are read, and no error quotes a value.

The sections named below are those of the DICOM standard, https://dicom.nema.org/medical/dicom/current/.
"""

import io
import itertools
import logging
import warnings
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_windowing, get_decoder
from pydicom.tag import Tag
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

# pydicom logs what it finds odd, values included. Nothing out of a patient's file belongs in a log.
logging.getLogger("pydicom").propagate = False

_ELEMENTS = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "Modality", "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"),
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
        *("BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames", "RepresentativeFrameNumber"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PixelData"),
        *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
        *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    )
]
_META_ELEMENTS = [Tag("TransferSyntaxUID"), Tag("MediaStorageSOPClassUID")]

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
# Baseline JPEG is left to pydicom and Pillow. For the others, pydicom's choices are packages under the GPL (libjpeg),
# or that end the process when they meet a damaged file (GDCM 3.2), and its own RLE inflates without a limit.
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

_SIDES = {"R": "right", "L": "left"}
_VIEWS = {"AP": "AP", "PA": "PA", "LL": "lateral", "RL": "lateral", "LAT": "lateral", "LATERAL": "lateral"}
# View Code Sequence: SNOMED CT, and its older SNOMED RT form (PS3.16, CID 4010).
_VIEWS |= {"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA", "R-40888": "PA"}
_VIEWS |= dict.fromkeys(("399067008", "399198007", "R-10232", "399173006", "R-10236"), "lateral")
_VIEWS |= dict.fromkeys(("399260004", "R-10224", "399352003", "R-10228"), "lateral")
_NOT_X_RAY = ("CT", "MR", "US", "NM", "PT", "ES", "SM", "OP", "OCT", "OPT", "ECG", "SEG", "XC", "GM")

_PERCENTILES = (1, 99)  # without a window: a burnt-in marker or a dead pixel must not decide how the bone looks
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, judged by its first 132 bytes or more.

    A file without the preamble and `DICM` counts when it begins as a data set does: with an element of group 2 or 8,
    in its order, with a plausible type or length.
    """
    if head[128:132] == b"DICM":
        return True
    group, element = head[:2], head[2:4]
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"SH", b"LO")
    if group == b"\x00\x08":  # big endian
        return explicit and element[:1] == b"\x00"
    implicit = head[5:8] == b"\0\0\0" and head[4] > 0 and head[4] % 2 == 0
    return group in (b"\x02\x00", b"\x08\x00") and element[1:] == b"\x00" and (explicit or implicit)


def read_dicom(data: bytes, name: str, max_pixels: int) -> tuple[np.ndarray, str | None, str | None, tuple[str, ...]]:
    """Read a DICOM file.

    Args:
        data: the file; see `is_dicom`.
        name: what to call it in messages.
        max_pixels: an image with more is refused before it is decoded.

    Returns:
        pixels: uint8 (rows, columns), 0 black to 255 white, after the Modality LUT or rescale, the first VOI LUT or
            window, and the Photometric Interpretation (MONOCHROME1 is righted; colours become their luma). Without a
            window, unsigned data of up to 8 bits is taken as it is, and anything else is stretched from its 1st to
            its 99th percentile. Padding pixels are black. Of several frames, the Representative Frame is shown, or
            else the first.
        side: `right`, `left`, or None where the file doesn't say, or shows both.
        view: `AP`, `PA`, `lateral` or None.
        notes: sentences for the user.

    Raises:
        KoaError: damaged, cut short, too large, without an image, or compressed in a way that can't be read here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote the file
            return _read_image(data, name, max_pixels)
    except KoaError:
        raise
    except Exception:
        pass  # pydicom has no common exception for a damaged file, and what it raises may quote the file
    raise KoaError(f"{name} is a damaged DICOM file, or was cut short; export it again.")


def _read_image(
    data: bytes, name: str, max_pixels: int
) -> tuple[np.ndarray, str | None, str | None, tuple[str, ...]]:
    dataset, syntax = _dataset(data, name, max_pixels)
    if "PixelData" not in dataset:
        kind = UID(dataset.get("SOPClassUID") or "")
        if "Rows" in dataset or "Image" in kind.name or not dataset:
            raise ValueError("cut short before the pixels")
        what = f" ({kind.name})" if kind.name != kind else ""
        raise KoaError(f"{name} is a DICOM file without an image{what}; give the X-ray itself.")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1:
        raise KoaError(f"{name} is a DICOM file whose image has {rows} rows and {columns} columns; export it again.")
    if rows * columns > max_pixels:
        raise KoaError(f"{name} has more than {max_pixels / 1e6:.0f} million pixels; crop it to the knee.")

    notes = []
    modality = str(dataset.get("Modality") or "")
    if modality in _NOT_X_RAY:
        notes.append(f"The file says that it is not a radiograph; its modality is {modality}.")
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    frame = int(dataset.get("RepresentativeFrameNumber") or 1)
    if not 1 <= frame <= frames:
        frame = 1
    if frames > 1:
        notes.append(f"The file holds {frames} frames; frame {frame} was read.")
    stored, photometric = _decode_frame(dataset, syntax, frame - 1, frames)
    if stored.ndim == 3:
        pixels = _grey_from_colour(stored, photometric, int(dataset.BitsStored))
    else:
        pixels = _grey_from_stored(stored, dataset, notes)

    laterality = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "")
    if laterality == "B":
        notes.append("The file says that it shows both sides.")
    codes = [str(code.get("CodeValue")) for code in dataset.get("ViewCodeSequence") or ()]
    view = next((_VIEWS[code] for code in (str(dataset.get("ViewPosition")), *codes) if code in _VIEWS), None)
    return pixels, _SIDES.get(laterality), view, tuple(notes)


def _dataset(data: bytes, name: str, max_pixels: int) -> tuple[Dataset, UID]:
    """The elements in `_ELEMENTS`, and the transfer syntax."""
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
        # pydicom inflates without a limit.
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        opened = io.BytesIO(inflate.decompress(data[opened.tell() :], 3 * max_pixels))
        if inflate.unconsumed_tail:
            raise KoaError(f"{name} is far larger inside than outside; export it uncompressed.")
    dataset = read_dataset(
        opened,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        specific_tags=_ELEMENTS,
    )
    return dataset, syntax


def _guess_syntax(start: bytes) -> UID:
    """The transfer syntax of a data set without file meta information, from its first 6 bytes."""
    if not start[4:6].isalpha():
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if start[:2] == b"\x00\x08" else ExplicitVRLittleEndian


def _decode_frame(dataset: Dataset, syntax: UID, frame: int, frames: int) -> tuple[np.ndarray, str]:
    """Stored values (rows, columns) or (rows, columns, 3) of one frame, and how they are to be understood."""
    data = dataset.PixelData
    options = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": int(dataset.get("SamplesPerPixel") or 1),
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "planar_configuration": int(dataset.get("PlanarConfiguration") or 0),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.get("PixelRepresentation") or 0),
        "pixel_keyword": "PixelData",
        "pixel_vr": dataset["PixelData"].VR,
        "number_of_frames": frames,
    }
    if options["samples_per_pixel"] not in (1, 3):
        raise ValueError("neither grey nor colour")
    if syntax not in _NATIVE:
        data, frame, options["number_of_frames"] = get_frame(data, frame, number_of_frames=frames), 0, 1
        if syntax == JPEGBaseline8Bit:
            _check_codestream(data, options)
            data = encapsulate([data])
        else:
            # Uncompressed here, and given to pydicom for what is left: signs, unused bits, planes.
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
    """The uncompressed frame, plane after plane (PS3.5 Annex G); `options` are changed to describe it."""
    size = options["rows"] * options["columns"]
    header = np.frombuffer(data[:64], "<u4")
    ends = [*map(int, header[1 : header[0] + 1]), len(data)]
    depth = options["bits_allocated"] // 8
    if len(header) != 16 or header[0] != depth * options["samples_per_pixel"]:
        raise ValueError("another number of RLE segments than the file says")
    planes = np.empty((options["samples_per_pixel"], size, depth), np.uint8)
    segment = np.empty(size + 256, np.uint8)  # some writers pad
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        if len(imagecodecs.packbits_decode(data[start:end], out=segment)) < size:
            raise ValueError("an RLE segment is too short")
        planes[i // depth, :, depth - 1 - i % depth] = segment[:size]  # the most significant byte comes first
    options["planar_configuration"] = 1
    return planes.tobytes()


def _decode_codestream(data: bytes, syntax: UID, options: dict) -> bytes:
    """The uncompressed frame; `options` are changed to describe it."""
    if options["photometric_interpretation"] in ("YBR_RCT", "YBR_ICT"):
        options["photometric_interpretation"] = "RGB"  # OpenJPEG undoes this transform
    if data.startswith(b"\0\0\0\x0cjP  "):  # a JP2 file around the JPEG 2000 codestream
        data = data[max(0, data.find(b"\xff\x4f\xff\x51")) :]
    precision = _check_codestream(data, options)
    # CharLS 2.4 reads on past the end of some damaged streams, and can take seconds to notice: zeros stop it.
    pixels = _BY_IMAGECODECS[syntax](data + bytes(4096))
    shape = (options["rows"], options["columns"], options["samples_per_pixel"])
    if pixels.reshape(*pixels.shape[:2], -1).shape != shape:
        raise ValueError("the compressed image has another shape than the file says")
    options["planar_configuration"] = 0
    options["bits_allocated"] = 8 * pixels.itemsize
    # JPEG knows no signs, and leaves them to Bits Stored. The others' own precision is right where the two differ.
    bits = options["bits_stored"] if _BY_IMAGECODECS[syntax] is imagecodecs.jpeg8_decode else precision
    options["bits_stored"] = min(bits, options["bits_allocated"])
    return pixels.tobytes()


def _check_codestream(data: bytes, options: dict) -> int:
    """The bits a sample of a JPEG, JPEG-LS or JPEG 2000 codestream, once its size is known to be the file's.

    Decoders allocate what the codestream declares, and some write past it where two headers disagree.

    Raises:
        ValueError: it declares another size than the file, or is damaged before its first scan.
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
        raise ValueError("the compressed image has another size than the file says")
    return frames[0][3]


def _grey_from_colour(stored: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """uint8 (rows, columns) from (rows, columns, 3): the luma, which is the first channel of every YBR."""
    luma = stored[..., 0] if photometric.startswith("YBR") else stored @ _LUMA
    return _as_uint8(luma / (2.0**bits - 1))


def _grey_from_stored(stored: np.ndarray, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """uint8 (rows, columns), as shown on a screen. Adds to `notes`."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    padding = _padding(stored, dataset)
    thin = (slice(None, None, max(1, len(stored) // 1000)), slice(None, None, max(1, stored.shape[1] // 1000)))
    sample = stored[thin]
    if padding is not None and not padding[thin].all():
        sample = sample[~padding[thin]]
    brightness = _brightness(sample, dataset, notes)
    grey = np.empty(stored.shape, np.uint8)
    if stored.itemsize <= 2:
        # Every value there can be is worked out once; `row` counts them, signed or not.
        values = np.arange(256**stored.itemsize, dtype=f"u{stored.itemsize}")
        table = _as_uint8(brightness(values.view(stored.dtype)))
        for shown, row in zip(grey, stored.view(values.dtype), strict=True):
            shown[:] = table[row]
    else:
        for shown, row in zip(grey, stored, strict=True):  # all at once would take much more memory
            shown[:] = _as_uint8(brightness(row))
    if padding is not None:
        grey[padding] = 0
    return grey


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Where there is no image (bool, PS3.3 C.7.5.1.1.2); None where the file says nothing, or all of it would go."""
    ends = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    # Some writers store the padding of signed pixels as if it were unsigned.
    ends = [int(np.array(int(end)).astype(stored.dtype)) for end in ends if end is not None]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return None if padding.all() else padding


def _brightness(sample: np.ndarray, dataset: Dataset, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from stored values to brightness, 0 black to 1 white, where `sample` holds some stored values."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        tables = [_table(dataset, f"{colour}PaletteColorLookupTable", dataset) for colour in ("Red", "Green", "Blue")]
        entries = np.array([entries for _, entries in tables])
        return _lookup(tables[0][0], _LUMA @ entries / (entries.max() or 1))

    modality = _modality(dataset)
    window = _voi_function(dataset)
    if window is not None and np.ptp(_as_uint8(window(modality(sample)))) == 0 < np.ptp(sample):
        notes.append("The window stored in the file shows nothing, so its grey levels were stretched instead.")
        window = None
    elif window is None and dataset.BitsStored <= 8 and not dataset.get("PixelRepresentation"):
        modality, window = _unchanged, _ramp(0, 2**dataset.BitsStored - 1)
    elif window is None:
        notes.append("No window is stored in the file, so its grey levels were stretched.")
    if window is None:
        values = modality(sample)
        low, high = np.percentile(values, _PERCENTILES)
        window = _ramp(low, high) if low < high else _ramp(values.min(), values.max())
    if photometric == "MONOCHROME1":
        return lambda values: 1 - np.clip(window(modality(values)), 0, 1)
    return lambda values: window(modality(values))


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


def _ramp(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """0 at `low`, 1 at `high`, and a straight line through both; a step where they are the same."""
    low, high = float(low), float(high)
    return lambda values: (values - low) / (high - low) if high > low else (values > low).astype(float)


def _modality(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """Stored values -> the values that windows speak about (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        return _lookup(*_table(dataset.ModalityLUTSequence[0], "LUT", dataset))
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        return _unchanged
    return lambda values: values * slope + intercept


def _voi_function(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray] | None:
    """Values after `_modality` -> brightness: the first VOI LUT, or else the first window (PS3.3 C.11.2)."""
    if dataset.get("VOILUTSequence"):
        first, entries = _table(dataset.VOILUTSequence[0], "LUT", dataset)
        # The bits that a table claims are often more than it uses, so its own largest entry is white.
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
    """The first of an element's decimal values; None where there is none, or none that is a finite number."""
    try:
        value = dataset.get(keyword)
        number = float(value[0] if isinstance(value, MultiValue) else value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _table(item: Dataset, prefix: str, dataset: Dataset) -> tuple[int, np.ndarray]:
    """A lookup table of `dataset`, which `item` holds: the value of its first entry, and the entries as floats.

    PS3.3 C.11.1.1 and C.7.6.3.1.5; `prefix` is the name of its elements before `Descriptor` and `Data`.
    """
    length, first, _ = (int(value) for value in item[prefix + "Descriptor"].value)
    length = length or 2**16
    if first >= 2**15 and dataset.get("PixelRepresentation"):
        first -= 2**16  # a negative value, stored as if it were unsigned
    entries = item[prefix + "Data"].value
    if isinstance(entries, bytes):
        words = "<u2" if dataset.original_encoding[1] else ">u2"
        entries = np.frombuffer(entries, "u1" if len(entries) < 2 * length else words)[:length]
    return first, np.array(entries, np.float64).reshape(-1)


def _lookup(first: int, entries: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A table as a function; values before and after it get its first and last entry."""
    return lambda values: entries[np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)]


def _as_uint8(brightness: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(brightness, 0, 1)).astype(np.uint8)
