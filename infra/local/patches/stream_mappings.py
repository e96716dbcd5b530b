"""Event source mappings of DynamoDB streams that lose no record.

AWS: a batch that fails is tried again, from the first item that the function reported as failed or halved where the
mapping says so, until it succeeds, its retries are used up or it is too old; what is given up is described in a
message to the mapping's on-failure destination. A mapping does not wait for another.
ministack: ignores ReportBatchItemFailures (and so drops what failed), MaximumRetryAttempts and
BisectBatchOnFunctionError; looks at MaximumRecordAgeInSeconds only after a failure; runs the function on the one
thread that polls everything.
Remedy: a thread for each mapping that does what AWS does, one batch at a time. ParallelizationFactor and batching
windows stay without effect.
"""

import json
import logging
import threading
import time
import uuid
from dataclasses import dataclass

from ministack.core.responses import request_scope
from ministack.services import dynamodb, lambda_svc, sqs

from .partial_responses import failed_items

log = logging.getLogger("carillon.streams")

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0

consumers: dict[str, "Consumer"] = {}


def apply() -> None:
    lambda_svc._poll_dynamodb_streams = wake_consumers
    # The poll loop pauses this long after a wake that brought it no work of its own; each stream record is one.
    lambda_svc._ESM_IDLE_WAKE_GAP_SECONDS = 0.005


def wake_consumers() -> bool:
    """Takes the place of ministack's poll of the streams: called at each change, it only passes the news on."""
    current = set()
    for account, region, mapping in lambda_svc._iter_all_esms():
        identifier = mapping["UUID"]
        position = lambda_svc._dynamodb_stream_positions.get_scoped(account, region, identifier)
        if position is None:
            # The mapping of a queue, or one that is still being made.
            continue
        current.add(identifier)
        if identifier not in consumers:
            consumers[identifier] = Consumer(account, region, mapping, position)
            consumers[identifier].start()
        consumers[identifier].news.set()
    for gone in consumers.keys() - current:
        consumers.pop(gone).end()
    return False


@dataclass
class Batch:
    """Records that are given to the function together."""

    records: list[dict]
    invocations: int = 0

    def identifiers(self) -> list[str]:
        return [record["dynamodb"]["SequenceNumber"] for record in self.records]

    def older_than(self, seconds: float) -> "Batch":
        limit = time.time() - seconds
        return Batch([r for r in self.records if created(r) < limit], self.invocations)


