"""What the pipeline is given: a recipe that knows its inputs and computes any region of any periods."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from services.core.grid import Window
from services.core.product import Product
from services.core.time_axis import TimeAxis


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file that values come from."""

    name: str
    """Its name as given by the user, without credentials."""

    size: int
    """Bytes."""

    sha256: str
    """Digest of its content, hex."""


class Each(Protocol):
    """Does the same work on every item, on the cluster's workers or in this process."""

    @property
    def client(self) -> Any:
        """The cluster's ``distributed.Client``, None in this process: for one work that takes all workers together.

        Only a library that spreads its own work over a cluster needs it (XGBoost), from here and never from an item.
        """
        ...

    def __call__[T, R](self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results, in the order in which they are done.

        Args:
            work: picklable, and harmless if it is done twice.
            items: picklable.
        """
        ...


class Here:
    """One after another in this process."""

    @property
    def client(self) -> None:
        """No cluster."""

    def __call__[T, R](self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As ``Each``."""
        return map(work, items)


class Recipe(Protocol):
    """Small, frozen, picklable: it travels to dask workers, so it holds paths and numbers, never arrays or open files.

    ``compute`` must be pure: the same periods and window give the same bytes in any process, in any order; and its
    memory must be bounded by the window and the number of periods, not by the size of the inputs.

    A recipe that needs something of all its inputs together may have ``prepare(each: Each, note)``, which is called
    before the first ``compute`` and keeps what it makes where workers find it; ``note`` is told how far it is. After
    it a part of its grid that is rendered alone is shown to ``check_window(window)``, which may refuse it.

    A recipe that can tell what it will cost may have ``estimate(periods, window, shard) -> list[str]``: lines for
    people about some periods of a window of its grid, cut into windows of the shape ``shard``.

    A recipe that tells more once its values are stored may have ``findings(dataset) -> Mapping[str, Any]``, JSON data
    that joins ``facts`` in the version. It does not decide the bytes of the segment: asked for later, or of other
    regions, it makes another version of the same segment.

    A recipe may have ``remarks(window) -> list[str]``: lines for people about what is given for a window of its grid,
    told by ``plan``, and by ``render`` before it computes; it may refuse what cannot be with InputRefused. One that has
    values in a part of its grid only may have ``reach(window) -> Window``, the part of a window in which they lie.

    A recipe whose ``compute`` does not look at every input again may have ``check_inputs()``, which raises InputRefused
    if one is not what it was when it was planned with; it is called before what was computed is sealed.
    """

    @property
    def product(self) -> Product:
        """The declaration of what is made."""
        ...

    def periods(self) -> TimeAxis:
        """Every period that the inputs allow."""
        ...

    def inputs(self) -> tuple[Input, ...]:
        """The files it reads, in a fixed order."""
        ...

    def models(self) -> Mapping[str, str]:
        """Model name -> sha256 of its card.json, which names that of its model.onnx; empty where none is used."""
        ...

    def model_directories(self) -> Mapping[str, Path]:
        """Model name -> directory with its model.onnx and card.json, to be stored beside the values."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What was concluded from the inputs, as JSON data, kept as provenance."""
        ...

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values of every quantity.

        Args:
            periods: some of ``periods()``, rising.
            window: cells of level 0, at most one shard.

        Returns:
            Quantity name -> ``(time, y, x)`` in the stored type, missing where ``Quantity.fill``
            (``Quantity.pack`` makes it from floats).

        Raises:
            InputRefused: if an input turns out to be broken; nothing is published then.
        """
        ...
