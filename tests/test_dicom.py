import io
import logging
import random
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from koa_hf.errors import KoaError
from koa_hf.imaging import dicom, phantom, radiograph

PATIENT = "DOE^JANE"

LOSSLESS = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000 lossless": uid.JPEG2000Lossless,
    "HTJ2K lossless": uid.HTJ2KLossless,
}
LOSSY = {
    "JPEG baseline": uid.JPEGBaseline8Bit,
    "JPEG extended": uid.JPEGExtended12Bit,
    "JPEG-LS near-lossless": uid.JPEGLSNearLossless,
    "JPEG 2000": uid.JPEG2000,
}
ENCODE = {
    uid.JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95),
    uid.JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
    uid.JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=12),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(pixels, level=2),
    uid.JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k"),
    uid.JPEG2000: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=80, codecformat="jp2"),
    uid.HTJ2KLossless: lambda pixels: imagecodecs.htj2k_encode(pixels),
}


@pytest.fixture(scope="module")
def knee() -> np.ndarray:
    return phantom.draw_knee(2, seed=0)


@pytest.fixture(scope="module")
def film(knee) -> np.ndarray:
    """The knee in 12 bits; with `WINDOW`, it is shown as it was drawn."""
    return knee.astype(np.uint16) * 16


WINDOW = {"WindowCenter": 2040, "WindowWidth": 4080, "VOILUTFunction": "LINEAR_EXACT"}


def written(pixels: np.ndarray, syntax: uid.UID = uid.ExplicitVRLittleEndian, **elements) -> bytes:
    """A DICOM file of Jane Doe's knee: (rows, columns), (rows, columns, 3) or (frames, rows, columns).

    An element that is None is left out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax == uid.RLELossless else syntax
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "DX"
    dataset.PatientName = dataset.PatientID = dataset.SeriesDescription = dataset.InstitutionName = PATIENT
    colour = pixels.shape[-1] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colour else 1
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = 8 if pixels.itemsize == 1 else 12 if pixels.itemsize == 2 else 32
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if syntax in ENCODE:
        dataset.PixelData = encapsulate([ENCODE[syntax](pixels)])
    else:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if syntax in ENCODE or pixels.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if syntax == uid.RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    opened = io.BytesIO()
    dataset.save_as(opened, enforce_file_format=True)
    return opened.getvalue()


def table(entries: np.ndarray, first: int = 0, bits: int = 16) -> list[Dataset]:
    """The item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def one_sentence(error: KoaError) -> bool:
    said = str(error)
    return said.endswith(".") and "\n" not in said and len(said) < 250 and PATIENT not in said


@pytest.mark.parametrize("syntax", LOSSLESS.values(), ids=LOSSLESS)
def test_every_lossless_transfer_syntax_gives_the_knee_that_was_drawn(syntax, knee, film):
    read = radiograph.read(written(film, syntax, **WINDOW))
    assert np.array_equal(read.pixels, knee)
    assert read.notes == ()


@pytest.mark.parametrize("syntax", LOSSY.values(), ids=LOSSY)
def test_every_lossy_transfer_syntax_gives_nearly_the_knee_that_was_drawn(syntax, knee, film):
    data = written(knee, syntax) if syntax == uid.JPEGBaseline8Bit else written(film, syntax, **WINDOW)
    assert np.abs(radiograph.read(data).pixels.astype(int) - knee).mean() < 2


@pytest.mark.parametrize(
    "other", ["implicit", "bigendian", "expb", "RLE", "jp2klossless", "jpeg_ls_lossless", "padded"]
)
def test_files_by_other_software_give_the_same_picture_in_every_transfer_syntax(other):
    read = [
        radiograph.read(get_testdata_file(name, download=False)) for name in ("MR_small.dcm", f"MR_small_{other}.dcm")
    ]
    assert np.array_equal(read[0].pixels, read[1].pixels)
    assert np.ptp(read[0].pixels) > 200
    assert "its modality is MR" in read[0].cautions[0]