class Consumer(threading.Thread):
    """Reads the stream of one mapping and gives it to its function."""

    def __init__(self, account: str, region: str, mapping: dict, position: int) -> None:
        super().__init__(daemon=True, name=f"stream-{mapping['FunctionName']}")
        self.account, self.region, self.mapping, self.position = account, region, mapping, position
        self.news = threading.Event()
        self.ended = False

    def end(self) -> None:
        self.ended = True
        self.news.set()

    def run(self) -> None:
        with request_scope(self.account, self.region):
            while not self.ended:
                self.news.wait()
                self.news.clear()
                while batch := self.read():
                    self.finish(batch)

    def read(self) -> Batch | None:
        """The next records that pass the mapping's filter, or nothing while there are none."""
        table = self.mapping["EventSourceArn"].split("/")[1]
        while self.active():
            start = max(self.position, dynamodb.stream_start_position(table))
            records = dynamodb.stream_records_since(table, start, self.mapping["BatchSize"])
            self.position = start + len(records)
            if not records:
                return None
            if wanted := lambda_svc._apply_filter_criteria(records, self.mapping):
                return Batch(wanted)
        return None

    def active(self) -> bool:
        return not self.ended and self.mapping["Enabled"]

    def finish(self, batch: Batch) -> None:
        """Invokes the function until each record of `batch` is done with or given up."""
        waiting = [batch]
        while waiting and not self.ended:
            if not self.active():
                time.sleep(LAST_RETRY_SECONDS)
                continue
            waiting += reversed(self.attempt(waiting.pop()))

    def attempt(self, batch: Batch) -> list[Batch]:
        """Invokes the function once and returns what is left to be tried again, in order."""
        batch = self.without_aged(batch)
        if not batch.records:
            return []
        function, _ = lambda_svc._get_func_record_for_qualifier(
            self.mapping["FunctionName"], self.mapping.get("Qualifier")
        )
        if function is None:
            time.sleep(LAST_RETRY_SECONDS)
            return [batch]
        result = lambda_svc._execute_function(function, {"Records": batch.records})
        batch.invocations += 1
        failed = self.failed(result, batch)
        if not failed:
            self.mapping["LastProcessingResult"] = f"OK - {len(batch.records)} records"
            return []
        self.mapping["LastProcessingResult"] = "PROBLEM: Function call failed"
        log.warning("%s failed %d of %d records: %s", function["config"]["FunctionName"], len(failed),
                    len(batch.records), result.get("log") or result.get("body"))
        rest = self.rest(batch, failed, crashed=bool(result.get("error")))
        if rest:
            doublings = min(rest[0].invocations, 10)
            time.sleep(min(FIRST_RETRY_SECONDS * 2**doublings, LAST_RETRY_SECONDS))
        return rest

    def failed(self, result: dict, batch: Batch) -> list[str]:
        if result.get("error"):
            return batch.identifiers()
        if "ReportBatchItemFailures" not in (self.mapping.get("FunctionResponseTypes") or []):
            return []
        return failed_items(result.get("body"), batch.identifiers())

    def rest(self, batch: Batch, failed: list[str], crashed: bool) -> list[Batch]:
        """What to try again after a failure: from the first failed record on, halved if the function crashed."""
        first = batch.identifiers().index(failed[0])
        records = batch.records[first:]
        bisects = self.mapping.get("BisectBatchOnFunctionError", False)
        # Splitting a batch, at the checkpoint or in halves, does not count against its retries.
        if bisects and first > 0:
            return [Batch(records)]
        if bisects and crashed and len(records) > 1:
            half = len(records) // 2
            return [Batch(records[:half]), Batch(records[half:])]
        rest = Batch(records, batch.invocations)
        retries = self.limit("MaximumRetryAttempts")
        if retries is not None and rest.invocations > retries:
            self.give_up(rest, "RetryAttemptsExhausted")
            return []
        return [rest]

    def without_aged(self, batch: Batch) -> Batch:
        age = self.limit("MaximumRecordAgeInSeconds")
        if age is None:
            return batch
        aged = batch.older_than(age)
        if aged.records:
            self.give_up(aged, "MaxRecordAgeExceeded")
        return Batch([r for r in batch.records if r not in aged.records], batch.invocations)

    def limit(self, name: str) -> int | None:
        value = self.mapping.get(name, -1)
        return None if value == -1 else value

    def give_up(self, batch: Batch, condition: str) -> None:
        log.warning("%s: %d records given up: %s", self.mapping["FunctionName"], len(batch.records), condition)
        destination = (self.mapping.get("DestinationConfig") or {}).get("OnFailure", {}).get("Destination")
        if not destination:
            return
        queue = sqs._queue_by_arn(destination)
        if queue is None:
            log.error("the on-failure destination %s is not a queue", destination)
            return
        message = failure_record(self.mapping, batch, condition)
        sqs._act_send_message({"MessageBody": json.dumps(message)}, queue["url"])


def failure_record(mapping: dict, batch: Batch, condition: str) -> dict:
    """The message to an on-failure destination: where the records are in the stream, never the records."""
    return {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": mapping["FunctionArn"],
            "condition": condition,
            "approximateInvokeCount": batch.invocations,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": timestamp(time.time()),
        "DDBStreamBatchInfo": {
            "shardId": "shardId-00000000000000000000-00000000",
            "startSequenceNumber": batch.identifiers()[0],
            "endSequenceNumber": batch.identifiers()[-1],
            "approximateArrivalOfFirstRecord": timestamp(created(batch.records[0])),
            "approximateArrivalOfLastRecord": timestamp(created(batch.records[-1])),
            "batchSize": len(batch.records),
            "streamArn": mapping["EventSourceArn"],
        },
    }


def created(record: dict) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
