"""The longest delay of a message.

AWS: refuses a DelaySeconds above 900 (or below 0), in a batch for that entry alone.
ministack: accepts any.
Remedy: refuse it. (Messages and batches above 1 MiB are refused by ministack itself.)
"""

from ministack.services import sqs

LONGEST_DELAY_SECONDS = 900


def apply() -> None:
    send = sqs._act_send_message

    def send_within_limits(data, queue_url):
        delay = data.get("DelaySeconds")
        if delay is not None and not 0 <= int(delay) <= LONGEST_DELAY_SECONDS:
            raise sqs._Err(
                "InvalidParameterValue",
                f"Value {delay} for parameter DelaySeconds is invalid. "
                f"Reason: DelaySeconds must be >= 0 and <= {LONGEST_DELAY_SECONDS}.",
            )
        return send(data, queue_url)

    # A batch sends each of its entries by this function.
    sqs._act_send_message = send_within_limits
    sqs._HANDLERS["SendMessage"] = send_within_limits
