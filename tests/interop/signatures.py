"""Signatures by the official library of Standard Webhooks."""

import base64
from contextlib import suppress

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from joserfc.jwk import KeySet
from standardwebhooks import Webhook, WebhookVerificationError


def verify(secret: str, delivery) -> str:
    """Says whose code found the signature right; raises if it is wrong.

    The official libraries, of Python as of Rust, take a body for a text. Where it is none, OpenSSL looks.
    """
    try:
        delivery.body.decode()
    except UnicodeDecodeError:
        return verify_bytes(secret, delivery)
    Webhook(secret).verify(delivery.body, delivery.headers, json_parse=False)
    return "standardwebhooks"


def verify_bytes(secret: str, delivery) -> str:
    for signature in signatures(delivery, "v1"):
        made = hmac.HMAC(base64.b64decode(secret.removeprefix("whsec_")), hashes.SHA256())
        made.update(signed(delivery))
        with suppress(InvalidSignature):
            made.verify(signature)
            return "openssl"
    raise WebhookVerificationError("No matching signature found")


def verify_by_keys(keys: KeySet, delivery) -> None:
    """`v1a` by OpenSSL: the official libraries have `v1` alone."""
    for signature in signatures(delivery, "v1a"):
        for key in keys:
            with suppress(InvalidSignature):
                if key.key_type == "OKP":
                    key.get_op_key("verify").verify(signature, signed(delivery))
                    return
    raise WebhookVerificationError("No key made one of the signatures")


def signatures(delivery, version: str) -> list[bytes]:
    pairs = (signature.split(",") for signature in delivery.headers["webhook-signature"].split(" "))
    return [base64.b64decode(signature) for found, signature in pairs if found == version]


def signed(delivery) -> bytes:
    return f"{delivery.headers['webhook-id']}.{delivery.headers['webhook-timestamp']}.".encode() + delivery.body
