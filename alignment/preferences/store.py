"""The preference store: batches that are in whole or not at all, and never change.

preferences/
  batches/0003-1f0c2a9b7d4e/   comparisons.parquet  index.parquet  quarantine.jsonl
                               report.json  manifest.json
  assignments/rlhf-v1.json     the batches a version took in
  refused/…                    why a delivery was refused; never read by training
  annotation/…                 keys of exported pairs (see `annotation`)
  incoming/…                   work in progress; whatever a dead process left is rubbish
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config.vocabulary import Domain
from alignment.errors import DataError, LockedError, StoreError
from alignment.preferences.batch import Batch
from alignment.preferences.schema import Comparison
from alignment.utils.files import (
    atomic_write_json,
    fsync_directory,
    fsync_tree,
    read_json,
    sha256_file,
)
from alignment.utils.locks import file_lock

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PATIENCE = 600.0  # seconds to wait for another intake on the same store


class PreferenceStore:
    """All batches of a workspace. Reading needs no lock; writing goes through `intake.ingest`.

    Args:
        root: `<workspace>/preferences`; made when something is written.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self._verified: set[str] = set()

    # --- reading --------------------------------------------------------------------------------

    def batches(self) -> list[Batch]:
        """Every accepted batch in order of arrival."""
        directory = self.root / "batches"
        if not directory.is_dir():
            return []
        taken = self._taken()
        found = []
        for path in directory.iterdir():
            manifest = path / "manifest.json"
            if manifest.is_file():
                values = read_json(manifest)
                versions = tuple(taken.get(values["id"], ()))
                found.append(Batch(values["id"], values["sequence"], path, values, versions))
        return sorted(found, key=lambda batch: batch.sequence)

    def batch(self, name: str) -> Batch:
        """The batch with this id, directory name or sequence number.

        Raises:
            DataError: there is none.
        """
        found = self.batches()
        for batch in found:
            if name in (batch.id, batch.name, str(batch.sequence)):
                return batch
        raise DataError(
            f"no batch {name!r} in the store",
            where=str(self.root),
            remedy=f"there are: {', '.join(batch.name for batch in found) or 'none yet'}",
        )

    def training(
        self,
        ids: Sequence[str],
        domain: Domain | None = None,
        *,
        beside: Sequence[str] | None = None,
    ) -> list[Comparison]:
        """Comparisons to learn from, batch by batch in the order of `ids`, rows in file order.

        Args:
            beside: batches to measure on, if others than `ids`: none of their held-out prompts is
                among the rows. (Only batches made under different settings can disagree.)
        """
        import numpy as np

        index = self.index(list(dict.fromkeys([*ids, *(beside or ())])))
        secret = np.unique(index["opening"][index["heldout"]])
        return self._load(ids, domain, heldout=False, without=secret)

    def heldout(self, ids: Sequence[str], domain: Domain | None = None) -> list[Comparison]:
        """Comparisons to measure on; no prompt of theirs is in `training` of any batch."""
        return self._load(ids, domain, heldout=True)

    def standing(self) -> list[str]:
        """Ids of the batches that a new delivery is compared with: everything people delivered,
        and what versions use now. A stage's batch that another one has replaced is left out."""
        return [
            batch.id
            for batch in self.batches()
            if batch.versions or batch.manifest["origin"] == "delivery"
        ]

    def leaked(self, ids: Sequence[str]) -> int:
        """Prompts that are held out in one of these batches and trained on in another."""
        import numpy as np

        index = self.index(ids)
        mask = index["heldout"]
        return int(np.intersect1d(index["opening"][mask], index["opening"][~mask]).size)

    def table(
        self,
        id: str,
        domain: Domain | None = None,
        *,
        heldout: bool,
        without: np.ndarray | None = None,
    ) -> pa.Table:
        """One side of one batch as an arrow table.

        Args:
            without: openings whose rows are left out.

        Raises:
            DataError: no such batch.
            StoreError: its files are not what was committed.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        batch = self.batch(id)
        self._verify(batch)
        index = pq.read_table(batch.directory / "index.parquet")
        mask = index.column("heldout").to_numpy() == heldout
        if domain is not None:
            mask &= index.column("safety").to_numpy() == (domain == "safety")
        if without is not None:
            mask &= ~np.isin(index.column("opening").to_numpy(), without)
        rows = pq.read_table(batch.directory / "comparisons.parquet")
        return rows.filter(pa.array(mask))

    def index(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Index columns (`id`, `opening`, `safety`, `heldout`) of several batches in a row.

        Raises:
            StoreError: an index cannot be read.
        """
        import numpy as np

        from alignment.preferences.columns import INDEX

        known = {batch.id: batch for batch in self.batches()}
        tables = [_read_index(known[id]) for id in ids]
        return {
            name: np.concatenate(
                [table.column(name).to_numpy() for table in tables]
                or [np.zeros(0, bool if name in ("safety", "heldout") else np.uint64)]
            )
            for name in INDEX.names
        }

    def _load(
        self,
        ids: Sequence[str],
        domain: Domain | None,
        *,
        heldout: bool,
        without: np.ndarray | None = None,
    ) -> list[Comparison]:
        from alignment.preferences.columns import comparisons

        found: list[Comparison] = []
        for id in ids:
            found += comparisons(self.table(id, domain, heldout=heldout, without=without))
        return found

    def _verify(self, batch: Batch) -> None:
        if batch.id in self._verified:
            return
        for name, expected in batch.manifest["files"].items():
            path = batch.directory / name
            if not path.is_file() or sha256_file(path) != expected:
                raise StoreError(
                    f"{name} of batch {batch.name} is not what was taken in",
                    where=str(path),
                    remedy="restore it from a copy, or remove the batch and ingest it again",
                )
        self._verified.add(batch.id)

    # --- who took what --------------------------------------------------------------------------

    def assignment(self, version: str) -> list[str] | None:
        """Ids of the batches that `version` took in, or None if it has taken none in yet."""
        path = self.root / "assignments" / f"{version}.json"
        return list(read_json(path)["batches"]) if path.is_file() else None

    def assign(self, version: str, ids: Sequence[str]) -> None:
        """Note that `version` takes these batches in."""
        path = self.root / "assignments" / f"{version}.json"
        atomic_write_json(path, {"version": version, "batches": list(ids)})

    def release(self, version: str) -> None:
        """Forget what `version` took in: it waits again for whoever takes batches in next."""
        (self.root / "assignments" / f"{version}.json").unlink(missing_ok=True)

    def unassigned(self) -> list[Batch]:
        """Deliveries that no version has taken in, in order of arrival."""
        return [
            batch
            for batch in self.batches()
            if batch.manifest["origin"] == "delivery" and not batch.versions
        ]

    def _taken(self) -> dict[str, list[str]]:
        taken: dict[str, list[str]] = {}
        directory = self.root / "assignments"
        for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
            values = read_json(path)
            for id in values["batches"]:
                taken.setdefault(id, []).append(values["version"])
        return taken

    # --- writing --------------------------------------------------------------------------------

    @contextmanager
    def writing(self, say: Callable[[str], None] = lambda _message: None) -> Iterator[Path]:
        """Hold the store; yields an empty directory to work in, gone afterwards.

        Raises:
            LockedError: another process has held it for ten minutes.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(
            self.root / "lock",
            patience=PATIENCE,
            busy=self._busy,
            waits=lambda: say("waiting for another intake on this store"),
        ):
            incoming = self.root / "incoming"
            shutil.rmtree(incoming, ignore_errors=True)  # of a process that died: rubbish
            work = incoming / "batch"
            work.mkdir(parents=True)
            try:
                yield work
            finally:
                shutil.rmtree(incoming, ignore_errors=True)

    def _busy(self) -> LockedError:
        return LockedError(
            "another intake has been writing to the preference store for ten minutes",
            where=str(self.root),
            remedy="wait for it, or stop it; half a batch never stays behind",
        )

    def commit(self, work: Path, manifest: dict[str, Any]) -> Batch:
        """Make a finished directory a batch, by one rename. Only inside `writing`."""
        sequence = max((batch.sequence for batch in self.batches()), default=0) + 1
        manifest = {
            "id": manifest["identity"][:12],
            "sequence": sequence,
            "arrived": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **manifest,
        }
        atomic_write_json(work / "manifest.json", manifest)
        fsync_tree(work)
        target = self.root / "batches" / f"{sequence:04d}-{manifest['id']}"
        target.parent.mkdir(exist_ok=True)
        work.rename(target)
        fsync_directory(target.parent)
        return Batch(manifest["id"], sequence, target, manifest)

    def keep_refusal(self, work: Path, identity: str) -> Path:
        """Keep why a delivery was refused, where a person can read it. Only inside `writing`."""
        target = self.root / "refused" / identity[:12]
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        for name in ("comparisons.parquet", "index.parquet"):
            (work / name).unlink(missing_ok=True)
        work.rename(target)
        return target


def _read_index(batch: Batch) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = batch.directory / "index.parquet"
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"the index of batch {batch.name} cannot be read: {error}",
            where=str(path),
            remedy="restore it from a copy, or remove the batch and ingest it again",
        ) from error
