"""Any registry that speaks the OCI distribution protocol (1.0 or 1.1): blobs, manifests, tags, referrers.

What comes back is hashed before it is handed on, whatever the registry calls it, and never longer than its descriptor
says. Plain http is spoken with this machine only. A password goes to the registry it belongs to, or to the token
service that registry names, by https; it follows no redirect to another host.

A registry without the referrers API (all of distribution 1.0) is told what refers to a manifest by the fallback the
specification gives: an index under the tag `sha256-<hex>`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit

import httpx
import msgspec

from lockgate.core.blobs import BlobCorrupt
from lockgate.core.digests import BadDigest, Digest, canonical, check_digest, sha256
from lockgate.core.errors import Forbidden, Invalid, LockgateError, NotFound, Unavailable, Unsupported
from lockgate.registry.packages.package import MANIFEST_TYPE, Descriptor

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CHUNK_BYTES = 16 * 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_TRIES = 4
_PAUSE_S = 0.2
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[::1\])(?::[0-9]{1,5})?\Z")
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_OF_THE_WAY = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class ReferenceInvalid(Invalid):
    code = "registries.reference-invalid"


class RegistryUnreachable(Unavailable):
    code = "registries.unreachable"


class RegistryDenied(Forbidden):
    """The registry does not accept the login, or it does not reach so far."""

    code = "registries.denied"


class RegistryRefused(Unsupported):
    """The registry understands the request and does not take it. Facts: `status`, `said`."""

    code = "registries.refused"


class NotInRegistry(NotFound):
    code = "registries.not-there"


class BytesDiffer(BlobCorrupt):
    """A registry gave other bytes than those it was asked for by digest."""

    code = "registries.bytes-differ"


class Login(NamedTuple):
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ...)"


class OciReference(NamedTuple):
    """`HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]`."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> OciReference:
        """Raises `ReferenceInvalid`. There is no default host: what is not written is not guessed."""
        rest, at, digest = text.partition("@")
        host, slash, path = rest.partition("/")
        repository, colon, tag = path.partition(":")
        fits = _HOST.match(host) and ("." in host or ":" in host or host == "localhost")
        if not (slash and fits and _REPOSITORY.match(repository)) or (colon and not _TAG.match(tag)):
            raise ReferenceInvalid(
                f"{text!r} is no reference to a registry",
                remedy="write HOST[:PORT]/REPOSITORY[:TAG] or HOST/REPOSITORY@sha256:..., in small letters",
                reference=text,
            )
        return cls(host, repository, tag or None, check_digest(digest) if at else None)

    @staticmethod
    def fits(text: str) -> bool:
        """Whether it can be read as a reference at all."""
        try:
            OciReference.parse(text)
        except (ReferenceInvalid, BadDigest):
            return False
        return True

    @property
    def name(self) -> str:
        """What names the manifest: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


class Source(Protocol):
    """The bytes of a blob, from any place on."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes: ...


class Held(NamedTuple):
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]


