"""The keys of an issuer: fetched when needed, never more often than is good for it, used for a while when it is down.

Against a small server on loopback that counts what it is asked; the real provider is in tests/services.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from lockgate.adapters.identity import oidc
from lockgate.adapters.identity.oidc import Issuer, IssuerInvalid, NotProven, ProviderDown, check_issuer
from lockgate.adapters.identity.team import IdentityInvalid, IdentityOptions, check_options
from lockgate.testing.loopback import served

DAY = 86_400.0
HEAD_OF_RS256 = jwt.utils.base64url_encode(b'{"alg":"RS256","kid":"x","typ":"JWT"}').decode()


class Provider(ThreadingHTTPServer):
    """Serves discovery and keys; may be told to fail, or to call itself otherwise."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.calls_itself = self.issuer
        self.keys: list[dict[str, Any]] = []
        self.is_down = False
        self.n_asked = 0
        self.padding = ""
        self.answers = threading.Event()
        self.answers.set()
        self.drips, self.never = False, threading.Event()

    def add(self, name: str, kind: str = "RSA", **more: Any) -> Any:
        private: Any
        if kind == "RSA":
            private = rsa.generate_private_key(public_exponent=65537, key_size=more.pop("bits", 2048))
            told = RSAAlgorithm.to_jwk(private.public_key())
        elif kind == "EC":
            private = ec.generate_private_key(ec.SECP256R1())
            told = ECAlgorithm.to_jwk(private.public_key())
        else:
            private = ed25519.Ed25519PrivateKey.generate()
            told = OKPAlgorithm.to_jwk(private.public_key())
        self.keys.append({**json.loads(told), "kid": name, **more})
        return private


