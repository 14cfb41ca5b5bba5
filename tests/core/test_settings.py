import os
import pickle
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.core.errors import SettingsError
from services.core.settings import Settings, StoreSettings, settings_table, variables

OURS = re.compile(r"^(AWS|CENOTE)_")
KEYS = {"AWS_ACCESS_KEY_ID": "hidden-access", "AWS_SECRET_ACCESS_KEY": "hidden-secret"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if OURS.match(name)]:
        monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_store_defaults_to_a_directory_below_the_current_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment().store == str(tmp_path / ".cenote" / "store")


@pytest.mark.parametrize(
    ("given", "resolved"),
    [("products", "{cwd}/products"), ("/somewhere", "/somewhere"), ("s3://bucket/a", "s3://bucket/a")],
)
def test_a_relative_store_is_one_below_the_current_directory(
    given: str, resolved: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CENOTE_STORE", given)
    assert Settings.from_environment().store == resolved.format(cwd=tmp_path)


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"CENOTE_STORE": "/environment", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})
    assert Settings.from_environment(store="/option").store == "/option"
    assert StoreSettings.from_environment(endpoint="http://127.0.0.1:2").endpoint == "http://127.0.0.1:2"


def test_the_specific_name_wins_over_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_DEFAULT_REGION": "general"})
    general = StoreSettings.from_environment()
    set_all(monkeypatch, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2", "AWS_REGION": "specific"})
    specific = StoreSettings.from_environment()
    assert (general.endpoint, general.region) == ("http://127.0.0.1:1", "general")
    assert (specific.endpoint, specific.region) == ("http://127.0.0.1:2", "specific")


def test_every_variable_of_the_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another valid value for each field: a misspelt alias would leave the default.
    others: dict[type, dict[str, str]] = {
        Settings: {"store": "/elsewhere", "pointer_seconds": "1.5", "request_seconds": "7", "warm_share": "0.5"},
        StoreSettings: {
            "endpoint": "https://s3.example.org",
            "region": "elsewhere",
            "access_key_id": "hidden-access",
            "secret_access_key": "hidden-secret",
            "session_token": "hidden-token",
            "allow_http": "true",
            "ca_bundle": "/somewhere.pem",
        },
    }
    for kind in (Settings, StoreSettings):
        values = {name: others[kind].get(name, "17") for name in kind.model_fields}
        set_all(monkeypatch, {variables(kind, name)[0]: value for name, value in values.items()})
        read = kind.from_environment()
        for name in values:
            assert getattr(read, name) != kind.model_fields[name].default, name


def test_a_value_built_in_code_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**KEYS, "AWS_SESSION_TOKEN": "t", "CENOTE_MAX_VALUES": "5"})
    assert StoreSettings().access_key_id is None
    assert Settings().max_values == 1_000_000


def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**KEYS, "AWS_SESSION_TOKEN": "", "CENOTE_CACHE_MB": ""})
    assert StoreSettings.from_environment().session_token is None
    assert Settings.from_environment().cache_mb == 256


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (Settings, {"CENOTE_CACHE_MB": "many"}, r"CENOTE_CACHE_MB is 'many', which should be a valid integer"),
        (Settings, {"CENOTE_CACHE_MB": "-1"}, r"CENOTE_CACHE_MB is '-1', which should be greater than or equal to 0"),
        (Settings, {"CENOTE_POINTER_SECONDS": "5"}, r"CENOTE_POINTER_SECONDS is '5', which should be less .* to 2"),
        (Settings, {"CENOTE_MAX_VALUES": "0"}, r"CENOTE_MAX_VALUES is '0', which should be greater than 0"),
        (StoreSettings, {"CENOTE_STORE_TOTAL_SECONDS": "nan"}, r"CENOTE_STORE_TOTAL_SECONDS is 'nan', which "),
        (StoreSettings, {"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, r"AWS_ENDPOINT_URL is .* must be http://HOST"),
        (StoreSettings, {"AWS_ENDPOINT_URL_S3": "http://h/path"}, r"AWS_ENDPOINT_URL_S3 is .* must be http://HOST"),
        (StoreSettings, {"AWS_ACCESS_KEY_ID": "a"}, r"AWS_SECRET_ACCESS_KEY is not set, but AWS_ACCESS_KEY_ID is"),
        (StoreSettings, {"AWS_SECRET_ACCESS_KEY": "a"}, r"AWS_ACCESS_KEY_ID is not set, but AWS_SECRET_ACCESS_KEY is"),
        (StoreSettings, {"AWS_SESSION_TOKEN": "a"}, r"AWS_SESSION_TOKEN is set, but AWS_ACCESS_KEY_ID is not"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_a_sentence_that_names_the_variable(
    kind: type[Settings | StoreSettings], values: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, values)
    with pytest.raises(SettingsError, match=sentence) as refused:
        kind.from_environment()
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


def test_several_faults_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"CENOTE_CACHE_MB": "x", "CENOTE_MAX_CELLS": "y"})
    with pytest.raises(SettingsError, match=r"CENOTE_CACHE_MB .*; CENOTE_MAX_CELLS "):
        Settings.from_environment()


def test_credentials_in_an_endpoint_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://someone:hidden-secret@example.org")
    with pytest.raises(SettingsError, match=r"must not hold a user name or password") as refused:
        StoreSettings.from_environment()
    assert "hidden" not in str(refused.value)


def test_secrets_are_in_no_text_but_survive_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**KEYS, "AWS_SESSION_TOKEN": "hidden-token"})
    settings = StoreSettings.from_environment()
    assert "hidden" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    again = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own bytes
    assert again == settings
    assert again.secret_access_key.get_secret_value() == "hidden-secret"


def test_settings_cannot_be_changed_nor_invented() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().max_values = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings(max_value=1)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="there is no setting 'max_value'"):
        Settings.from_environment(max_value=1)


def test_the_table_says_what_each_variable_is_and_means() -> None:
    rows = settings_table().splitlines()
    assert rows[:2] == ["| variable | default | meaning |", "|---|---|---|"]
    assert len(rows) == 2 + len(Settings.model_fields) + len(StoreSettings.model_fields)
    for row in rows[2:]:
        assert re.fullmatch(
            r"\| `(CENOTE|AWS)_[A-Z0-9_]+`( or `AWS_[A-Z_]+`)? \| [^|]* \| [A-Z][^|]{10,}[^.] \|", row
        ), row
    assert "| `CENOTE_POINTER_SECONDS` | 2 | " in settings_table(Settings)
