"""The launcher itself: it refuses other versions, garbage_pauses, and it leaves nothing behind however it ends."""

import gc
import runpy
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from support import LOCAL, Launcher, package, policy

# Starts the launcher as its child, passes on its `ready` line and goes to sleep.
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, sys.argv[1]]); time.sleep(60)"


class Versions(unittest.TestCase):
    def test_another_version_of_ministack_is_refused(self):
        pretend = (
            "import importlib.metadata as m, runpy, sys; m.version = lambda _: '1.5.34'; "
            "runpy.run_path(sys.argv[1], run_name='__main__')"
        )
        command = [sys.executable, "-c", pretend, LOCAL / "launcher.py"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        self.assertEqual(done.returncode, 1)
        self.assertIn("patched for ministack 1.5.33, but 1.5.34 is installed", done.stderr)


class Garbage(unittest.TestCase):
    def test_what_outlived_a_whole_collection_of_garbage_is_not_looked_at_again(self):
        patch = runpy.run_path(str(LOCAL / "patches" / "garbage_pauses.py"))
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.callbacks.remove, patch["keep_what_is_left"])
        patch["apply"]()
        kept = [[] for _ in range(100_000)]
        gc.collect()
        self.assertGreater(gc.get_freeze_count(), len(kept))


class Ends(unittest.TestCase):
    def launch(self) -> Launcher:
        launcher = Launcher()
        self.addCleanup(launcher.end)
        return launcher

    def start_function(self, launcher: Launcher) -> int:
        """Starts a function that does not answer; returns its process."""
        trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = launcher.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument=policy(trust))["Role"]
        record = Path(launcher.folder.name) / "record"
        functions = launcher.client("lambda")
        functions.create_function(
            FunctionName="sleeper",
            Runtime="provided.al2023",
            Handler="bootstrap",
            Role=role["Arn"],
            Code={"ZipFile": package("def handle(event): record(os.getpid()); time.sleep(60)")},
            Timeout=60,
            Environment={"Variables": {"RECORD": str(record)}},
        )
        functions.invoke(FunctionName="sleeper", InvocationType="Event")
        return int(eventually(lambda: record.exists() and record.read_text()))

    def assert_nothing_left(self, launcher: Launcher, process: int) -> None:
        eventually(lambda: not Path(f"/proc/{process}").exists())
        self.assertEqual([path.name for path in Path(launcher.folder.name).iterdir() if path.is_dir()], [])

    def test_signals_end_it_and_its_functions(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                launcher = self.launch()
                process = self.start_function(launcher)
                launcher.process.send_signal(number)
                self.assertEqual(launcher.process.wait(5), 0)
                self.assert_nothing_left(launcher, process)

    def test_the_end_of_its_parent_ends_it_and_its_functions(self):
        launcher = Launcher(command=[sys.executable, "-c", PARENT, str(LOCAL / "launcher.py")])
        self.addCleanup(launcher.end)
        process = self.start_function(launcher)
        launcher.process.kill()
        self.assert_nothing_left(launcher, process)


def eventually(look, seconds: float = 5):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)
    return found
