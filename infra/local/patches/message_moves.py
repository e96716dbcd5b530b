"""Replay of dead letters.

AWS: StartMessageMoveTask moves what is in a dead-letter queue to the named queue, or each message to the queue that
the redrive policy took it from; the task fails at a message that has no such queue because a program sent it. Moved
messages are new ones: their id, time and count of receipts begin again. One task runs at a time for a queue.
ministack: knows none of StartMessageMoveTask, ListMessageMoveTasks and CancelMessageMoveTask.
Remedy: the three actions, with AWS's refusals.
"""

import base64
import json
import threading
import time
import uuid
from dataclasses import dataclass, field

from ministack.core.arn import ArnParseError, parse_arn
from ministack.services import sqs

tasks: list["Task"] = []


def apply() -> None:
    sqs._HANDLERS["StartMessageMoveTask"] = start
    sqs._HANDLERS["ListMessageMoveTasks"] = list_tasks
    sqs._HANDLERS["CancelMessageMoveTask"] = cancel


def start(data: dict, _queue_url: str) -> dict:
    source = existing_queue(data, "SourceArn")
    if not is_dead_letter_queue(data["SourceArn"]):
        raise invalid("Source queue must be configured as a Dead Letter Queue.")
    destination = data.get("DestinationArn")
    if destination:
        existing_queue(data, "DestinationArn")
    if destination == data["SourceArn"]:
        raise invalid("Source queue arn and destination queue arn cannot be the same.")
    pace = data.get("MaxNumberOfMessagesPerSecond")
    if pace is not None and not 1 <= int(pace) <= 500:
        raise invalid(
            f"Value {pace} for parameter MaxNumberOfMessagesPerSecond is invalid. "
            "Reason: Must be between 1 and 500, if provided."
        )
    with sqs._queues_lock:
        if any(task.source == data["SourceArn"] and task.running() for task in tasks):
            raise invalid(
                "There is already a task running. "
                "Only one active task is allowed for a source queue arn at a given time."
            )
        task = Task(data["SourceArn"], destination, pace and int(pace), to_move=len(visible(source)))
        tasks.insert(0, task)
    threading.Thread(target=task.run, daemon=True, name="message-move").start()
    return {"TaskHandle": task.handle}


def list_tasks(data: dict, _queue_url: str) -> dict:
    existing_queue(data, "SourceArn")
    most = int(data.get("MaxResults", 1))
    if not 1 <= most <= 10:
        raise invalid(
            f"Value {most} for parameter MaxResults is invalid. Reason: Must be between 1 and 10, if provided."
        )
    found = [task.description() for task in tasks if task.source == data["SourceArn"]]
    return {"Results": found[:most]}


def cancel(data: dict, _queue_url: str) -> dict:
    if not data.get("TaskHandle"):
        raise missing("TaskHandle")
    task = next((task for task in tasks if task.handle == data["TaskHandle"]), None)
    if task is None:
        raise sqs._Err("ResourceNotFoundException", "Task does not exist.", 404)
    with sqs._queues_lock:
        if task.status != "RUNNING":
            raise invalid("Only active tasks can be cancelled.")
        task.status = "CANCELLING"
    return {"ApproximateNumberOfMessagesMoved": task.moved}


@dataclass
class Task:
    """One move, run on a thread of its own."""

    source: str
    destination: str | None
    pace: int | None
    to_move: int
    status: str = "RUNNING"
    moved: int = 0
    failure: str | None = None
    started: float = field(default_factory=time.time)
    handle: str = ""

    def __post_init__(self) -> None:
        # As on AWS the handle is opaque and names task and source.
        name = json.dumps({"taskId": str(uuid.uuid4()), "sourceArn": self.source})
        self.handle = base64.b64encode(name.encode()).decode()

    def running(self) -> bool:
        return self.status in ("RUNNING", "CANCELLING")

    def run(self) -> None:
        # The messages of the start, so that one which fails again meanwhile is not moved in a circle.
        with sqs._queues_lock:
            queue = sqs._queue_by_arn(self.source)
            waiting = [message["id"] for message in visible(queue)] if queue else []
        for identifier in waiting:
            if self.status == "CANCELLING":
                break
            self.failure = self.move(identifier)
            if self.failure:
                break
            if self.pace:
                time.sleep(1 / self.pace)
        if self.failure:
            self.status = "FAILED"
        elif self.status == "CANCELLING":
            self.status = "CANCELLED"
        else:
            self.status = "COMPLETED"

    def move(self, identifier: str) -> str | None:
        """Moves one message if it is still there; returns why that is impossible, as AWS words it."""
        with sqs._queues_lock:
            queue = sqs._queue_by_arn(self.source)
            if queue is None:
                return "AWS.SimpleQueueService.NonExistentQueue"
            message = next((message for message in visible(queue) if message["id"] == identifier), None)
            if message is None:
                return None
            target = self.destination or message["sys"].get("DeadLetterQueueSourceArn")
            if target is None:
                return "CouldNotDetermineMessageSource"
            if sqs._queue_by_arn(target) is None:
                return "AWS.SimpleQueueService.NonExistentQueue"
            queue["messages"].remove(message)
            sqs._queue_by_arn(target)["messages"].append(renewed(message))
            self.moved += 1
        sqs.esm_wake.set()
        return None

    def description(self) -> dict:
        facts = {
            # Only a task that can be cancelled has a handle.
            "TaskHandle": self.handle if self.status == "RUNNING" else None,
            "Status": self.status,
            "SourceArn": self.source,
            "DestinationArn": self.destination,
            "MaxNumberOfMessagesPerSecond": self.pace,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "FailureReason": self.failure,
            "StartedTimestamp": int(self.started * 1000),
        }
        return {name: value for name, value in facts.items() if value is not None}


def renewed(message: dict) -> dict:
    now = time.time()
    system = {name: value for name, value in message["sys"].items() if name != "DeadLetterQueueSourceArn"}
    return {
        **message,
        "id": str(uuid.uuid4()),
        "receipt_handle": None,
        "receive_count": 0,
        "first_receive_at": None,
        "sent_at": now,
        "visible_at": now,
        "sys": {**system, "SentTimestamp": str(int(now * 1000))},
    }


def visible(queue: dict) -> list[dict]:
    now = time.time()
    return [message for message in queue["messages"] if message["visible_at"] <= now]


def is_dead_letter_queue(arn: str) -> bool:
    policies = [queue["attributes"].get("RedrivePolicy") for queue in sqs._queues.values()]
    return any(policy and json.loads(policy).get("deadLetterTargetArn") == arn for policy in policies)


def existing_queue(data: dict, parameter: str) -> dict:
    arn = data.get(parameter)
    if not arn:
        raise missing(parameter)
    try:
        parse_arn(arn)
    except ArnParseError:
        raise sqs._Err(
            "InvalidAddress",
            f"You must use this format to specify the {parameter}: "
            "arn:<partition>:<service>:<region>:<account-id>:<resource-id>",
        ) from None
    queue = sqs._queue_by_arn(arn)
    if queue is None:
        raise sqs._Err(
            "ResourceNotFoundException",
            f"The resource that you specified for the {parameter} parameter doesn't exist.",
            404,
        )
    return queue


def missing(parameter: str) -> sqs._Err:
    return sqs._Err("MissingParameter", f"The request must contain the parameter {parameter}.")


def invalid(message: str) -> sqs._Err:
    return sqs._Err("InvalidParameterValue", message)