def test_monochrome1_is_righted(knee, film):
    data = written(4080 - film, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    assert np.array_equal(radiograph.read(data).pixels, knee)


def test_the_window_is_applied():
    levels = np.array([[0, 100, 150, 199, 4095]], np.uint16)

    def shown(function: str | None) -> list[int]:
        elements = {} if function is None else {"VOILUTFunction": function}
        read = radiograph.read(written(levels, WindowCenter=[150, 9], WindowWidth=[100, 9], **elements))
        return read.pixels[0].tolist()

    # PS3.3 C.11.2.1.2.1: brightness ((x - (c - 0.5)) / (w - 1) + 0.5), so that 100 is black and 199 white.
    assert shown(None) == [0, 0, 129, 255, 255]
    assert shown("LINEAR_EXACT") == [0, 0, 128, 252, 255]
    assert shown("SIGMOID") == [1, 30, 128, 224, 255]


def test_the_window_speaks_of_rescaled_values(knee, film):
    data = written(
        film, RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=20, WindowWidth=2040, VOILUTFunction="LINEAR_EXACT"
    )
    assert np.array_equal(radiograph.read(data).pixels, knee)


def test_a_voi_lut_goes_before_a_window(knee):
    lut = table((255 - np.arange(256)) * 16, bits=12)
    read = radiograph.read(written(knee, VOILUTSequence=lut, WindowCenter=1, WindowWidth=2))
    assert np.array_equal(read.pixels, 255 - knee)


def test_a_modality_lut_goes_before_the_window(knee):
    data = written(knee, ModalityLUTSequence=table(np.arange(256) * 16), **WINDOW)
    assert np.array_equal(radiograph.read(data).pixels, knee)


def test_without_a_window_the_grey_levels_are_stretched_and_a_marker_decides_nothing(film):
    marked = film // 4 + 300
    marked[2:10, 2:10] = 4095
    read = radiograph.read(written(marked))
    assert "No window" in read.notes[0]
    assert read.pixels[60:160].std() == pytest.approx(radiograph.read(film).pixels[60:160].std(), rel=0.1)


def test_8_bits_without_a_window_are_taken_as_they_are(knee):
    read = radiograph.read(written(knee // 2))
    assert np.array_equal(read.pixels, knee // 2)
    assert read.notes == ()


# Of 12 bits: beyond them; a CT's window, in which all tissue is white; one of 16 bits and more, in which all is black.
@pytest.mark.parametrize(("centre", "width"), [(60000, 10), (40, 400), (3e5, 6e5)])
def test_a_window_that_shows_nearly_nothing_is_not_applied(centre, width, film):
    read = radiograph.read(written(film, WindowCenter=centre, WindowWidth=width))
    assert "shows nearly nothing" in read.notes[0]
    assert np.ptp(read.pixels) == 255
    assert np.array_equal(read.pixels, radiograph.read(written(film)).pixels)


def test_a_negative_rescale_slope_inverts_with_and_without_a_window(knee, film):
    inverse = {"RescaleSlope": -1, "RescaleIntercept": 255}
    assert np.array_equal(radiograph.read(written(255 - knee, **inverse)).pixels, knee)
    deep = written(4080 - film, RescaleSlope=-1, RescaleIntercept=4080, **WINDOW)
    assert np.array_equal(radiograph.read(deep).pixels, knee)
    stretched = radiograph.read(written(4080 - film, RescaleSlope=-1, RescaleIntercept=4080)).pixels
    assert np.array_equal(stretched, radiograph.read(written(film)).pixels)


@pytest.mark.parametrize(
    "elements",
    [{"PixelSpacing": [0.1, 0.2]}, {"ImagerPixelSpacing": [0.1, 0.2]}, {"PixelAspectRatio": [1, 2]}],
)
def test_pixels_that_are_not_square_are_resampled(elements, knee):
    squeezed = np.asarray(Image.fromarray(knee).resize((112, 224), Image.Resampling.BOX))
    read = radiograph.read(written(squeezed, **elements))
    assert np.abs(read.pixels.astype(int) - knee).mean() < 5
    assert "not square" in read.notes[0]
    square = radiograph.read(written(knee, PixelSpacing=[0.14, 0.14]))
    assert (square.pixels.shape, square.notes) == ((224, 224), ())


def test_what_a_file_leaves_out_is_assumed_and_said(knee, film):
    untold = radiograph.read(written(film, PhotometricInterpretation=None, **WINDOW))
    assert np.array_equal(untold.pixels, knee)
    assert "black was assumed" in untold.notes[0]
    for elements in ({"BitsStored": None}, {"BitsStored": None, "HighBit": None}):
        assert np.array_equal(radiograph.read(written(film, **elements, **WINDOW)).pixels, knee)


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_pixels_in_floating_point_are_read(keyword, kind, knee):
    values = np.where(knee == knee.max(), np.nan, knee / 255).astype(kind)
    read = radiograph.read(written(values, PixelData=None, **{keyword: values.tobytes()}))
    seen = np.isfinite(values)
    assert np.corrcoef(read.pixels[seen], knee[seen])[0, 1] > 0.99


@pytest.mark.parametrize("elements", [{"WindowCenter": "", "WindowWidth": ""}, {"WindowCenter": 5, "WindowWidth": 0}])
def test_an_empty_window_counts_as_none(elements, film):
    assert "No window" in radiograph.read(written(film, **elements)).notes[0]


def test_signed_pixels_with_rubbish_in_their_unused_bits_are_read(knee, film):
    signed = film.astype(np.int16) - 2048
    rubbish = (signed & 0x0FFF) | 0x5000
    window = WINDOW | {"WindowCenter": -8}
    assert np.array_equal(radiograph.read(written(signed, **window)).pixels, knee)
    assert np.array_equal(radiograph.read(written(rubbish, **window)).pixels, knee)


def test_32_bit_pixels_are_read(knee):
    data = written(
        knee.astype(np.uint32) * 1000, WindowCenter=127500, WindowWidth=255000, VOILUTFunction="LINEAR_EXACT"
    )
    assert np.array_equal(radiograph.read(data).pixels, knee)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_stretches_nothing(photometric, film):
    padded = film.astype(np.int16) + 100
    padded[:, :60] = -2000
    read = radiograph.read(written(padded, PixelPaddingValue=-2000, PhotometricInterpretation=photometric))
    assert not read.pixels[:, :60].any()
    assert read.pixels[:, 60:].std() > 40


def test_colours_give_the_grey_that_they_show(knee):
    rgb = np.stack([knee] * 3, axis=-1)
    planes = written(rgb, PlanarConfiguration=1, PixelData=rgb.transpose(2, 0, 1).tobytes())
    ybr = np.dstack([knee, np.full_like(knee, 90), np.full_like(knee, 160)])
    for data in (
        written(rgb),
        planes,
        written(rgb, uid.RLELossless),
        written(rgb, uid.JPEG2000Lossless),
        written(rgb, uid.JPEGLSLossless),
        written(ybr, PhotometricInterpretation="YBR_FULL"),
    ):
        assert np.array_equal(radiograph.read(data).pixels, knee)
    green = written(np.dstack([knee * 0, knee, knee * 0]))
    assert np.abs(radiograph.read(green).pixels - 0.587 * knee).max() < 1


def test_a_palette_gives_the_grey_that_it_shows(knee):
    entries = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (
            ("Descriptor", [256, 0, 16]),
            ("Data", ((255 - np.arange(256)) * 257).astype("<u2").tobytes()),
        )
    }
    read = radiograph.read(written(knee, PhotometricInterpretation="PALETTE COLOR", **entries))
    assert np.array_equal(read.pixels, 255 - knee)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_of_several_frames_one_is_read_and_the_user_is_told(syntax, knee):
    frames = np.stack([knee, 255 - knee, knee // 2])
    first = radiograph.read(written(frames, syntax))
    assert np.array_equal(first.pixels, knee)
    assert first.notes == ("The file holds 3 frames; frame 1 was read.",)
    chosen = radiograph.read(written(frames, syntax, RepresentativeFrameNumber=2))
    assert np.array_equal(chosen.pixels, 255 - knee)
    assert "frame 2 was read" in chosen.notes[0]


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_file_without_preamble_and_meta_information_is_read(syntax, knee, film):
    dataset = dcmread(io.BytesIO(written(film, syntax, **WINDOW)))
    opened = io.BytesIO()
    del dataset.file_meta
    dataset.save_as(
        opened, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=False
    )
    data = opened.getvalue().removeprefix(bytes(128) + b"DICM")
    assert data[128:132] != b"DICM"
    assert np.array_equal(radiograph.read(data).pixels, knee)


@pytest.mark.parametrize("head", [b"", b"\x08", b"\x89PNG\r\n\x1a\n", b'{"a": 1}', b"II*\0\x08\0\0\0", bytes(132)])
def test_what_is_not_dicom_is_not_taken_for_it(head):
    assert not dicom.is_dicom(head)


def test_side_and_view_are_read_where_the_file_says_them(film):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "272479007", "SCT", PATIENT
    one = radiograph.read(written(film, ImageLaterality="L", ViewPosition="AP", **WINDOW))
    other = radiograph.read(written(film, Laterality="R", ViewCodeSequence=[code], **WINDOW))
    both = radiograph.read(written(film, ImageLaterality="B", ViewPosition="DOE JANE", **WINDOW))
    mirrored = radiograph.read(written(film, PatientOrientation=["R", "F"], **WINDOW))
    assert (one.side, one.view, one.notes) == ("left", "AP", ())
    assert (other.side, other.view, other.notes) == ("right", "PA", ())
    assert (both.side, both.view, both.notes) == (None, None, ("The file says that it shows both sides.",))
    assert (one.orientation, mirrored.orientation, one.cautions) == (None, ("R", "F"), ())


@pytest.mark.parametrize(
    ("view", "code", "caution"),
    [
        ("AP", "", ""),
        ("", "272479007", ""),
        ("LL", "", "lateral"),
        ("", "399067008", "lateral"),
        ("SKYLINE", "", "axial"),
        ("", "399110001", "axial"),
        ("LLO", "", "oblique"),
    ],
)
def test_a_view_that_is_not_frontal_is_a_caution(view, code, caution, film):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "view"
    read = radiograph.read(written(film, ViewPosition=view, ViewCodeSequence=[item], **WINDOW))
    assert len(read.cautions) == bool(caution)
    assert all(f"says {caution} view" in said for said in read.cautions)


# A name where something else belongs, too: pydicom's warnings and errors quote what they can't understand.
@pytest.mark.parametrize("elements", [{}, {"BitsStored": 99}, {"Rows": None}, {"PhotometricInterpretation": PATIENT}])
def test_nobody_learns_who_the_patient_is(elements, film, tmp_path, caplog, capfd):
    path = tmp_path / "film.dcm"
    with warnings.catch_warnings(action="ignore"):
        path.write_bytes(written(film, ImageComments=PATIENT, LossyImageCompression=PATIENT, **elements))
    caplog.clear()
    with warnings.catch_warnings(action="error"), caplog.at_level(logging.DEBUG):
        try:
            read = radiograph.read(path)
            said = f"{read!r} {vars(read) | {'dicom': None}}"  # which is the file itself, for a capture of the report
            assert read.name == "film.dcm"
        except KoaError as error:
            said = f"{error} {error.__cause__} {error.__context__}"
    assert PATIENT not in said + caplog.text + "".join(capfd.readouterr())


def without_image(sop_class: uid.UID) -> bytes:
    dataset = dcmread(io.BytesIO(written(np.zeros((4, 4), np.uint8))))
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    opened = io.BytesIO()
    dataset.save_as(opened)
    return opened.getvalue()


def deflate_bomb() -> bytes:
    data = written(np.zeros((4, 4), np.uint8), uid.DeflatedExplicitVRLittleEndian)
    meta = data[: data.index(b"\x02\x00\x10\x00UI")]
    end = 144 + int.from_bytes(meta[140:144], "little")
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[:end] + squeeze.compress(bytes(4_000_000)) + squeeze.flush()


def declares(rows: int, columns: int, syntax: uid.UID) -> bytes:
    """A file whose data set claims 224 x 224, and whose compressed image claims more."""
    data = written(phantom.draw_knee(0, 0).astype(np.uint16) * 16, syntax)
    if syntax == uid.JPEG2000Lossless:
        start = data.index(b"\xff\x4f\xff\x51") + 8
        return data[:start] + columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + data[start + 8 :]
    start = data.index({uid.JPEGLSLossless: b"\xff\xf7", uid.JPEGLosslessSV1: b"\xff\xc3"}[syntax]) + 5
    return data[:start] + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + data[start + 4 :]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda film: without_image(uid.BasicTextSRStorage), "without an image .Basic Text SR Storage.;"),
        (lambda film: without_image(uid.MediaStorageDirectoryStorage), "is a DICOMDIR"),
        (
            lambda film: written(film).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4\0"),
            "unknown transfer syntax",
        ),
        (
            lambda film: written(film).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
            "unknown transfer syntax",
        ),
        (lambda film: written(film, Rows=0), "0 rows"),
        (lambda film: written(film, Columns=None), "without Columns"),
        (lambda film: written(film, BitsAllocated=None), "without BitsAllocated"),
        (lambda film: written(film * 0), "is blank"),
        (lambda film: written(film, Rows=65535, Columns=65535), "more than 100 million pixels"),
        (lambda film: written(film, NumberOfFrames=2_000_000_000), "damaged DICOM file, or was cut short"),
        (lambda film: written(film, NumberOfFrames=-1, BitsAllocated=12), "12 bits for a pixel .BitsAllocated"),
        (lambda film: written(film, SamplesPerPixel=7), "7 samples in each pixel .SamplesPerPixel"),
        (lambda film: written(film, BitsAllocated=64), "64 bits for a pixel .BitsAllocated"),
        (lambda film: written(film, PixelData=b""), "damaged DICOM file"),
        (lambda film: deflate_bomb(), "far larger inside than outside"),
        (lambda film: declares(65000, 65000, uid.JPEG2000Lossless), "damaged DICOM file"),
        (lambda film: declares(65000, 65000, uid.JPEGLSLossless), "damaged DICOM file"),
        (lambda film: declares(65000, 65000, uid.JPEGLosslessSV1), "damaged DICOM file"),
        (lambda film: bytes(128) + b"DICM", "damaged DICOM file"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_sentence(make, what, film):
    with pytest.raises(KoaError, match=what) as refused:
        radiograph.read(
            make(film), name="film.dcm", max_pixels=1_000_000 if "inside" in what else radiograph.MAX_PIXELS
        )
    assert str(refused.value).startswith("film.dcm ")
    assert one_sentence(refused.value)


def test_a_box_without_an_end_in_a_jp2_file_does_not_hang(film):
    data = written(film, uid.JPEG2000)
    start = data.index(b"ftypjp2 ") - 4
    with pytest.raises(KoaError):
        radiograph.read(data[:start] + bytes(4) + data[start + 4 : start + 100].replace(b"\xff", b"\0"))


@pytest.mark.parametrize("syntax", [*LOSSLESS.values(), uid.JPEGBaseline8Bit], ids=[*LOSSLESS, "JPEG baseline"])
def test_a_file_cut_short_anywhere_is_refused(syntax, knee, film):
    data = written(knee if syntax == uid.JPEGBaseline8Bit else film, syntax)
    for length in np.linspace(200, len(data) * 0.98, 25).astype(int):
        with pytest.raises(KoaError, match="damaged DICOM file, or was cut short") as refused:
            radiograph.read(data[:length])
        assert one_sentence(refused.value)


@pytest.mark.parametrize("syntax", [*LOSSLESS.values(), *LOSSY.values()], ids=[*LOSSLESS, *LOSSY])
def test_a_damaged_file_gives_an_x_ray_or_one_sentence(syntax):
    small = np.asarray(Image.fromarray(phantom.draw_knee(3, seed=1)).resize((48, 40)))
    data = written(small if syntax == uid.JPEGBaseline8Bit else small.astype(np.uint16) * 16, syntax, **WINDOW)
    chance = random.Random(0)
    read = 0
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            damaged[chance.randrange(128, len(data))] = chance.randrange(256)
        try:
            pixels = radiograph.read(bytes(damaged)).pixels
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2
            read += 1
        except KoaError as error:
            assert one_sentence(error)  # noqa: PT017 (either outcome is right)
    assert read > 0
