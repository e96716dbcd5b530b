"""Queues that stay quick when they are long.

AWS: the time of a receive does not grow with the queue.
ministack: prepares every message of the queue at each receive, so that 20,000 messages take a minute.
Remedy: let it see only the messages that this receive will take. (FIFO queues, where the others count, are left.)
"""

import itertools
import time

from ministack.services import sqs


def apply() -> None:
    collect = sqs._collect_msgs

    def collect_from_first(queue, most, visibility):
        if queue["is_fifo"]:
            return collect(queue, most, visibility)
        now = time.time()
        visible = (message for message in queue["messages"] if message.get("visible_at", now) <= now)
        return collect({**queue, "messages": list(itertools.islice(visible, most))}, most, visibility)

    sqs._collect_msgs = collect_from_first