class InFile(NamedTuple):
    path: Path
    size: int

    def read(self, start: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(length)


class OciRegistry:
    """One registry, for one login. Close it, or use it in a `with` block.

    Args:
        host: with port when there is one; this machine is spoken to in plain http, all others by https.
        login: None to ask as nobody.
    """

    def __init__(self, host: str, login: Login | None = None) -> None:
        plain = host in _LOOPBACK or host.rpartition(":")[0] in _LOOPBACK
        self.host = host
        self.base = f"{'http' if plain else 'https'}://{host}"
        self._login = login
        self._tokens: dict[str, str] = {}
        # What is packed small may be large without end, so nothing is asked for packed, or unpacked.
        self._client = httpx.Client(
            timeout=_TIMEOUT, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        )

    def __enter__(self) -> OciRegistry:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def has_blob(self, repository: str, digest: Digest) -> bool:
        answer = self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, fine=(200, 404))
        return answer.status_code == 200

    def mount_blob(self, repository: str, digest: Digest, origins: Iterable[str]) -> bool:
        """Have the registry take a blob from another of its repositories; false when it has to be sent.

        Args:
            origins: repositories that may hold it; the first that does is asked for it.
        """
        for origin in origins:
            try:
                if origin == repository or not self.has_blob(origin, digest):
                    continue
                url = f"/v2/{repository}/blobs/uploads/?mount={quote(digest)}&from={quote(origin, safe='')}"
                answer = self._ask("POST", url, repository, fine=(201, 202), push=True, origin=origin)
            except (RegistryDenied, RegistryRefused, NotInRegistry):
                # Who may not read there, or whose registry knows no mounting, sends what he has.
                continue
            if answer.status_code == 201:
                return True
            # Declined: an upload was opened instead, which nobody goes on with.
            with suppress(LockgateError):
                self._once("DELETE", self._place(answer), repository, fine=(202, 204, 404, 405), push=True)
            return False
        return False

    def push_blob(self, repository: str, digest: Digest, source: Source) -> None:
        """Send a blob: a small one at once, a large one in chunks, going on where a broken connection left it."""
        for left in reversed(range(_TRIES)):
            try:
                return self._push_blob(repository, digest, source)
            except (RegistryUnreachable, NotInRegistry):
                # The answer may have been lost, not the blob: then the upload is no longer known.
                if self.has_blob(repository, digest):
                    return None
                if not left:
                    raise
                time.sleep(_PAUSE_S)
        return None

    def _push_blob(self, repository: str, digest: Digest, source: Source) -> None:
        answer = self._once("POST", f"/v2/{repository}/blobs/uploads/", repository, fine=(202,), push=True)
        place = self._place(answer)
        if source.size > CHUNK_BYTES:
            place = self._push_chunks(repository, place, source)
            data = b""
        else:
            data = source.read(0, source.size)
        joint = "&" if urlsplit(place).query else "?"
        headers = {"Content-Type": "application/octet-stream"}
        url = f"{place}{joint}digest={quote(digest)}"
        self._once("PUT", url, repository, fine=(201, 204), push=True, content=data, headers=headers)

    def pull_blob(self, repository: str, digest: Digest, size: int) -> bytes:
        """The bytes of a blob, whole and verified; a broken download goes on where it broke.

        Raises:
            NotInRegistry, BytesDiffer.
        """
        url, data = f"/v2/{repository}/blobs/{digest}", bytearray()
        for left in reversed(range(_TRIES)):
            try:
                self._pull_on(url, repository, data, size)
                break
            except RegistryUnreachable:
                if not left:
                    raise
                time.sleep(_PAUSE_S)
        if len(data) != size or sha256(bytes(data)) != digest:
            raise self._differ(digest, f"{len(data)} bytes that are not the {size} it stands for")
        return bytes(data)

    def push_manifest(self, repository: str, name: str, data: bytes) -> bool:
        """Put a manifest under its digest or a tag; true when the registry took note of its subject by itself."""
        answer = self._ask(
            "PUT",
            f"/v2/{repository}/manifests/{name}",
            repository,
            fine=(201, 202),
            push=True,
            content=data,
            headers={"Content-Type": _media_type(data)},
        )
        return "OCI-Subject" in answer.headers

    def pull_manifest(self, repository: str, name: str) -> bytes:
        """A manifest by digest (then verified) or by tag.

        Raises:
            NotInRegistry, BytesDiffer.
        """
        data = self._manifest(repository, name)
        if data is None:
            raise NotInRegistry(
                f"{self.host}/{repository} has no {name}",
                remedy="check repository, tag and digest",
                registry=self.host,
                repository=repository,
                name=name,
            )
        if name.startswith("sha256:") and sha256(data) != name:
            raise self._differ(name, f"a manifest that hashes to {sha256(data)}")
        return data

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        """What refers to a manifest: signatures and other attestations."""
        found = self._referrers(repository, digest)
        if found is None:
            found = self._manifest(repository, _fallback_tag(digest))
        return [] if found is None else _entries(found, digest)

    def push_referrer(
        self, repository: str, subject: Digest, manifest: bytes, descriptor: Descriptor
    ) -> None:
        """Put a manifest with a `subject`, and see to it that it is found by that."""
        noted = self.push_manifest(repository, descriptor.digest, manifest)
        if noted or self._referrers(repository, subject) is not None:
            return
        # No condition can be put on a tag, so somebody else's entry may be lost; then both are written again.
        for _ in range(_TRIES):
            entries = self.referrers(repository, subject)
            if descriptor.digest in [one.digest for one in entries]:
                return
            index = {
                "schemaVersion": 2,
                "mediaType": INDEX_TYPE,
                "manifests": [msgspec.to_builtins(one) for one in [*entries, descriptor]],
            }
            self.push_manifest(repository, _fallback_tag(subject), canonical(index))
        raise RegistryUnreachable(
            f"the list of what refers to {subject} in {self.host}/{repository} kept changing",
            remedy="push again",
            registry=self.host,
        )

    def _referrers(self, repository: str, digest: Digest) -> bytes | None:
        """The answer of the referrers API; None where there is none."""
        url = f"/v2/{repository}/referrers/{digest}"
        answer = self._ask("GET", url, repository, fine=(200, 400, 404, 405))
        # Some answer any unknown path with a page of their own.
        return answer.content if answer.status_code == 200 and INDEX_TYPE in _kind(answer) else None

    def _manifest(self, repository: str, name: str) -> bytes | None:
        answer = self._ask(
            "GET",
            f"/v2/{repository}/manifests/{name}",
            repository,
            fine=(200, 404),
            headers={"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"},
        )
        return answer.content if answer.status_code == 200 else None

    def _push_chunks(self, repository: str, place: str, source: Source) -> str:
        """Send everything in chunks; returns where the upload is to be finished."""
        at, tries = 0, _TRIES
        while at < source.size:
            data = source.read(at, CHUNK_BYTES)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{at}-{at + len(data) - 1}",
            }
            try:
                answer = self._once(
                    "PATCH", place, repository, fine=(202, 416), push=True, content=data, headers=headers
                )
                if answer.status_code == 202:
                    place, at = self._place(answer), at + len(data)
                    continue
            except RegistryUnreachable:
                time.sleep(_PAUSE_S)
            tries -= 1
            if not tries:
                raise RegistryUnreachable(
                    f"{self.host} took {at} of {source.size} bytes and no more",
                    remedy="push again; what is there is not sent again",
                    registry=self.host,
                )
            answer = self._ask("GET", place, repository, fine=(204,), push=True)
            place, at = self._place(answer), _received(answer)
        return place

    def _pull_on(self, url: str, repository: str, data: bytearray, size: int) -> None:
        headers = {"Range": f"bytes={len(data)}-"} if data else {}
        with self._stream(url, repository, headers) as answer:
            if answer.status_code == 200:
                data.clear()
            for part in answer.iter_raw():
                data += part
                if len(data) > size:
                    return

    @contextmanager
    def _stream(
        self, url: str, repository: str, headers: Mapping[str, str], *, challenged: bool = False
    ) -> Iterator[httpx.Response]:
        """A GET whose body is read bit by bit; one redirect is followed, to another host without the login."""
        scope = _scope(repository, push=False)
        known, place = self._known(scope), urljoin(self.base, url)
        try:
            with self._client.stream("GET", place, headers={**headers, **known}) as answer:
                if answer.status_code in (200, 206):
                    yield answer
                    return
                answer = self._whole(answer)
            fresh = answer.status_code == 401 and not challenged
            if fresh and self._authorise(answer, scope, known):
                with self._stream(url, repository, headers, challenged=True) as again:
                    yield again
                return
            if answer.status_code in (301, 302, 303, 307, 308):
                target = self._redirect(answer, place)
                same = urlsplit(target).netloc == self.host
                with self._client.stream(
                    "GET", target, headers={**headers, **(known if same else {})}
                ) as moved:
                    if moved.status_code not in (200, 206):
                        self._refuse(self._whole(moved))
                    yield moved
                return
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        self._refuse(answer)

    def _redirect(self, answer: httpx.Response, place: str) -> str:
        target = urljoin(place, str(answer.headers.get("Location", "")))
        if not self._is_private(target):
            raise RegistryRefused(
                f"{self.host} sends a download to plain http elsewhere, which is not followed",
                remedy="use a registry that serves its blobs by https",
                registry=self.host,
            )
        return target

    def _ask(
        self, method: str, url: str, repository: str, *, fine: tuple[int, ...], **more: Any
    ) -> httpx.Response:
        """A request that may be sent again when the connection breaks."""
        for left in reversed(range(_TRIES)):
            try:
                return self._once(method, url, repository, fine=fine, **more)
            except RegistryUnreachable:
                if not left:
                    raise
                time.sleep(_PAUSE_S)
        raise AssertionError("unreachable")

    def _once(
        self,
        method: str,
        url: str,
        repository: str,
        *,
        fine: tuple[int, ...],
        push: bool = False,
        origin: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        place, scope = urljoin(self.base, url), _scope(repository, push, origin)
        # An upload may be taken elsewhere; the login stays with the registry.
        ours = urlsplit(place).netloc == self.host
        for _ in range(2):
            known = self._known(scope) if ours else {}
            try:
                with self._client.stream(
                    method, place, content=content, headers={**(headers or {}), **known}
                ) as given:
                    answer = self._whole(given)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from None
            if answer.status_code != 401 or not ours or not self._authorise(answer, scope, known):
                break
        if answer.status_code in fine:
            return answer
        return self._refuse(answer)

    def _whole(self, given: httpx.Response) -> httpx.Response:
        """All of an answer that is no blob, with an end to it."""
        data = bytearray()
        for part in given.iter_raw():
            data += part
            if len(data) > MAX_MANIFEST_BYTES:
                raise RegistryRefused(
                    f"{self.host} answers with more than the {MAX_MANIFEST_BYTES} bytes that a manifest may have",
                    remedy="see whether this is a registry at all",
                    registry=self.host,
                    status=given.status_code,
                )
        headers = [one for one in given.headers.multi_items() if one[0] not in _OF_THE_WAY]
        return httpx.Response(given.status_code, headers=headers, content=bytes(data), request=given.request)

    def _known(self, scope: str) -> dict[str, str]:
        token = self._tokens.get(scope) or self._tokens.get("")
        return {} if token is None else {"Authorization": token}

    def _authorise(self, answer: httpx.Response, scope: str, sent: Mapping[str, str]) -> bool:
        """Answer the registry's challenge; false when there is nothing else to say than what was sent."""
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        given = dict(_CHALLENGE.findall(rest))
        if self._known(scope) != sent:
            # Another thread was challenged a moment before.
            return True
        if scheme.lower() == "basic" and self._login is not None:
            self._tokens[""] = _basic(self._login)
        elif scheme.lower() == "bearer" and "realm" in given:
            self._tokens.pop(scope, None)
            self._tokens[scope] = f"Bearer {self._token(given, scope)}"
        return self._known(scope) != sent

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge["realm"]
        if not self._is_private(realm):
            raise RegistryDenied(
                f"{self.host} wants its login sent to {urlsplit(realm).netloc} in the clear",
                remedy="use a registry whose token service speaks https",
                registry=self.host,
            )
        parameters: dict[str, Any] = {"scope": scope.split()}
        if "service" in challenge:
            parameters["service"] = challenge["service"]
        headers = {} if self._login is None else {"Authorization": _basic(self._login)}
        try:
            with self._client.stream("GET", realm, params=parameters, headers=headers) as given:
                answer = self._whole(given)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if answer.status_code != 200:
            self._refuse(answer)
        try:
            found: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            found = {}
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str):
            raise self._unreachable("its token service answers with no token")
        return token

    def _is_private(self, url: str) -> bool:
        """Whether nobody on the way reads what is sent there. A registry elsewhere has no say about this machine."""
        parts = urlsplit(url)
        own = self.base.startswith("http:") and parts.hostname in ("127.0.0.1", "localhost", "::1")
        return parts.scheme == "https" or (parts.scheme == "http" and own)

    def _place(self, answer: httpx.Response) -> str:
        """Where an upload goes on."""
        place = urljoin(self.base, str(answer.headers.get("Location", "")))
        if not self._is_private(place):
            raise RegistryRefused(
                f"{self.host} wants uploads sent to {urlsplit(place).netloc} in plain http",
                remedy="use a registry that takes its blobs by https",
                registry=self.host,
            )
        return place

    def _refuse(self, answer: httpx.Response) -> httpx.Response:
        status, said = answer.status_code, _said(answer)
        facts: dict[str, Any] = {"registry": self.host, "status": status, "said": said}
        what = f"{self.host} answers {status}" + (f" ({said})" if said else "")
        if status in (401, 403):
            who = "nobody" if self._login is None else self._login.user
            raise RegistryDenied(
                f"{what} to {who}", remedy="give a login that may do this: --login env:NAME", **facts
            )
        if status == 404:
            raise NotInRegistry(what, remedy="check repository, tag and digest", **facts)
        if status in (408, 429) or status >= 500:
            raise RegistryUnreachable(what, remedy="try again later", **facts)
        raise RegistryRefused(what, remedy="see what the registry allows; its own log says more", **facts)

    def _unreachable(self, error: object) -> RegistryUnreachable:
        why = type(error).__name__ if isinstance(error, Exception) else str(error)
        return RegistryUnreachable(
            f"the registry {self.host} cannot be used: {why}",
            remedy="check its name and that it is up, then try again",
            registry=self.host,
        )

    def _differ(self, digest: Digest, got: str) -> BytesDiffer:
        return BytesDiffer(
            f"{self.host} gave for {digest} {got}",
            remedy="do not use it; push the package again from a store that holds it whole",
            digest=digest,
            registry=self.host,
        )


