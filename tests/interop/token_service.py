"""An OAuth 2.0 token service, and the check of its tokens by those who are shown them, both by Authlib."""

import base64
import json
import os
import secrets
import time
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qsl, urlencode
from urllib.request import Request, urlopen

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, ResourceProtector, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import list_to_scope, scope_to_list
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7662 import IntrospectionEndpoint, IntrospectTokenValidator

# Authlib serves nobody without TLS, but here it does: the test's own machine.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "true"

EXPIRES_IN = 3600


@dataclass
class Client(ClientMixin):
    id: str
    secret: str
    authentication: str
    scope: str

    def get_client_id(self):
        return self.id

    def get_allowed_scope(self, scope):
        allowed = scope_to_list(self.scope)
        return list_to_scope([asked for asked in scope_to_list(scope or "") if asked in allowed])

    def check_client_secret(self, client_secret):
        return secrets.compare_digest(client_secret.encode(), self.secret.encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.authentication

    def check_grant_type(self, grant_type):
        return grant_type == ClientCredentialsGrant.GRANT_TYPE


@dataclass
class Token(TokenMixin):
    client: Client
    scope: str
    expires_at: float
    withdrawn: bool = False

    def check_client(self, client):
        return self.client.id == client.id

    def get_scope(self):
        return self.scope

    def is_expired(self):
        return self.expires_at < time.time()

    def is_revoked(self):
        return self.withdrawn


class ClientCredentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class Introspection(IntrospectionEndpoint):
    def query_token(self, token_string, token_type_hint):
        return self.server.issued.get(token_string)

    def check_permission(self, token, client, request):
        return client is self.server.inboxes

    def introspect_token(self, token):
        return {"active": True, "client_id": token.client.id, "scope": token.scope, "exp": int(token.expires_at)}


class TokenService(AuthorizationServer):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        # Who is shown tokens, and asks what they are worth.
        self.inboxes = Client("inboxes", secrets.token_urlsafe(), "client_secret_basic", "")
        self.clients = {self.inboxes.id: self.inboxes}
        self.issued: dict[str, Token] = {}
        self.answers: list[dict] = []
        generator = BearerTokenGenerator(lambda **_: secrets.token_urlsafe(32), expires_generator=EXPIRES_IN)
        self.register_token_generator("default", generator)
        self.register_grant(ClientCredentials)
        self.register_endpoint(Introspection)

    def add_client(self, said: dict) -> None:
        self.clients[said["id"]] = Client(said["id"], said["secret"], said["authentication"], said["scope"])

    def withdraw_all(self) -> None:
        for token in self.issued.values():
            token.withdrawn = True

    def create_token_response(self, request=None):
        status, body, headers = super().create_token_response(request)
        self.answers.append({"status": status, "scope": body.get("scope"), "error": body.get("error")})
        return status, body, headers

    # What Authlib leaves to those who bring it behind a server of HTTP.

    def query_client(self, client_id):
        return self.clients.get(client_id)

    def save_token(self, token, request):
        expires_at = time.time() + token["expires_in"]
        self.issued[token["access_token"]] = Token(request.client, token.get("scope", ""), expires_at)

    def create_oauth2_request(self, request):
        path, headers, body = request
        return FormRequest(self.url + path, headers, body)

    def handle_response(self, status, body, headers):
        return status, dict(body), headers

    def send_signal(self, name, *arguments, **named):
        pass


class FormRequest(OAuth2Request):
    def __init__(self, url: str, headers: Message, body: bytes) -> None:
        super().__init__("POST", url, headers=headers)
        is_form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        self.fields = dict(parse_qsl(body.decode(), keep_blank_values=True)) if is_form else {}
        self.payload = BasicOAuth2Payload(self.fields)

    @property
    def args(self):
        return {}

    @property
    def form(self):
        return self.fields


def protector(tokens: TokenService) -> ResourceProtector:
    """What an inbox asks of a bearer token, by asking the service that made it."""

    proof = base64.b64encode(f"{tokens.inboxes.id}:{tokens.inboxes.secret}".encode()).decode()

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string):
            asked = Request(f"{tokens.url}/introspection", urlencode({"token": token_string}).encode())
            asked.add_header("Authorization", f"Basic {proof}")
            with urlopen(asked, timeout=5) as answer:
                return json.load(answer)

    made = ResourceProtector()
    made.register_token_validator(Validator())
    return made
