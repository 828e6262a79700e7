"""Kafka's configuration: what is read, what is refused, and that no secret is shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig, read_config, read_credentials
from mma_realtime.errors import BusError

OURS = Path(__file__).resolve().parent.parent / "configs" / "bus" / "kafka.yaml"
HIDDEN = "correct horse battery"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_our_own_configuration_is_one_that_kafka_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed (extra `kafka`)")
    monkeypatch.setenv("MMA_KAFKA_USER", "someone")
    monkeypatch.setenv("MMA_KAFKA_PASSWORD", HIDDEN)
    config = read_config(OURS)
    assert len(config.brokers) == 3
    assert config.security == "sasl_ssl"
    settings = config.client_settings()
    assert settings["security.protocol"] == "sasl_ssl"
    assert (settings["sasl.mechanism"], settings["sasl.username"]) == ("SCRAM-SHA-512", "someone")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_credentials_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path / "secret.yaml", f"user: someone\npassword: {HIDDEN}\n", mode)
    with pytest.raises(BusError, match=rf"may be read by others \(mode {mode:04o}\): chmod 600") as refused:
        read_credentials(file)
    assert HIDDEN not in str(refused.value)
    file.chmod(0o600)
    given = read_credentials(file)
    assert (given.user, given.password) == ("someone", HIDDEN)


def test_credentials_come_from_the_environment_where_no_file_is_named() -> None:
    given = read_credentials(None, {"MMA_KAFKA_USER": "someone", "MMA_KAFKA_PASSWORD": HIDDEN})
    assert (given.user, given.password) == ("someone", HIDDEN)
    assert HIDDEN not in repr(given)
    assert "someone" not in repr(given)
    with pytest.raises(BusError, match="set MMA_KAFKA_USER and MMA_KAFKA_PASSWORD"):
        read_credentials(None, {"MMA_KAFKA_USER": "someone"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brokers: [a:1]\nsasl.password: x\n", "'sasl.password' does not belong here"),
        ("brokers: [a:1]\nuser: x\n", "'user' does not belong here"),
        ("brokers: [a:1]\nport: 1\n", "unknown key 'port'; known: brokers, ca"),
        ("brokers: a:1\n", "brokers has to be a list"),
        ("brokers: []\n", "at least one"),
        ("brokers: [a:1]\nsecurity: sasl_plaintext\n", "one of plaintext, ssl, sasl_ssl"),
        ("brokers: [a:1]\nmechanism: GSSAPI\n", "one of SCRAM-SHA-512"),
        ("brokers: [a:1]\nmechanism: OAUTHBEARER\n", "needs token_url"),
        ("brokers: [a:1]\nmessage_bytes: 16 MB\n", "message_bytes '16 MB' of Kafka: bytes of a record"),
        ("brokers: [a:1]\nmessage_bytes: 10\n", "message_bytes 10 of Kafka"),
        ("- a\n", "names and values are wanted"),
        (f"password: '{HIDDEN}\n", "is no YAML"),
    ],
)
def test_a_configuration_that_will_not_do_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BusError, match=said) as refused:
        read_config(written(tmp_path / "kafka.yaml", text))
    assert HIDDEN not in str(refused.value)


def test_missing_files_and_missing_keys(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"nowhere.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml")
    with pytest.raises(BusError, match=r"nowhere.yaml: No such file"):
        read_credentials(tmp_path / "nowhere.yaml")
    with pytest.raises(BusError, match="two keys, user and password"):
        read_credentials(written(tmp_path / "secret.yaml", "user: someone\n"))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "OAUTHBEARER"])
def test_no_secret_is_shown_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], mechanism: str
) -> None:
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed (extra `kafka`)")
    caplog.set_level(logging.DEBUG)
    file = written(tmp_path / "secret.yaml", f"user: someone\npassword: {HIDDEN}\n")
    config = KafkaConfig(
        ("127.0.0.1:1",), "sasl_ssl", mechanism=mechanism, token_url="https://127.0.0.1:1/token",
        credentials=str(file), delivery_timeout=0.3, request_timeout=0.2,
    )  # fmt: skip
    bus = KafkaBus(config)
    with pytest.raises(BusError) as refused:
        bus.append("gw.notices", "S1", b"")
    bus.close()
    out, err = capfd.readouterr()
    for shown in (repr(config), repr(bus), str(refused.value), caplog.text, out, err):
        assert HIDDEN not in shown


def test_what_kafka_itself_refuses_is_told(tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed (extra `kafka`)")
    with pytest.raises(BusError, match=r"Kafka refuses the settings: .*ssl.ca.location failed"):
        KafkaBus(KafkaConfig(("127.0.0.1:1",), "ssl", ca=str(tmp_path / "nowhere.pem")))
