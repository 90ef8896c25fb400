"""The preference store: batches appear whole or not at all, and never change. One that was taken
back stays where it is and counts no longer.

preferences/
  batches/0003-1f0c2a9b7d4e/   comparisons.parquet  index.parquet  quarantine.jsonl
                               report.json  manifest.json  (people.parquet)
  assignments/rlhf-v1.json     the batches that a version has taken in
  withdrawals/0001.json        what people took back since (see `withdrawals`)
  refused/…                    why a delivery was refused; never read by training
  annotation/…                 keys of exported pairs (see `annotation`)
  incoming/…                   work in progress; deleted if its process died
"""

from __future__ import annotations

import shutil
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config.vocabulary import Domain, Origin, version_order
from alignment.errors import DataError, LockedError, StoreError
from alignment.preferences.identity import opening_key
from alignment.preferences.schema import Comparison
from alignment.preferences.withdrawals import Event, read_events, withdrawn
from alignment.utils.files import (
    atomic_write_json,
    fsync_directory,
    fsync_tree,
    read_object,
    sha256_file,
)
from alignment.utils.locks import file_lock

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PATIENCE = 600.0  # seconds to wait for another intake on the same store


@dataclass(frozen=True)
class Batch:
    """One accepted batch."""

    id: str
    """12 hex digits of the delivery's digest: the same delivery has the same id everywhere."""
    sequence: int
    """Order of arrival in this store, from 1."""
    directory: Path
    manifest: dict[str, Any]
    versions: tuple[str, ...] = ()
    """Versions that took it in."""
    withdrawal: Event | None = None
    """Who took it back and why; None if it counts."""

    @property
    def name(self) -> str:
        """Name of its directory: `0003-1f0c2a9b7d4e`."""
        return self.directory.name

    @property
    def digest(self) -> str:
        """sha256 of the comparisons and of their split."""
        return str(self.manifest["digest"])

    @property
    def data_origin(self) -> Origin:
        """Whose comparisons these are; batches of before 0.2 do not say, and are `own`."""
        origin: Origin = self.manifest.get("data_origin", "own")
        return origin

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """`training` and `heldout` → domain → comparisons."""
        return dict(self.manifest["counts"])

    @property
    def comparisons(self) -> int:
        """Number of comparisons, held-out ones included."""
        return sum(sum(domains.values()) for domains in self.counts.values())

    @property
    def report(self) -> dict[str, Any]:
        """The batch report, as it was written on arrival."""
        return read_object(self.directory / "report.json")

    def to_dict(self) -> dict[str, Any]:
        """For `align batches --json`."""
        fields = ("id", "sequence", "arrived", "origin", "sources", "rows", "counts", "digest")
        return {key: self.manifest[key] for key in fields} | {
            "name": self.name,
            "data_origin": self.data_origin,
            "versions": list(self.versions),
            "withdrawn": None if self.withdrawal is None else asdict(self.withdrawal),
        }


