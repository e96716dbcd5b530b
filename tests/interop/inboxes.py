"""What an inbox demands of its deliveries, and its verdicts on them."""

import json
from dataclasses import dataclass
from email.message import Message
from hashlib import sha256

from authlib.oauth2 import OAuth2Error

import events
import signatures
from security_events import RefusedToken, SecurityEvents, fetched
from token_service import TokenService, protector


@dataclass
class Delivery:
    headers: Message
    body: bytes
    # What OpenSSL tells of the client's certificate, where one was demanded.
    peer: dict | None


class Inbox:
    """One subscription's deliveries."""

    def __init__(self, demanded: dict, tokens: TokenService) -> None:
        self.demanded = demanded
        self.protector = protector(tokens) if "scope" in demanded else None
        self.security_events = SecurityEvents(demanded) if "issuer" in demanded else None
        # How many deliveries come at a bad time.
        self.busy = demanded.get("busy", 0)
        self.verdicts: list[dict] = []

    def take(self, delivery: Delivery) -> tuple:
        """Says how a delivery is answered: status, body and headers."""
        verdict = {"webhookId": delivery.headers["webhook-id"], "sha256": sha256(delivery.body).hexdigest()}
        if self.busy:
            self.busy -= 1
            return self.told(verdict | {"refused": "busy"}, (503,))
        try:
            verdict |= self.verify(delivery)
            # A Security Event Token is taken, and not yet acted on (RFC 8935, section 2.2).
            answer = (202 if self.security_events else 204,)
        except OAuth2Error as error:
            status, body, headers = error()
            verdict["refused"] = error.error
            answer = (status, dict(body), headers)
        except RefusedToken as error:
            verdict["refused"] = f"{error.code}: {error}"
            refusal = {"err": error.code, "description": str(error)}
            answer = (400, refusal, [("Content-Type", "application/json")])
        except Exception as error:
            # Whatever the libraries raise is what they have against the delivery.
            verdict["refused"] = f"{type(error).__name__}: {error}"
            answer = (422,)
        return self.told(verdict, answer)

    def told(self, verdict: dict, answer: tuple) -> tuple:
        self.verdicts.append(verdict | {"answer": answer[0]})
        return answer

    def verify(self, delivery: Delivery) -> dict:
        verdict = {}
        if self.protector:
            self.protector.validate_request([self.demanded["scope"]], delivery)
        if delivery.peer:
            verdict["certificate"] = dict(part for name in delivery.peer["subject"] for part in name)["commonName"]
        for secret in self.demanded["secrets"]:
            verdict["signature"] = signatures.verify(secret, delivery)
        if self.demanded.get("v1a"):
            signatures.verify_by_keys(fetched(self.demanded["keys"]), delivery)
        match self.demanded["format"]:
            case "cloudEvents" | "cloudEventsBinary":
                verdict["event"] = events.read(delivery)
            case "standardWebhooks" | "resource":
                verdict["message"] = json.loads(delivery.body)
            case "securityEventToken" if self.security_events:
                verdict["token"] = self.security_events.read(delivery)
        return verdict
