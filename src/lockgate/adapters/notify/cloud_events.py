"""An entry of the journal as a CloudEvent 1.0 in structured mode, and its signature.

Source: cloudevents.io, spec v1.0.2, JSON event format; signatures as in the Standard Webhooks specification 1.0.0:
`webhook-id`, `webhook-timestamp` (seconds) and `webhook-signature: v1,BASE64(HMAC-SHA256(key, "ID.TIMESTAMP.BODY"))`.
A receiver that has seen an id before has seen the event before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple

from lockgate.core.clock import iso
from lockgate.core.digests import canonical
from lockgate.core.errors import Invalid
from lockgate.core.messages import Event, Scope, Stamp, tag_of

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TYPE_PREFIX = "dev.lockgate."
MAX_BODY_BYTES = 65_536
MIN_KEY_BYTES = 16
_ENCODED = "whsec_"


class KeyTooWeak(Invalid):
    """The secret of a subscription is shorter than 128 bits, or cannot be read."""

    code = "notify.key-too-weak"


class Message(NamedTuple):
    """What is posted: an id that is the same at every attempt, and a body."""

    id: str
    content_type: str
    body: bytes


def cloud_event(event: Event, stamp: Stamp, scope: Scope, origin: str) -> Message:
    """The CloudEvent of one entry. The same entry gives the same bytes.

    An event that does not fit into 64 KiB, which is what every receiver has to take, is told without its content: it
    can be asked for by its number.

    Args:
        origin: names the journal; numbers are unique within one.
    """
    told = {
        "specversion": "1.0",
        "id": f"{origin}/{stamp.seq}",
        "source": f"urn:lockgate:journal:{origin}",
        "type": TYPE_PREFIX + tag_of(type(event)),
        "subject": _subject(scope),
        "time": iso(stamp.at),
        "datacontenttype": "application/json",
    }
    if not told["subject"]:
        del told["subject"]
    data = {
        "seq": stamp.seq,
        "actor": stamp.actor,
        "command": stamp.command_id,
        "summary": event.summary(),
        "event": event,
    }
    body = canonical({**told, "data": data})
    if len(body) > MAX_BODY_BYTES:
        left_out = {"seq": stamp.seq, "actor": stamp.actor, "left_out_bytes": len(canonical(event))}
        body = canonical({**told, "data": {**left_out, "summary": event.summary()[:1000]}})
    return Message(told["id"], CONTENT_TYPE, body)


def _subject(scope: Scope) -> str:
    return "/".join(part for part in (scope.environment, scope.namespace, scope.model) if part)


def signed_headers(message: Message, secret: str, now_s: int) -> dict[str, str]:
    """The headers of a delivery.

    Raises:
        KeyTooWeak: what the reference led to is no key.
    """
    signature = hmac.new(
        _key(secret), f"{message.id}.{now_s}.".encode() + message.body, hashlib.sha256
    ).digest()
    return {
        "content-type": message.content_type,
        "webhook-id": message.id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _key(secret: str) -> bytes:
    try:
        encoded = secret.removeprefix(_ENCODED)
        key = secret.encode() if encoded == secret else base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if len(key) < MIN_KEY_BYTES:
        raise KeyTooWeak(
            f"the key that deliveries are signed with has less than {MIN_KEY_BYTES} bytes",
            remedy='make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    return key
