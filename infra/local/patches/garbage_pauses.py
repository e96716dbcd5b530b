"""Requests that never wait for a whole collection of garbage.

AWS: no request waits for another one's memory.
ministack: holds a million objects of its own modules, and Python looks at all of them each time that it has made many new
ones: a third of a second in which no request is answered.
Remedy: what outlived one whole collection is not looked at again.
"""

import gc


def apply() -> None:
    gc.callbacks.append(keep_what_is_left)


def keep_what_is_left(phase: str, collection: dict) -> None:
    if phase == "stop" and collection["generation"] == 2:
        gc.freeze()
