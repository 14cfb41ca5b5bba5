import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.core.errors import Damaged, StoreUnavailable
from tiler.fresh import Fresh


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("fault", [Damaged("k", "it is none"), StoreUnavailable("away")])
def test_an_error_that_is_told_again_and_again_does_not_grow(executor: ThreadPoolExecutor, fault: Exception) -> None:
    def read() -> int:
        raise fault

    fresh = Fresh(read, seconds=100.0, clock=lambda: 0.0, executor=executor)
    lengths = set()
    for _ in range(5):
        with pytest.raises(type(fault)) as told:
            fresh.get()
        lengths.add(len(traceback.extract_tb(told.value.__traceback__)))
    assert max(lengths) <= 3
