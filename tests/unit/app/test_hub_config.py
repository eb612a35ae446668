"""`hub.toml` is read strictly: every complaint names the line, the key and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.app.team.config import HubConfig, HubConfigInvalid, HubConfigMissing, read_hub_config

WHOLE = """\
[listen]
host = "0.0.0.0"
port = 8650
hosts = ["hub.example.org"]
proxies = ["127.0.0.1"]
certfile = "tls/cert.pem"
keyfile = "tls/key.pem"

[store]
url = "env:LOCKGATE_DSN"

[blobs]
url = "s3://bucket/prefix?region=eu"
cache = "/var/cache/lockgate"

[audit]
checkpoint_key = "keys/checkpoint.pem"
sinks = ["file:/mnt/log/checkpoints", "s3://log/checkpoints"]
every_events = 500
every_s = 30.0

[trust.staging]
keys = ["trust/a.pem"]

[trust.prod]
keys = ["trust/a.pem", "trust/b.pem"]

[target]
run = "run"

[identity]
admins = ["ann@example.org"]

[[identity.providers]]
issuer = "https://login.example.org"
client_id = "lockgate"

[limits]
actor_per_s = 20.0
blob_bytes = 1000000
"""


@pytest.fixture
def read(allow_files: Path) -> object:
    def read(text: str) -> HubConfig:
        (allow_files / "hub.toml").write_text(text)
        return read_hub_config(allow_files / "hub.toml")

    return read


def test_a_whole_file(read) -> None:  # type: ignore[no-untyped-def]
    config = read(WHOLE)
    assert config.listen.hosts == ("hub.example.org",)
    assert config.trust["prod"].keys == ("trust/a.pem", "trust/b.pem")
    assert config.limits.actor_per_s == 20.0
    assert config.identity is not None and config.identity.admins == ("ann@example.org",)


def test_an_empty_file_is_a_hub_of_this_machine(read) -> None:  # type: ignore[no-untyped-def]
    config = read("")
    assert config == HubConfig()
    assert (config.listen.host, config.identity) == ("127.0.0.1", None)


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("port = 8650", "port = '8650'", "3: listen.port", "Expected `int`"),
        ("port = 8650", "prot = 8650", "3: listen.prot", "unknown key"),
        ("port = 8650", "port = 70000", "3: listen.port", "no port"),
        ('keys = ["trust/a.pem"]', "kyes = []", "23: trust.staging.kyes", "unknown key"),
        ('keys = ["trust/a.pem"]', "", "22: trust.staging", "missing key 'keys'"),
        ('keys = ["trust/a.pem"]', "keys = 3", "23: trust.staging.keys", "Expected `array`"),
        ("[store]", "[stroe]", "9: stroe", "unknown key"),
        ("issuer =", "isuer =", "35: identity.providers.isuer", "unknown key"),
        ("actor_per_s = 20.0", "actor_per_s = 0.0", "38: limits", "actor_per_s must be above 0"),
        ('hosts = ["hub.example.org"]', "", "1: listen.hosts", "no name is given"),
        ('host = "0.0.0.0"', 'host = "hub"', "2: listen.host", "is no address"),
        ('keyfile = "tls/key.pem"', "", "6: listen.certfile", "needs certfile and keyfile"),
        ("every_s = 30.0", "every_s = 0", "16: audit", "come never"),
        ('url = "env:LOCKGATE_DSN"', "url = secret words", "10: url", "not TOML"),
        ("[target]", "[target", "", "not TOML"),
    ],
)
def test_what_does_not_fit_is_named(read, old: str, new: str, place: str, said: str) -> None:  # type: ignore[no-untyped-def]
    assert WHOLE.count(old) >= 1
    with pytest.raises(HubConfigInvalid) as caught:
        read(WHOLE.replace(old, new, 1))
    assert caught.value.message.startswith(f"hub.toml:{place}")
    assert said in caught.value.message
    assert "secret words" not in caught.value.message
    assert caught.value.remedy


def test_near_matches_are_offered(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HubConfigInvalid) as caught:
        read("[listen]\nhots = []\n")
    assert "'hosts'" in caught.value.remedy


def test_nobody_could_claim_a_name_from_elsewhere(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HubConfigInvalid) as caught:
        read("[listen]\nhost = '::'\nhosts = ['hub']\n")
    assert "could claim any name" in caught.value.message
    assert "[identity]" in caught.value.remedy


def test_a_file_that_is_not_there(allow_files: Path) -> None:
    with pytest.raises(HubConfigMissing) as caught:
        read_hub_config(allow_files / "other.toml")
    assert "other.toml" in caught.value.message
