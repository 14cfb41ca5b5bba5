"""CPU time of short pieces of work, in turns, so that noise of the machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def medians(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU milliseconds of this thread for each case, the median of some repeats."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, work in cases.items():
            before = time.thread_time()
            work()
            taken[name].append((time.thread_time() - before) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}
