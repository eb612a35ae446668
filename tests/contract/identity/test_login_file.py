"""The file of logins: private, replaced as a whole, and never shown."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from lockgate.adapters.identity.logins import (
    HubInsecure,
    Login,
    LoginEnded,
    Logins,
    LoginsExposed,
    LoginsUnreadable,
    check_secure,
    proof_for,
)

HUB = "https://hub.example.org"


def login(*, ends_in_s: int = 3600, refresh_token: str = "") -> Login:
    until = int(time.time()) + ends_in_s
    body = base64.urlsafe_b64encode(json.dumps({"sub": "ann", "exp": until}).encode()).decode().rstrip("=")
    return Login(
        issuer="https://id.example.org",
        client_id="hub",
        token_endpoint="https://id.example.org/token",
        id_token=f"head.{body}.signature",
        expires_at=until,
        refresh_token=refresh_token,
    )


def test_a_login_is_kept_for_its_hub_and_for_its_owner_alone(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "lockgate")
    kept = login()
    assert logins.get(HUB) is None
    logins.keep(HUB + "/", kept)
    assert Logins(tmp_path / "lockgate").get(HUB) == kept
    assert logins.get("https://other.example.org") is None
    assert logins.token(HUB) == kept.id_token
    assert (tmp_path / "lockgate").stat().st_mode & 0o777 == 0o700
    files = [path for path in (tmp_path / "lockgate").iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    logins.keep("https://other.example.org", kept)
    assert logins.forget(HUB)
    assert not logins.forget(HUB)
    assert logins.get("https://other.example.org") == kept


def test_what_is_secret_is_shown_nowhere(tmp_path: Path) -> None:
    kept = login(refresh_token="hush-hush")
    assert "signature" not in repr(kept)
    assert "hush-hush" not in repr(kept)
    logins = Logins(tmp_path)
    logins.keep(HUB, kept)
    file = tmp_path / "logins.json"
    file.write_bytes(file.read_bytes() + b"hush-hush")
    with pytest.raises(LoginsUnreadable) as caught:
        logins.get(HUB)
    assert "hush-hush" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    logins = Logins(tmp_path)
    logins.keep(HUB, login())
    (tmp_path / "logins.json").chmod(mode)
    with pytest.raises(LoginsExposed):
        logins.get(HUB)


def test_a_login_that_ended_and_cannot_be_renewed_has_ended(tmp_path: Path) -> None:
    logins = Logins(tmp_path)
    with pytest.raises(LoginEnded, match="has ended"):
        logins.token(HUB)
    logins.keep(HUB, login(ends_in_s=30))
    with pytest.raises(LoginEnded) as caught:
        logins.token(HUB)
    assert caught.value.remedy == f"lockgate login --hub {HUB}"


@pytest.mark.parametrize(
    "hub", ["http://hub.example.org", "http://10.0.0.1:8650", "http://127.0.0.1.example.org"]
)
def test_a_token_goes_no_way_that_others_can_read(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubInsecure):
        check_secure(hub)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LOCKGATE_TOKEN", raising=False)
    assert proof_for(hub) is None
    monkeypatch.setenv("LOCKGATE_TOKEN", "x")
    with pytest.raises(HubInsecure):
        proof_for(hub)


def test_the_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LOCKGATE_TOKEN", raising=False)
    Logins().keep(HUB, login())
    proof = proof_for(HUB)
    assert proof is not None
    assert proof().startswith("head.")
    monkeypatch.setenv("LOCKGATE_TOKEN", "from the variable")
    proof = proof_for(HUB)
    assert proof is not None
    assert proof() == "from the variable"
