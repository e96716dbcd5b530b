"""A subscriber's server whose every check is made by libraries that are not of this project.

    python receivers.py

When it serves, it prints one line to stdout, `ready http://127.0.0.1:PORT`. It keeps what it is told in memory, and
ends when its standard input does, so that it never outlives the test that started it.

What a subscriber's server has:

    POST /inboxes/NAME     takes a delivery: verifies it, remembers the verdict and answers by it
    POST /token            a token for client credentials (RFC 6749, section 4.4)
    POST /introspection    tells inboxes of tokens (RFC 7662)

What a test says and asks, in JSON:

    PUT    /control/inboxes/NAME  {"format", "secrets", "scope", "keys", "v1a", "algorithm", "issuer", "audience",
                                  "busy"}: what deliveries must be: signed with each of the secrets, and with `v1a`
                                  by the keys at that URL if it says so; authorized by a token of that scope if there
                                  is one; what those that are Security Event Tokens must say; and how many are
                                  refused first because there is no time for them
    GET    /control/inboxes/NAME  the verdicts on what came there, in order
    PUT    /control/clients       {"id", "secret", "authentication", "scope"}: a client of the token service
    GET    /control/tokens        how the token service answered, in order: {"status", "scope", "error"}
    DELETE /control/tokens        withdraws every token
    POST   /control/mtls          the inboxes also behind TLS that demands a client certificate, of an authority made
                                  for that: {"url", "authority", "certificate", "privateKey"}
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inboxes import Delivery, Inbox
from mutual_tls import Authority, demanding
from token_service import TokenService


def main() -> None:
    receivers = Receivers()
    receivers.start()
    print(f"ready {receivers.url}", flush=True)
    sys.stdin.read()
    # Whatever connections are open.
    os._exit(0)


class Server(ThreadingHTTPServer):
    """Takes deliveries, over TLS if there is a context for it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, inboxes: dict[str, Inbox], handler, tls=None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.inboxes = inboxes
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        if tls:
            # The handshake is part of the first reading, and so holds up no other connection.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """A sender that went away, or whose handshake failed: it is the sender that has to tell of it."""


class Receivers(Server):
    """The whole: inboxes, the token service, and what tests say."""

    def __init__(self) -> None:
        super().__init__({}, Handler)
        self.tokens = TokenService(self.url)

    def control(self, method: str, path: str, said: dict):
        """What a test is answered; nothing if there is no such thing."""
        match [method, *path.split("/")[2:]]:
            case ["PUT", "inboxes", name]:
                self.inboxes[name] = Inbox(said, self.tokens)
                return {}
            case ["GET", "inboxes", name] if name in self.inboxes:
                return self.inboxes[name].verdicts
            case ["PUT", "clients"]:
                self.tokens.add_client(said)
                return {}
            case ["GET", "tokens"]:
                return self.tokens.answers
            case ["DELETE", "tokens"]:
                self.tokens.withdraw_all()
                return {}
            case ["POST", "mtls"]:
                return self.behind_tls()

    def behind_tls(self) -> dict:
        authority = Authority()
        server = Server(self.inboxes, InboxHandler, demanding(authority))
        server.start()
        certificate, key = authority.client("carillon")
        return {"url": server.url, "authority": authority.pem(), "certificate": certificate, "privateKey": key}


class InboxHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one piece.
    wbufsize = -1

    def do_POST(self) -> None:
        self.answer(*self.posted(self.body()))

    def posted(self, body: bytes) -> tuple:
        inbox = self.server.inboxes.get(self.path.removeprefix("/inboxes/"))
        if inbox is None:
            return (404,)
        peer = self.connection.getpeercert() if hasattr(self.connection, "getpeercert") else None
        return inbox.take(Delivery(self.headers, body, peer))

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def answer(self, status: int, body=None, headers=()) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *arguments) -> None:
        """The verdicts tell what came."""


class Handler(InboxHandler):
    def posted(self, body: bytes) -> tuple:
        request = (self.path, self.headers, body)
        tokens = self.server.tokens
        match self.path:
            case "/token":
                return tokens.create_token_response(request)
            case "/introspection":
                return tokens.create_endpoint_response("introspection", request)
            case _:
                return super().posted(body)

    def do_control(self) -> None:
        said = json.loads(self.body() or b"{}")
        told = self.server.control(self.command, self.path, said) if self.path.startswith("/control/") else None
        if told is None:
            self.answer(404)
        else:
            self.answer(200, told)

    do_GET = do_PUT = do_DELETE = do_control

    def do_POST(self) -> None:
        if self.path.startswith("/control/"):
            self.do_control()
        else:
            super().do_POST()


if __name__ == "__main__":
    main()
