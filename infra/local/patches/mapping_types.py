"""Numbers and booleans of event source mappings from templates.

AWS: a number that a template takes from a parameter is a number to the resource.
ministack: keeps parameters as text, and its poll of all queues ends at the first mapping whose MaximumConcurrency is
one.
Remedy: give the properties of a mapping their types before its creation and update.
"""

from ministack.services.cloudformation import provisioners

MAPPING = "AWS::Lambda::EventSourceMapping"
NUMBERS = {
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "MaximumConcurrency",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
}
BOOLEANS = {"BisectBatchOnFunctionError", "Enabled"}


def apply() -> None:
    handlers = provisioners._RESOURCE_HANDLERS[MAPPING]
    create, update = handlers["create"], handlers["update"]

    def create_typed(logical_id, properties, stack):
        return create(logical_id, typed(properties), stack)

    def update_typed(physical_id, old, new, *context):
        return update(physical_id, typed(old), typed(new), *context)

    handlers.update(create=create_typed, update=update_typed)


def typed(properties: dict) -> dict:
    return {name: typed_value(name, value) for name, value in properties.items()}


def typed_value(name: str, value):
    if isinstance(value, dict):
        return typed(value)
    if name in NUMBERS:
        return int(value)
    if name in BOOLEANS:
        return str(value).lower() == "true"
    return value
