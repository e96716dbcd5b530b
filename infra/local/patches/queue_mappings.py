"""Event source mappings of queues that take a function at its word, and only then.

AWS: an answer that cannot be understood, or names a message that was not in the batch, fails the whole batch; one
failed batch does not hold up the others of its mapping.
ministack: takes such answers for success, and pauses the mapping for a second after a failed batch.
Remedy: delete a message only when it succeeded; the rest comes back when its visibility timeout ends.
"""

import logging

from ministack.services import lambda_svc, sqs

from .partial_responses import failed_items

log = logging.getLogger("carillon.queues")


def apply() -> None:
    lambda_svc._run_sqs_batch = run_batch


def run_batch(mapping, function, event, messages, queue_url, queue_name) -> None:
    result = lambda_svc._execute_function(function, event)
    identifiers = [message["id"] for message in messages]
    if result.get("error"):
        failed = identifiers
    elif "ReportBatchItemFailures" in (mapping.get("FunctionResponseTypes") or []):
        failed = failed_items(result.get("body"), identifiers)
    else:
        failed = []
    if failed:
        mapping["LastProcessingResult"] = "PROBLEM: Function call failed"
        log.warning("%s failed %d of %d messages from %s: %s", mapping["FunctionName"], len(failed), len(messages),
                    queue_name, result.get("log") or result.get("body"))
    else:
        mapping["LastProcessingResult"] = f"OK - {len(messages)} records"
    done = {message["receipt_handle"] for message in messages if message["id"] not in failed}
    sqs._delete_messages_for_esm(queue_url, done)
