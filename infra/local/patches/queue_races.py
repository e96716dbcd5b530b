"""Queues that lose no message when many use them at once.

AWS: a message that was accepted stays until it is deleted.
ministack: every delete, expiry and move to a dead-letter queue builds a new list of the queue's messages on one
thread while another may append to the old one; that message is gone. Two threads may also take the same message.
Remedy: everything that reads or changes the messages holds the lock that the mappings hold already.
"""

import functools
import threading

from ministack.services import sqs

ACTIONS = [
    "SendMessage",
    "SendMessageBatch",
    "DeleteMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
    "GetQueueAttributes",
    "PurgeQueue",
]
STEPS = ["_act_send_message", "_expire_retained", "_dlq_sweep", "_collect_msgs"]


def apply() -> None:
    # The steps are parts of the actions, so the lock must be one that its holder can take again.
    sqs._queues_lock = threading.RLock()
    for name in STEPS:
        setattr(sqs, name, locked(getattr(sqs, name)))
    for name in ACTIONS:
        sqs._HANDLERS[name] = locked(sqs._HANDLERS[name])


def locked(function):
    @functools.wraps(function)
    def with_lock(*arguments):
        with sqs._queues_lock:
            return function(*arguments)

    return with_lock
