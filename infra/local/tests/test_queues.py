"""Queues and their mappings: queue_limits, queue_races, queue_mappings, partial_responses, message_moves."""

import json
import logging
import os
import signal
import sys
import threading
import time
import unittest

from botocore.exceptions import ClientError

from support import LOCAL, LocalAwsTest

MIB = 1024 * 1024


class Limits(LocalAwsTest):
    def setUp(self) -> None:
        super().setUp()
        self.sqs = self.client("sqs")
        self.url, _ = self.queue()

    def test_a_delay_above_900_s_is_refused(self):
        self.sqs.send_message(QueueUrl=self.url, MessageBody="late", DelaySeconds=900)
        with self.assertRaises(ClientError) as refused:
            self.sqs.send_message(QueueUrl=self.url, MessageBody="too late", DelaySeconds=901)
        self.assertEqual(refused.exception.response["Error"]["Code"], "InvalidParameterValue")

    def test_a_delay_above_900_s_fails_its_entry_of_a_batch_alone(self):
        entries = [{"Id": str(delay), "MessageBody": "x", "DelaySeconds": delay} for delay in (900, 901)]
        result = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
        self.assertEqual([entry["Id"] for entry in result["Successful"]], ["900"])
        failed = [(entry["Id"], entry["Code"]) for entry in result["Failed"]]
        self.assertEqual(failed, [("901", "InvalidParameterValue")])

    def test_messages_and_batches_above_1_mib_are_refused(self):
        self.sqs.send_message(QueueUrl=self.url, MessageBody="x" * MIB)
        with self.assertRaises(ClientError) as refused:
            self.sqs.send_message(QueueUrl=self.url, MessageBody="x" * (MIB + 1))
        self.assertEqual(refused.exception.response["Error"]["Code"], "InvalidParameterValue")
        halves = [{"Id": str(half), "MessageBody": "x" * (MIB // 2 + half)} for half in (0, 1)]
        with self.assertRaises(ClientError) as refused:
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=halves)
        self.assertIn("BatchRequestTooLong", refused.exception.response["Error"]["Code"])


class Inside(unittest.TestCase):
    """What only shows inside ministack, in this process."""

    def setUp(self) -> None:
        logging.disable(logging.INFO)
        self.addCleanup(logging.disable, logging.NOTSET)

    def queue(self, name: str) -> tuple:
        sys.path.insert(0, str(LOCAL))
        from ministack.services import sqs
        from patches import queue_races, queue_scans

        if not isinstance(sqs._queues_lock, type(threading.RLock())):
            queue_scans.apply()
            queue_races.apply()
        url = sqs._HANDLERS["CreateQueue"]({"QueueName": name}, "")["QueueUrl"]
        return sqs, url, sqs._queues[url]

    def test_a_receive_looks_at_the_messages_that_it_takes(self):
        sqs, url, queue = self.queue("scanned")
        for body in "abc":
            sqs._act_send_message({"QueueUrl": url, "MessageBody": body}, url)
        for message in queue["messages"]:
            # Which ministack sets at every message that it looks at.
            del message["message_attributes"]
        self.assertEqual([message["body"] for message in sqs._collect_msgs(queue, 2, 30)], ["a", "b"])
        self.assertEqual(["message_attributes" in message for message in queue["messages"]], [True, True, False])
        self.assertEqual([message["body"] for message in sqs._collect_msgs(queue, 2, 30)], ["c"])

    def test_a_message_is_sent_and_received_under_the_lock_of_the_queues(self):
        sqs, url, queue = self.queue("raced")
        steps = [
            lambda: sqs._HANDLERS["SendMessage"]({"QueueUrl": url, "MessageBody": "x"}, url),
            lambda: sqs._act_send_message({"QueueUrl": url, "MessageBody": "x"}, url),
            lambda: sqs._HANDLERS["GetQueueAttributes"]({"QueueUrl": url}, url),
            lambda: sqs._collect_msgs(queue, 1, 30),
            lambda: sqs._dlq_sweep(queue),
            lambda: sqs._expire_retained(queue),
        ]
        with sqs._queues_lock:
            threads = [threading.Thread(target=step) for step in steps]
            for thread in threads:
                thread.start()
            time.sleep(0.05)
            self.assertTrue(all(thread.is_alive() for thread in threads))
            self.assertEqual(queue["messages"], [])
        for thread in threads:
            thread.join(1)
        self.assertEqual(len(queue["messages"]), 2)


class Mappings(LocalAwsTest):
    def mapped(self, handler: str, visibility: int = 1, **options) -> str:
        """A queue that a function with this handler reads."""
        url, arn = self.queue(VisibilityTimeout=str(visibility))
        self.function(handler)
        self.client("lambda").create_event_source_mapping(
            FunctionName=self.name, EventSourceArn=arn, FunctionResponseTypes=["ReportBatchItemFailures"], **options
        )
        return url

    def send(self, url: str, *bodies: str) -> None:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        self.client("sqs").send_message_batch(QueueUrl=url, Entries=entries)

    def left(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(count) for count in found["Attributes"].values())

    def test_what_a_function_reports_as_failed_comes_back_and_the_rest_does_not(self):
        url = self.mapped(
            "def handle(event):\n"
            " record([r['body'] for r in event['Records']])\n"
            " return {'batchItemFailures': [{'itemIdentifier': r['messageId']} for r in event['Records']"
            "  if r['body'] == 'b' and r['attributes']['ApproximateReceiveCount'] == '1']}"
        )
        self.send(url, "a", "b", "c")
        self.eventually(lambda: self.recorded() and not self.left(url))
        self.assertEqual(self.recorded(), [["a", "b", "c"], ["b"]])

    def test_an_answer_that_names_no_message_of_the_batch_fails_all_of_it(self):
        for answer in ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, {"batchItemFailures": [{}]}, [1]):
            with self.subTest(answer=answer):
                self.setUp()
                url = self.mapped(f"def handle(event): record(1); return {answer!r}")
                self.send(url, "a", "b")
                self.eventually(lambda: len(self.recorded()) > 1)
                self.assertEqual(self.left(url), 2)
                self.client("lambda").delete_function(FunctionName=self.name)

    def test_a_batch_whose_function_is_killed_comes_back_and_others_go_on(self):
        url = self.mapped(
            "def handle(event):\n"
            " for r in event['Records']:\n"
            "  record([r['body'], r['attributes']['ApproximateReceiveCount'], os.getpid()])\n"
            "  if r['body'] == 'slow' and r['attributes']['ApproximateReceiveCount'] == '1': time.sleep(60)",
            visibility=5,
        )
        self.send(url, "slow")
        _, _, process = self.eventually(self.recorded)[0]
        os.kill(process, signal.SIGKILL)
        self.send(url, "quick")
        self.eventually(lambda: "quick" in [body for body, *_ in self.recorded()], 3)
        self.eventually(lambda: ["slow", "2"] in [seen[:2] for seen in self.recorded()])
        self.eventually(lambda: not self.left(url))
        self.assertNotIn(process, [seen[2] for seen in self.recorded()[1:]])


class Moves(LocalAwsTest):
    def setUp(self) -> None:
        super().setUp()
        self.sqs = self.client("sqs")
        self.dead_url, self.dead = self.queue("-dead")
        redrive = json.dumps({"deadLetterTargetArn": self.dead, "maxReceiveCount": 1})
        self.source_url, self.source = self.queue("-source", VisibilityTimeout="0", RedrivePolicy=redrive)

    def start(self, **arguments) -> dict:
        """Starts a task and returns it when it has ended."""
        self.sqs.start_message_move_task(SourceArn=self.dead, **arguments)
        return self.eventually(lambda: next((task for task in self.tasks() if task["Status"] != "RUNNING"), None))

    def tasks(self) -> list[dict]:
        return self.sqs.list_message_move_tasks(SourceArn=self.dead)["Results"]

    def refusal(self, action, **arguments) -> str:
        with self.assertRaises(ClientError) as refused:
            action(**arguments)
        return refused.exception.response["Error"]["Code"]

    def test_sent_messages_go_to_the_named_queue_as_new_ones(self):
        self.sqs.send_message(QueueUrl=self.dead_url, MessageBody="sent")
        old = self.sqs.receive_message(QueueUrl=self.dead_url, VisibilityTimeout=0)["Messages"][0]
        task = self.start(DestinationArn=self.source)
        self.assertEqual(task["Status"], "COMPLETED")
        self.assertEqual(task["ApproximateNumberOfMessagesMoved"], 1)
        self.assertNotIn("TaskHandle", task)
        new = self.receive(self.source_url)[0]
        self.assertEqual((new["Body"], new["Attributes"]["ApproximateReceiveCount"]), ("sent", "1"))
        self.assertNotEqual(new["MessageId"], old["MessageId"])

    def test_sent_messages_without_a_destination_fail_the_task(self):
        self.sqs.send_message(QueueUrl=self.dead_url, MessageBody="sent")
        task = self.start()
        self.assertEqual((task["Status"], task["FailureReason"]), ("FAILED", "CouldNotDetermineMessageSource"))
        self.assertEqual(self.receive(self.dead_url)[0]["Body"], "sent")

    def test_redriven_messages_go_to_their_source(self):
        self.sqs.send_message(QueueUrl=self.source_url, MessageBody="crashes")
        self.receive(self.source_url)
        self.assertNotIn("Messages", self.sqs.receive_message(QueueUrl=self.source_url))
        self.assertEqual(self.start()["Status"], "COMPLETED")
        moved = self.receive(self.source_url)[0]
        self.assertEqual(moved["Attributes"]["ApproximateReceiveCount"], "1")
        self.assertNotIn("DeadLetterQueueSourceArn", moved["Attributes"])

    def test_one_task_at_a_time_and_it_can_be_cancelled(self):
        for _ in range(3):
            self.sqs.send_message(QueueUrl=self.dead_url, MessageBody="x")
        start = self.sqs.start_message_move_task
        handle = start(SourceArn=self.dead, DestinationArn=self.source, MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
        self.assertEqual(self.tasks()[0]["TaskHandle"], handle)
        self.assertEqual(self.refusal(start, SourceArn=self.dead), "InvalidParameterValue")
        moved = self.sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
        self.assertEqual(moved, 1)
        self.eventually(lambda: self.tasks()[0]["Status"] == "CANCELLED")
        cancel = self.sqs.cancel_message_move_task
        self.assertEqual(self.refusal(cancel, TaskHandle=handle), "InvalidParameterValue")
        self.assertEqual(self.refusal(cancel, TaskHandle="unknown"), "ResourceNotFoundException")

    def test_queues_that_do_not_fit_are_refused(self):
        start = self.sqs.start_message_move_task
        self.assertEqual(self.refusal(start, SourceArn=self.source), "InvalidParameterValue")
        self.assertEqual(self.refusal(start, SourceArn=f"{self.dead}x"), "ResourceNotFoundException")
        self.assertEqual(
            self.refusal(start, SourceArn=self.dead, DestinationArn=f"{self.dead}x"), "ResourceNotFoundException"
        )
        self.assertEqual(self.refusal(start, SourceArn="dead"), "InvalidAddress")
