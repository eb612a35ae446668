"""Who somebody is, at a real hub, by a real OpenID provider: logins, tokens, CI jobs; and everything that must fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from oidc_server import AUDIENCE, CLIENT, Key, OidcServer, follow, oidc_server
from openapi_spec_validator import OpenAPIV31SpecValidator
from servers import free_port

from lockgate.access.decide import DAY
from lockgate.access.messages import (
    AddFederationRule,
    CreateServiceAccount,
    GrantRole,
    IssueServiceToken,
    IssueToken,
    RemoveFederationRule,
    RevokeRole,
    RevokeToken,
)
from lockgate.access.tokens import secret_hash
from lockgate.adapters.hubs.http import HttpHub
from lockgate.adapters.identity.federation import GRANT_TYPE, SUBJECT_TYPES
from lockgate.adapters.identity.minting import new_token
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.core.errors import Forbidden
from lockgate.core.messages import Command
from lockgate.delivery.messages import DeclareEndpoint, DeclareEnvironment, RemoveEndpoint
from lockgate.hub.messages import ListAccess, OwnAccess, Queue, Status, WhoAmI
from lockgate.traffic.plan import Fallback

pytestmark = pytest.mark.service

CLI = (sys.executable, "-m", "lockgate.app.cli")
ANN, BOB = "ann@example.org", "bob@example.org"


class TeamHub(NamedTuple):
    url: str
    store: Path
    log: Path
    open_hubs: ExitStack

    def hub(self, bearer: str) -> HttpHub:
        return self.open_hubs.enter_context(HttpHub(self.url, token=lambda: bearer))

    def status_of(self, bearer: str | None = None, **headers: str) -> httpx.Response:
        proof = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return httpx.post(
            f"{self.url}/v1/ask", json={"type": "hub.who-am-i"}, headers={**proof, **headers}, trust_env=False
        )


def configured(store: Path, provider: OidcServer, port: int, options: dict[str, Any]) -> Path:
    """A `hub.toml` over a store; hubs of one store share the key that signs its checkpoints."""
    home = store.with_suffix(f".{free_port()}")
    home.mkdir()
    table = {
        "admins": [ANN],
        "providers": [{"issuer": provider.issuer, "client_id": CLIENT, "domains": ["example.org"]}],
        "ci": [{"issuer": provider.issuer, "audience": AUDIENCE}],
        **options,
    }
    people, jobs = table.pop("providers"), table.pop("ci")
    lines = [
        f"[listen]\nport = {port}",
        f"[store]\nurl = '{'env:TEAM_DSN' if 'TEAM_DSN' in os.environ else f'sqlite:{store}'}'",
        f"[audit]\ncheckpoint_key = '{store.parent / 'checkpoint.pem'}'",
        "[identity]",
        *(f"{name} = {json.dumps(value)}" for name, value in table.items()),
    ]
    for name, entries in (("providers", people), ("ci", jobs)):
        for entry in entries:
            lines.append(f"[[identity.{name}]]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    file = home / "hub.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


@contextmanager
def team_hub(store: Path, provider: OidcServer, **options: Any) -> Iterator[TeamHub]:
    port = int(options.get("console", ":0").rpartition(":")[2])
    file, log = configured(store, provider, port, options), store.with_suffix(".log")
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*CLI, "hub", "--config", str(file)], stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        with ExitStack() as open_hubs:
            yield TeamHub(json.loads(line)["url"], store, log, open_hubs)
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcServer]:
    with oidc_server() as server:
        yield server


@pytest.fixture
def team(provider: OidcServer, tmp_path: Path) -> Iterator[TeamHub]:
    with team_hub(tmp_path / "team.db", provider) as hub:
        yield hub


def do(hub: HttpHub, kind: type[Command], **fields: Any) -> None:
    receipt = hub.execute(kind(id=new_token().id, **fields))
    assert receipt.refusal is None, receipt.refusal


def issued(hub: HttpHub, subject: str = ANN, **fields: Any) -> str:
    made, kind = new_token(), IssueServiceToken if subject.startswith("service:") else IssueToken
    until = time.time_ns() // 1000 + DAY
    do(
        hub,
        kind,
        subject=subject,
        token=made.id,
        secret_sha256=secret_hash(made.secret),
        expires_at=until,
        **fields,
    )
    return str(made)


# -- who is let in ---------------------------------------------------------------------------------------------------


def test_the_first_admin_is_named_by_the_configuration_and_journaled_once(
    team: TeamHub, provider: OidcServer
) -> None:
    ann = team.hub(provider.forged())
    for _ in range(2):
        told = ann.ask(WhoAmI())
        assert (told.actor, told.claimed, told.roles, told.kind) == (ANN, False, ("admin",), "person")
    (subject,) = ann.ask(ListAccess()).subjects
    assert (subject.subject, len(subject.grants)) == (ANN, 1)
    named = [entry.body for entry in open_sqlite(team.store).journal.entries(0, 100)]
    assert len([body for body in named if b"access.first-admin-named/1" in body]) == 1


def test_what_comes_before_a_name_is_described_as_the_rest_is(provider: OidcServer, tmp_path: Path) -> None:
    with team_hub(tmp_path / "team.db", provider, console=f"http://127.0.0.1:{free_port()}") as team:
        told = httpx.get(f"{team.url}/v1/openapi.json", trust_env=False).json()
        OpenAPIV31SpecValidator(told).validate()
        assert list(told["components"]["securitySchemes"]) == ["token"]
        open_to_all = {
            (path, method)
            for path, operations in told["paths"].items()
            for method, operation in operations.items()
            if operation.get("security") == []
        }
        assert {path for path, _ in open_to_all} == {
            "/v1/health", "/v1/openapi.json", "/v1/identity", "/v1/tokens/exchange",
            "/v1/login", "/v1/login/callback", "/v1/logout",
        }  # fmt: skip
        with httpx.Client(base_url=team.url, trust_env=False) as client:
            for path, operations in told["paths"].items():
                for method in operations:
                    body = {"json": {}} if method == "post" else {}
                    answer = client.request(method, path.replace("{digest}", "sha256:" + "0" * 64), **body)
                    if (path, method) in open_to_all:
                        assert answer.status_code != 404, path
                    else:
                        assert answer.status_code == 401, (method, path)


def test_no_default_password_and_no_default_read(team: TeamHub, provider: OidcServer) -> None:
    assert team.status_of().status_code == 401
    for name, password in (("admin", "admin"), ("admin", "password"), ("lockgate", "lockgate")):
        answer = httpx.post(
            f"{team.url}/v1/ask", json={"type": "hub.status"}, auth=(name, password), trust_env=False
        )
        assert answer.status_code == 401
    bob = team.hub(provider.forged(sub="bob", email=BOB))
    assert bob.ask(WhoAmI()).roles == ()
    with pytest.raises(Forbidden, match="may not"):
        bob.ask(Status())


def test_a_name_that_is_only_claimed_is_refused_in_clear_words(team: TeamHub, provider: OidcServer) -> None:
    for bearer in (None, provider.forged()):
        answer = team.status_of(bearer, **{"Lockgate-Actor": "ann%40example.org"})
        assert answer.status_code == 401
        assert answer.json()["code"] == "identity.claim-refused"
        assert "--as" in answer.json()["remedy"]


def forgeries(provider: OidcServer) -> dict[str, str]:
    """Tokens that are nearly Ann's."""
    public = provider.key.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = provider.forged()
    head, body, signature = good.split(".")
    none = jwt.utils.base64url_encode(b'{"alg":"none","typ":"JWT"}').decode()
    hs256 = jwt.utils.base64url_encode(
        json.dumps({"alg": "HS256", "typ": "JWT", "kid": provider.key.name}).encode()
    ).decode()
    signed = jwt.utils.base64url_encode(
        jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
            f"{hs256}.{body}".encode(), pem
        )
    ).decode()
    other = jwt.utils.base64url_encode(
        json.dumps({**json.loads(jwt.utils.base64url_decode(body)), "sub": "x"}).encode()
    )
    return {
        "another audience": provider.forged(aud="another-client"),
        "two audiences without azp": provider.forged(aud=[CLIENT, "another-client"]),
        "another party": provider.forged(azp="another-client"),
        "another issuer": provider.forged(iss="https://elsewhere.example"),
        "an issuer nearly the same": provider.forged(iss=provider.issuer + "/"),
        "expired": provider.forged(exp=1_700_000_000, iat=1_699_999_000),
        "not yet": provider.forged(nbf=4_000_000_000),
        "from the future": provider.forged(iat=4_000_000_000, exp=4_000_000_600),
        "issued long ago, to live for ever": provider.forged(iat=1_700_000_000, exp=4_000_000_000),
        "without an end": provider.forged(exp=None),
        "without an audience": provider.forged(aud=None),
        "without a subject": provider.forged(sub=None),
        "signed by nobody": f"{none}.{body}.",
        "unsigned": f"{head}.{body}.",
        "signed with the public key": f"{hs256}.{body}.{signed}",
        "signed by another key": provider.forged(key=Key("thief").private),
        "by a key nobody serves": provider.forged(headers={"kid": "unknown"}),
        "of another type": provider.forged(headers={"typ": "at+jwt"}),
        "a logout token": provider.forged(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "another body": f"{head}.{other.decode()}.{signature}",
        "an address that nobody verified": provider.forged(email_verified=False),
        "an address that nobody verified, in words": provider.forged(email_verified="true"),
        "no address": provider.forged(email=None),
        "somebody of another house": provider.forged(email="ann@elsewhere.example"),
        "one who calls himself an account": provider.forged(email="service:ci@example.org"),
        "one who calls himself a list": provider.forged(email=[ANN]),
        "a word": "x",
        "noise": "a.b.c",
        "a token of ours that nobody made": str(new_token()),
        "a token's id": new_token().id,
    }


def test_what_is_nearly_a_proof_is_none_and_all_are_answered_alike(
    team: TeamHub, provider: OidcServer
) -> None:
    assert team.status_of(provider.forged()).status_code == 200
    answers = {}
    for what, bearer in forgeries(provider).items():
        answer = team.status_of(bearer)
        assert answer.status_code == 401, what
        assert answer.headers["www-authenticate"].startswith("Bearer")
        answers[what] = answer.content
    assert len(set(answers.values())) == 1


def test_who_proved_nothing_is_counted_and_no_secret_is_logged(team: TeamHub, provider: OidcServer) -> None:
    forged, unknown = provider.forged(aud="another-client"), str(new_token())
    for bearer in (forged, unknown):
        team.status_of(bearer)
    counted = open_sqlite(team.store).usage.counted()
    assert set(counted) <= {"unauthenticated.audience", "unauthenticated.token"}
    assert counted
    log = team.log.read_text()
    for secret in (forged.split(".")[2], unknown.split(".")[1]):
        assert secret not in log
        assert secret.encode() not in team.store.read_bytes()


# -- keys of the provider --------------------------------------------------------------------------------------------


def test_new_keys_are_fetched_when_they_are_first_seen(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with oidc_server() as provider, team_hub(tmp_path / "team.db", provider) as team:
        first = provider.forged()
        assert team.status_of(first).status_code == 200
        provider.rotate()
        eventually(lambda: provider.served_keys() == [provider.key.name])
        eventually(lambda: team.status_of(provider.forged()).status_code == 200)
        assert team.status_of(first).status_code == 401


def test_a_provider_that_is_down_keeps_nobody_out_whose_key_is_known(tmp_path: Path) -> None:
    with oidc_server() as provider, team_hub(tmp_path / "team.db", provider) as team:
        assert team.status_of(provider.forged()).status_code == 200
        provider.stop()
        assert team.status_of(provider.forged()).status_code == 200
        with team_hub(tmp_path / "other.db", provider) as fresh:
            answer = fresh.status_of(provider.forged())
            assert answer.status_code == 503
            assert answer.json()["code"] == "identity.provider-down"
            assert answer.json()["retryable"]
            assert fresh.status_of(str(new_token())).status_code == 401


# -- tokens and roles ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A place for hubs over one store, on either database."""
    if request.param == "postgres":
        monkeypatch.setenv("TEAM_DSN", request.getfixturevalue("database"))
    return tmp_path / "team.db"


def test_a_revocation_counts_at_once_on_every_hub_of_the_store(shared: Path, provider: OidcServer) -> None:
    with team_hub(shared, provider) as team, team_hub(shared, provider) as second:
        ann = team.hub(provider.forged())
        do(ann, GrantRole, subject=BOB, role="viewer")
        token = issued(ann)
        assert second.hub(token).ask(WhoAmI()).roles == ("admin",)
        bob = second.hub(provider.forged(sub="bob", email=BOB))
        assert bob.ask(Status()).models == ()
        do(ann, RevokeRole, subject=BOB, role="viewer")
        with pytest.raises(Forbidden):
            bob.ask(Status())
        do(ann, RevokeToken, token=token.partition(".")[0])
        assert second.status_of(token).status_code == 401
        assert team.status_of(token).status_code == 401
        used = ann.ask(OwnAccess()).tokens[0]
        assert (used.state, used.last_used_at is not None) == ("revoked", True)


def test_a_token_does_what_its_holder_may_and_no_more_than_it_was_made_for(
    team: TeamHub, provider: OidcServer
) -> None:
    ann, bob = team.hub(provider.forged()), team.hub(provider.forged(sub="bob", email=BOB))
    do(ann, GrantRole, subject=BOB, role="operator", namespace="fraud")
    token = issued(bob, BOB, grants=({"role": "viewer", "namespace": "fraud"},))
    told = team.hub(token).ask(WhoAmI())
    assert (told.actor, told.kind, told.roles) == (BOB, "person", ("viewer",))
    assert told.credential == f"token:{token.partition('.')[0]}"
    do(ann, RevokeRole, subject=BOB, role="operator", namespace="fraud")
    assert team.hub(token).ask(WhoAmI()).roles == ()
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert team.status_of(wrong).status_code == 401


def test_the_last_use_of_a_token_is_known(team: TeamHub, provider: OidcServer) -> None:
    ann = team.hub(provider.forged())
    token = issued(ann)
    assert ann.ask(OwnAccess()).tokens[0].last_used_at is None
    team.hub(token).ask(WhoAmI())
    assert ann.ask(OwnAccess()).tokens[0].last_used_at is not None


def test_groups_of_the_provider_bring_roles(team: TeamHub, provider: OidcServer) -> None:
    ann = team.hub(provider.forged())
    do(ann, GrantRole, subject="group:risk", role="approver:risk")
    bob = provider.forged(sub="bob", email=BOB, groups=["risk", "x", 7, "a\nb"])
    assert team.hub(bob).ask(WhoAmI()).roles == ("approver:risk",)
    assert team.hub(bob).ask(WhoAmI()).groups == ("risk", "x")
    assert team.hub(provider.forged(sub="bob", email=BOB, groups="risk")).ask(WhoAmI()).roles == ()


# -- CI jobs ---------------------------------------------------------------------------------------------------------


def exchange(team: TeamHub, job_token: str, **fields: str) -> httpx.Response:
    form = {"grant_type": GRANT_TYPE, "subject_token": job_token, "subject_token_type": SUBJECT_TYPES[0]}
    return httpx.post(f"{team.url}/v1/tokens/exchange", data=form | fields, trust_env=False)


def test_what_asks_less_of_an_endpoint_takes_two_admins_who_have_proven_who_they_are(
    team: TeamHub, provider: OidcServer
) -> None:
    ann, bob = team.hub(provider.forged()), team.hub(provider.forged(sub="bob", email=BOB))
    do(ann, GrantRole, subject=BOB, role="admin")
    place = {"sensitivity": "production", "target": "local", "trust": ("key",)}
    do(ann, DeclareEnvironment, environment="prod", order=1, **place)
    name, fallback = "prod/main/x", Fallback(kind="constant", value=0.5)

    def declares(admin: HttpHub, *consumers: str) -> tuple[str, ...]:
        do(admin, DeclareEndpoint, endpoint=name, fallback=fallback, consumers=consumers)
        return ann.ask(Status(endpoint=name)).endpoints["prod/x"].consumers

    assert declares(ann, "app", "gate") == ("app", "gate")
    assert declares(ann, "gate") == declares(ann, "gate") == ("app", "gate")
    (waiting,) = bob.ask(Queue()).waiting
    assert (waiting.matter, waiting.subject) == ("declaration", f"endpoint {name}")
    assert declares(bob, "gate") == ("gate",)
    assert ann.ask(Queue()).waiting == ()
    for admin, gone in ((ann, False), (ann, False), (bob, True)):
        do(admin, RemoveEndpoint, endpoint=name, reason="tidying up", despite_consumers=True)
        assert (ann.ask(Status(endpoint=name)).endpoints["prod/x"].removed_at is not None) == gone
    assert declares(ann) == ("gate",)
    assert ann.ask(Status(endpoint=name)).endpoints["prod/x"].removed_at is not None
    assert declares(bob) == ()


@pytest.fixture
def federated(team: TeamHub, provider: OidcServer) -> TeamHub:
    """Tags of acme/fraud act as service:ci, which Bob was asked to give its role."""
    ann, bob = team.hub(provider.forged()), team.hub(provider.forged(sub="bob", email=BOB))
    do(ann, GrantRole, subject=BOB, role="admin")
    do(ann, CreateServiceAccount, name="ci", purpose="builds")
    do(bob, GrantRole, subject="service:ci", role="ci", environments=("dev",))
    do(
        ann,
        AddFederationRule,
        name="release",
        issuer=provider.issuer,
        claims={"repository": "acme/fraud", "ref": "refs/tags/*", "workflow": "release"},
        subject="service:ci",
        lifetime_s=600,
    )
    return team


def test_a_job_acts_as_its_account_for_a_short_while(federated: TeamHub, provider: OidcServer) -> None:
    answer = exchange(federated, provider.job_token())
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert told["token_type"] == "Bearer"
    assert 590 <= told["expires_in"] <= 600
    who = federated.hub(told["access_token"]).ask(WhoAmI())
    assert (who.actor, who.kind, who.roles) == ("service:ci", "service", ("ci",))
    assert who.grants[0].environments == ("dev",)
    events = b"".join(entry.body for entry in open_sqlite(federated.store).journal.entries(0, 100))
    assert b"access.token-exchanged/2" in events
    assert told["access_token"].partition(".")[2].encode() not in events


@pytest.mark.parametrize(("client", "who"), [("adas-job", ["github:ada-at-forge"]), ("job", [])])
def test_who_started_a_job_is_kept_with_the_exchange_and_so_is_that_nobody_is_named(
    federated: TeamHub, provider: OidcServer, client: str, who: list[str]
) -> None:
    assert exchange(federated, provider.job_token(client)).status_code == 200
    entries = open_sqlite(federated.store).journal.entries(0, 100)
    (told,) = [
        one for one in (json.loads(entry.body)["event"] for entry in entries) if "exchanged" in one["type"]
    ]
    assert told["started_by"] == who
    assert "actor" not in told["claims"]


def test_a_verified_address_is_an_alias_of_whoever_is_named_otherwise(
    provider: OidcServer, tmp_path: Path
) -> None:
    people = [{"issuer": provider.issuer, "client_id": CLIENT, "subject": "sub"}]
    with team_hub(tmp_path / "team.db", provider, providers=people, admins=["ann"]) as team:
        ann = team.hub(provider.forged())
        for _ in range(2):
            assert ann.ask(WhoAmI()).actor == "ann"
        for claims in ({"email_verified": False}, {"email_verified": None}, {"email": None}):
            team.hub(provider.forged(sub="eve", **{"email": "eve@example.org", **claims})).ask(WhoAmI())
        (known,) = ann.ask(ListAccess()).aliases
        assert known.alias == ANN
        assert [(one.subject, one.named_by) for one in known.behind] == [("ann", "lockgate-hub")]


def test_a_jobs_token_is_exchanged_once(federated: TeamHub, provider: OidcServer) -> None:
    job = provider.job_token()
    assert exchange(federated, job).status_code == 200
    again = exchange(federated, job)
    assert again.status_code == 403
    assert again.json()["facts"]["rule"] == "access.exchanged-before"
    with team_hub(federated.store, provider) as second:
        assert exchange(second, job).status_code == 403


def test_another_job_gets_nothing_and_is_told_what_it_said(federated: TeamHub, provider: OidcServer) -> None:
    answer = exchange(federated, provider.job_token("other-job"))
    assert answer.status_code == 403
    assert answer.json()["code"] == "identity.exchange-refused"
    assert "mallory/fraud" in answer.json()["detail"]
    forged = {"aud": AUDIENCE, "sub": "x", "repository": "acme/fraud", "workflow": "release"}
    assert exchange(federated, provider.forged(**forged, ref="refs/heads/main")).status_code == 403
    good = {**forged, "ref": "refs/tags/v2"}
    assert exchange(federated, provider.forged(**good)).status_code == 200
    for bad in (
        provider.forged(**good | {"aud": CLIENT}),
        provider.forged(**good, key=Key("thief").private),
        provider.forged(**good, exp=1_700_000_000),
        "noise",
        "",
    ):
        assert exchange(federated, bad).status_code == 401


def test_what_is_no_exchange_is_told_so(federated: TeamHub, provider: OidcServer) -> None:
    assert exchange(federated, "x", grant_type="password").status_code == 400
    assert exchange(federated, "x", subject_token_type="saml").status_code == 400
    url = f"{federated.url}/v1/tokens/exchange"
    assert httpx.post(url, json={}, trust_env=False).status_code == 400
    twice = httpx.post(
        url,
        content=b"grant_type=a&grant_type=b",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        trust_env=False,
    )
    assert twice.json()["code"] == "http.form-malformed"


def test_the_end_of_a_rule_is_the_end_of_its_tokens(federated: TeamHub, provider: OidcServer) -> None:
    token = exchange(federated, provider.job_token()).json()["access_token"]
    do(federated.hub(provider.forged()), RemoveFederationRule, name="release")
    assert federated.status_of(token).status_code == 401
    assert exchange(federated, provider.job_token()).status_code == 403


# -- a browser at the hub --------------------------------------------------------------------------------------------


@pytest.fixture
def console(provider: OidcServer, tmp_path: Path) -> Iterator[TeamHub]:
    with team_hub(tmp_path / "team.db", provider, console=f"http://127.0.0.1:{free_port()}") as hub:
        yield hub


@contextmanager
def browser(account: str = "ann") -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=20) as client:
        client.cookies.set("account", account, domain="127.0.0.1")
        yield client


def asked(client: httpx.Client, hub: TeamHub, **headers: str) -> httpx.Response:
    return client.post(f"{hub.url}/v1/ask", json={"type": "hub.who-am-i"}, headers=headers)


def test_a_browser_logs_in_at_the_hub_and_out(console: TeamHub) -> None:
    with browser() as client:
        assert asked(client, console).status_code == 401
        page = client.get(f"{console.url}/v1/login", params={"to": "/v1/health?x=1"})
        assert str(page.url) == f"{console.url}/v1/health?x=1"
        (back,) = [one for one in page.history if one.url.path == "/v1/login/callback"]
        (session,) = [one for one in back.headers.get_list("set-cookie") if one.startswith("lockgate=")]
        assert {"httponly", "path=/", "samesite=lax"} <= {part.strip().lower() for part in session.split(";")}
        assert back.headers["cache-control"] == "no-store"
        told = asked(client, console, Origin=console.url).json()
        assert (told["actor"], told["roles"], told["claimed"]) == (ANN, ["admin"], False)
        # What a page of another site makes the browser send, cookie and all.
        assert asked(client, console, Origin="https://evil.example").status_code == 401
        assert asked(client, console, Origin="null").status_code == 401
        assert asked(client, console, **{"Sec-Fetch-Site": "cross-site"}).status_code == 401
        crossing = client.post(f"{console.url}/v1/logout", headers={"Sec-Fetch-Site": "cross-site"})
        assert crossing.status_code == 403
        client.post(f"{console.url}/v1/logout", follow_redirects=False)
        assert asked(client, console).status_code == 401


def test_a_login_in_the_browser_is_answered_to_who_began_it_once(console: TeamHub) -> None:
    with browser() as ann, browser("bob") as bob:
        ann.follow_redirects = bob.follow_redirects = False
        sent = ann.get(f"{console.url}/v1/login").headers["location"]
        assert "code_challenge_method=S256" in sent
        assert bob.get(f"{console.url}/v1/login").status_code == 303
        ann.follow_redirects = True
        page = ann.get(sent)
        (back,) = [one for one in page.history if one.url.path == "/v1/login/callback"]
        # Another browser that is made to open the address of Ann's answer does not become Ann, nor she him.
        for client in (bob, ann):
            client.follow_redirects = False
            again = client.get(str(back.url))
            assert (again.status_code, again.json()["code"]) == (403, "identity.login-failed")
    assert httpx.get(str(back.url), trust_env=False).status_code == 403


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb"])
def test_a_login_ends_at_the_hub(console: TeamHub, to: str) -> None:
    answer = httpx.get(f"{console.url}/v1/login", params={"to": to}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (400, "identity.way-back")


def test_without_a_console_there_is_no_login_and_no_cookie_counts(
    team: TeamHub, provider: OidcServer
) -> None:
    assert httpx.get(f"{team.url}/v1/login", trust_env=False).status_code == 404
    assert team.status_of(None, Cookie=f"lockgate={provider.forged()}").status_code == 401


# -- the command line ------------------------------------------------------------------------------------------------


class Person:
    """Somebody with a command line and a configuration of his own."""

    def __init__(self, home: Path, account: str, hub: str) -> None:
        self.account = account
        self.config = home / account
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE")},
            "XDG_CONFIG_HOME": str(self.config),
            "LOCKGATE_HUB": hub,
            "BROWSER": "false",
        }

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, *command], capture_output=True, text=True, env=self._env | env, timeout=60
        )

    def json(self, *command: str, **env: str) -> Any:
        done = self.run(*command, "--json", **env)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def login(self, *options: str) -> dict[str, Any]:
        """As a person does it: start, open what is shown in a browser, wait for the end."""
        process = subprocess.Popen(
            [*CLI, "login", "--json", "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
        )
        assert process.stderr is not None
        said, browser = [], None
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"open (\S+)", line):
                browser = threading.Thread(target=follow, args=(found[1], self.account))
                browser.start()
        assert process.stdout is not None
        answer = process.stdout.read()
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 0, "".join(said) + answer
        assert browser is not None
        browser.join(20)
        told: dict[str, Any] = json.loads(answer)
        return told

    @property
    def file(self) -> Path:
        return self.config / "lockgate" / "logins.json"


