"""Run a plan: independent tasks on dask or in this process, resumed from the ledger, sealed at the end.

dask keeps nothing and can wait for ever (science/reliability.md 1.4), so what is done is what the ledger says, and
the client has deadlines of its own.
"""

import base64
import ipaddress
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol
from urllib.parse import urlsplit

import dask.config
import numpy as np
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin

from services.core import layout
from services.core.catalog import read_marks
from services.core.errors import CenoteError, Damaged, InputRefused, ObjectExists, Refused, RenderFailed
from services.core.segment import pack_indexes
from services.core.spread import Spread
from services.core.store import Store
from services.pipeline.code import Code, this_code
from services.pipeline.ledger import Record, merged_spreads
from services.pipeline.plan import STAGES, Plan, Task
from services.pipeline.recipe import Each, Here, Recipe
from services.pipeline.tasks import Workplace, run_task, write_metadata

TASK_SECONDS = 1800.0
"""No task finishing for this long ends a run; work on a list ends if besides no worker was busy with it."""

BUSY_PERCENT = 5.0
"""Share of a core that a process takes when it works, and not when it waits for what never comes (our choice)."""

_ON = "the same command goes on from the ledger"
_ANEW = "nothing of this step is kept, the same command begins it again"

NO_WORKER_SECONDS = 300.0
"""No worker being there for this long ends a run."""

RETRIES = 3
"""How often a task is tried again on a fault of the store or the loss of its worker."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    # glibc's own 128 kB hands every large array back and asks for it anew: a third of a task's CPU in the kernel
    "MALLOC_TRIM_THRESHOLD_": 256 << 20,
    "MALLOC_MMAP_THRESHOLD_": 32 << 20,
}
"""Of worker processes."""

DASK = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.no-workers-timeout": "300 s",
    "distributed.scheduler.worker-ttl": "60 s",
    "distributed.comm.retry.count": 3,
    "distributed.comm.timeouts.connect": "30 s",
    "distributed.comm.timeouts.tcp": "30 s",
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": 0.7,
    "distributed.worker.memory.pause": 0.8,
    "distributed.worker.memory.terminate": 0.95,
    # what looks after a worker shares its core: at dask's own 10, 100 and 20 ms 3.7 % of a task, so 0.6 % (one run, a
    # quiet machine; on a loaded one 13 %). The system monitor tells which workers are busy and keeps its 500 ms.
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500 ms",
    "distributed.admin.tick.interval": "500 ms",
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
}
"""Explicit dask settings; one thread per worker process, for more measured slower (science/speed.md 6)."""


class Progress(Protocol):
    """Who is told how far a run is."""

    def start(self, stage: str, total: int, done: int) -> None:
        """A stage begins, ``done`` of its tasks being recorded already."""
        ...

    def advance(self, stage: str, task: str) -> None:
        """A task is finished."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A sealed segment."""

    segment: str
    sha256: str
    """Digest of its objects.json."""

    executed: int
    """Tasks that were run now; the rest had been recorded."""

    recorded: int
    spreads: dict[str, Spread]
    """Quantity -> how the values of its maps are spread."""


@contextmanager
def cluster(workers: int, scheduler: str | None = None) -> Iterator[Client | None]:
    """A dask client: of a scheduler's address, of a local cluster, or None (``workers=0``) for this process alone.

    Raises:
        Refused: if the scheduler does not answer.
    """
    # dask tells every move of its scheduler; here the progress of the tasks is told
    logging.getLogger("distributed").setLevel(logging.WARNING)
    logging.getLogger("distributed.nanny").addFilter(_is_worth_telling)
    with dask.config.set(DASK):
        if scheduler is not None:
            _refuse_plain(scheduler)
            try:
                client = Client(scheduler, timeout=30)
            except (OSError, TimeoutError, ValueError) as error:
                raise Refused(f"no dask scheduler answers at {scheduler}: {error}") from None
            with client:
                yield client
        elif workers == 0:
            yield None
        else:
            with (
                _environment_given_back(),
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=50,
                ) as local,
                Client(local) as client,
            ):
                yield client


