"""Every way cenote refuses or fails, as one tree.

CenoteError
├── Refused                     the caller can put it right; exit 1, or a 4xx
│   ├── DeclarationError        a grid, time axis, quantity, style or product that cannot be
│   ├── InputRefused            an input file that is broken, ambiguous or inconsistent
│   ├── SettingsError           a setting or option that is missing or contradicts another
│   ├── QueryError              a request that cannot be answered as asked
│   │   └── RequestTooLarge     a request whose answer would pass a stated cap
│   ├── NotFound                something named does not exist
│   │   ├── CollectionNotFound
│   │   ├── VersionNotFound
│   │   ├── QuantityNotFound
│   │   ├── TimeOutsideAxis
│   │   └── PositionOutside
│   └── PublishConflict         another publisher was first
├── StoreError                  the object store did not do what was asked
│   ├── StoreUnavailable        it could not be reached, or not in time
│   ├── ObjectMissing           no object under a key
│   ├── ObjectExists            a create-only write found the key taken
│   ├── PreconditionFailed      a compare-and-swap write found another object
│   └── PreconditionsIgnored    the store lets conditional writes through
├── Damaged                     stored bytes are not what was written; names the key
├── RenderFailed                tasks of a render failed; names them
└── ModelRefused                a model or its card does not hold
"""


class CenoteError(Exception):
    """Base of everything cenote raises on purpose; the message is one sentence for a person."""


class Refused(CenoteError):
    """The caller asked for something that cannot be done and can put it right."""


class NothingToDo(Refused):
    """What was asked for is there already; a command that is run again and again ends well with it."""


class DeclarationError(Refused, ValueError):
    """A grid, time axis, quantity, style or product that contradicts itself."""


class InputRefused(Refused):
    """An input file that is broken, ambiguous or inconsistent; the message names file and fact."""


class SettingsError(Refused):
    """A setting or option that is missing, malformed or contradicts another."""


class QueryError(Refused):
    """A request that is malformed; the message says what would be right."""


class RequestTooLarge(QueryError):
    """A request whose answer would pass a cap; the message names the cap and how to stay below it."""


class NotFound(Refused):
    """Something that was named does not exist."""


class CollectionNotFound(NotFound):
    """No collection is published under an id."""


class VersionNotFound(NotFound):
    """A collection has no such version."""


class QuantityNotFound(NotFound):
    """A collection has no such quantity."""


class TimeOutsideAxis(NotFound):
    """No period contains an instant, or none lies in an interval; the message names the nearest."""


class PositionOutside(NotFound):
    """A place lies outside the grid."""


class PublishConflict(Refused):
    """Another publisher moved the pointer first; nothing that anyone reads was touched."""


class StoreError(CenoteError):
    """The object store did not do what was asked."""


class StoreUnavailable(StoreError):
    """The store could not be reached, refused the credentials, or did not answer in time."""


class ObjectMissing(StoreError):
    """No object is stored under a key."""

    def __init__(self, key: str, message: str | None = None) -> None:
        super().__init__(message or f"no object is stored under {key!r}")
        self.key = key

    def __reduce__(self) -> tuple[type["ObjectMissing"], tuple[str, str]]:
        return (type(self), (self.key, str(self)))


class ObjectExists(StoreError):
    """A create-only write found the key taken."""

    def __init__(self, key: str) -> None:
        super().__init__(f"an object is already stored under {key!r}")
        self.key = key

    def __reduce__(self) -> tuple[type["ObjectExists"], tuple[str]]:
        return (type(self), (self.key,))


class PreconditionFailed(StoreError):
    """A compare-and-swap write found another object than the one it expected."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the object under {key!r} is no longer the one that was read")
        self.key = key

    def __reduce__(self) -> tuple[type["PreconditionFailed"], tuple[str]]:
        return (type(self), (self.key,))


class PreconditionsIgnored(StoreError):
    """The store lets conditional writes through, so two publishers could both win."""


class Damaged(CenoteError):
    """Stored bytes are not what was written."""

    def __init__(self, key: str, fact: str) -> None:
        super().__init__(f"the stored object {key!r} is damaged: {fact}")
        self.key = key
        self.fact = fact

    def __reduce__(self) -> tuple[type["Damaged"], tuple[str, str]]:
        return (type(self), (self.key, self.fact))


class RenderFailed(CenoteError):
    """Tasks of a render failed; what the others wrote is recorded and is not computed again."""


class ModelRefused(CenoteError):
    """A model or its card does not hold: another digest, opset, input or golden answer."""
