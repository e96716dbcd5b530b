"""Schedules fire to the second: schedule_sweeps."""

import time
from datetime import datetime, timezone

from support import LocalAwsTest


class Schedules(LocalAwsTest):
    def test_a_schedule_fires_within_three_seconds_of_its_time(self):
        function = self.client("lambda").get_function(FunctionName=self.function("def handle(event): record(event)"))
        due = int(time.time()) + 1
        self.client("scheduler").create_schedule(
            Name=self.name,
            ScheduleExpression=f"at({datetime.fromtimestamp(due, timezone.utc):%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={
                "Arn": function["Configuration"]["FunctionArn"],
                "RoleArn": function["Configuration"]["Role"],
                "Input": '{"due": true}',
            },
        )
        self.eventually(self.recorded)
        self.assertEqual(self.recorded(), [{"due": True}])
        self.assertLess(time.time() - due, 3)
