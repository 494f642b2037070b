"""What SNS wraps its messages in on their way to SQS, and its signature, as AWS describes both.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
"""

from __future__ import annotations

import base64
import re
from binascii import Error as Base64Error
from dataclasses import replace
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from pipeline import Fetcher, PermanentError, TemporaryError
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

log = structlog.get_logger()

_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(\.cn)?")
_HASHES: Final = {"1": SHA1, "2": SHA256}
_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_TEXTS: Final = ("Type", "MessageId", "TopicArn", "Message", "Timestamp", "Signature", "SignatureVersion", "SigningCertURL")
_MOST_KEYS: Final = 32
_AWAY_FOR: Final = 30.0
"""Seconds for which a certificate that could not be had is not asked for again."""


class Sns:
    """Takes messages out of SNS's envelopes, and believes none whose signature does not fit. Certificates are asked for once."""

    def __init__(self, config: QueueConfig) -> None:
        self._topics = config.sns_topics
        self._stand_in = config.sns_certificates
        self._fetcher = Fetcher(config, timeout=5, limit=64 * 1024)
        self._keys: dict[str, RSAPublicKey] = {}
        self._away: dict[str, float] = {}

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def unwrapped(self, delivery: Delivery) -> Delivery | None:
        """Give what the envelope holds, or the delivery as it is where it has none; None where it is about the subscription.

        Raises `PermanentError` for what is not to be believed, `TemporaryError` where that cannot be told now.
        """
        if (envelope := _envelope(delivery.body)) is None:
            if self._topics is not None:
                raise PermanentError("it does not come from SNS, as `sns_topics` asks for")
            return delivery
        if self._topics is not None and envelope["TopicArn"] not in self._topics:
            raise PermanentError(f"`sns_topics` does not name its topic: {envelope['TopicArn'][:200]}")
        self._verify(envelope)
        if envelope["Type"] != "Notification":
            self._about_the_subscription(envelope)
            return None
        attributes = envelope.get("MessageAttributes") or {}
        headers = {name.lower(): str(one.get("Value", "")) for name, one in attributes.items()}
        headers |= {"topic": envelope["TopicArn"], "subject": envelope.get("Subject") or ""}
        return replace(delivery, body=envelope["Message"].encode(), headers={**delivery.headers, **headers})

    def _verify(self, envelope: dict[str, Any]) -> None:
        algorithm = _HASHES.get(envelope["SignatureVersion"])
        if algorithm is None:
            raise PermanentError("its signature is of a version that is not known")
        names = _NOTIFICATION if envelope["Type"] == "Notification" else _CONFIRMATION
        signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if envelope.get(name) is not None)
        try:
            signature = base64.b64decode(envelope["Signature"], validate=True)
            self._key(envelope["SigningCertURL"]).verify(signature, signed.encode(), PKCS1v15(), algorithm())
        except (InvalidSignature, Base64Error, UnicodeEncodeError):
            raise PermanentError("its signature does not fit: SNS did not send it so") from None

    def _key(self, url: str) -> RSAPublicKey:
        where = self._of_aws(url, "its certificate")
        parts = urlsplit(url)
        if not parts.path.endswith(".pem") or parts.query:  # asked a question, SNS may answer with what others gave it
            raise PermanentError("its certificate's address is not one of SNS")
        if (known := self._keys.get(where)) is not None:
            return known
        if self._away.get(where, 0) > monotonic():
            raise TemporaryError("the certificate of its signature could not be had just now")
        try:
            key = load_pem_x509_certificate(self._fetcher.get(where).body).public_key()
        except TemporaryError:
            self._away = {where: monotonic() + _AWAY_FOR}
            raise
        except ValueError:
            raise PermanentError("its certificate cannot be read") from None
        if not isinstance(key, RSAPublicKey):
            raise PermanentError("its certificate is not one of SNS")
        if len(self._keys) >= _MOST_KEYS:
            self._keys.clear()
        self._keys[where] = key
        return key

    def _of_aws(self, url: str, what: str) -> str:
        """Give the address to ask: that of AWS, or the same path of its stand-in."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise PermanentError(f"{what} has no address") from None
        if self._stand_in is not None:
            return f"{self._stand_in.rstrip('/')}{parts.path}{'?' if parts.query else ''}{parts.query}"
        if parts.scheme != "https" or not _HOST.fullmatch(parts.netloc):
            raise PermanentError(f"{what} is not on a host of AWS")
        return url

    def _about_the_subscription(self, envelope: dict[str, Any]) -> None:
        """Confirm a subscription to a topic that the options name: a topic of another account asks for it."""
        topic = envelope["TopicArn"]
        if envelope["Type"] != "SubscriptionConfirmation":
            log.warning("SNS has ended the subscription to a topic", topic=topic)
            return
        if self._topics is None:
            raise PermanentError(
                "an SNS topic asks for its subscription to be confirmed: name it in `sns_topics`, and send its confirmation again"
            )
        self._fetcher.get(self._of_aws(str(envelope.get("SubscribeURL")), "its confirmation"))
        log.info("the subscription to an SNS topic is confirmed", topic=topic)


def _envelope(body: bytes) -> dict[str, Any] | None:
    """Read an envelope; None for what is none."""
    if b'"TopicArn"' not in body:
        return None
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in _TEXTS):
        return None
    attributes = found.get("MessageAttributes")
    fits = attributes is None or (isinstance(attributes, dict) and all(isinstance(one, dict) for one in attributes.values()))
    return found if fits else None
