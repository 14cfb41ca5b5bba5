"""The models that values are computed with: kept beside the values under the digest of their card.

A card names the sha256 of its model.onnx, so one digest stands for both; and what a card says about inputs, units and
missing values changes what is computed as much as the weights do.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.core import layout
from services.core.errors import Damaged, ModelRefused, ObjectExists, ObjectMissing
from services.core.store import Store


def keep(store: Store, digests: Mapping[str, str], directories: Mapping[str, Path]) -> dict[str, Any]:
    """Store models and cards; finding the same ones is success.

    Args:
        store: where.
        digests: model name -> sha256 of its card.json, as planned with.
        directories: model name -> directory with its card.json and model.onnx.

    Returns:
        Digest -> model name and the scores of its card, for ``Version.scores``.

    Raises:
        ModelRefused: if a card or a model is not the one that was planned with.
        Damaged: if another object is stored under a digest.
    """
    scores: dict[str, Any] = {}
    for name, sha256 in digests.items():
        card_file, model_file = directories[name] / "card.json", directories[name] / "model.onnx"
        card = card_file.read_bytes()
        if layout.digest(card) != sha256:
            raise ModelRefused(f"{card_file} has another sha256 than the {sha256[:12]} of the plan")
        facts = _facts(str(card_file), card)
        model = model_file.read_bytes()
        if layout.digest(model) != facts["sha256"]:
            raise ModelRefused(f"{model_file} is not the model that its card names")
        for key, body in ((layout.model_key(name, sha256), model), (layout.card_key(name, sha256), card)):
            try:
                store.create(key, body)
            except ObjectExists:
                if store.get(key) != body:
                    raise Damaged(key, "it is not what its digest names") from None
        scores[sha256] = {"model": name, "scores": facts.get("scores", [])}
    return scores


def used(provenance: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Name and digest of every model in a version's provenance; an append may have used a newer one of a name."""
    return {pair for origin in provenance.values() for pair in origin.get("models", {}).items()}


def stored(store: Store, name: str, sha256: str) -> Iterator[tuple[str, str]]:
    """Key and sha256 of a model's stored objects: of the card, and of the model where the card can say it."""
    key = layout.card_key(name, sha256)
    yield key, sha256
    try:
        card = store.get(key)
        if layout.digest(card) == sha256:
            yield layout.model_key(name, sha256), _facts(key, card)["sha256"]
    except (ObjectMissing, ModelRefused):
        return


def _facts(where: str, card: bytes) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(card)
        if isinstance(facts["sha256"], str):
            return facts
    except (ValueError, KeyError, TypeError):
        pass
    raise ModelRefused(f"{where} is no card: it names no sha256 of its model")
