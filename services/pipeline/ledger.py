"""What is finished: one small create-only object per task, the only truth that survives any process."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from services.core import layout
from services.core.errors import Damaged, ObjectExists
from services.core.spread import Spread
from services.core.store import Store


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a task wrote."""

    task: str
    """Task id."""

    objects: dict[str, tuple[int, str]]
    """Path below the segment -> size and sha256."""

    indexes: dict[str, dict[int, str]] = field(default_factory=dict)
    """Maps array path -> shard number -> its packed index."""

    spreads: dict[str, Spread] = field(default_factory=dict)
    """Quantity -> how its decoded values are spread."""

    masks: dict[str, str] = field(default_factory=dict)
    """Quantity and region -> digest of which cells are valid, where the product declares a fixed mask."""

    def to_bytes(self) -> bytes:
        """The object."""
        return layout.canonical(
            {
                "task": self.task,
                "objects": {path: list(entry) for path, entry in self.objects.items()},
                "indexes": {
                    path: {str(n): text for n, text in shards.items()} for path, shards in self.indexes.items()
                },
                "spreads": {name: spread.to_json() for name, spread in self.spreads.items()},
                "masks": self.masks,
            }
        )

    @classmethod
    def from_bytes(cls, key: str, data: bytes) -> "Record":
        """Read the object.

        Raises:
            Damaged: if it is not a record.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            return cls(
                task=document["task"],
                objects={path: (int(size), str(sha)) for path, (size, sha) in document["objects"].items()},
                indexes={path: {int(n): text for n, text in s.items()} for path, s in document["indexes"].items()},
                spreads={name: Spread.from_json(entry) for name, entry in document["spreads"].items()},
                masks=document["masks"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(key, f"it is not a ledger record ({error})") from None


class Ledger:
    """The records of one segment."""

    def __init__(self, store: Store, product: str, segment: str) -> None:
        self.store = store
        self.prefix = layout.segment_prefix(product, segment)

    def write(self, record: Record) -> None:
        """Record a finished task; a record that is already there stays, for the first writer of its objects won."""
        try:
            self.store.create(f"{self.prefix}{layout.ledger_path(record.task)}", record.to_bytes())
        except ObjectExists:
            return

    def read(self) -> dict[str, Record]:
        """Every record, by task id."""
        keys = [key for key, _, _ in self.store.list(f"{self.prefix}ledger/")]
        with ThreadPoolExecutor(max_workers=16) as pool:
            bodies = pool.map(self.store.get, keys)
            records = (Record.from_bytes(key, body) for key, body in zip(keys, bodies, strict=True))
            return {record.task: record for record in records}


def merged_spreads(records: Sequence[Record]) -> dict[str, Spread]:
    """Quantity -> spread over several records."""
    names = sorted({name for record in records for name in record.spreads})
    return {
        name: Spread.merged([record.spreads[name] for record in records if name in record.spreads]) for name in names
    }
