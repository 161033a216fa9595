"""Names in errors, JSON and zips are bounded, of whatever kind they are."""

from __future__ import annotations

import io
import os
import zipfile

import pytest

from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import most_decompressed, open_regular, open_zip, parse_json


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b/é.npz", "a b/é.npz"),
        ("new\nline\x1b[31m", "new\\nline\\x1b[31m"),
        ("\u202eright to left", "\\u202eright to left"),
        (os.fsdecode(b"\xff.npz"), "\\udcff.npz"),
        ("it's", "it's"),
        ("back\\slash", "back\\slash"),
        ("x" * 90 + "y" * 90, "x" * 79 + "..." + "y" * 78),
        (3, "3"),
    ],
)
def test_names_are_shown_in_one_line_of_bounded_length(name, expected):
    assert shown(name) == expected
    assert expected.isprintable()


def test_many_names_are_counted():
    assert listed(["a", "b\n"]) == "'a', 'b\\n'"
    assert listed(map(str, range(9)), 2) == "'0', '1' and 7 more"
    assert listed([]) == ""


def test_reasons_are_one_line():
    assert reason(ValueError("two\n lines")) == "two lines"
    assert reason(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"NaN", "NaN is no finite number"),
        (b'{"a": -Infinity}', "-Infinity is no finite number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"[" * 10**6, "it is nested too deeply"),
        (b"\xff", "can't decode"),
        ('"a"'.encode("utf-16"), "can't decode"),
        (b"9" * 10**5, "Exceeds the limit"),
        (b"{", "Expecting property name"),
    ],
)
def test_json_is_strict(text, message):
    assert parse_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="isn't a regular file"), open_regular(path):
            pass
    with pytest.raises(ValueError, match=r"a\\x00b can't be a file"), open_regular("a\0b"):
        pass
    (tmp_path / "file").write_bytes(b"abc")
    with open_regular(tmp_path / "file") as (stream, size):
        assert (size, stream.read()) == (3, b"abc")


def test_members_of_a_zip_together_are_bounded():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("first", "second"):
            archive.writestr(name, bytes(40 * 2**20))
    size = len(content.getvalue())
    assert most_decompressed(size) == 64 * 2**20
    with open_zip(content, size) as reader:
        assert reader.names == ["first", "second"]
        with pytest.raises(ValueError, match="it has 41943040 bytes, of at most 99"):
            reader.read("first", 99)
        with pytest.raises(ValueError, match="it declares 41943040 bytes, compressed to"):
            reader.read("second")
