"""How much a function takes and gives at once.

AWS: refuses a synchronous invocation whose event is larger than 6 MB, and fails one whose answer is.
ministack: has no limit.
Remedy: refuse the call of Invoke, and fail an invocation that an API makes, before the function starts; fail an
invocation whose answer is too large after it.
"""

import json

from ministack.core.responses import error_response_json
from ministack.services import lambda_svc

LIMIT = 6 * 1024 * 1024


def apply() -> None:
    invoke, execute = lambda_svc._invoke, lambda_svc._execute_function

    async def invoke_within_limit(name, event, headers, *context, **named):
        asynchronous = headers.get("x-amz-invocation-type", "RequestResponse") != "RequestResponse"
        if not asynchronous and (size := encoded_size(event)) > LIMIT:
            return error_response_json("RequestEntityTooLargeException", too_large(size), 413)
        return await invoke(name, event, headers, *context, **named)

    def execute_within_limit(function, event):
        if (size := encoded_size(event)) > LIMIT:
            return failure("RequestEntityTooLargeException", too_large(size))
        result = execute(function, event)
        if not result.get("error") and encoded_size(result.get("body")) > LIMIT:
            return failure(
                "Function.ResponseSizeTooLarge",
                f"Response payload size exceeded maximum allowed payload size ({LIMIT} bytes).",
            )
        return result

    lambda_svc._invoke = invoke_within_limit
    lambda_svc._execute_function = execute_within_limit


def encoded_size(value) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def too_large(size: int) -> str:
    return f"{size} byte payload is too large for the RequestResponse invocation type (limit {LIMIT} bytes)"


def failure(kind: str, message: str) -> dict:
    return {"error": True, "body": {"errorType": kind, "errorMessage": message}, "log": ""}