class _Index(msgspec.Struct):
    manifests: list[Descriptor] = []


class _Error(msgspec.Struct):
    code: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


def _scope(repository: str, push: bool, origin: str = "") -> str:
    """What a token is to be good for; `origin` is a further repository, to be read."""
    scope = f"repository:{repository}:{'pull,push' if push else 'pull'}"
    return f"{scope} {_scope(origin, push=False)}" if origin else scope


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def _fallback_tag(digest: Digest) -> str:
    return digest.replace(":", "-")


def _media_type(manifest: bytes) -> str:
    return str(msgspec.json.decode(manifest, type=dict[str, Any])["mediaType"])


def _kind(answer: httpx.Response) -> str:
    return str(answer.headers.get("Content-Type", ""))


def _entries(index: bytes, subject: Digest) -> list[Descriptor]:
    try:
        return msgspec.json.decode(index, type=_Index).manifests
    except msgspec.MsgspecError as error:
        raise RegistryUnreachable(
            f"the list of what refers to {subject} cannot be read: {error}", remedy="push again"
        ) from error


def _received(answer: httpx.Response) -> int:
    """How many bytes of an upload have arrived: `Range: 0-N`, N included."""
    _, _, last = answer.headers.get("Range", "").partition("-")
    return int(last) + 1 if last.isdigit() and last != "0" else 0


def _said(answer: httpx.Response) -> str:
    """The registry's own error codes; its free text may repeat what was sent."""

    try:
        found = msgspec.json.decode(answer.content, type=_Errors).errors
    except msgspec.MsgspecError:
        return ""
    return ", ".join(one.code[:60] for one in found)
