"""Invocations end when the function answers.

AWS: collects logs beside the invocation.
ministack: after each answer waits up to 50 ms for a first log line, and 5 ms more after each line.
Remedy: wait 1 ms. A line that comes later is logged with the next invocation.
"""

from ministack.core.lambda_runtime import Worker

WAIT_SECONDS = 0.001


def apply() -> None:
    drain = Worker._drain_stderr_bounded

    def drain_soon(self, first_line_wait=WAIT_SECONDS, idle_confirm=WAIT_SECONDS, hard_cap=0.05):
        return drain(self, first_line_wait, idle_confirm, hard_cap)

    Worker._drain_stderr_bounded = drain_soon
