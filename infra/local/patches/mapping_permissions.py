"""Event source mappings need the function's role.

AWS: reads queue and stream, and writes to the on-failure queue, with the permissions of the function's role, and
refuses to create a mapping whose role lacks them.
ministack: does all this without asking.
Remedy: refuse a mapping whose role lacks a permission, when a template creates it.
"""

from ministack.core.iam_evaluator import EvalContext, _gather_role_policies, evaluate
from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners

MAPPING = "AWS::Lambda::EventSourceMapping"
QUEUE_ACTIONS = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"]
STREAM_ACTIONS = ["GetRecords", "GetShardIterator", "DescribeStream", "ListStreams"]


def apply() -> None:
    handlers = provisioners._RESOURCE_HANDLERS[MAPPING]
    create = handlers["create"]

    def create_if_permitted(logical_id, properties, stack):
        refuse_without_permissions(properties)
        return create(logical_id, properties, stack)

    handlers["create"] = create_if_permitted


def refuse_without_permissions(properties: dict) -> None:
    function = provisioners._lambda_function_for_cfn_ref(properties["FunctionName"])[0]
    role = function["config"]["Role"]
    source = properties["EventSourceArn"]
    if source.startswith("arn:aws:sqs:"):
        for action in QUEUE_ACTIONS:
            if not permitted(role, f"sqs:{action}", source):
                raise ValueError(f"The provided execution role does not have permissions to call {action} on SQS")
    elif not all(permitted(role, f"dynamodb:{action}", source) for action in STREAM_ACTIONS):
        raise ValueError(
            f"Cannot access stream {source}. Please ensure the role can perform the "
            "GetRecords, GetShardIterator, DescribeStream, and ListStreams Actions on your stream in IAM."
        )
    destination = (properties.get("DestinationConfig") or {}).get("OnFailure", {}).get("Destination")
    if destination and not permitted(role, "sqs:SendMessage", destination):
        raise ValueError("The provided execution role does not have permissions to call SendMessage on SQS")


def permitted(role: str, action: str, resource: str) -> bool:
    name = role.rsplit("/", 1)[-1]
    context = EvalContext(
        principal_arn=f"arn:aws:sts::{get_account_id()}:assumed-role/{name}/mapping",
        principal_type="AssumedRole",
        principal_account=get_account_id(),
        action=action,
        # ListStreams names no resource; AWS accepts a grant on the table's streams for it.
        resource_arn=resource,
        region=get_region(),
    )
    return evaluate(context, _gather_role_policies(name, get_account_id())).decision == "Allow"
