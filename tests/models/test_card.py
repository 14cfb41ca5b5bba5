import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from models.card import ModelCard
from models.errors import ModelRefused
from models.sample_earth import DIRECTORY


@pytest.fixture
def description(make_linear: Callable[..., bytes], make_description: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return make_description(make_linear())


def _set(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed: Any = deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = changed
    for part in parents:
        place = place[part]
    place[last] = value
    return dict(changed)


def test_a_card_survives_its_text_and_the_digest_is_of_that_text(description: dict[str, Any], tmp_path: Path) -> None:
    card = ModelCard.model_validate(description)
    (tmp_path / "card.json").write_text(card.to_json())
    again = ModelCard.read(tmp_path)
    assert again == card
    assert again.to_json() == card.to_json()
    assert card.digest == hashlib.sha256((tmp_path / "card.json").read_bytes()).hexdigest()
    assert json.loads(card.to_json()) == card.model_dump(mode="json")
    assert card.features == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "blue", "colour: Extra inputs are not permitted"),
        ("inputs/0/features/0/colour", "blue", "Extra inputs are not permitted"),
        ("sha256", "abc", "sha256: String should match"),
        ("format", 2, "format: Input should be 1"),
        ("inputs/0/features/0/valid_min", 10.0, "valid_min 10.0 is not below valid_max 10.0"),
        ("inputs/0/features/0/units", "", "units: String should have at least 1"),
        ("inputs/0/features/0/missing", "fill", "a fill_value goes with missing 'fill'"),
        ("inputs/0/features/1/missing", "pass", "a fill_value goes with missing 'fill'"),
        ("inputs/0/features/0/missing", "keep", "Input should be 'nan', 'fill' or 'pass'"),
        ("inputs/0/features/1/fill_value", None, "a fill_value goes with missing 'fill'"),
        ("inputs/0/features/1/name", "a", "x: a stands twice"),
        ("inputs/0/shape", ["batch", 4], "3 features do not lie along axis 1"),
        ("inputs/0/shape", [3, "batch"], "a shape is the batch and then fixed sizes"),
        ("outputs/1/scale", 0.0, "scale must be positive"),
        ("golden/inputs/x", [1.0], "holds 1 numbers, not 6"),
        ("golden/outputs/y", [1.0], "holds 1 numbers, not 4"),
        ("golden/tolerance", {"y": 1.0}, "golden tolerances are for"),
        ("golden/tolerance/y", 0.0, "greater than 0"),
        ("golden/outputs/z", ["NaN", None], "valid number"),
        ("scores/0/synthetic", False, "say synthetic"),
        ("scores/0/output", "q", "a score is for 'q', which is no output"),
        ("batch", 0, "batch: Input should be greater"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    description: dict[str, Any],
    path: str,
    value: Any,
    message: str,
) -> None:
    with pytest.raises(ModelRefused, match=message):
        ModelCard.parse(json.dumps(_set(description, path, value)))


def test_the_shipped_card_is_still_its_own_text() -> None:
    content = (DIRECTORY / "card.json").read_bytes()
    assert ModelCard.read(DIRECTORY).to_json().encode() == content


def test_text_that_is_no_card_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", "<html>", '{"name": "x"}'):
        with pytest.raises(ModelRefused, match="the card does not hold"):
            ModelCard.parse(text)
    with pytest.raises(ModelRefused, match=r"card\.json cannot be read: No such file"):
        ModelCard.read(tmp_path)
