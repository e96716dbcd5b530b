"""Schedules to the second.

AWS: EventBridge Scheduler and rules fire within a minute of their time; what is due is not held back for long.
ministack: looks every 10 s for what is due, so that a test of a one-minute rate waits up to 70 s.
Remedy: look every second.
"""

from ministack.services import eventbridge, scheduler


def apply() -> None:
    eventbridge._SCHEDULER_TICK_INTERVAL = 1
    scheduler._SCHEDULE_TICK_INTERVAL = 1
