"""Conditions on the encryption context.

AWS: a statement on KMS actions may demand a context by kms:EncryptionContextKeys or kms:EncryptionContext:KEY.
ministack: has no value for either, so that a statement with ForAnyValue never applies and one with ForAllValues
always does.
Remedy: take both from the request.
"""

import json

from ministack.core import iam_actions


def apply() -> None:
    request_context = iam_actions.request_tag_context

    def with_encryption_context(service, action, body, parameters):
        context = request_context(service, action, body, parameters)
        if service == "kms":
            context = {**context, **encryption_context(body)}
        return context

    iam_actions.request_tag_context = with_encryption_context


def encryption_context(body: bytes) -> dict:
    given = json.loads(body or b"{}").get("EncryptionContext") or {}
    pairs = {f"kms:EncryptionContext:{name}": value for name, value in given.items()}
    return {**pairs, "kms:EncryptionContextKeys": list(given)} if given else {}
