"""Killed anywhere, an export is handed out once: the next one ends it and overwrites no verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import AlignError
from alignment.preferences.annotation import export_tasks
from alignment.preferences.exports import exported_pairs
from alignment.preferences.store import PreferenceStore

PROGRAM = """
# A child for every operation on a file, killed before it.
import json, os, signal, sys
from pathlib import Path
from alignment.preferences.annotation import export_tasks
from alignment.preferences.store import PreferenceStore

def die_at(number):
    def hook(event, _arguments):
        nonlocal number
        if event.startswith(("open", "os.", "tempfile.")):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

pair = json.loads(sys.argv[2])
for stop in range(1, 200):
    place = Path(sys.argv[1]) / str(stop)
    (place / "outbox").mkdir(parents=True)
    child = os.fork()
    if child == 0:
        die_at(stop)
        export_tasks(PreferenceStore(place), [pair], "jsonl", place / "outbox", seed=1)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""
PAIR: dict[str, Any] = {
    "id": "a",
    "conversation": [{"role": "user", "content": "question"}],
    "responses": [{"text": "one"}, {"text": "two"}],
    "domain": "safety",
}


def test_killed_anywhere_the_next_export_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(PAIR)]
    subprocess.run(command, check=True, timeout=300, cwd=Path(__file__).parents[2])
    edited = 0
    for place in tmp_path.iterdir():
        verdict = None
        for path in (place / "outbox").glob("annotate-*.jsonl"):
            verdict = path.read_text().replace('"preference": ""', '"preference": "answer1"')
            path.write_text(verdict)
            edited += not exported_pairs(place)
        if verdict is not None and exported_pairs(place):  # killed after its end
            with pytest.raises(AlignError, match="somebody's verdicts"):
                export_tasks(PreferenceStore(place), [PAIR], "jsonl", place / "outbox", seed=1)
        else:
            export_tasks(PreferenceStore(place), [PAIR], "jsonl", place / "outbox", seed=1)
        assert exported_pairs(place) == {"a"}
        (path,) = (place / "outbox").glob("annotate-*.jsonl")
        assert verdict in (None, path.read_text()), "somebody's work was overwritten"
    assert edited > 1
