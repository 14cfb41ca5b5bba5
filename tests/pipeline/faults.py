"""A store that is watched: it counts, crashes at a chosen operation, and loses answers."""

import threading
import uuid
from collections.abc import Callable
from typing import override

from services.core.settings import StoreSettings
from services.core.store import Observed, Operation, Store

WRITES = frozenset({"create", "swap", "overwrite", "delete"})


class Crash(BaseException):
    """The process is gone: nothing catches this, and its store does no more."""


class Watched(Observed):
    """Every operation is noted; ``meet`` may let it happen, or not, and raise."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.operations: list[Operation] = []
        self.meet: Callable[[int, Operation, Callable[[], None]], None] | None = None
        self._lock = threading.Lock()

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        with self._lock:
            number = len(self.operations)
            self.operations.append(operation)
        answers: list[Answer] = []
        if self.meet is not None:
            self.meet(number, operation, lambda: answers.append(call()))
        return answers[0] if answers else call()

    def crash_at(self, wanted: int, *, applied: bool) -> None:
        """Crash at an operation by its number, before it or after it took effect, and stay dead."""

        def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
            if number < wanted:
                return
            if number == wanted and applied:
                happen()
            raise Crash

        self.meet = meet

    def at_swap_of(self, key: str, then: Callable[[Callable[[], None]], None]) -> None:
        """Do ``then(happen)`` where the object under a key is swapped."""

        def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
            if operation.name == "swap" and operation.keys == (key,):
                then(happen)

        self.meet = meet

    @property
    def written(self) -> dict[str, int]:
        """Key -> bytes of every write that was tried."""
        return {one.keys[0]: one.sent for one in self.operations if one.name in WRITES and one.keys}


def clone(store: Store) -> Store:
    """A store in memory with the same objects."""
    other = Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())
    for listed in sorted(store.list(""), key=lambda one: one.last_modified):  # gc goes by which version is newer
        other.create(listed.key, store.get(listed.key))
    return other