class Answering(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        provider = self.server
        provider.answers.wait(30)
        if self.path == "/keys":
            provider.n_asked += 1
            body = {"keys": provider.keys, "padding": provider.padding}
        else:
            body = {"issuer": provider.calls_itself, "jwks_uri": f"{provider.issuer}/keys"}
        said = json.dumps(body).encode()
        self.send_response(503 if provider.is_down else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if not provider.drips:
            self.wfile.write(said)
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            for at in range(len(said)):
                provider.never.wait(0.02)
                self.wfile.write(said[at : at + 1])

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with served(Provider()) as server:
        yield server


class Watch:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def watch() -> Watch:
    return Watch()


def signed(provider: Provider, key: Any, kid: str | None, algorithm: str = "RS256", **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": provider.issuer, "sub": "ann", "aud": "hub", "iat": now, "exp": now + 600, **claims}
    return jwt.encode(said, key, algorithm, headers={} if kid is None else {"kid": kid})


def why(issuer: Issuer, token: str) -> str:
    with pytest.raises(NotProven) as caught:
        issuer.claims(token)
    return caught.value.why


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("RSA", "RS256"), ("RSA", "PS256"), ("RSA", "RS512"), ("EC", "ES256"), ("OKP", "EdDSA")],
)
def test_keys_of_every_kind(provider: Provider, kind: str, algorithm: str) -> None:
    key = provider.add("k", kind)
    issuer = Issuer(provider.issuer, "hub")
    assert issuer.claims(signed(provider, key, "k", algorithm))["sub"] == "ann"
    # One key, and a token that names none.
    assert issuer.claims(signed(provider, key, None, algorithm))["sub"] == "ann"
    provider.add("other")
    assert why(Issuer(provider.issuer, "hub"), signed(provider, key, None, algorithm)) == "key"


def test_a_key_is_for_its_own_algorithm_and_for_signatures(provider: Provider) -> None:
    rs256 = provider.add("rs256", alg="RS256")
    for_secrets = provider.add("enc", use="enc")
    curve = provider.add("curve", "EC")
    issuer = Issuer(provider.issuer, "hub")
    assert why(issuer, signed(provider, rs256, "rs256", "PS256")) == "algorithm"
    assert why(issuer, signed(provider, for_secrets, "enc")) == "algorithm"
    assert why(issuer, signed(provider, curve, "rs256", "ES256")) == "algorithm"
    assert why(issuer, signed(provider, "secret" * 8, "rs256", "HS256")) == "algorithm"
    only = Issuer(provider.issuer, "hub", algorithms=("RS256", "none", "HS256"))
    assert only.claims(signed(provider, rs256, "rs256"))
    assert why(only, signed(provider, "secret" * 8, "rs256", "HS256")) == "algorithm"


def test_a_key_that_is_too_short_to_trust_is_not_trusted(provider: Provider) -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = signed(provider, provider.add("weak", bits=1024), "weak")
    assert why(Issuer(provider.issuer, "hub"), token) == "invalid"


def test_made_up_key_ids_do_not_make_the_hub_ask_again_and_again(provider: Provider, watch: Watch) -> None:
    key = provider.add("k")
    issuer = Issuer(provider.issuer, "hub", monotonic=watch)
    issuer.claims(signed(provider, key, "k"))
    assert provider.n_asked == 1
    for number in range(20):
        assert why(issuer, signed(provider, key, f"made-up-{number}")) == "key"
    assert provider.n_asked == 1
    new = provider.add("new")
    assert why(issuer, signed(provider, new, "new")) == "key"
    watch.at += 3
    assert issuer.claims(signed(provider, new, "new"))
    assert provider.n_asked == 2


def test_keys_are_asked_for_again_in_time_and_one_that_is_gone_counts_no_longer(
    provider: Provider, watch: Watch
) -> None:
    key = provider.add("k")
    issuer = Issuer(provider.issuer, "hub", monotonic=watch)
    issuer.claims(signed(provider, key, "k"))
    provider.keys.clear()
    provider.add("new")
    watch.at += 500
    assert issuer.claims(signed(provider, key, "k"))
    watch.at += 200
    assert why(issuer, signed(provider, key, "k")) == "key"


def test_while_a_provider_is_down_its_keys_count_for_a_day(provider: Provider, watch: Watch) -> None:
    key = provider.add("k")
    issuer = Issuer(provider.issuer, "hub", monotonic=watch)
    issuer.claims(signed(provider, key, "k"))
    provider.is_down = True
    watch.at += DAY - 10
    assert issuer.claims(signed(provider, key, "k"))
    watch.at += 60
    for _ in range(2):
        with pytest.raises(ProviderDown):
            issuer.claims(signed(provider, key, "k"))
    provider.is_down = False
    watch.at += 60
    assert issuer.claims(signed(provider, key, "k"))


def test_a_provider_that_was_never_there_is_down(provider: Provider, watch: Watch) -> None:
    key = provider.add("k")
    provider.is_down = True
    issuer = Issuer(provider.issuer, "hub", monotonic=watch)
    for _ in range(3):
        with pytest.raises(ProviderDown):
            issuer.claims(signed(provider, key, "k"))


def test_who_calls_himself_otherwise_or_talks_too_much_is_not_believed(provider: Provider) -> None:
    key = provider.add("k")
    provider.calls_itself = "https://elsewhere.example"
    with pytest.raises(ProviderDown, match="calls itself"):
        Issuer(provider.issuer, "hub").claims(signed(provider, key, "k"))
    provider.calls_itself = provider.issuer
    provider.padding = "x" * 300_000
    with pytest.raises(ProviderDown, match="too long"):
        Issuer(provider.issuer, "hub").claims(signed(provider, key, "k"))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "ftp://example.org",
        "https://",
        "https://user@example.org",
        "https://example.org?x=1",
        "https://example.org#x",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_issuer_is_reached_by_https_or_is_of_this_machine(url: str) -> None:
    with pytest.raises(IssuerInvalid):
        check_issuer(url)


@pytest.mark.parametrize(
    "url", ["https://id.example.org/realm", "http://127.0.0.1:80", "http://[::1]:80", "http://localhost"]
)
def test_good_issuers(url: str) -> None:
    assert check_issuer(url) == url


def people(issuer: str, *domains: str) -> dict[str, Any]:
    return {"issuer": issuer, "client_id": "hub", "domains": domains}


@pytest.mark.parametrize(
    "table",
    [
        {"admins": ["Ann@example.org"]},
        {"admins": ["service:ci"]},
        {"admins": ["group:admins"]},
        {"token_days": 0},
        {"token_days": 400},
        {"providers": [people("https://a.example"), people("https://b.example")]},
        {"providers": [people("https://a.example", "x.org"), people("https://b.example", "x.org")]},
        {"providers": [people("https://a.example", "x.org"), people("https://a.example", "y.org")]},
    ],
)
def test_a_table_that_lets_in_somebody_it_does_not_mean_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(IdentityInvalid):
        check_options(msgspec.convert(table, IdentityOptions))


def test_two_providers_for_two_houses_are_fine() -> None:
    table = {"providers": [people("https://a.example", "x.org"), people("https://b.example", "y.org")]}
    assert check_options(msgspec.convert(table, IdentityOptions)).token_days == 90


def test_a_provider_that_is_slow_does_not_keep_everybody_waiting(provider: Provider, watch: Watch) -> None:
    """Anybody may show a token that names the provider; the threads that ask after its keys are few."""
    provider.answers.clear()
    issuer = Issuer(provider.issuer, "hub", monotonic=watch)
    forged = jwt.encode({"iss": provider.issuer}, "k" * 64, algorithm="HS512", headers={"kid": "x"})
    shown = forged.replace(forged.partition(".")[0], HEAD_OF_RS256)
    ended: list[type[Exception]] = []

    def show() -> None:
        try:
            issuer.claims(shown)
        except (NotProven, ProviderDown) as error:
            ended.append(type(error))

    threads = [threading.Thread(target=show) for _ in range(20)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 4
    while len(ended) < 12 and time.monotonic() < until:
        threads[-1].join(0.05)
    assert ended == [ProviderDown] * 12, "eight wait, the others are told at once"
    provider.answers.set()
    for thread in threads:
        thread.join()
    assert ProviderDown not in ended[12:]


def test_a_provider_that_never_comes_to_an_end_is_down(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.drips, provider.padding = True, "x" * 500
    monkeypatch.setattr(oidc, "_PATIENCE_S", 0.2)
    with pytest.raises(ProviderDown, match="does not end"):
        oidc.fetch_json(f"{provider.issuer}/keys")
