import io
import struct
import zipfile

import pytest

from koa_hf.errors import KoaError
from koa_hf.imaging import archive
from tests.helpers import zipped


def unpacked(data: bytes) -> dict[str, bytes | str]:
    return {
        name: str(content) if isinstance(content, KoaError) else content
        for name, content in archive.unpack(data, "xrays.zip")
    }


def test_files_come_out_as_they_went_in_and_folders_and_hidden_files_stay_behind(tmp_path):
    files = {"a.png": b"first", "visit 2/b.dcm": b"second"}
    data = zipped(files | {"visit 2/": b"", ".DS_Store": b"x", "__MACOSX/._a.png": b"x", "DICOMDIR": b"x"})
    (tmp_path / "data").write_bytes(data)
    assert archive.is_archive(tmp_path / "data")
    assert archive.names(data, "xrays.zip") == list(files)
    assert unpacked(data) == files


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_a_path_that_leads_out_of_the_zip_is_refused_and_the_others_are_read(name):
    found = unpacked(zipped({name: b"x", "good.png": b"y"}))
    assert found.pop("good.png") == b"y"
    assert [*found.values()] == ["evil.png names a place outside the zip; make the zip again from one folder."]


def test_a_link_an_encrypted_file_a_zip_and_an_odd_packing_are_refused_one_by_one():
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr(link, "/etc/passwd")
        opened.writestr("inner.zip", zipped({"a.png": b"x"}))
        opened.writestr("odd.png", b"x", zipfile.ZIP_BZIP2)
        opened.writestr("secret.png", b"x")
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory, and the header of its file
    data[at + 8] |= 1
    data[struct.unpack_from("<I", data, at + 42)[0] + 6] |= 1
    found = unpacked(bytes(data))
    assert "is a link" in found["link.png"]
    assert "is a zip within the zip" in found["inner.zip"]
    assert "packed in a way that isn't read here" in found["odd.png"]
    assert "is encrypted" in found["secret.png"]


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    found = unpacked(zipped({"bomb.png": bytes(20_000_000)}))
    assert found == {"bomb.png": "bomb.png would unpack to over 150 times its size, which no X-ray does."}
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1_000)
    with pytest.raises(KoaError, match=r"xrays\.zip would unpack to over"):
        archive.names(zipped({"a.png": bytes(600), "b.png": bytes(600)}), "xrays.zip")
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    with pytest.raises(KoaError, match="holds 3 files; at most 2"):
        archive.names(zipped(dict.fromkeys("abc", b"x")), "xrays.zip")


def test_a_file_that_says_it_is_smaller_than_it_is_is_damaged():
    data = bytearray(zipped({"a.png": bytes(range(256)) * 40}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    assert "is damaged in the zip" in unpacked(bytes(data))["a.png"]


@pytest.mark.parametrize(("length", "what"), [(60, "damaged zip"), (22, "damaged zip")])
def test_a_zip_cut_short_is_refused_as_a_whole(length, what):
    with pytest.raises(KoaError, match=what):
        archive.names(zipped({"a.png": bytes(1000)})[:length], "xrays.zip")


def test_a_zip_without_files_is_refused():
    with pytest.raises(KoaError, match=r"xrays\.zip holds no files"):
        archive.names(zipped({}), "xrays.zip")
