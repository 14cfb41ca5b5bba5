"""Keeps what was made last of something that is asked for again and again, such as months in turn."""

from collections import OrderedDict
from collections.abc import Callable, Hashable


class Recent[Key: Hashable, Made]:
    """Makes what is asked for, and holds a few of the last."""

    def __init__(self, make: Callable[[Key], Made], *, count: int) -> None:
        self._make, self._count = make, count
        self._held: OrderedDict[Key, Made] = OrderedDict()

    def __call__(self, key: Key) -> Made:
        """What belongs to a key; callers do not change it."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        made = self._make(key)
        self._held[key] = made
        if len(self._held) > self._count:
            self._held.popitem(last=False)
        return made
