"""Batches of queue messages need the permission of a single one.

AWS: knows no actions like sqs:SendMessageBatch; a role that may send a message may send a batch.
ministack: asks for an action of the operation's own name.
Remedy: ask for the action that AWS asks for.
"""

from ministack.core import iam_actions

SINGLES = ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")
BATCHES = {f"sqs:{single}Batch": f"sqs:{single}" for single in SINGLES}


def apply() -> None:
    extract = iam_actions.extract_iam_action

    def action_of_a_single_message(*request):
        action = extract(*request)
        return BATCHES.get(action, action)

    iam_actions.extract_iam_action = action_of_a_single_message
