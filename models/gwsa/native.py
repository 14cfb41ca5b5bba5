"""The same answers from XGBoost itself where it is installed: faster than the graph, which stays the reference."""

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import numpy as np
import xgboost
from numpy.typing import NDArray

from models.card import ModelCard
from models.errors import ModelRefused
from models.gwsa.signature import BOOSTER_FILE, BOOSTER_NOTE
from models.gwsa.train import open_booster
from models.predictor import Predictor, Runner, check_golden, golden_rows, read_model

type Floats = NDArray[np.float32]

ROWS_PER_CALL = 16_384
"""Measured, see README.md; says nothing about the answer."""

TREES_PER_CALL = 100
"""Their nodes stay in the processor's cache while the rows pass; leaves are added in the same order as by all trees at
once, so the answer is the same to the byte."""


@dataclass(frozen=True, kw_only=True)
class NativePredictor(Predictor):
    """A ``Predictor`` that asks the booster beside model.onnx, under the same card and rules.

    It is chosen by the caller. model.onnx notes which booster it was made of, so that the card's digest vouches for
    both. Like a ``Predictor`` it pickles to the card and the place; each process reads and checks the booster again.
    """

    @classmethod
    def open(
        cls,
        source: Path | str | bytes,
        card: ModelCard | None = None,
        *,
        sha256: str | None = None,
        batch: int | None = None,
    ) -> Self:
        """Check a model, its card, its booster, the golden answer, and that the graph gives the same on those rows.

        Args:
            source: directory with model.onnx, card.json and booster.ubj.
            card: the card; read from the directory where it is None.
            sha256: digest of model.onnx that the caller planned with, if any.
            batch: rows per call; ``ROWS_PER_CALL`` where it is None.

        Raises:
            ModelRefused: if one does not hold.
        """
        predictor = super().open(source, card, sha256=sha256, batch=batch or ROWS_PER_CALL)
        _forget(predictor.card)  # what is on disk now is what is checked
        predictor.check()
        rows = golden_rows(predictor.card)
        reference, found = Predictor.open(source, predictor.card).predict(rows), predictor.predict(rows)
        for tensor in predictor.card.outputs:
            off = float(np.abs(found[tensor.name] - reference[tensor.name]).max(initial=0.0))
            if not off <= predictor.card.golden.tolerance[tensor.name]:
                raise ModelRefused(
                    f"{predictor.source!s}: {BOOSTER_FILE} gives {tensor.name} {off:g} {tensor.units} off model.onnx"
                )
        return predictor

    def _runner(self) -> Runner:
        key = self.card.digest
        with _LOCK:
            runner = _BOOSTERS.pop(key, None)
            if runner is None:
                runner = _read(self.source, self.card)
                check_golden(runner, self.card)
            _BOOSTERS[key] = runner  # last: the one used last is dropped last
            while len(_BOOSTERS) > _KEPT:
                del _BOOSTERS[next(iter(_BOOSTERS))]
        return runner


class _Native:
    """A booster that runs as a session does."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self.booster = booster
        self._rounds = booster.num_boosted_rounds()

    def run(self, _names: list[str], feeds: dict[str, Floats], /) -> list[Floats]:
        """The one output, ``(row,)``, for the one input, ``(row, feature)``."""
        (values,) = feeds.values()
        answer: Floats | None = None  # the base score of the booster itself
        for first in range(0, max(self._rounds, 1), TREES_PER_CALL):
            group = (first, min(first + TREES_PER_CALL, self._rounds))
            answer = self.booster.inplace_predict(
                values, iteration_range=group, predict_type="margin", base_margin=answer
            )
        return [cast("Floats", answer)]


_KEPT = 8
"""Boosters that a process keeps; one of 500 trees of depth 10 takes 50 MB."""

_BOOSTERS: dict[str, _Native] = {}
"""This process' boosters by digest of the card, the one used last at the end."""

_LOCK = threading.Lock()


def _forget(card: ModelCard) -> None:
    with _LOCK:
        _BOOSTERS.pop(card.digest, None)


def _start_anew() -> None:
    # a booster on one thread survives a fork; a lock that another thread held does not
    global _LOCK  # noqa: PLW0603
    _LOCK = threading.Lock()


os.register_at_fork(after_in_child=_start_anew)


def _read(source: Path | bytes, card: ModelCard) -> _Native:
    _, facts = read_model(source, card)
    if isinstance(source, bytes):
        raise ModelRefused(f"model {card.name} was given as bytes, which hold no booster")
    stated = facts.metadata.get(BOOSTER_NOTE)
    if stated is None:
        raise ModelRefused(f"the model in {source} notes no {BOOSTER_NOTE}: it was not made of a booster")
    place = source / BOOSTER_FILE
    try:
        content = place.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{place} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise ModelRefused(f"{place} has sha256 {found}, model.onnx was made of {stated}: it is damaged or another")
    booster = open_booster(content, str(place))
    if booster.num_features() != len(card.features):
        raise ModelRefused(f"{place} takes {booster.num_features()} features, its card names {len(card.features)}")
    return _Native(booster)
