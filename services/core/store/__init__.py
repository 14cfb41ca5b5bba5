"""Where bytes are kept: one set of promises over a directory, memory, or S3-compatible storage."""

from services.core.store.interface import Listed, Observed, Operation, Store

__all__ = ["Listed", "Observed", "Operation", "Store"]
