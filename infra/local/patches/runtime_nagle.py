"""Answers of the Lambda Runtime API without delay.

AWS: a waiting runtime has its next event at once.
ministack: writes headers and body of the answer as two packets with Nagle's algorithm on, so that the body waits for
the acknowledgement of the headers, which the kernel delays by 40 ms.
Remedy: TCP_NODELAY on the connections of that server.
"""

from http.server import BaseHTTPRequestHandler


def apply() -> None:
    BaseHTTPRequestHandler.disable_nagle_algorithm = True
