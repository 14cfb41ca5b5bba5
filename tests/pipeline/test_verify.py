"""Damage is found by verify, and is an error or no matter to a reader: never NaN, never another value."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.core import layout
from services.core.catalog import Version, current_version, read_pointer
from services.core.dataset import Dataset
from services.core.errors import CollectionNotFound, Damaged, VersionNotFound
from services.core.grid import Window, windows
from services.core.shards import encode_shard, index_length
from services.core.store import Store
from services.pipeline.cog import write_cog
from services.pipeline.verify import verify
from tests.pipeline.faults import clone
from tests.pipeline.synthetic import PACKED, REGION, Planted, current, months, product, render, write_model

pytestmark = pytest.mark.slow  # as a whole

PRODUCT = product(grid=replace(REGION, width=23, height=17))
WHOLE = Window(row=0, column=0, height=17, width=23)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = write_model(tmp_path_factory.mktemp("net"), bytes(range(256)))
    return Planted(product=PRODUCT, axis=months(3), models_at={"net": str(folder)})


@pytest.fixture(scope="module")
def published(recipe: Planted) -> Store:
    """Two segments: two months, then a third."""
    from services.core.settings import StoreSettings  # noqa: PLC0415

    store = Store.open("memory://tests-verify", StoreSettings())
    render(store, replace(recipe, axis=months(2)))
    render(store, recipe)
    return store


def flipped(data: bytes, position: int, bit: int = 3) -> bytes:
    position %= len(data)
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def shard_of(store: Store, path: str) -> str:
    """The largest object below an array of the newest segment."""
    version = current(store)
    assert version is not None
    segment = version.maps[-1].segment
    prefix = f"{layout.segment_prefix('synthetic', segment)}{path}/c"
    return max((listed.size, listed.key) for listed in store.list(prefix))[1]


def keys(store: Store) -> dict[str, tuple[str, list[int]]]:
    """Kind of object -> key and the positions at which it is damaged."""
    version = current(store)
    assert version is not None
    segment = version.maps[-1].segment
    prefix = layout.segment_prefix("synthetic", segment)
    maps, series = shard_of(store, "maps.zarr/0/heat"), shard_of(store, "series.zarr/heat")
    level, fraction = shard_of(store, "maps.zarr/2/flux"), shard_of(store, "maps.zarr/1/flux_valid_fraction")
    grid = PRODUCT.grid
    chunk, shard = layout.map_chunks(PRODUCT, grid)
    index = index_length(shard, chunk)
    series_index = index_length(*reversed(layout.series_chunks(PRODUCT)))
    net = next(iter(version.provenance[segment]["models"].items()))
    even = [0, 1, 7, 100, 999, -1]
    return {
        "chunk of a map": (maps, [0, 1, 4, 16, 40, 61]),
        "index of a map": (maps, [-1, -3, -5, -index, 9 - index]),
        "chunk of a level": (level, [0, 8, 30]),
        "chunk of a valid fraction": (fraction, [0, 8, 20]),
        "chunk of a series": (series, [0, 1, 4, 16, 40]),
        "index of a series": (series, [-1, -4, -5, -series_index, 8 - series_index]),
        "zarr.json of an array": (f"{prefix}maps.zarr/0/heat/zarr.json", even),
        "zarr.json of a group": (f"{prefix}series.zarr/zarr.json", even),
        "coordinates": (f"{prefix}maps.zarr/0/time/c/0", [0, 7, -1]),
        "objects.json": (layout.objects_key("synthetic", segment), even),
        "version": (layout.version_key("synthetic", version.id), even),
        "COG": (f"{prefix}cog/heat/2001-03.tif", [0, 8, 300, 700, -1]),
        "model": (layout.model_key(*net), [0, 100, -1]),
        "card": (layout.card_key(*net), even[:-2]),
    }


KINDS = [
    "chunk of a map",
    "index of a map",
    "chunk of a level",
    "chunk of a valid fraction",
    "chunk of a series",
    "index of a series",
    "zarr.json of an array",
    "zarr.json of a group",
    "coordinates",
    "objects.json",
    "version",
    "COG",
    "model",
    "card",
]


def answers(store: Store, recipe: Planted) -> Iterator[tuple[str, object]]:
    """Every read of a published version: what it was, and the values or the error."""

    def attempt(read: object) -> object:
        assert callable(read)
        try:
            return read()
        except Damaged as error:
            return error

    version = attempt(lambda: current_version(store, "synthetic")[1])
    if not isinstance(version, Version):
        yield "version", version
        return
    dataset = Dataset(store, version)
    grid = recipe.product.grid
    for quantity in recipe.product.quantities:
        for place in range(len(dataset.time)):
            for level in range(grid.levels):
                at = grid.level(level)
                whole = Window(row=0, column=0, height=at.height, width=at.width)
                name = f"{quantity.name} {place} {level}"
                yield f"map {name}", attempt(lambda q=quantity, p=place, n=level, w=whole: dataset.read_map(q, p, n, w))
                yield (
                    f"share {name}",
                    attempt(lambda q=quantity, p=place, n=level, w=whole: dataset.read_valid_fraction(q, p, n, w)),
                )
        for window in windows(grid.shape, (6, 6)):
            yield (
                f"series {quantity.name} {window}",
                attempt(lambda q=quantity, w=window: dataset.read_series(q, range(len(dataset.time)), w)),
            )


def assert_right_or_named(store: Store, recipe: Planted, sound: dict[str, object], key: str) -> int:
    """Every answer is the sound one or an error that names the damaged key; how many are errors."""
    errors = 0
    for name, answer in answers(store, recipe):
        if isinstance(answer, Damaged):
            errors += 1
            assert answer.key == key, name
            assert key in str(answer)
        else:
            np.testing.assert_array_equal(answer, sound[name], err_msg=name)
    return errors


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_found_and_never_read_as_a_value(published: Store, recipe: Planted, kind: str) -> None:
    sound = dict(answers(published, recipe))
    assert not any(isinstance(answer, Exception) for answer in sound.values())
    assert verify(published, "synthetic").findings == ()
    key, positions = keys(published)[kind]
    whole = published.get(key)
    store = clone(published)
    errors = 0
    for position in positions:
        store.overwrite(key, flipped(whole, position, bit=position % 8))
        report = verify(store, "synthetic")
        assert not report.sound
        assert [finding.key for finding in report.findings] == [key], position
        errors += assert_right_or_named(store, recipe, sound, key)
    store.overwrite(key, whole)
    assert verify(store, "synthetic").sound
    # these are read by the service, and each of these positions matters to it
    if kind in {
        "chunk of a map",
        "chunk of a level",
        "chunk of a series",
        "index of a series",
        "objects.json",
        "version",
    }:
        assert errors >= len(positions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_or_cut_object_is_found_and_never_read_as_a_value(
    published: Store, recipe: Planted, kind: str
) -> None:
    sound = dict(answers(published, recipe))
    key, _ = keys(published)[kind]
    whole = published.get(key)
    for damage in (None, b"", whole[: len(whole) // 2], whole + b"\0"):
        store = clone(published)
        store.delete([key])
        if damage is not None:
            store.create(key, damage)
        report = verify(store, "synthetic")
        assert [finding.key for finding in report.findings] == [key]
        if damage is None:
            assert "missing" in report.findings[0].fact
        errors = assert_right_or_named(store, recipe, sound, key)
        if damage is None and kind in {"chunk of a map", "chunk of a series", "objects.json", "version"}:
            assert errors > 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"<html>502</html>",
        b'{"seq":1}',
    ],
)
def test_a_pointer_that_is_none_is_found(published: Store, garbage: bytes) -> None:
    store = clone(published)
    key = layout.pointer_key("synthetic")
    store.overwrite(key, garbage)
    with pytest.raises(Damaged, match=r"synthetic/current.json"):
        current_version(store, "synthetic")
    assert [finding.key for finding in verify(store, "synthetic").findings] == [key]


def test_a_flipped_bit_of_the_pointer_never_names_another_version(published: Store) -> None:
    key = layout.pointer_key("synthetic")
    whole = published.get(key)
    pointer, version = current_version(published, "synthetic")
    store = clone(published)
    refused = 0
    for position in range(len(whole)):
        store.overwrite(key, flipped(whole, position, bit=position % 8))
        try:
            found = current_version(store, "synthetic")
        except Damaged as error:
            refused += 1
            named = error.key
        else:
            named = key
            assert found[1].id == version.id
            assert found[0].sha256 == pointer.sha256
        assert named == key or named.startswith("synthetic/versions/")
    assert refused > len(whole) // 3


def test_layouts_that_differ_are_found_though_every_checksum_holds(memory: Store) -> None:
    """A recipe bug or a wrong copy: the bytes are what was written, and the two layouts disagree."""
    recipe = Planted(product=PRODUCT, axis=months(1))
    with pytest.MonkeyPatch.context() as patch:

        def crooked(values: object, shard: tuple[int, int, int], *rest: object) -> bytes:
            if shard == layout.series_chunks(PRODUCT)[1]:
                values = np.array(values)
                values[0, 0, 0] += 1
            return encode_shard(values, shard, *rest)  # type: ignore[arg-type]

        patch.setattr("services.pipeline.tasks.encode_shard", crooked)
        render(memory, recipe)
    findings = verify(memory, "synthetic").findings
    assert findings
    assert all("its values of 2001-01 differ from the map's" in finding.fact for finding in findings)
    assert {finding.key.rpartition("/")[2] for finding in findings} == {"heat", "flux"}


def test_a_cog_whose_base_level_differs_is_found_though_its_checksum_holds(memory: Store) -> None:
    recipe = Planted(product=PRODUCT, axis=months(1))
    with pytest.MonkeyPatch.context() as patch:

        def crooked(path: Path, declared: object, quantity: object, periods: object, read: object) -> None:
            assert callable(read)

            def other(band: int, window: Window) -> object:
                values = read(band, window).copy()
                values[0, 0] += 1
                return values

            write_cog(path, declared, quantity, periods, other)  # type: ignore[arg-type]

        patch.setattr("services.pipeline.tasks.write_cog", crooked)
        render(memory, recipe)
    found = {finding.key.rpartition("/cog/")[2]: finding.fact for finding in verify(memory, "synthetic").findings}
    # the first cell of the plain quantity is missing: NaN + 1 is NaN
    assert found == {"heat/2001-01.tif": "its band of 2001-01 differs from the map"}


def test_every_model_of_an_archive_is_checked_not_only_the_newest(memory: Store, tmp_path: Path) -> None:
    older, newer = (write_model(tmp_path / name, name.encode()) for name in ("older", "newer"))
    first = Planted(product=PRODUCT, axis=months(1), models_at={"net": str(older)})
    render(memory, first)
    render(memory, replace(first, axis=months(2), models_at={"net": str(newer)}))
    for folder in (older, newer):
        digest = replace(first, models_at={"net": str(folder)}).models()["net"]
        for key in (layout.model_key("net", digest), layout.card_key("net", digest)):
            whole = memory.get(key)
            memory.overwrite(key, flipped(whole, 0))
            assert [finding.key for finding in verify(memory, "synthetic").findings] == [key]
            memory.delete([key])
            assert [finding.fact for finding in verify(memory, "synthetic").findings] == ["it is missing"]
            memory.overwrite(key, whole)


def test_verify_counts_what_it_saw_and_names_what_there_is_not(published: Store) -> None:
    report = verify(published, "synthetic")
    version = current(published)
    assert version is not None
    listed = [
        listed
        for segment in version.segments
        for listed in published.list(layout.segment_prefix("synthetic", segment))
        if "/ledger/" not in listed.key
    ]
    assert report.objects == len(listed) + 2  # and the model with its card
    seals = sum(published.size(layout.objects_key("synthetic", name)) for name in version.segments)
    assert report.bytes == sum(one.size for one in listed) - seals
    assert report.periods == 3
    first = version.parent
    assert verify(published, "synthetic", first).periods == 2
    with pytest.raises(VersionNotFound, match="has no version 'ffffffffffffffffffff'"):
        verify(published, "synthetic", "f" * 20)
    with pytest.raises(CollectionNotFound, match="there is no collection 'nobody'"):
        verify(published, "nobody")


def test_damage_reads_alike_on_every_store(store: Store) -> None:
    recipe = Planted(product=PRODUCT, axis=months(1))
    render(store, recipe)
    assert verify(store, "synthetic").findings == ()
    key = shard_of(store, "maps.zarr/0/heat")
    whole = store.get(key)
    dataset = Dataset(store, current_version(store, "synthetic")[1])
    inside = Window(row=0, column=0, height=4, width=5)
    expected = recipe.stored(PACKED, recipe.axis)[0][inside.rows, inside.columns]
    np.testing.assert_array_equal(dataset.read_map(PACKED, 0, 0, inside), expected)
    store.overwrite(key, flipped(whole, 3))
    with pytest.raises(Damaged, match="the checksum of a chunk does not hold"):
        dataset.read_map(PACKED, 0, 0, inside)
    store.overwrite(key, whole[:9])
    with pytest.raises(Damaged, match=r"it ends at byte|it holds"):
        dataset.read_map(PACKED, 0, 0, inside)
    store.delete([key])
    with pytest.raises(Damaged, match="it is missing"):
        dataset.read_map(PACKED, 0, 0, inside)
    assert [finding.key for finding in verify(store, "synthetic").findings] == [key]
    assert read_pointer(store, "synthetic") is not None