@contextmanager
def _environment_given_back() -> Iterator[None]:
    """Undo what dask does to this process: what its workers start with it leaves to whatever is started later."""
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, "PYTHONHASHSEED")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_worth_telling(record: logging.LogRecord) -> bool:
    # at the end of a run whose work is recorded: a worker that takes its time to end is ended, and nothing is lost
    return "still alive after" not in record.getMessage()


def _refuse_plain(scheduler: str) -> None:
    """Refuse an unencrypted connection that leaves this machine: whoever can speak to dask can run any code."""
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if parts.scheme not in {"tls", "wss"} and not here:
        raise Refused(
            f"--scheduler {scheduler} is not encrypted and {host or 'its host'} is not this machine: dask runs what it "
            "is sent, so use tls:// (and dask's distributed.comm.tls settings)"
        )


def run(
    store: Store,
    plan: Plan,
    recipe: Recipe | None,
    client: Client | None,
    progress: Progress,
    *,
    task_seconds: float = TASK_SECONDS,
) -> Outcome:
    """Do what a plan lacks, and seal the segment.

    Raises:
        RenderFailed: if tasks failed; the others are recorded and are not done again.
        InputRefused: if an input is broken.
        Refused: if gc is about to delete the segment.
        StoreError: if the store does not do what it must.
    """
    store.probe()
    if plan.segment in read_marks(store, plan.product.id):
        raise Refused(
            f"segment {plan.segment} of {plan.product.id} is marked for deletion by gc; render with --fresh, or wait "
            "until gc is done"
        )
    place = Workplace(store, plan, recipe)
    records = place.ledger.read()
    recorded = len(records)
    if recorded:
        progress.note(f"resuming: {recorded} tasks of segment {plan.segment} are recorded")
    if "metadata" not in records:
        write_metadata(place)
    executed = 0
    with _executor(client, place, task_seconds) as execute:
        _prepare(place, records, client, progress)
        for stages in STAGES:
            todo: list[Task] = []
            for stage in stages:
                tasks = list(plan.tasks(stage))
                left = [task for task in tasks if task.id not in records]
                if tasks:
                    progress.start(stage, len(tasks), len(tasks) - len(left))
                todo += left
            failures: dict[str, str] = {}
            for task, error in execute(todo):
                if error is None:
                    executed += 1
                    progress.advance(task.stage, task.id)
                elif isinstance(error, (InputRefused, Damaged)):
                    raise error
                else:
                    failures[task.id] = str(error) if isinstance(error, CenoteError) else repr(error)
            if failures:
                some = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:3])
                raise RenderFailed(
                    f"{len(failures)} of {len(todo)} tasks failed ({some}); what the others wrote is recorded, "
                    "and the same command goes on from there"
                )
    check = getattr(recipe, "check_inputs", None)
    if executed and check is not None:
        check()
    return seal(place, executed, recorded)


def _prepare(place: Workplace, records: dict[str, Record], client: Client | None, progress: Progress) -> None:
    prepare = getattr(place.recipe, "prepare", None)
    if prepare is not None and any(task.id not in records for task in place.plan.tasks("maps")):
        prepare(each(client), progress.note)


def each(client: Client | None, *, idle_seconds: float = TASK_SECONDS) -> Each:
    """Work on every item of a list: on a client's workers, or one after another in this process.

    An item may take hours (a region that is learned), so there is no deadline for one. What the work raises is raised
    here, and RenderFailed if for ``idle_seconds`` no item was done and no worker that has one was busy.
    """
    return Here() if client is None else _There(client, idle_seconds)


