"""The process's settings, from the environment: where the queue, the store and the files are. Pipelines are not settings."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline.networks import Networks
from pipeline.units import Duration, Size


class Settings(BaseSettings):
    """Every field is the environment variable `SIFTBELL_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="SIFTBELL_", env_ignore_empty=True, frozen=True, extra="ignore")

    config: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(Path("configs"),),
        description="Pipeline files and directories of them, separated by ':' as in PATH.",
    )
    data: Path = Field(default=Path(".siftbell"), description="The data directory of the embedded default.")
    broker: SecretStr | None = Field(
        default=None,
        description="The queue's URL (redis://, amqp://, sqs://); unset: a SQLite file in the data directory.",
    )
    store: SecretStr | None = Field(
        default=None,
        description="The store's SQLAlchemy URL (postgresql+psycopg://); unset: a SQLite file in the data directory.",
    )
    memory: SecretStr | None = Field(default=None, description="redis:// URL for the memory; unset: the store's database.")
    secrets: Path = Field(default=Path("/run/secrets"), description="The directory that ${file:NAME} reads from.")
    host: str = Field(default="127.0.0.1", description="The address that the web server listens on.")
    port: int = Field(default=8025, ge=0, le=65535, description="The port that the web server listens on; 0 takes a free one.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="A worker's or clock's own port for /livez, /readyz and /metrics."
    )
    private_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Private networks that consumers may post to, such as 10.0.0.0/8,127.0.0.1; else public addresses only.",
    )
    scripts: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Directories of executables that `script` may run, separated by ':'; unset: none may be run.",
    )
    max_body: Size = Field(default=2**20, description="The largest request body that the intake takes.")
    publish_timeout: Duration = Field(
        default="5s",
        validate_default=True,
        description="How long the intake waits for the broker before it keeps messages in the store.",
    )
    retention: Duration = Field(default="7d", validate_default=True, description="How long records of decisions are kept.")
    retention_records: int = Field(
        default=10_000_000, ge=1000, description="How many records of decisions are kept, about; the oldest go first."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least level logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people on a terminal, JSON lines elsewhere."
    )

    @field_validator("config", "scripts", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("private_networks", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part, strict=False) for part in re.split(r"[,\s]+", value) if part)
        except ValueError:
            raise ValueError("networks such as 10.0.0.0/8,127.0.0.1 are expected") from None

    @property
    def networks(self) -> Networks:
        """Where consumers may post to."""
        return Networks(self.private_networks)

    @property
    def broker_url(self) -> str:
        """The queue's URL as kombu takes it."""
        if self.broker is None:
            return f"siftbell-sqlite:///{self.data.absolute() / 'queue.db'}"
        return self.broker.get_secret_value()

    @property
    def store_url(self) -> str:
        """The store's URL as SQLAlchemy takes it."""
        if self.store is None:
            return f"sqlite:///{self.data.absolute() / 'store.db'}"
        return self.store.get_secret_value()

    @property
    def memory_url(self) -> str:
        """The memory's URL: a Redis server's, or the store's."""
        return self.store_url if self.memory is None else self.memory.get_secret_value()

    def environment(self) -> dict[str, str]:
        """Give the variables that make a child process see the same settings."""
        plain = self.model_dump(mode="json", exclude_none=True, exclude={"config", "broker", "store", "memory"})
        found = {f"SIFTBELL_{name.upper()}": str(value) for name, value in plain.items()}
        found["SIFTBELL_PRIVATE_NETWORKS"] = ",".join(map(str, self.private_networks))
        found["SIFTBELL_SCRIPTS"] = os.pathsep.join(str(path.absolute()) for path in self.scripts)
        found["SIFTBELL_CONFIG"] = os.pathsep.join(str(path) for path in self.config)
        for name in ("broker", "store", "memory"):
            secret: SecretStr | None = getattr(self, name)
            if secret is not None:
                found[f"SIFTBELL_{name.upper()}"] = secret.get_secret_value()
        return found


def allowed_scripts() -> tuple[Path, ...]:
    """Give the directories whose executables plugins may run, whole; none: they may run nothing."""
    return tuple(Path(part).absolute() for part in os.environ.get("SIFTBELL_SCRIPTS", "").split(os.pathsep) if part)