@pytest.mark.parametrize("options", [(), ("--device",)], ids=["browser", "device"])
def test_a_person_logs_in_and_out(team: TeamHub, tmp_path: Path, options: tuple[str, ...]) -> None:
    ann = Person(tmp_path, "ann", team.url)
    assert ann.run("status").returncode == 3
    assert "login" in ann.run("status").stderr
    assert ann.login(*options) == {"hub": team.url, "actor": ANN, "roles": ["admin"]}
    assert ann.file.stat().st_mode & 0o777 == 0o600
    assert ann.json("whoami")["actor"] == ANN
    assert ann.json("status")["endpoints"] == {}
    refused = ann.run("status", "--as", "bob")
    assert refused.returncode == 3
    assert "cli.claim-beside-proof" in refused.stderr
    assert ann.json("logout")["was_logged_in"]
    assert ann.run("whoami").returncode == 3
    assert not ann.json("logout")["was_logged_in"]


def test_somebody_without_a_verified_address_does_not_get_in(team: TeamHub, tmp_path: Path) -> None:
    mallory = Person(tmp_path, "mallory", team.url)
    with pytest.raises(AssertionError, match=r"http\.unauthenticated"):
        mallory.login()


def test_a_login_that_is_about_to_end_is_renewed(tmp_path: Path) -> None:
    """Tokens of half a minute: each command finds one that is about to end, and asks for the next."""
    with oidc_server(id_token_s=30) as provider, team_hub(tmp_path / "team.db", provider) as team:
        ann = Person(tmp_path, "ann", team.url)
        ann.login()
        first = json.loads(ann.file.read_text())[team.url]
        # Two at once: one of them asks, and the refresh token is used once.
        both = [threading.Thread(target=ann.json, args=("whoami",)) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(60)
        second = json.loads(ann.file.read_text())[team.url]
        # The identity token of the same second is the same text; the one that renews it is never used twice.
        assert second["refresh_token"] != first["refresh_token"]
        assert ann.json("whoami")["actor"] == ANN
        provider.stop()
        failed = ann.run("whoami")
        assert failed.returncode == 6
        assert "identity.refresh-failed" in failed.stderr
        assert second["refresh_token"] not in failed.stderr + failed.stdout


def test_a_file_that_others_may_read_is_refused(team: TeamHub, tmp_path: Path) -> None:
    ann = Person(tmp_path, "ann", team.url)
    ann.login()
    ann.file.chmod(0o644)
    refused = ann.run("whoami")
    assert refused.returncode == 3
    assert "chmod 600" in refused.stderr
    ann.file.chmod(0o600)
    ann.file.write_text("{secret")
    broken = ann.run("whoami")
    assert broken.returncode == 7
    assert "secret" not in broken.stderr


def test_an_admin_gives_roles_and_tokens_from_the_command_line(team: TeamHub, tmp_path: Path) -> None:
    ann, bob = (Person(tmp_path, name, team.url) for name in ("ann", "bob"))
    ann.login()
    bob.login()
    waits = ann.json("access", "grant", ANN, "operator", "--env", "prod")
    assert waits["waits"]
    assert "not now" in ann.run("whoami").stdout
    ann.json("access", "grant", BOB, "admin")
    bob.json("access", "confirm", ANN, "operator")
    assert ann.json("whoami")["roles"] == ["admin", "operator"]
    ann.json("access", "create-account", "ci", "--purpose", "builds", "--namespace", "fraud")
    bob.json("access", "grant", "service:ci", "ci", "--namespace", "fraud", "--env", "dev")
    refused = bob.run("token", "issue", "--for", "service:ci")
    assert refused.returncode == 8
    assert "access.own-gift" in refused.stderr
    made = ann.json("token", "issue", "--for", "service:ci", "--days", "5", "--label", "nightly")
    robot = Person(tmp_path, "robot", team.url)
    who = robot.json("whoami", LOCKGATE_TOKEN=made["token"])
    assert (who["actor"], who["kind"]) == ("service:ci", "service")
    listed = ann.run("token", "list", "--all").stdout
    assert made["id"] in listed
    assert made["token"].partition(".")[2] not in listed
    assert "service:ci  (builds)" in ann.run("access", "list").stdout
    ann.json("token", "revoke", made["token"])
    assert robot.run("whoami", LOCKGATE_TOKEN=made["token"]).returncode == 3
    ann.json("access", "revoke", "service:ci", "ci", "--namespace", "fraud")
    assert made["token"].encode() not in team.store.read_bytes()


def test_a_token_is_not_sent_where_others_can_read_it(tmp_path: Path) -> None:
    person = Person(tmp_path, "ann", "http://hub.example.org")
    refused = person.run("status", LOCKGATE_TOKEN=str(new_token()))
    assert refused.returncode == 3
    assert "identity.hub-insecure" in refused.stderr


def test_answers_of_both_ends_are_the_same_type(team: TeamHub, provider: OidcServer) -> None:
    offered = httpx.get(f"{team.url}/v1/identity", trust_env=False).json()
    assert [one["issuer"] for one in offered["providers"]] == [provider.issuer]
    assert "admins" not in msgspec.json.encode(offered).decode()
