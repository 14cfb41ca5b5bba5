"""What an operator may set: environment variables, read once in ``main`` or ``cli`` and passed down."""

import os
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from services.core.errors import SettingsError

type Seconds = Annotated[float, Field(gt=0, le=3600)]
type Count = Annotated[int, Field(gt=0)]


class _Environment(BaseSettings):
    """Settings that read the environment only when asked to.

    A value built in code holds what the code says: no variable of the machine can leak into it.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="CENOTE_",
        env_ignore_empty=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the constructor is given and nothing else."""
        return (init_settings,)

    @classmethod
    def from_environment(cls, **given: Any) -> Self:
        """Read the environment; ``given`` (fields by name, from command line options) goes first.

        Raises:
            SettingsError: a value that cannot be, named by its variable.
        """
        found = EnvSettingsSource(cls)()
        for name in cls.model_fields.keys() & given.keys():
            for spelling in {name, *variables(cls, name)}:
                found.pop(spelling, None)
        try:
            return cls(**{**found, **given})
        except ValidationError as error:
            raise SettingsError(_sentence(cls, error)) from None


class StoreSettings(_Environment):
    """How an object store is reached; a directory or memory needs only the last."""

    endpoint: str | None = Field(default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    """Address of the S3 service, such as `https://s3.example.org`; needed for an `s3://` store"""
    region: str | None = Field(default=None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    """Region that requests are signed for; needed for an `s3://` store"""
    access_key_id: SecretStr | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID", repr=False)
    """Access key; without one nothing is signed, which reads a public bucket"""
    secret_access_key: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY", repr=False)
    """Secret of the access key"""
    session_token: SecretStr | None = Field(default=None, validation_alias="AWS_SESSION_TOKEN", repr=False)
    """Token that belongs to temporary keys"""
    allow_http: bool = Field(default=False, validation_alias="AWS_ALLOW_HTTP")
    """Allow an `http://` endpoint away from this machine: bytes travel in the clear (loopback is always allowed)"""
    ca_bundle: Path | None = Field(default=None, validation_alias="AWS_CA_BUNDLE")
    """File of further certificates to trust (PEM), for a store behind a private authority"""
    connect_seconds: Seconds = Field(default=3.0, validation_alias="CENOTE_STORE_CONNECT_SECONDS")
    """Longest wait for a connection to the store"""
    read_seconds: Seconds = Field(default=10.0, validation_alias="CENOTE_STORE_READ_SECONDS")
    """Longest silence of the store within one request"""
    total_seconds: Seconds = Field(default=30.0, validation_alias="CENOTE_STORE_TOTAL_SECONDS")
    """Longest time for one operation with all its retries; large objects get more, at least a second per MiB"""
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(default=5, validation_alias="CENOTE_STORE_ATTEMPTS")
    """How often one operation is tried in that time"""

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.username or parts.password:
            msg = "must not hold a user name or password"
            raise ValueError(msg)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
            msg = "must be http://HOST[:PORT] or https://HOST[:PORT]"
            raise ValueError(msg)
        return f"{parts.scheme}://{parts.netloc}"

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        names = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }
        absent = [name for name, value in names.items() if value is None]
        if len(absent) == 1:
            msg = f"{absent[0]} is not set, but {(set(names) - set(absent)).pop()} is; they belong together"
            raise ValueError(msg)
        if self.session_token is not None and absent:
            msg = "AWS_SESSION_TOKEN is set, but AWS_ACCESS_KEY_ID is not; they belong together"
            raise ValueError(msg)
        return self


class Settings(_Environment):
    """What is served from where, and how much one request may ask for."""

    store: str = ".cenote/store"
    """Where products are stored: a directory (a relative one from where the command is run) or `s3://BUCKET/PREFIX`"""
    pointer_seconds: Annotated[float, Field(ge=0, le=2)] = 2.0
    """A server knows of a newly published version this late at most; 2 is also the ceiling"""
    memory_mb: Annotated[int, Field(ge=1)] = 1024
    """Memory of each server process, MiB: the program (about 260), its caches and the requests it works on"""
    cache_mb: Annotated[int, Field(ge=0)] = 256
    """Memory for decoded chunks in each server process, MiB"""
    warm_share: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    """Share of that memory for what is read of newly published versions before anybody asks; 0 reads none"""
    tile_cache_mb: Annotated[int, Field(ge=0)] = 64
    """Memory for encoded tiles in each server process, MiB; 0 keeps none"""
    max_values: Count = 1_000_000
    """Most values (places x periods x quantities) in one answer that is not streamed"""
    max_tile_size: Count = 512
    """Largest width of a tile in pixels"""
    max_image_size: Count = 2048
    """Largest width or height of an image in pixels"""
    max_cells: Count = 32_000_000
    """Most grid cells read for one request"""
    max_places_get: Count = 100
    """Most places in one GET request"""
    max_places_post: Count = 10_000
    """Most places in one POST request"""
    max_vertices: Count = 5000
    """Most vertices of a polygon"""
    max_body_bytes: Count = 1_000_000
    """Largest body of a request"""
    max_url_bytes: Count = 8192
    """Longest address of a request"""
    max_response_bytes: Count = 16_000_000
    """Largest answer that is not streamed"""
    trusted_proxies: str = "127.0.0.0/8,::1/128"
    """Reverse proxies that may say by `X-Forwarded-*` how a request reached them: addresses or networks, by commas"""
    request_seconds: Seconds = 10.0
    """A request that takes longer is ended with 503"""
    queue_factor: Count = 4
    """Requests that wait for each worker thread before further ones are answered 503"""

    @field_validator("store")
    @classmethod
    def _resolve_store(cls, store: str) -> str:
        if "://" in store:
            return store
        return str(Path(store).expanduser().absolute())


def variables(settings: type[BaseSettings], name: str) -> tuple[str, ...]:
    """Return the environment variables of a field, the one that wins first."""
    alias = settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (str(alias) if alias else f"{settings.model_config['env_prefix']}{name}".upper(),)


def settings_table(*kinds: type[BaseSettings]) -> str:
    """Return the Markdown table of all settings for the README: name, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for kind in kinds or (Settings, StoreSettings):
        for name, field in kind.model_fields.items():
            spelled = " or ".join(f"`{variable}`" for variable in variables(kind, name))
            rows.append(f"| {spelled} | {_default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return ""
        case bool() as value:
            return str(value).lower()
        case float() as value:
            return f"{value:g}"
        case value:
            return f"{value}"


def _sentence(settings: type[BaseSettings], error: ValidationError) -> str:
    """Say in one sentence per fault which variable is wrong and how.

    Values are repeated, but not where they hold a secret.
    """
    faults = []
    for fault in error.errors(include_url=False):
        said = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
        if not fault["loc"]:
            faults.append(said)
            continue
        where = str(fault["loc"][0])
        name = next(
            (name for name in settings.model_fields if where in {name, *variables(settings, name)}),
            None,
        )
        if name is None:
            faults.append(f"there is no setting {where!r}")
            continue
        value = fault["input"]
        hidden = "Secret" in str(settings.model_fields[name].annotation) or "@" in str(value)
        spellings = variables(settings, name)
        variable = next((spelling for spelling in spellings if spelling in os.environ), spellings[0])
        faults.append(f"{variable}{'' if hidden else f' is {value!r}, which'} {said[:1].lower()}{said[1:]}")
    return "; ".join(faults)
