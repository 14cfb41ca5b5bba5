"""OCO-2, OCO-3 and GOSAT (ACOS) Lite files: a file a day of an instrument, read as soundings, batch by batch."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import PurePosixPath

import h5py
import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.pipeline.recipe import Input
from services.sources import files, lite_modes, lite_times
from services.sources.broken import reading
from services.sources.files import Progress, Source
from services.sources.lite_columns import attribute
from services.sources.lite_layout import FLAG, Conversion, Layout, Quality, laid_out
from services.sources.soundings import INSTRUMENTS, MODES, Scale, Soundings

ROWS = 2**17
"""Soundings in a batch at most, a day of OCO-2: its columns take 10 MB."""

CACHE = 32 * 2**20
"""Bytes of decoded chunks that a column keeps, so that a batch that ends within a chunk does not decode it again."""

NAME = re.compile(
    r"(?P<instrument>oco2|oco3|acos)_Lt(?P<product>CO2|SIF)_(?P<day>[0-9]{6})_(?:v[0-9]+_)?"
    r"(?P<version>B(?P<digits>[0-9]{4,5})[A-Za-z]*)(?=[_.]|$)"
)
"""As GES DISC names them: instrument, day as yymmdd, of GOSAT the version of its spectra, the build, time of making."""

_PLATFORMS = {"oco2": "oco-2", "oco3": "oco-3", "acos": "gosat"}
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class LiteFile:
    """One file: what its name says, and how many soundings it holds."""

    source: Source
    instrument: str
    day: date
    version: str
    """The build in the name, such as ``B11210Ar``."""

    soundings: int
    good: int
    """With a quality flag of 0; all of them where quality is not asked for."""

    layout: Layout


@dataclass(frozen=True, kw_only=True)
class Lite:
    """Lite files on one scale, in the order of their days.

    Raises:
        InputRefused: if two files hold the same day of an instrument, or the set holds no sounding to use.
    """

    files: tuple[LiteFile, ...]
    scale: Scale
    quality: Quality
    modes: tuple[str, ...]
    """Names of the modes that are read."""

    conversion: Conversion | None
    rows: int
    """Soundings in a batch at most."""

    def __post_init__(self) -> None:
        seen: dict[tuple[date, str], LiteFile] = {}
        for file in self.files:
            other = seen.setdefault((file.day, file.instrument), file)
            if other is not file:
                raise InputRefused(
                    f"{other.source.name} and {file.source.name} both hold {file.instrument} of {file.day} "
                    f"({other.version} and {file.version}); leave one of them out"
                )

    @property
    def days(self) -> tuple[date, ...]:
        """Days that there are files of, each once."""
        return tuple(dict.fromkeys(file.day for file in self.files))

    @property
    def months(self) -> tuple[int, ...]:
        """Months since 1970-01 that there are files of, each once."""
        return tuple(dict.fromkeys((day.year - 1970) * 12 + day.month - 1 for day in self.days))

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files; with their digests after ``hashed``."""
        return tuple(file.source for file in self.files)

    def hashed(self, progress: Progress | None = None) -> "Lite":
        """The same with the digest of every file.

        Raises:
            InputRefused: if one changed since it was looked at.
        """
        read = files.hashed(self.sources, progress)
        return replace(self, files=tuple(replace(f, source=s) for f, s in zip(self.files, read, strict=True)))

    def inputs(self) -> tuple[Input, ...]:
        """As a recipe names what it was made from; after ``hashed``."""
        return tuple(Input(name=s.name, size=s.size, sha256=s.sha256) for s in self.sources)

    def of(self, keep: Callable[[LiteFile], bool]) -> "Lite":
        """Only some of the files, for instance a worker's."""
        return replace(self, files=tuple(file for file in self.files if keep(file)))

    def read(self, day: date | None = None, tally: Counter[str] | None = None) -> Iterator[Soundings]:
        """Soundings of a day, or of all, in batches of at most ``rows``; a day without any gives none.

        Args:
            day: of the files' names; None: all of them.
            tally: counts ``read`` soundings and, of them, those left out as ``flagged``, as ``missing`` a value, place
                or time, or of ``another mode``.

        Raises:
            InputRefused: if a file is broken, changed, or holds what no sounding can; if all files together give none.
        """
        left = Counter[str]() if tally is None else tally
        some = False
        for file in self.files:
            if day is None or file.day == day:
                for batch in self._of_file(file, left):
                    some = True
                    yield batch
        if day is None and not some:
            raise InputRefused(f"{_called(self.files)}: no sounding is left ({_told(left)})")

    def read_month(self, month: int, tally: Counter[str] | None = None) -> Iterator[Soundings]:
        """Soundings of a month by their own times, in batches: a file's orbits may begin before its day.

        Args:
            month: months since 1970-01.
            tally: as of ``read``, of the files of the month's days alone, so that over all months each sounding is
                counted once; those of a month without files, which no month gives, as ``another month``.

        Raises:
            InputRefused: as ``read``, but for a month without soundings, which gives none.
        """
        left = Counter[str]() if tally is None else tally
        first = date(1970 + month // 12, month % 12 + 1, 1)
        last = date(1970 + (month + 1) // 12, (month + 1) % 12 + 1, 1)
        for file in self.files:
            if first - timedelta(days=1) <= file.day <= last:
                own = first <= file.day < last
                for batch in self._of_file(file, left if own else Counter[str]()):
                    months = batch.months()
                    inside = months == month
                    if own:
                        left["another month"] += int((~np.isin(months, self.months)).sum())
                    if inside.any():
                        yield batch if inside.all() else batch.take(inside)

    def lines(self) -> list[str]:
        """What there is, told to a person."""
        told = [f"scale: {self.scale}" + (f" ({self._converted()})" if self.conversion else "")]
        for instrument in dict.fromkeys(file.instrument for file in self.files):
            own = [file for file in self.files if file.instrument == instrument]
            good, total = sum(file.good for file in own), sum(file.soundings for file in own)
            versions = ", ".join(f"{name} ({count})" for name, count in Counter(f.version for f in own).items())
            told.append(
                f"{instrument}: {len(own)} days, {own[0].day} to {own[-1].day}, {good} of {total} soundings "
                f"{'are good' if self.quality == 'good' else 'whatever their quality'}, builds {versions}"
            )
        return told

    def _converted(self) -> str:
        told = self.conversion
        count = sum(file.layout.converts for file in self.files)
        if told is None or not count:
            return "nothing had to be converted"
        return f"{count} files from {told.have} as {told.factor:g} x {told.offset:+g} ppm: {told.source}"

    def _of_file(self, file: LiteFile, tally: Counter[str]) -> Iterator[Soundings]:
        if not file.good:
            tally.update(read=file.soundings, flagged=file.soundings)
            return
        name = file.source.name
        with reading(name):
            opened = h5py.File(files.local(file.source), "r", rdcc_nbytes=CACHE)
        try:
            with reading(name):
                step = _step(opened[file.layout.xco2.path].chunks, self.rows)
            for start in range(0, file.soundings, step):
                # nothing is held while the caller works: neither filters of warnings nor its errors
                with reading(name):
                    batch = self._batch(file, opened, slice(start, min(start + step, file.soundings)), tally)
                if len(batch):
                    yield batch
        finally:
            opened.close()

    def _batch(self, file: LiteFile, opened: h5py.File, rows: slice, tally: Counter[str]) -> Soundings:
        name, layout = file.source.name, file.layout
        keep = np.ones(rows.stop - rows.start, dtype=bool)
        tally["read"] += keep.size
        if layout.flag is not None:
            keep = layout.flag.read(opened, rows) == 0
            tally["flagged"] += int((~keep).sum())
        mode = lite_modes.modes(layout.operation_mode, layout.surface, opened, rows, file.instrument)
        wanted = np.isin(mode, [MODES.index(one) for one in self.modes])
        tally["another mode"] += int((keep & ~wanted).sum())
        keep &= wanted
        xco2 = layout.xco2.read(opened, rows) * layout.factor
        if layout.converts and self.conversion is not None:
            xco2 = self.conversion.apply(xco2)
        place = [column.read(opened, rows) for column in (layout.latitude, layout.longitude)]
        time = lite_times.seconds(name, layout.time, layout.epoch, opened, rows)
        known = np.isfinite(xco2) & np.isfinite(place[0]) & np.isfinite(place[1]) & np.isfinite(time)
        tally["missing"] += int((keep & ~known).sum())
        keep &= known
        uncertainty = (
            np.full(keep.size, np.nan)
            if layout.uncertainty is None
            else layout.uncertainty.read(opened, rows) * layout.uncertainty_factor
        )
        _check_day(file, time[keep])
        try:
            return Soundings(
                time=time[keep],
                latitude=place[0][keep],
                longitude=place[1][keep],
                xco2=xco2[keep],
                uncertainty=uncertainty[keep],
                mode=mode[keep],
                instrument=np.full(int(keep.sum()), INSTRUMENTS.index(file.instrument), dtype=np.uint8),
                scale=self.scale,
            )
        except InputRefused as error:
            raise InputRefused(f"{name}: {error}") from None


def open_lite(
    names: Sequence[str],
    *,
    scale: Scale = "X2019",
    quality: Quality = "good",
    modes: Sequence[str] = MODES,
    conversion: Conversion | None = None,
    rows: int = ROWS,
) -> Lite:
    """Look at Lite files, in any order; only quality flags and attributes are read.

    Args:
        names: paths, globs or URLs.
        scale: the scale that all values are wanted on.
        quality: ``good`` leaves only soundings whose flag is 0; ``any`` takes all, also from files without the flag.
        modes: names of the modes that are read.
        conversion: what brings files to ``scale`` that lack it; None: they are refused.
        rows: soundings in a batch at most.

    Raises:
        InputRefused: if one is no Lite file, lacks a column or the scale, or if none of them holds a sounding to use.
        SettingsError: if an option is none that there is.
    """
    if scale not in {"X2007", "X2019"}:
        raise SettingsError(f"{scale!r} is no scale that a run can be on; X2007 and X2019 are")
    if quality not in {"good", "any"}:
        raise SettingsError(f"{quality!r} is no choice of quality; good and any are")
    unheard = [mode for mode in modes if mode not in MODES]
    if unheard or not modes:
        raise SettingsError(f"{', '.join(unheard) or 'nothing'} is no mode; there are {', '.join(MODES)}")
    if conversion is not None and conversion.wanted != scale:
        raise SettingsError(f"the conversion is to {conversion.wanted}, and the run is on {scale}")
    if rows < 1:
        raise SettingsError(f"a batch of {rows} soundings is none")
    shared: dict[Layout, Layout] = {}
    found = [_looked(source, scale, quality, conversion, shared) for source in files.found(names)]
    found.sort(key=lambda file: (file.day, file.instrument))
    total = sum(file.soundings for file in found)
    if not total:
        raise InputRefused(f"{_called(found)}: there is no sounding in any of {len(found)} files")
    if not sum(file.good for file in found):
        raise InputRefused(
            f"{_called(found)}: none of the {total} soundings of {len(found)} files is good ({FLAG} is nowhere 0)"
        )
    return Lite(files=tuple(found), scale=scale, quality=quality, modes=tuple(modes), conversion=conversion, rows=rows)


def _looked(
    source: Source,
    scale: Scale,
    quality: Quality,
    conversion: Conversion | None,
    shared: dict[Layout, Layout],
) -> LiteFile:
    name = source.name
    match = NAME.search(PurePosixPath(name).name)
    if match is None:
        raise InputRefused(
            f"{name} is not named as Lite files are, for example oco2_LtCO2_150131_B11210Ar_240820000231s.nc4, so that "
            "neither its instrument nor its day is known"
        )
    if match["product"] == "SIF":
        raise InputRefused(f"{name} holds fluorescence (SIF) and no XCO2")
    if source.kind != "netcdf4":
        raise InputRefused(f"{name} is {source.kind}; Lite files are NetCDF-4 (HDF5)")
    day = _day(name, match["day"])
    with reading(name), h5py.File(files.local(source), "r") as file:
        _check_platform(name, match["instrument"], file)
        layout, count = laid_out(name, file, (scale, int(match["digits"][:-3])), quality, conversion)
        good = count
        if layout.flag is not None:
            good = int((layout.flag.read(file, slice(None)) == 0).sum())
    return LiteFile(
        source=source,
        instrument=match["instrument"],
        day=day,
        version=match["version"],
        soundings=count,
        good=good,
        layout=shared.setdefault(layout, layout),
    )


def _check_platform(name: str, instrument: str, file: h5py.File) -> None:
    said = " ".join(attribute(file, key) or "" for key in ("Platform", "Sensor")).lower()
    others = [word for other, word in _PLATFORMS.items() if other != instrument and word in said]
    if others and _PLATFORMS[instrument] not in said:
        raise InputRefused(f"{name} is named as of {instrument} and says that it is of {others[0].upper()}")


def _check_day(file: LiteFile, times: NDArray[np.float64]) -> None:
    """Refuse times more than a day off the day of the name (our choice; orbits pass midnight)."""
    start = (file.day - date(1970, 1, 1)).days * _DAY
    off = np.flatnonzero((times < start - _DAY) | (times >= start + 2 * _DAY))
    if off.size:
        worst = float(times[off[0]])
        told = str(np.datetime64(math.floor(worst), "s")) if abs(worst) < 1e11 else f"{worst:g} s since 1970"
        raise InputRefused(f"{file.source.name} is named {file.day}, and a sounding's time is {told}")


def _step(chunks: tuple[int, ...] | None, rows: int) -> int:
    """Rows of a batch: whole chunks of the file, if that many may be read at once."""
    if chunks is None or chunks[0] >= rows:
        return rows
    return rows // chunks[0] * chunks[0]


def _day(name: str, text: str) -> date:
    try:
        return date(2000 + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        raise InputRefused(f"{name}: {text} in its name is no day (yymmdd)") from None


def _called(found: Sequence[LiteFile]) -> str:
    first = found[0].source.name if found else "no file"
    return first if len(found) < 2 else f"{first} and {len(found) - 1} more"


def _told(tally: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in tally.items() if count) or "nothing was read"
