"""What must hold for any value: JSON comes back, and no password stays."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import redact
from alignment.utils.files import atomic_write_json, canonical_json, digest_json, read_json
from alignment.utils.metrics_log import Series

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # surrogates are no UTF-8
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
# Anything that can stand in a word.
WORD = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1)
NAME = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True)


@given(JSON)
def test_json_comes_back_as_it_was_written(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "value.json"
        atomic_write_json(path, value)
        assert read_json(path) == value
        assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]


@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_the_order_of_keys_changes_no_digest(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(backwards) == canonical_json(value)
    assert digest_json(backwards) == digest_json(value)


@given(NAME, WORD, NAME, TEXT)
def test_no_password_stays(user: str, password: str, host: str, before: str) -> None:
    shown = redact(f"postgresql://{user}:{password}@{host}/db")
    assert shown == f"postgresql://{user}:***@{host}/db"
    assert redact(shown) == shown
    assert redact(f"{before} postgresql://{user}:{password}@{host}").endswith(
        f" postgresql://{user}:***@{host}"
    )


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20), st.integers(0, 20))
def test_a_curve_broken_off_and_resumed_is_the_uninterrupted_one(
    figures: list[float], done: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        whole, resumed = (Series(Path(directory) / name) for name in ("whole", "resumed"))
        for step, figure in enumerate(figures, 1):
            whole.log(step, loss=figure)
            resumed.log(step, loss=figure)
        with resumed.path.open("a") as file:
            file.write('{"step": 99, "lo')  # killed here
        resumed.truncate(done)
        for step, figure in enumerate(figures, 1):
            if step > done:
                resumed.log(step, loss=figure)
        assert resumed.path.read_bytes() == whole.path.read_bytes()
