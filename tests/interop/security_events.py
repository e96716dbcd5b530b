"""Security Event Tokens (RFC 8417) as they are pushed (RFC 8935), by joserfc."""

import json
from urllib.request import urlopen

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

MEDIA_TYPE = "application/secevent+jwt"


class RefusedToken(Exception):
    """A token that is refused, with one of the error codes of RFC 8935, section 2.4."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SecurityEvents:
    """One audience's tokens of one issuer."""

    def __init__(self, demanded: dict) -> None:
        self.keys_url = demanded["keys"]
        self.algorithm = demanded["algorithm"]
        self.claims = jwt.JWTClaimsRegistry(
            # The sender's clock may be ahead.
            leeway=60,
            iss={"essential": True, "value": demanded["issuer"]},
            aud={"essential": True, "value": demanded["audience"]},
            iat={"essential": True},
            jti={"essential": True},
            events={"essential": True},
        )
        self.keys = None

    def read(self, delivery) -> dict:
        """The token of a delivery: its header, its claims, and itself."""
        if delivery.headers["content-type"] != MEDIA_TYPE:
            raise RefusedToken("invalid_request", f"the content type is not {MEDIA_TYPE}")
        if delivery.headers["accept"] != "application/json":
            raise RefusedToken("invalid_request", "no refusal in JSON is accepted")
        token = self.verified(delivery.body)
        if token.header.get("typ") != "secevent+jwt":
            raise RefusedToken("invalid_request", "the token's type is not secevent+jwt")
        try:
            self.claims.validate(token.claims)
        except JoseError as error:
            codes = {"iss": "invalid_issuer", "aud": "invalid_audience"}
            raise RefusedToken(codes.get(getattr(error, "claim", None), "invalid_request"), str(error)) from error
        # RFC 8417, section 2.2: a SET tells of what was, and so does not expire, and is no token of access.
        if "exp" in token.claims:
            raise RefusedToken("invalid_request", "the token expires")
        events = token.claims["events"]
        if not isinstance(events, dict) or not all(":" in name and isinstance(of, dict) for name, of in events.items()):
            raise RefusedToken("invalid_request", "the events are no objects by URI")
        return {"header": token.header, "claims": token.claims, "compact": delivery.body.decode()}

    def verified(self, body: bytes) -> jwt.Token:
        try:
            known = self.keys is not None
            self.keys = self.keys or fetched(self.keys_url)
            try:
                return jwt.decode(body, self.keys, algorithms=[self.algorithm])
            except InvalidKeyIdError:
                if not known:
                    raise
                # A key that came with a rotation.
                self.keys = fetched(self.keys_url)
                return jwt.decode(body, self.keys, algorithms=[self.algorithm])
        except (JoseError, ValueError) as error:
            raise RefusedToken("invalid_key", f"{type(error).__name__}: {error}") from error


def fetched(url: str) -> KeySet:
    """The keys at a URL that is open to everybody."""
    with urlopen(url, timeout=5) as answer:
        return KeySet.import_key_set(json.load(answer))
