"""The OpenID provider of `tests/services/oidc`, and tokens that only its keys, or a thief of them, could sign."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from servers import LOOPBACK, folder, free_port, is_listening, started

HERE = Path(__file__).parent / "oidc"
CLIENT, AUDIENCE = "lockgate-hub", "lockgate"
REDIRECTS = ["http://127.0.0.1/callback", "http://127.0.0.1/v1/login/callback"]
ACCOUNTS: dict[str, dict[str, Any]] = {
    "ann": {"email": "Ann@example.org", "email_verified": True, "groups": ["risk", "eng"]},
    "ada": {"email": "ada@example.org", "email_verified": True},
    "bob": {"email": "bob@example.org", "email_verified": True, "groups": []},
    "kim": {"email": "kim@example.org", "email_verified": True},
    "olga": {"email": "olga@example.org", "email_verified": True},
    "aud": {"email": "aud@example.org", "email_verified": True},
    "ivy": {"email": "ivy@example.org", "email_verified": True},
    "sid": {"email": "sid@example.org", "email_verified": True},
    "sue": {"email": "sue@example.org", "email_verified": True},
    "mallory": {"email": "ann@example.org", "email_verified": False, "groups": ["risk"]},
    "eve": {"email": "eve@elsewhere.example", "email_verified": True},
}
JOB = {
    "repository": "acme/fraud",
    "ref": "refs/tags/v1",
    "workflow": "release",
    "sub": "repo:acme/fraud:ref:refs/tags/v1",
}


class Key:
    """A key pair of the provider."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwk(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self.private))
        return {**told, "kid": self.name, "use": "sig", "alg": "RS256"}


class OidcServer:
    """One provider, which may be stopped, started again, and given other keys."""

    def __init__(self, home: Path, *, id_token_s: int = 3600) -> None:
        self.home = home
        self.port = free_port()
        self.issuer = f"http://{LOOPBACK}:{self.port}"
        self.key = Key("first")
        self.id_token_s = id_token_s
        self._running = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._write()
        self.process = self._running.enter_context(
            started(
                ["node", str(HERE / "provider.mjs"), str(self.home / "settings.json")],
                ready=lambda: is_listening(self.port),
                log=self.home / "log",
            )
        )

    def stop(self) -> None:
        self._running.close()

    def rotate(self) -> Key:
        """Sign with a new key from now on, and serve it alone; the old one."""
        old, self.key = self.key, Key(f"after-{self.key.name}")
        self._write()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        return old

    def served_keys(self) -> list[str]:
        return [key["kid"] for key in httpx.get(f"{self.issuer}/jwks", trust_env=False).json()["keys"]]

    def _write(self) -> None:
        public = {"token_endpoint_auth_method": "none", "application_type": "native"}
        settings = {
            "port": self.port,
            "keys": [self.key.jwk],
            "accounts": ACCOUNTS,
            "idTokenSeconds": self.id_token_s,
            "clients": [
                {
                    **public,
                    "client_id": CLIENT,
                    "redirect_uris": REDIRECTS,
                    "grant_types": [
                        "authorization_code",
                        "refresh_token",
                        "urn:ietf:params:oauth:grant-type:device_code",
                    ],
                    "response_types": ["code"],
                },
                *(
                    {
                        "client_id": name,
                        "client_secret": "of the tests",
                        "redirect_uris": [],
                        "response_types": [],
                        "grant_types": ["client_credentials"],
                    }
                    for name in ("job", "adas-job", "other-job")
                ),
            ],
            "jobs": {
                "job": {"audience": AUDIENCE, "claims": JOB},
                "adas-job": {"audience": AUDIENCE, "claims": JOB | {"actor": "Ada-At-Forge"}},
                "other-job": {"audience": AUDIENCE, "claims": JOB | {"repository": "mallory/fraud"}},
            },
        }
        (self.home / "settings.json").write_text(json.dumps(settings))
        (self.home / "settings.json").chmod(0o644)

    def job_token(self, client: str = "job") -> str:
        """The identity token of a CI job, as its CI system gives it."""
        answer = httpx.post(
            f"{self.issuer}/token",
            data={"grant_type": "client_credentials"},
            auth=(client, "of the tests"),
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def forged(self, *, key: Any = None, algorithm: str = "RS256", headers: Any = None, **claims: Any) -> str:
        """A token such as the provider would sign for Ann, but for what is said."""
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "sub": "ann",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 600,
            "email": "ann@example.org",
            "email_verified": True,
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        signed_by = self.key.private if key is None else key
        return jwt.encode(said, signed_by, algorithm, headers={"kid": self.key.name, **(headers or {})})


def follow(url: str, account: str = "ann") -> httpx.Response:
    """Do as a browser does whose user is `account`, until a page stays; forms are sent as they stand."""
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=20) as browser:
        browser.cookies.set("account", account, domain=LOOPBACK)
        page = browser.get(url)
        while page.status_code == 200 and (form := re.search(r'<form[^>]*action="([^"]+)"', page.text)):
            fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page.text))
            page = browser.post(form[1], data=fields | {"confirm": "yes"})
        return page


@contextmanager
def oidc_server(*, id_token_s: int = 3600) -> Iterator[OidcServer]:
    with folder() as home:
        server = OidcServer(home, id_token_s=id_token_s)
        server.start()
        try:
            yield server
        finally:
            server.stop()
