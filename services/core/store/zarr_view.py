"""What zarr-python and xarray see of a store."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import override

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import Buffer, BufferPrototype

from services.core.errors import ObjectExists, ObjectMissing
from services.core.store.interface import Store, check_prefix


class ZarrView(ZarrStore):
    """What lies below a prefix of a store, so that deadlines, retries, errors and observers are those of the store.

    A write creates; nothing is replaced or removed.
    """

    supports_deletes = False
    supports_listing = True

    def __init__(self, store: Store, prefix: str, *, read_only: bool = True) -> None:
        super().__init__(read_only=read_only)
        self.store = store
        self.prefix = check_prefix(prefix)

    @property
    @override
    def supports_writes(self) -> bool:
        return not self.read_only

    @override
    def with_read_only(self, read_only: bool = False) -> "ZarrView":
        return ZarrView(self.store, self.prefix, read_only=read_only)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrView) and (self.store, self.prefix, self.read_only) == (
            other.store,
            other.prefix,
            other.read_only,
        )

    @override
    def __hash__(self) -> int:
        return hash((self.store, self.prefix, self.read_only))

    def __str__(self) -> str:
        return f"{self.store.url}/{self.prefix}"

    def __repr__(self) -> str:
        return f"ZarrView({str(self)!r})"

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _fetch(self, key: str, byte_range: ByteRequest | None) -> bytes:
        match byte_range:
            case None:
                return self.store.get(key)
            case RangeByteRequest(start, end):
                return self.store.get_range(key, start, end - start)
            case OffsetByteRequest(offset):
                size = self.store.size(key)
                return self.store.get_range(key, offset, size - offset) if offset < size else b""
            case SuffixByteRequest(suffix):
                return self.store.get_suffix(key, suffix)

    @override
    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            return prototype.buffer.from_bytes(await asyncio.to_thread(self._fetch, self._key(key), byte_range))
        except ObjectMissing:
            return None

    @override
    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges))

    @override
    async def exists(self, key: str) -> bool:
        try:
            await self.getsize(key)
        except FileNotFoundError:
            return False
        return True

    @override
    async def getsize(self, key: str) -> int:
        try:
            return await asyncio.to_thread(self.store.size, self._key(key))
        except ObjectMissing:
            raise FileNotFoundError(key) from None

    @override
    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        data = value.to_bytes()
        try:
            await asyncio.to_thread(self.store.create, self._key(key), data)
        except ObjectExists:
            # A region that is computed again writes the same bytes again.
            if await asyncio.to_thread(self.store.get, self._key(key)) != data:
                raise

    @override
    async def delete(self, key: str) -> None:
        self._check_writable()
        # zarr deletes instead of storing a chunk of nothing but fill values: fine while nothing is stored.
        if await self.exists(key):
            raise ObjectExists(self._key(key))

    @override
    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    @override
    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        folder = self._key(prefix.rpartition("/")[0]).removesuffix("/")
        for found in await asyncio.to_thread(lambda: [*self.store.list(folder)]):
            key = found.key.removeprefix(f"{self.prefix}/") if self.prefix else found.key
            if key.startswith(prefix):
                yield key

    @override
    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await asyncio.to_thread(self.store.children, self._key(prefix.removesuffix("/")).removesuffix("/")):
            yield name
