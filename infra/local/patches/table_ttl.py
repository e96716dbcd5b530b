"""Time to live of tables from templates.

AWS: CloudFormation applies a table's TimeToLiveSpecification.
ministack: its CloudFormation ignores it, though the table's own API has it.
Remedy: apply it after a table's creation and update.
"""

from ministack.services import dynamodb
from ministack.services.cloudformation import provisioners

TABLE = "AWS::DynamoDB::Table"


def apply() -> None:
    handlers = provisioners._RESOURCE_HANDLERS[TABLE]
    create, update = handlers["create"], handlers["update"]

    def create_with_ttl(logical_id, properties, stack):
        name, attributes = create(logical_id, properties, stack)
        set_ttl(name, properties)
        return name, attributes

    def update_with_ttl(physical_id, old, new, *context, **named):
        name, attributes = update(physical_id, old, new, *context, **named)
        set_ttl(name, new)
        return name, attributes

    handlers.update(create=create_with_ttl, update=update_with_ttl)


def set_ttl(table: str, properties: dict) -> None:
    specification = properties.get("TimeToLiveSpecification")
    if not specification:
        dynamodb._ttl_settings.pop(table, None)
        return
    enabled = str(specification["Enabled"]).lower() == "true"
    dynamodb._ttl_settings[table] = {
        "TimeToLiveStatus": "ENABLED" if enabled else "DISABLED",
        "AttributeName": specification["AttributeName"],
    }