class _There:
    def __init__(self, client: Client, idle_seconds: float) -> None:
        self._client = client
        self._idle_seconds = idle_seconds

    @property
    def client(self) -> Client:
        return self._client

    def __call__[T, R](self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        futures = [self._client.submit(work, item, pure=False) for item in items]
        keys = {future.key for future in futures}
        finished: SimpleQueue[Future[Any]] = SimpleQueue()
        for future in futures:
            future.add_done_callback(finished.put)
        try:
            for _ in futures:
                done = _next(self._client, finished, self._idle_seconds, _ANEW, lambda: _busy(self._client, keys))
                result: R = done.result()
                yield result
        finally:
            left = [future for future in futures if not future.done()]
            if left and self._client.status == "running":
                self._client.cancel(left)


def _busy(client: Client, keys: set[Any]) -> bool:
    """Whether a worker that has one of these tasks takes CPU time."""
    workers = client.scheduler_info()["workers"]
    having = [address for address, tasks in client.processing().items() if not keys.isdisjoint(tasks)]
    return any(workers[one]["metrics"].get("cpu", 0.0) >= BUSY_PERCENT for one in having if one in workers)


def seal(place: Workplace, executed: int = 0, recorded: int = 0) -> Outcome:
    """Write objects.json from the ledger: every object with size and sha256, array metadata, shard indexes.

    Raises:
        RenderFailed: if a task is not recorded, or periods differ in a mask that is declared fixed.
    """
    plan = place.plan
    records = place.ledger.read()
    missing = [task.id for task in plan.all_tasks() if task.id not in records]
    if missing or "metadata" not in records:
        raise RenderFailed(f"{len(missing)} tasks are not recorded, {missing[:3]} among them")
    document = _seal_document(place, records)
    data = layout.canonical(document)
    key = layout.objects_key(plan.product.id, plan.segment)
    try:
        place.store.create(key, data)
    except ObjectExists:
        if place.store.get(key) != data:
            raise Damaged(key, "it is not what the ledger says; render --fresh starts another segment") from None
    return Outcome(
        segment=plan.segment,
        sha256=layout.digest(data),
        executed=executed,
        recorded=recorded,
        spreads={name: Spread.from_json(entry) for name, entry in document["spreads"].items()},
    )


def next_attempt(store: Store, plan: Plan) -> Plan:
    """The plan in a segment that nothing was written to yet."""
    prefix = f"{plan.digest[: layout.ID_LENGTH]}-"
    taken = [name for name in store.children(layout.segments_prefix(plan.product.id)) if name.startswith(prefix)]
    attempts = [int(name.removeprefix(prefix)) for name in taken]
    return plan.with_attempt(max(attempts, default=0) + 1)


def _seal_document(place: Workplace, records: dict[str, Record]) -> dict[str, Any]:
    plan = place.plan
    objects: dict[str, dict[str, Any]] = {}
    indexes: dict[str, np.ndarray[Any, Any]] = {}
    masks = _published_masks(place)
    for name in sorted(records):
        record = records[name]
        for path, (size, sha) in record.objects.items():
            objects[path] = {"size": size, "sha256": sha}
        for path, shards in record.indexes.items():
            described = place.arrays[path].layout
            shape = (int(np.prod(described.shard_counts)), int(np.prod(described.inner_counts)), 2)
            table = indexes.setdefault(path, np.zeros(shape, dtype="<u4"))
            for number, text in shards.items():
                single = np.frombuffer(_unpacked(text), dtype="<u4").reshape(shape[1:])
                table[number] = single
        for region, mask in record.masks.items():
            if masks.setdefault(region, mask) != mask:
                raise InputRefused(
                    f"{plan.product.id}/{region.partition('/')[0]} declares a mask that holds for all periods, and "
                    "periods differ in it"
                )
    return {
        "format": layout.SEGMENT_FORMAT,
        "objects": objects,
        "arrays": {path: array.metadata for path, array in place.arrays.items()},
        "shard_indexes": {path: pack_indexes(table) for path, table in indexes.items()},
        "maps": plan.maps.to_json(),
        "series": None if plan.series is None else plan.series.to_json(),
        "cogs": [{"quantity": cog.quantity, "id": cog.id, "periods": list(cog.periods)} for cog in plan.cogs],
        "masks": masks,
        "spreads": {
            name: spread.to_json()
            for name, spread in merged_spreads([records[task] for task in sorted(records)]).items()
        },
    }


def _published_masks(place: Workplace) -> dict[str, str]:
    """Masks of the periods that the parent goes on answering for; an empty one where there are none."""
    plan = place.plan
    if not plan.product.fixed_mask or not plan.keeps:
        return {}
    touched = set(plan.maps.starts)
    base = place.base
    kept = [run.segment for run in base.version.maps if set(run.periods.starts) - touched]
    return dict(base.segment(kept[0]).masks) if kept else {}


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


type Execute = Callable[[list[Task]], Iterator[tuple[Task, BaseException | None]]]


@contextmanager
def _executor(client: Client | None, place: Workplace, task_seconds: float) -> Iterator[Execute]:
    if client is None:
        yield lambda tasks: _inline(place, tasks)
        return
    name = f"cenote-{place.plan.segment}"
    _check_workers(client, place.plan.code)
    client.register_plugin(_Place(place, place.plan.code), name=name)
    try:
        yield lambda tasks: _distributed(client, place, tasks, task_seconds)
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(name)


def _inline(place: Workplace, tasks: list[Task]) -> Iterator[tuple[Task, BaseException | None]]:
    for task in tasks:
        error: BaseException | None = None
        try:
            run_task(place, task)
        except CenoteError as failed:
            error = failed
        yield task, error


def _distributed(
    client: Client, place: Workplace, tasks: list[Task], task_seconds: float
) -> Iterator[tuple[Task, BaseException | None]]:
    segment = place.plan.segment
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    left: dict[str, Task] = {}
    pending: list[Future[Any]] = []
    for task in tasks:
        # not pure: a key that dask remembers as done must not stand in for work that the ledger does not have
        future = client.submit(_on_worker, segment, task, key=f"{segment}-{task.id}", pure=False, retries=RETRIES)
        left[str(future.key)] = task
        pending.append(future)
    for future in pending:
        future.add_done_callback(finished.put)
    try:
        while left:
            future = _next(client, finished, task_seconds)
            task = left.pop(str(future.key))
            if future.status == "finished":
                yield task, future.result()
            elif future.status == "error":
                yield task, future.exception()
            else:
                yield task, RenderFailed(f"the scheduler dropped task {task.id} ({future.status})")
    finally:
        if left and client.status == "running":
            client.cancel([future for future in pending if str(future.key) in left], force=True)


def _next(
    client: Client,
    finished: "SimpleQueue[Future[Any]]",
    seconds: float,
    again: str = _ON,
    busy: Callable[[], bool] = lambda: False,
) -> Future[Any]:
    """The next finished task, within the client's own deadlines.

    Args:
        client: whose tasks they are.
        finished: where they appear.
        seconds: without a finished task and without anyone ``busy`` that end the run.
        again: what the same command does after it ended, for the sentence.
        busy: whether a worker works on one, so that the time begins anew.

    Raises:
        RenderFailed: if none is finished in time.
    """
    started = time.monotonic()
    workerless: float | None = None
    while True:
        try:
            return finished.get(timeout=min(5.0, seconds))
        except Empty:
            now = time.monotonic()
        if client.status != "running":
            raise RenderFailed(f"the connection to the dask scheduler is lost; {again}")
        if busy():
            started = now
        if now - started > seconds:
            raise RenderFailed(f"no task finished for {seconds:.0f} s; {again}")
        workerless = None if client.nthreads() else (workerless or now)
        if workerless is not None and now - workerless > NO_WORKER_SECONDS:
            raise RenderFailed(f"there has been no dask worker for {NO_WORKER_SECONDS:.0f} s; {again}")


_PLACES: dict[str, Workplace] = {}
"""Segment id -> what its tasks need, in a worker process; put there by the plugin, also on workers that join later."""


class _Place(WorkerPlugin):
    """Hands the run's workplace to a worker, and keeps workers of other code out."""

    def __init__(self, place: Workplace, code: Code) -> None:
        self._place = place
        self._code = code

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - dask's signature
        here = this_code(self._code.packages)
        if here != self._code:
            raise RenderFailed(_differs(here, self._code))
        _PLACES[self._place.plan.segment] = self._place

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - dask's signature
        _PLACES.pop(self._place.plan.segment, None)


def _on_worker(segment: str, task: Task) -> CenoteError | None:
    """Run a task; what cannot be mended by trying again is returned, so that dask does not try."""
    place = _PLACES.get(segment)
    if place is None:
        raise RenderFailed(f"this worker was not told about segment {segment}")
    try:
        run_task(place, task)
    except (Refused, Damaged) as error:
        return error
    return None


def _check_workers(client: Client, planned: Code) -> None:
    """Refuse workers that run other code than was planned with."""
    for address, code in client.run(this_code, planned.packages).items():
        if code != planned:
            raise Refused(f"worker {address}: {_differs(code, planned)}")


def _differs(there: Code, here: Code) -> str:
    return (
        f"it runs cenote {there.version} (source {there.source[:12]}) and the client {here.version} "
        f"(source {here.source[:12]}): install the same code on both"
    )
