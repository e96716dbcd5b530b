"""CloudEvents by the official SDK."""

import base64
from datetime import datetime

from cloudevents.core.bindings.http import HTTPMessage, from_http_event


def read(delivery) -> dict:
    """The event of a delivery, in whichever mode it came, as the members of its JSON format."""
    event = from_http_event(HTTPMessage(dict(delivery.headers.items()), delivery.body))
    members = {name: plain(value) for name, value in event.get_attributes().items()}
    data = event.get_data()
    if isinstance(data, bytes):
        members["data_base64"] = base64.b64encode(data).decode()
    elif data is not None:
        members["data"] = data
    return members


def plain(value):
    return value.isoformat() if isinstance(value, datetime) else value
