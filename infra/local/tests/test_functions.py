"""How functions run: runtime_nagle, log_wait, quick_starts, function_environment, payload_limits, and their processes."""

import hashlib
import os
import signal
import time

from botocore.exceptions import ClientError

from support import LocalAwsTest

RESTARTS = 8

ECHO = "def handle(event): return event"


class Invocations(LocalAwsTest):
    def test_a_warm_invocation_waits_neither_for_acknowledgements_nor_for_log_lines(self):
        self.function(ECHO)
        self.invoke()
        durations = []
        for _ in range(20):
            started = time.monotonic()
            self.invoke()
            durations.append(time.monotonic() - started)
        # Unpatched, each takes 40 ms by Nagle's algorithm and 50 ms for the log.
        self.assertLess(min(durations), 0.03)

    def test_log_lines_reach_the_log_group(self):
        self.function("def handle(event): print('bells', flush=True)")
        self.invoke()
        self.invoke()

        def messages():
            found = self.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{self.name}")
            return [event["message"] for event in found["events"] if "bells" in event["message"]]

        self.eventually(messages)

    def test_a_function_sees_its_own_environment_only(self):
        self.function("def handle(event): return dict(os.environ)")
        environment = self.invoke()
        self.assertEqual(environment["RECORD"], str(self.records))
        self.assertEqual(environment["AWS_ENDPOINT_URL"], self.aws.endpoint)
        for foreign in ("AUTH", "GATEWAY_PORT", "LAMBDA_EXECUTOR", "LOG_LEVEL"):
            self.assertNotIn(foreign, environment)

    def test_a_request_above_6_mb_is_refused(self):
        self.function(ECHO)
        with self.assertRaises(ClientError) as refused:
            self.invoke("x" * 6 * 1024 * 1024)
        self.assertEqual(refused.exception.response["Error"]["Code"], "RequestEntityTooLargeException")
        self.assertEqual(len(self.invoke("x" * (6 * 1024 * 1024 - 2))), 6 * 1024 * 1024 - 2)

    def test_an_answer_above_6_mb_fails_the_invocation(self):
        self.function("def handle(event): return 'x' * 6 * 1024 * 1024")
        self.assertEqual(self.invoke()["errorType"], "Function.ResponseSizeTooLarge")


class Processes(LocalAwsTest):
    def test_a_function_that_exceeds_its_timeout_is_killed(self):
        self.function("def handle(event):\n record(os.getpid())\n time.sleep(60)", timeout=1)
        self.assertIn("Task timed out", self.invoke()["errorMessage"])
        process = self.recorded()[0]
        self.eventually(lambda: not os.path.exists(f"/proc/{process}"), 3)

    def test_a_large_package_starts_as_fast_as_a_small_one(self):
        padding = bytes(40 * 1024 * 1024)
        started = time.process_time()
        for _ in range(RESTARTS):
            hashlib.sha256(padding)
        digests = time.process_time() - started

        small = self.restarts(b"")
        self.name += "-large"
        self.assertLess(self.restarts(padding) - small, digests / 2)

    def restarts(self, padding: bytes) -> float:
        """How long the local AWS is at work to start a function so often, in seconds."""
        self.function("def handle(event): return os.getpid()", padding=padding)
        process = self.invoke()
        began = self.aws.time_on_processor()
        for _ in range(RESTARTS):
            process = self.another(process)
        return self.aws.time_on_processor() - began

    def another(self, process: int) -> int:
        """Kills the process of a function that answers with it, and gives the next one."""
        os.kill(process, signal.SIGKILL)
        # What is invoked before the kernel has done so fails with the process.
        return self.eventually(lambda: (found := self.invoke()) != process and isinstance(found, int) and found)

    def test_a_killed_function_starts_again(self):
        self.function("def handle(event): return os.getpid()")
        first = self.invoke()
        self.assertEqual(self.invoke(), first)
        self.assertNotEqual(self.another(first), first)
