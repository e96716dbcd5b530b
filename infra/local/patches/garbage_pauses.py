"""Requests that seldom wait for a whole collection of garbage.

AWS: no request waits for another one's memory.
ministack: holds a million objects of its own modules, and Python looks at all of them each time that it has made many new
ones: a third of a second in which no request is answered.
Remedy: what outlived one whole collection is not looked at again. (What was in hand at that moment stays in memory if it
has references in a circle: little, and there are few such moments.)
"""

import gc


def apply() -> None:
    gc.callbacks.append(keep_what_is_left)


def keep_what_is_left(phase: str, collection: dict) -> None:
    if phase == "stop" and collection["generation"] == 2:
        gc.freeze()