class PreferenceStore:
    """All batches of a workspace. Reading needs no lock; writing goes through `intake.ingest`.

    Args:
        root: `<workspace>/preferences`; created by the first write.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self._verified: set[str] = set()

    # --- reading --------------------------------------------------------------------------------

    def batches(self) -> list[Batch]:
        """Every accepted batch in order of arrival."""
        versions_of = self._versions_by_batch()
        taken_back = {event.target: event for event in self.withdrawn_batches()}
        batches = []
        for path in (self.root / "batches").glob("*/manifest.json"):
            values = read_object(path)
            id = values["id"]
            versions = tuple(versions_of[id])
            batches.append(
                Batch(id, values["sequence"], path.parent, values, versions, taken_back.get(id))
            )
        return sorted(batches, key=lambda batch: batch.sequence)

    def batch(self, name: str) -> Batch:
        """The batch with this id, directory name or sequence number.

        Raises:
            DataError: there is none.
        """
        batches = self.batches()
        for batch in batches:
            if name in (batch.id, batch.name, str(batch.sequence)):
                return batch
        raise DataError(
            f"no batch {name!r} in the store",
            where=str(self.root),
            remedy=f"there are: {', '.join(batch.name for batch in batches) or 'none yet'}",
        )

    def training(
        self,
        ids: Sequence[str],
        domain: Domain | None = None,
        *,
        beside: Sequence[str] | None = None,
        excluded: Mapping[str, Collection[int]] | None = None,
    ) -> list[Comparison]:
        """Training comparisons of the batches `ids`, in order.

        Args:
            excluded: batch → rows that are left out.
            beside: further batches used for measuring: rows with one of their held-out prompts are
                left out. (Only batches made under different settings can disagree.)
        """
        import numpy as np

        index = self.index(list(dict.fromkeys([*ids, *(beside or ())])))
        secret = np.unique(index["opening"][index["heldout"]])
        return self._load(ids, domain, heldout=False, without=secret, excluded=excluded)

    def heldout(
        self,
        ids: Sequence[str],
        domain: Domain | None = None,
        *,
        excluded: Mapping[str, Collection[int]] | None = None,
    ) -> list[Comparison]:
        """Held-out comparisons of the batches `ids`; no batch trains on any of their prompts."""
        return self._load(ids, domain, heldout=True, excluded=excluded)

    def withdrawn_batches(self) -> list[Event]:
        """What took back each batch that is withdrawn now."""
        return list(withdrawn(read_events(self.root), "batch").values())

    def known(self) -> list[Batch]:
        """All deliveries by people and all batches in use, which a new delivery is compared with;
        also what was withdrawn. A stage's batch that was replaced is left out."""
        return [
            batch
            for batch in self.batches()
            if batch.versions or batch.manifest["origin"] == "delivery"
        ]

    def leaked(self, ids: Sequence[str]) -> int:
        """Prompts that are held out in one of these batches and trained on in another."""
        import numpy as np

        index = self.index(ids)
        mask = index["heldout"]
        return int(np.intersect1d(index["opening"][mask], index["opening"][~mask]).size)

    def index(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Concatenated index columns (`id`, `opening`, `safety`, `heldout`) of several batches.

        Raises:
            StoreError: an index cannot be read.
        """
        import numpy as np

        from alignment.preferences.arrow_schema import INDEX

        by_id = {batch.id: batch for batch in self.batches()}
        tables = [read_index(by_id[id]) for id in ids]
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
        excluded: Mapping[str, Collection[int]] | None = None,
    ) -> list[Comparison]:
        """One side of several batches, without the rows whose opening is in `without` and those
        that are `excluded`.

        Raises:
            DataError: no such batch.
            StoreError: a batch's files differ from what was committed.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        from alignment.preferences.arrow_schema import comparisons

        rows: list[Comparison] = []
        for batch in map(self.batch, ids):
            self._verify(batch)
            index = read_index(batch)
            mask = index.column("heldout").to_numpy() == heldout
            if domain is not None:
                mask &= index.column("safety").to_numpy() == (domain == "safety")
            if without is not None:
                mask &= ~np.isin(index.column("opening").to_numpy(), without)
            mask = except_rows(mask, (excluded or {}).get(batch.id, ()))
            table = pq.read_table(batch.directory / "comparisons.parquet")
            rows += comparisons(table.filter(pa.array(mask)))
        return rows

    def _verify(self, batch: Batch) -> None:
        if batch.id in self._verified:
            return
        for name, expected in batch.manifest["files"].items():
            path = batch.directory / name
            if not path.is_file() or sha256_file(path) != expected:
                raise StoreError(
                    f"{name} of batch {batch.name} differs from what was ingested",
                    where=str(path),
                    remedy="restore it from a copy, or remove the batch and ingest it again",
                )
        self._verified.add(batch.id)

    # --- assignments ----------------------------------------------------------------------------

    def assignment(self, version: str) -> list[str] | None:
        """Ids of the batches that `version` took in and that were not withdrawn since.

        None if it has taken in none yet. None too if all were withdrawn before a later version
        took any in: then it waits for others. If a later one has, it goes on without.
        """
        ids = self._assigned().get(version)
        if ids is None:
            return None
        taken_back = {event.target for event in self.withdrawn_batches()}
        left = [id for id in ids if id not in taken_back]
        later = [name for name in self._assigned() if version_order(name) > version_order(version)]
        return left if left or later else None

    def assign(self, version: str, ids: Sequence[str]) -> list[str]:
        """Assign batches to `version`; returns those that nobody withdraws at this moment.

        Withdrawn ones that it had taken in stay in its record: if they are restored, they are its
        own again.
        """
        with self.writing():
            taken_back = {event.target for event in self.withdrawn_batches()}
            before = self._assigned().get(version, [])
            kept = [id for id in before if id in taken_back or id in ids]
            path = self.root / "assignments" / f"{version}.json"
            together = list(dict.fromkeys([*kept, *ids]))
            atomic_write_json(path, {"version": version, "batches": together})
        return [id for id in ids if id not in taken_back]

    def release(self, version: str) -> None:
        """Release the batches of `version`: the next version that asks gets them."""
        (self.root / "assignments" / f"{version}.json").unlink(missing_ok=True)

    def unassigned(self) -> list[Batch]:
        """Deliveries that no version has taken in and nobody took back, in order of arrival."""
        return [
            batch
            for batch in self.batches()
            if batch.manifest["origin"] == "delivery"
            and not batch.versions
            and batch.withdrawal is None
        ]

    def _assigned(self) -> dict[str, list[str]]:
        """Version → ids of all batches that it ever took in and did not release."""
        paths = sorted((self.root / "assignments").glob("*.json"))
        return {values["version"]: values["batches"] for values in map(read_object, paths)}

    def _versions_by_batch(self) -> dict[str, list[str]]:
        versions_of: dict[str, list[str]] = defaultdict(list)
        for version, ids in self._assigned().items():
            for id in ids:
                versions_of[id].append(version)
        return versions_of

    # --- writing --------------------------------------------------------------------------------

    @contextmanager
    def writing(self, say: Callable[[str], None] = lambda _message: None) -> Iterator[Path]:
        """Lock the store; yields an empty working directory that is removed afterwards.

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
            shutil.rmtree(incoming, ignore_errors=True)  # left by a process that died
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
            remedy="wait for it, or stop it; it leaves no half-written batch",
        )

    def commit(self, work: Path, manifest: dict[str, Any]) -> Batch:
        """Turn a finished directory into a batch by one rename. Call it inside `writing`."""
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

    def refusal_dir(self, identity: str) -> Path:
        """Where the report and the quarantine of a refused delivery are kept."""
        return self.root / "refused" / identity[:12]

    def keep_refusal(self, work: Path, identity: str) -> None:
        """Keep the report and quarantine of a refused delivery. Call it inside `writing`."""
        target = self.refusal_dir(identity)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        for name in ("comparisons.parquet", "index.parquet", "people.parquet"):
            (work / name).unlink(missing_ok=True)
        work.rename(target)


def except_rows(mask: np.ndarray, rows: Collection[int]) -> np.ndarray:
    """The mask (n,) without some rows."""
    left = mask.copy()
    left[list(rows)] = False
    return left


def read_index(batch: Batch) -> pa.Table:
    """The columns of a batch's index.parquet; openings of a batch of before 0.2, which told case
    and punctuation apart, are computed again.

    Raises:
        StoreError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from alignment.preferences.arrow_schema import INDEX

    path = batch.directory / "index.parquet"
    try:
        index = pq.read_table(path)
        if (index.schema.metadata or {}).get(b"openings") == INDEX.metadata[b"openings"]:
            return index
        column = pa.array(_openings(batch.directory), pa.uint64())
        return index.set_column(index.schema.get_field_index("opening"), "opening", column)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"the index of batch {batch.name} cannot be read: {error}",
            where=str(path),
            remedy="restore it from a copy, or remove the batch and ingest it again",
        ) from error


@cache
def _openings(directory: Path) -> array[int]:
    """The openings of a batch's comparisons, from their texts. A batch never changes."""
    import pyarrow.parquet as pq

    from alignment.preferences.arrow_schema import conversations

    table = pq.read_table(directory / "comparisons.parquet", columns=["conversation"])
    return array("Q", map(opening_key, conversations(table)))
