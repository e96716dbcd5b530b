"""Statements need the permission of what they do.

AWS: knows no action dynamodb:BatchExecuteStatement; a statement that inserts needs dynamodb:PartiQLInsert for its table,
and so on.
ministack: asks for an action of the operation's own name, for any table.
Remedy: ask for the action that AWS asks for, and for each table. (The statements of a call are taken to be of one kind, and
a call is refused as a whole, where AWS may refuse statements.)
"""

import json
import re

from ministack.core import iam_actions

ACTIONS = {verb: f"dynamodb:PartiQL{verb.capitalize()}" for verb in ("INSERT", "UPDATE", "DELETE", "SELECT")}
TABLE = re.compile(r'(?:INTO|FROM|UPDATE)\s+"?([A-Za-z0-9_.-]+)', re.IGNORECASE)


def apply() -> None:
    extract = iam_actions.extract_iam_action
    addressed = iam_actions.dynamodb_resource_arns

    def action_of_a_statement(service, method, path, headers, body, query):
        action = extract(service, method, path, headers, body, query)
        if action != "dynamodb:BatchExecuteStatement":
            return action
        verb = next((statement.split()[0].upper() for statement in statements(body)), "")
        return ACTIONS.get(verb, action)

    def tables_of_statements(body, region, account):
        tables = {match[1] for statement in statements(body) if (match := TABLE.search(statement))}
        named = [iam_actions._dynamodb_table_arn(table, region, account) for table in sorted(tables)]
        return addressed(body, region, account) + named

    iam_actions.extract_iam_action = action_of_a_statement
    iam_actions.dynamodb_resource_arns = tables_of_statements


def statements(body) -> list[str]:
    if b'"Statements"' not in (body or b""):
        return []
    return [statement["Statement"] for statement in json.loads(body)["Statements"]]
