"""A refusal holds as long as what it depended on; damage to the store is nobody's refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import StoreError
from alignment.preferences.inbox import ingest_inbox, read_journal
from alignment.preferences.store import PreferenceStore


def rows(bad: int, good: int = 8, domain: str | None = "safety") -> str:
    """Comparisons in the native schema; the first `bad` ones have an empty answer."""
    lines = []
    for number in range(bad + good):
        row = {
            "conversation": [{"role": "user", "content": f"question {number}"}],
            "chosen": "" if number < bad else f"good {number}",
            "rejected": "no",
            "strength": "better",
        }
        lines.append(json.dumps(row | ({} if domain is None else {"domain": domain})) + "\n")
    return "".join(lines)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    made = tmp_path / "inbox"
    made.mkdir()
    return made


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(tmp_path / "preferences")


def outcomes(store: PreferenceStore, inbox: Path, **settings: object) -> dict[str, str]:
    config = IntakeConfig.model_validate({"source": "inbox", "path": str(inbox), **settings})
    return {item.file: item.outcome for item in ingest_inbox(store.root.parent, config, 0.0)}


def test_the_remedy_of_a_refusal_works(store: PreferenceStore, inbox: Path) -> None:
    (inbox / "week.jsonl").write_text(rows(bad=2))
    (inbox / "fine.jsonl").write_text(rows(bad=0, good=3, domain="helpfulness"))
    assert outcomes(store, inbox) == {"week.jsonl": "refused", "fine.jsonl": "accepted"}
    assert "max_quarantine" in (read_journal(store.root)["week.jsonl"].error or "")
    assert outcomes(store, inbox) == {}, "nothing has changed"
    assert outcomes(store, inbox, max_quarantine=0.15) == {"week.jsonl": "refused"}
    assert outcomes(store, inbox, max_quarantine=0.2) == {"week.jsonl": "accepted"}
    assert outcomes(store, inbox) == {}, "what was accepted stays so"


def test_a_domain_that_is_told_later_counts(store: PreferenceStore, inbox: Path) -> None:
    (inbox / "week.jsonl").write_text(rows(bad=0, domain=None))
    assert outcomes(store, inbox) == {"week.jsonl": "refused"}
    assert outcomes(store, inbox, domain="safety") == {"week.jsonl": "accepted"}


def test_other_rights_mean_another_look(store: PreferenceStore, inbox: Path) -> None:
    path = inbox / "week.jsonl"
    path.write_text(rows(bad=5))
    assert outcomes(store, inbox) == {"week.jsonl": "refused"}
    path.chmod(0o600)  # leaves size and time of change as they were
    assert outcomes(store, inbox) == {"week.jsonl": "refused"}
    assert outcomes(store, inbox) == {}


def test_a_journal_from_before_is_read(store: PreferenceStore, inbox: Path) -> None:
    (inbox / "week.jsonl").write_text(rows(bad=5))
    outcomes(store, inbox)
    path = store.root / "inbox.json"
    journal = json.loads(path.read_text())
    del journal["week.jsonl"]["conditions"]
    path.write_text(json.dumps(journal))
    assert outcomes(store, inbox) == {"week.jsonl": "refused"}, "nobody knows why: once more"


@pytest.mark.parametrize("damage", ["no JSON\n", '{"pair": "no task"}\n', "7\n"])
def test_a_damaged_key_refuses_no_file(store: PreferenceStore, inbox: Path, damage: str) -> None:
    (inbox / "week.jsonl").write_text(rows(bad=0))
    key = store.root / "annotation" / "1f0c2a9b7d4e.jsonl"
    key.parent.mkdir(parents=True)
    key.write_text(damage)
    with pytest.raises(StoreError, match="key of an export is damaged") as caught:
        outcomes(store, inbox)
    assert caught.value.where == str(key)
    assert read_journal(store.root) == {}
    key.unlink()
    assert outcomes(store, inbox) == {"week.jsonl": "accepted"}


def test_a_damaged_batch_refuses_no_file(store: PreferenceStore, inbox: Path) -> None:
    (inbox / "first.jsonl").write_text(rows(bad=0))
    assert outcomes(store, inbox) == {"first.jsonl": "accepted"}
    (inbox / "second.jsonl").write_text(rows(bad=0, good=3, domain="helpfulness"))
    index = store.batches()[0].directory / "index.parquet"
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="cannot be read") as caught:
        outcomes(store, inbox)
    assert caught.value.where == str(index)
    index.write_bytes(whole)
    assert outcomes(store, inbox) == {"second.jsonl": "accepted"}
