"""What a function that reports partial batch failures (ReportBatchItemFailures) has said.

Shared by the mappings of queues and of streams. AWS takes an empty answer for complete success, and an answer that it
cannot understand, or that names an item which was not in the batch, for complete failure.
"""

import json


def failed_items(answer, batch: list[str]) -> list[str]:
    """The identifiers of `batch` that failed according to the function's `answer`, in the batch's order."""
    if isinstance(answer, str) and answer:
        try:
            answer = json.loads(answer)
        except ValueError:
            return batch
    if not answer:
        return []
    if not isinstance(answer, dict):
        return batch
    failures = answer.get("batchItemFailures") or []
    named = [failure.get("itemIdentifier") if isinstance(failure, dict) else None for failure in failures]
    if any(identifier not in batch for identifier in named):
        return batch
    return [identifier for identifier in batch if identifier in named]
