"""Logins of this user at hubs: one private file, and the token to show at the next request.

The file holds secrets. It lies in the user's configuration folder with mode 0600, is refused when others may read
it, and is replaced as a whole. Of several commands that find a token about to end, one asks for the next: providers
take the second use of a refresh token for a theft.
"""

from __future__ import annotations

import base64
import fcntl
import ipaddress
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from lockgate.core.errors import Corrupt, Forbidden, Unavailable

TOKEN_VARIABLE = "LOCKGATE_TOKEN"
_EARLY_S = 60
_PATIENCE_S = 10.0


class LoginEnded(Forbidden):
    code = "identity.login-ended"


class LoginsExposed(Forbidden):
    code = "identity.logins-exposed"


class LoginsUnreadable(Corrupt):
    code = "identity.logins-unreadable"


class HubInsecure(Forbidden):
    """A token would travel readable for everybody on the way."""

    code = "identity.hub-insecure"


class LoginRefreshFailed(Unavailable):
    code = "identity.refresh-failed"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login at one hub; `expires_at` in seconds since 1970."""

    issuer: str
    client_id: str
    token_endpoint: str
    id_token: str
    expires_at: int
    refresh_token: str = ""

    def __repr__(self) -> str:
        return f"Login({self.issuer}, {self.client_id})"


def folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lockgate"


class Logins:
    """The logins of this user, by the address of the hub. Safe for processes at once."""

    def __init__(self, place: Path | None = None) -> None:
        self._folder = place or folder()
        self._file = self._folder / "logins.json"

    def get(self, hub: str) -> Login | None:
        """Raises `LoginsExposed` when others may read the file, `LoginsUnreadable` when it is none."""
        return self._read().get(hub.rstrip("/"))

    def keep(self, hub: str, login: Login) -> None:
        with self._alone():
            self._write({**self._read(), hub.rstrip("/"): login})

    def forget(self, hub: str) -> bool:
        """Whether there was one."""
        with self._alone():
            logins = self._read()
            there = logins.pop(hub.rstrip("/"), None) is not None
            self._write(logins)
        return there

    def token(self, hub: str) -> str:
        """What proves this user at the hub now; asked for anew when the last one is about to end.

        Raises:
            LoginEnded: there is no login, or the provider gives no further token.
            LoginRefreshFailed: the provider does not answer.
        """
        login = self.get(hub)
        if login is not None and time.time() < login.expires_at - _EARLY_S:
            return login.id_token
        with self._alone():
            login = self._read().get(hub.rstrip("/"))
            if login is None:
                raise _ended(hub)
            if time.time() >= login.expires_at - _EARLY_S:
                login = _refreshed(hub, login)
                self._write({**self._read(), hub.rstrip("/"): login})
        return login.id_token

    def _read(self) -> dict[str, Login]:
        try:
            mode = self._file.stat().st_mode
            text = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        if stat.S_IMODE(mode) & 0o077:
            raise LoginsExposed(
                f"others may read {self._file}",
                remedy=f"chmod 600 {self._file}, and log in anew if somebody did",
                path=str(self._file),
            )
        try:
            return msgspec.json.decode(text, type=dict[str, Login])
        except msgspec.MsgspecError:
            # What stands there is secret, so neither it nor the parser's words are shown.
            raise LoginsUnreadable(
                f"{self._file} cannot be read",
                remedy=f"rm {self._file}, then log in again",
                path=str(self._file),
            ) from None

    def _write(self, logins: dict[str, Login]) -> None:
        part = self._file.with_suffix(".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(logins))
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "logins.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def proof_for(hub: str) -> Callable[[], str] | None:
    """What gives the token for a hub: LOCKGATE_TOKEN, else this user's login there; None without either.

    Raises:
        HubInsecure: there is one, and the way to the hub is readable for others.
    """
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    logins = Logins()
    if not given and logins.get(hub) is None:
        return None
    check_secure(hub)
    return (lambda: given) if given else (lambda: logins.token(hub))


def check_secure(hub: str) -> None:
    parts = urlsplit(hub)
    if parts.scheme == "https" or _is_here(parts.hostname or ""):
        return
    raise HubInsecure(
        f"a token is not sent to {hub}: the way there is readable for others",
        remedy="use the https address of the hub",
        hub=hub,
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def claims_of(id_token: str) -> dict[str, object]:
    """What a token says, unverified: enough to know when it ends and whose it is."""
    try:
        part = id_token.split(".")[1]
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        return msgspec.json.decode(text, type=dict[str, object])
    except (IndexError, ValueError, msgspec.MsgspecError):
        return {}


def expiry_of(id_token: str) -> int:
    until = claims_of(id_token).get("exp", 0)
    return int(until) if isinstance(until, int | float) else 0


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str = ""
    refresh_token: str = ""


def _refreshed(hub: str, login: Login) -> Login:
    if not login.refresh_token:
        raise _ended(hub)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": login.refresh_token,
        "client_id": login.client_id,
    }
    secure = login.token_endpoint.startswith("https:")
    try:
        response = httpx.post(
            login.token_endpoint, data=form, timeout=_PATIENCE_S, verify=secure, trust_env=secure
        )
        tokens = msgspec.json.decode(response.content, type=_Tokens)
    except (httpx.HTTPError, msgspec.MsgspecError):
        # The exception may hold the request, and with it the token.
        raise _unanswered(login) from None
    if response.status_code >= 500:
        raise _unanswered(login)
    before, after = claims_of(login.id_token), claims_of(tokens.id_token)
    same = all(before.get(name) == after.get(name) for name in ("iss", "sub", "aud"))
    if response.status_code != 200 or not tokens.id_token or not same:
        raise _ended(hub)
    return msgspec.structs.replace(
        login,
        id_token=tokens.id_token,
        refresh_token=tokens.refresh_token or login.refresh_token,
        expires_at=expiry_of(tokens.id_token),
    )


def _unanswered(login: Login) -> LoginRefreshFailed:
    return LoginRefreshFailed(
        f"{login.issuer} gave no new token",
        remedy="try again; if it stays so: lockgate login",
        issuer=login.issuer,
    )


def _ended(hub: str) -> LoginEnded:
    return LoginEnded(f"the login at {hub} has ended", remedy=f"lockgate login --hub {hub}", hub=hub)
