"""How to reach a Kafka cluster: a YAML file without secrets, and credentials from elsewhere (docs/deployment.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mma_realtime.errors import BusError

SECURITY = ("plaintext", "ssl", "sasl_ssl")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER")
USER, PASSWORD = "MMA_KAFKA_USER", "MMA_KAFKA_PASSWORD"
SECRET = ("password", "secret", "user", "token")


@dataclass(frozen=True)
class Credentials:
    """A user (client id) and a password (client secret), which no repr and no log shows."""

    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class KafkaConfig:
    """A cluster and how to speak to it.

    Attributes:
        brokers: host:port of some of its brokers.
        security: `plaintext` (a trusted network only), `ssl`, or `sasl_ssl`; no password travels unencrypted.
        ca, certificate, key: files in PEM for TLS.
        mechanism: of SASL; OAUTHBEARER asks `token_url` for tokens.
        credentials: a YAML file of mode 0600 with `user` and `password`; without it the environment has them.
        delivery_timeout: s for which a record is sent again and again before its append fails.
        request_timeout: s after which a broker that does not answer is asked again.
        message_bytes: largest record, of which the topics and brokers have to allow as much: a notice carries its map.
    """

    brokers: tuple[str, ...]
    security: str = "ssl"
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    mechanism: str = "SCRAM-SHA-512"
    token_url: str | None = None
    credentials: str | None = None
    delivery_timeout: float = 600.0
    request_timeout: float = 10.0
    message_bytes: int = 34_000_000

    def __post_init__(self) -> None:
        if not self.brokers or isinstance(self.brokers, str):
            raise BusError("brokers of Kafka: a list of host:port, at least one")
        if self.security not in SECURITY:
            raise BusError(f"security {self.security!r} of Kafka: one of {', '.join(SECURITY)}")
        if self.mechanism not in MECHANISMS:
            raise BusError(f"mechanism {self.mechanism!r} of Kafka: one of {', '.join(MECHANISMS)}")
        if self.mechanism == "OAUTHBEARER" and not self.token_url:
            raise BusError("mechanism OAUTHBEARER of Kafka needs token_url")
        if type(self.message_bytes) is not int or not 1000 <= self.message_bytes <= 10**8:
            raise BusError(f"message_bytes {self.message_bytes!r} of Kafka: bytes of a record, 1,000 to 100,000,000")

    def client_settings(self) -> dict[str, Any]:
        """What librdkafka is told, secrets among it: to be handed on, never shown."""
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.brokers),
            "security.protocol": self.security,
            "socket.timeout.ms": int(1e3 * self.request_timeout),
            "message.max.bytes": self.message_bytes,
            "receive.message.max.bytes": max(10**8, self.message_bytes + 2**20),
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 5000,
        }
        files = {"ssl.ca.location": self.ca, "ssl.certificate.location": self.certificate, "ssl.key.location": self.key}
        settings |= {name: value for name, value in files.items() if value}
        if self.security != "sasl_ssl":
            return settings
        given = read_credentials(self.credentials)
        settings["sasl.mechanism"] = self.mechanism
        if self.mechanism == "OAUTHBEARER":
            return settings | {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": given.user,
                "sasl.oauthbearer.client.secret": given.password,
                "sasl.oauthbearer.token.endpoint.url": self.token_url,
            }
        return settings | {"sasl.username": given.user, "sasl.password": given.password}


def read_config(path: str | Path) -> KafkaConfig:
    """The configuration in a YAML file. BusError: unreadable, an unknown key, or a secret written into it."""
    content = _mapping(Path(path))
    for name in content:
        if any(word in name.lower() for word in SECRET) and name != "token_url":
            raise BusError(
                f"{path}: {name!r} does not belong here: put it into the environment ({USER}, {PASSWORD}) "
                "or into a file of mode 0600 that `credentials` names"
            )
    known = {entry.name for entry in fields(KafkaConfig)}
    if unknown := sorted(set(content) - known):
        raise BusError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    brokers = content.pop("brokers", ())
    if not isinstance(brokers, list):
        raise BusError(f"{path}: brokers has to be a list of host:port")
    return KafkaConfig(tuple(map(str, brokers)), **content)


def read_credentials(path: str | Path | None, environment: Mapping[str, str] = os.environ) -> Credentials:
    """User and password, from a file that its owner alone may read, or from the environment where no file is named."""
    if path is None:
        if not (environment.get(USER) and environment.get(PASSWORD)):
            raise BusError(
                f"Kafka wants a user and a password: set {USER} and {PASSWORD}, or name a `credentials` file"
            )
        return Credentials(environment[USER], environment[PASSWORD])
    file = Path(path).expanduser()
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise BusError(f"credentials {file}: {error.strerror}") from None
    if mode & 0o077:
        raise BusError(f"credentials {file} may be read by others (mode {mode:04o}): chmod 600 {file}")
    content = _mapping(file)
    if set(content) != {"user", "password"}:
        raise BusError(f"credentials {file}: two keys, user and password")
    return Credentials(str(content["user"]), str(content["password"]))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BusError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise BusError(f"{path} is no YAML") from None  # the parser's own message would quote the file
    if not isinstance(content, dict):
        raise BusError(f"{path}: names and values are wanted")
    return {str(name): value for name, value in content.items()}
