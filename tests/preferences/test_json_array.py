"""A JSON array read in blocks is the array that the json module reads whole."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.preferences.json_array import NotAnArrayError, array_elements
from alignment.preferences.rows import RowError
from alignment.preferences.sources import find_sources, records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(
    values=st.lists(VALUES, max_size=6),
    size=st.integers(1, 40),
    indent=st.none() | st.integers(0, 2),
    escaped=st.booleans(),
)
@settings(max_examples=300)
def test_it_is_what_json_reads(
    values: list[Any], size: int, indent: int | None, escaped: bool
) -> None:
    text = " \n" + json.dumps(values, indent=indent, ensure_ascii=escaped) + "\n "
    assert list(array_elements(cut(text.encode(), size), 10**6)) == json.loads(text)


@given(
    text=st.text('[]{},: "a1\\e-.n', max_size=12).map(lambda text: "[" + text),
    size=st.integers(1, 8),
)
@settings(max_examples=500)
def test_it_refuses_what_json_refuses(text: str, size: int) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(NotAnArrayError):
            list(array_elements(cut(text.encode(), size), 10**6))
    else:
        assert list(array_elements(cut(text.encode(), size), 10**6)) == expected


def test_one_bad_byte_is_one_bad_row(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "text": "ä"} for n in range(3)]
    data = json.dumps(rows, ensure_ascii=False).encode()
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + data.replace(b"q1", b"q\xff"))
    found = [record.value for record in records(find_sources([path])[0], 10**6)]
    assert [found[0], found[2]] == [rows[0], rows[2]]
    assert isinstance(found[1], RowError) or "\udcff" in found[1]["question"]


def test_an_element_without_end_is_given_up() -> None:
    endless = (b'["' + b"x" * 1000 if number == 0 else b"x" * 1000 for number in range(10**6))
    with pytest.raises(NotAnArrayError, match="element 1 is broken or too long"):
        list(array_elements(endless, 5000))


def test_a_large_array_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    row = json.dumps({"text": "x" * 1000})
    with path.open("w") as file:
        file.write("[" + row)
        for _ in range(300_000):
            file.write("," + row)
        file.write("]")
    program = textwrap.dedent(
        f"""
        import resource
        from pathlib import Path
        from alignment.preferences.sources import find_sources, records
        source = find_sources([Path({str(path)!r})])[0]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(1 for _ in records(source, 10**9)) == 300_001
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 50_000, "kilobytes more for 300 MB"
