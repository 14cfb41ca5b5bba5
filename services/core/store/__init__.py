"""Where bytes are kept: one set of promises over a directory, memory, or S3-compatible storage."""

from services.core.store.interface import PART_BYTES, PARTS_AT_ONCE, Listed, Observed, Operation, Store

__all__ = ["PARTS_AT_ONCE", "PART_BYTES", "Listed", "Observed", "Operation", "Store"]
