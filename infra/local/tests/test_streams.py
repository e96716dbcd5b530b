"""Mappings of DynamoDB streams: stream_mappings, partial_responses."""

import json
import time

from support import LocalAwsTest

# Records the keys that it is given; `FAILS` says which of them fail, and how.
READER = """
def key(record): return record["dynamodb"]["Keys"]["pk"]["S"]

def handle(event):
    keys = [key(r) for r in event["Records"]]
    record(keys)
    for r in event["Records"]:
        if key(r).startswith("crash"):
            raise RuntimeError(key(r))
        if key(r).startswith("fail"):
            return {"batchItemFailures": [{"itemIdentifier": r["dynamodb"]["SequenceNumber"]}]}
        if key(r).startswith("once") and not os.path.exists(os.environ["RECORD"] + key(r)):
            open(os.environ["RECORD"] + key(r), "w").close()
            return {"batchItemFailures": [{"itemIdentifier": r["dynamodb"]["SequenceNumber"]}]}
        if key(r).startswith("slow"):
            time.sleep(5)
    return {"batchItemFailures": []}
"""


class StreamMappings(LocalAwsTest):
    def mapped(self, *keys: str, handler: str = READER, **options) -> None:
        """A table that holds items with these keys already when a function is mapped to its stream."""
        dynamodb = self.client("dynamodb")
        table = dynamodb.create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )["TableDescription"]
        for key in keys:
            self.put(key)
        self.function(handler)
        self.mapping = self.client("lambda").create_event_source_mapping(
            FunctionName=self.name,
            EventSourceArn=table["LatestStreamArn"],
            StartingPosition="TRIM_HORIZON",
            BatchSize=100,
            FunctionResponseTypes=["ReportBatchItemFailures"],
            **options,
        )["UUID"]
        self.addCleanup(self.client("lambda").delete_event_source_mapping, UUID=self.mapping)

    def put(self, key: str) -> None:
        self.client("dynamodb").put_item(TableName=self.name, Item={"pk": {"S": key}})

    def failures(self, url: str) -> list[dict]:
        return [json.loads(message["Body"]) for message in self.receive(url)]

    def test_what_follows_a_reported_failure_is_given_again(self):
        self.mapped("a", "once", "b")
        self.eventually(lambda: len(self.recorded()) == 2)
        self.assertEqual(self.recorded(), [["a", "once", "b"], ["once", "b"]])

    def test_the_filter_decides_which_records_come(self):
        criteria = {"Filters": [{"Pattern": json.dumps({"dynamodb": {"Keys": {"pk": {"S": ["wanted"]}}}})}]}
        self.mapped("a", "wanted", "b", FilterCriteria=criteria)
        self.eventually(self.recorded)
        self.assertEqual(self.recorded(), [["wanted"]])

    def test_a_record_that_fails_always_ends_in_the_failure_queue_and_the_next_ones_come(self):
        url, queue = self.queue("-failures")
        self.mapped("fail", MaximumRetryAttempts=2, DestinationConfig={"OnFailure": {"Destination": queue}})
        failure = self.failures(url)[0]
        self.assertEqual(self.recorded(), [["fail"]] * 3)
        self.assertEqual(failure["requestContext"]["condition"], "RetryAttemptsExhausted")
        self.assertEqual(failure["requestContext"]["approximateInvokeCount"], 3)
        self.assertEqual(failure["DDBStreamBatchInfo"]["batchSize"], 1)
        self.put("next")
        self.eventually(lambda: self.recorded()[-1] == ["next"])

    def test_a_batch_that_crashes_is_halved_until_the_poisoned_record_is_alone(self):
        url, queue = self.queue("-failures")
        self.mapped(
            "a", "b", "crash", "c",
            MaximumRetryAttempts=1,
            BisectBatchOnFunctionError=True,
            DestinationConfig={"OnFailure": {"Destination": queue}},
        )
        self.assertEqual(self.failures(url)[0]["DDBStreamBatchInfo"]["batchSize"], 1)
        self.eventually(lambda: self.recorded()[-1] == ["c"])
        self.assertEqual(
            self.recorded(), [["a", "b", "crash", "c"], ["a", "b"], ["crash", "c"], ["crash"], ["crash"], ["c"]]
        )

    def test_records_beyond_the_largest_age_are_given_up(self):
        url, queue = self.queue("-failures")
        self.mapped(
            "fail", MaximumRecordAgeInSeconds=60, DestinationConfig={"OnFailure": {"Destination": queue}}
        )
        self.eventually(self.recorded)
        # AWS takes no less than 60 s, the local AWS does.
        self.client("lambda").update_event_source_mapping(UUID=self.mapping, MaximumRecordAgeInSeconds=1)
        self.assertEqual(self.failures(url)[0]["requestContext"]["condition"], "MaxRecordAgeExceeded")
        self.put("next")
        self.eventually(lambda: self.recorded()[-1] == ["next"])

    def test_a_slow_function_does_not_hold_up_a_queue_mapping(self):
        self.mapped("slow")
        self.eventually(self.recorded)
        other = StreamMappings()
        other.setUp()
        url, queue = other.queue()
        other.function("def handle(event): record(event['Records'][0]['body'])")
        self.client("lambda").create_event_source_mapping(FunctionName=other.name, EventSourceArn=queue)
        started = time.monotonic()
        self.client("sqs").send_message(QueueUrl=url, MessageBody="quick")
        self.eventually(other.recorded)
        self.assertLess(time.monotonic() - started, 4)
