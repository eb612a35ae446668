"""To attest what the journal bears out, and to ask for it: which statements go out, and which must be there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from lockgate.adapters.identity.keys import KeyMissing
from lockgate.core.errors import Invalid, NotFound, did_you_mean
from lockgate.core.messages import Reason
from lockgate.registry.packages.ports import Signer, Verifier
from lockgate.registry.packages.signing import PAYLOAD_TYPE, SignatureInvalid, seal, unseal
from lockgate.workshop.transport.statements import KINDS, Claim, Kind, Words

_VOUCHING: tuple[Kind, ...] = tuple(one for one in KINDS if one != "emergency")
"""What may be asked for: that the policy was passed over vouches for nothing."""


class RequirementInvalid(Invalid):
    """What is asked for of a package's attestations is no kind of them, or says too little."""

    code = "transport.requirement-invalid"


class NobodySigns(NotFound):
    """There is no key here to sign with what the journal attests."""

    code = "transport.nobody-signs"


class Attesting(NamedTuple):
    """Statements that are to be at a place.

    Attributes:
        signer: asked only when there is something to sign.
        verifiers: the keys that are trusted.
    """

    words: Sequence[Words]
    signer: Callable[[], Signer]
    verifiers: Sequence[Verifier]

    def sealed(self, there: Iterable[bytes]) -> list[bytes]:
        """Envelopes of the statements that no trusted key has signed yet, of those that are there.

        Raises:
            NobodySigns.
        """
        said = set()
        for envelope in there:
            with suppress(SignatureInvalid):
                said.add(unseal(envelope, PAYLOAD_TYPE, self.verifiers)[0])
        lacking = [one.data for one in self.words if one.data not in said]
        try:
            signer = self.signer() if lacking else None
        except KeyMissing as error:
            raise NobodySigns(
                f"nobody signs what the journal attests: {error.message}",
                remedy="do it where the project's signing key is, or leave it out: --without all",
            ) from error
        return [] if signer is None else [seal(one, PAYLOAD_TYPE, signer) for one in lacking]


class Required(NamedTuple):
    """What must be attested. `role`: of an approver, or any; `environment`: for which one, where that matters."""

    kind: Kind
    role: str
    environment: str

    @classmethod
    def parse(cls, text: str, environment: str) -> Required:
        """`provenance`, `evidence`, `approval[:ROLE]` or `promotion`. Raises `RequirementInvalid`."""
        name, _, role = text.partition(":")
        kind: Kind | None = next((one for one in _VOUCHING if one == name), None)
        if kind is None or (role and kind != "approval"):
            raise RequirementInvalid(
                f"{text!r} is no kind of attestation",
                remedy=did_you_mean(name, _VOUCHING) if kind is None else f"write {name}",
            )
        if kind in ("approval", "promotion") and not environment:
            raise RequirementInvalid(f"{kind} is always for an environment", remedy="name it: --for ENV")
        return cls(kind, role, environment)

    def lack(self, claims: Sequence[Claim]) -> Reason | None:
        """Why this is not to be had of what is proved; None when it is."""
        of_kind = sorted((one for one in claims if one.kind == self.kind), key=lambda one: one.seq)
        where = (self.environment,) if self.kind in ("approval", "promotion") else ("", self.environment)
        last: dict[tuple[str, ...], Claim] = {}
        for one in of_kind:
            if one.environment in where:
                if one.result == "declined":
                    last = {key: each for key, each in last.items() if each.by != one.by}
                last[one.environment, one.role if one.kind == "approval" else "", _person(one)] = one
        standing = [one for one in last.values() if one.result not in ("revoked", "declined")]
        fitting = [one for one in standing if self.role in ("", one.role)]
        failed = [one for one in standing if one.result == "FAILED"]
        if fitting and not failed:
            return None
        asked = f"{self.kind}:{self.role}" if self.role else self.kind
        asked += f" for {self.environment}" if self.environment else ""
        past = self._past_the_policy(claims)
        known = [one.says for one in failed or last.values()] + past
        return Reason(
            rule=f"attested.{self.kind}",
            message=f"there is no {asked} that a trusted key has signed and a known journal bears out"
            + "".join(f"; it {one}" for one in past),
            measured="; ".join(known) or "none",
            limit=asked,
            remedy="push it again from where it was decided, or give the key of that journal: --journal-key",
        )

    def _past_the_policy(self, claims: Iterable[Claim]) -> list[str]:
        """The emergencies that brought it where it should have been approved, each as it was told last."""
        if self.kind not in ("approval", "promotion"):
            return []
        there = [one for one in claims if one.kind == "emergency" and one.environment == self.environment]
        last = {one.right: one for one in sorted(there, key=lambda one: one.seq)}
        return [one.says for one in last.values()]


def _person(claim: Claim) -> str:
    """Of whom there is one word each: of approvals everybody has one, of evidence the last one counts."""
    return claim.by if claim.kind == "approval" else ""


def unmet(required: Iterable[Required], claims: Sequence[Claim]) -> tuple[Reason, ...]:
    """Of all that is asked for, what is not there."""
    return tuple(reason for one in required if (reason := one.lack(claims)) is not None)
