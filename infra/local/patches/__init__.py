"""What ministack 1.5.33 does unlike AWS and this project needs: one module a difference, each with its remedy.

A patch replaces functions of ministack's modules before it serves. Each has a test in `infra/local/tests`.
"""

from . import (
    api_cors,
    batch_permissions,
    function_environment,
    garbage_pauses,
    kms_conditions,
    log_wait,
    mapping_permissions,
    mapping_types,
    message_moves,
    options_requests,
    payload_limits,
    queue_limits,
    queue_mappings,
    queue_races,
    queue_scans,
    quick_starts,
    runtime_nagle,
    schedule_sweeps,
    statement_permissions,
    stream_mappings,
    table_ttl,
)

# In this order: the races are closed around what the other patches made of the queues.
PATCHES = [
    garbage_pauses,
    runtime_nagle,
    log_wait,
    quick_starts,
    function_environment,
    payload_limits,
    stream_mappings,
    queue_mappings,
    mapping_types,
    mapping_permissions,
    queue_limits,
    queue_scans,
    queue_races,
    message_moves,
    table_ttl,
    api_cors,
    options_requests,
    kms_conditions,
    batch_permissions,
    statement_permissions,
    schedule_sweeps,
]


def apply() -> None:
    for patch in PATCHES:
        patch.apply()
