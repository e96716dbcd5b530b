"""The local AWS that the tests share, and small functions to run on it."""

import atexit
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
import zipfile
from functools import cache
from pathlib import Path

import boto3
from botocore.config import Config

LOCAL = Path(__file__).resolve().parent.parent
# A proxy that the shell names is for other addresses.
os.environ["NO_PROXY"] = "127.0.0.1"

ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}

# A custom runtime in Python. `handle` is the test's; `record` writes a line that the test reads.
BOOTSTRAP = """#!{python}
import http.client, json, os, time

def record(value):
    with open(os.environ["RECORD"], "a") as file:
        file.write(json.dumps(value) + "\\n")

{handler}

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    event, request = json.loads(answer.read()), answer.headers["Lambda-Runtime-Aws-Request-Id"]
    try:
        kind, result = "response", handle(event)
    except Exception as error:
        kind, result = "error", {{"errorType": type(error).__name__, "errorMessage": str(error)}}
    api.request("POST", f"/2018-06-01/runtime/invocation/{{request}}/{{kind}}", json.dumps(result))
    api.getresponse().read()
"""


class Launcher:
    """A launcher of its own process, ready to serve."""

    def __init__(self, command=(sys.executable, str(LOCAL / "launcher.py"))) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="carillon-test-")
        self.log = open(Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "TMPDIR": self.folder.name},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"the launcher is not ready: {Path(self.log.name).read_text()}")
        self.endpoint = line.split()[1]

    @cache
    def client(self, service: str, key="test", secret="test", token=None):
        session = boto3.Session(key, secret, token, region_name="us-east-1")
        return session.client(service, endpoint_url=self.endpoint, config=Config(retries={"max_attempts": 0}))

    def time_on_processor(self) -> float:
        """Its own and the system's for it, in seconds."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()


@cache
def shared() -> Launcher:
    launcher = Launcher()
    atexit.register(launcher.end)
    return launcher


class LocalAwsTest(unittest.TestCase):
    """A test on the shared local AWS, with resources of its own by their names."""

    def setUp(self) -> None:
        self.aws = shared()
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self.records = Path(self.aws.folder.name) / f"{self.name}.jsonl"

    def client(self, service: str):
        return self.aws.client(service)

    def role(self, *statements: dict) -> str:
        iam = self.client("iam")
        name = f"role-{uuid.uuid4().hex[:12]}"
        trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy(*statements))
        return role["Arn"]

    def function(self, handler: str, role: str | None = None, timeout: int = 10, padding: bytes = b"") -> str:
        self.client("lambda").create_function(
            FunctionName=self.name,
            Runtime="provided.al2023",
            Handler="bootstrap",
            Role=role or self.role(ALLOW_ALL),
            Code={"ZipFile": package(handler, padding)},
            Timeout=timeout,
            Environment={"Variables": {"RECORD": str(self.records)}},
        )
        return self.name

    def invoke(self, event=None):
        answer = self.client("lambda").invoke(FunctionName=self.name, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    def recorded(self) -> list:
        return [json.loads(line) for line in self.records.read_text().splitlines()] if self.records.exists() else []

    def queue(self, suffix: str = "", **attributes: str) -> tuple[str, str]:
        """A new queue's URL and ARN."""
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName=f"{self.name}{suffix}", Attributes=attributes)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, found["Attributes"]["QueueArn"]

    def receive(self, url: str, seconds: float = 10) -> list[dict]:
        """The messages of the first answer that has some."""
        return self.eventually(
            lambda: self.client("sqs")
            .receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])
            .get("Messages"),
            seconds,
        )

    def eventually(self, look, seconds: float = 10):
        """What `look` returns once that is true."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                self.fail(f"not within {seconds} s; the log ends: {Path(self.aws.log.name).read_text()[-2000:]}")
            time.sleep(0.02)
        return found


def policy(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def bootstrap(handler: str) -> str:
    return BOOTSTRAP.format(python=sys.executable, handler=handler)


def package(handler: str, padding: bytes = b"") -> bytes:
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o100755 << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("padding", padding)
        archive.writestr(entry, bootstrap(handler))
    return content.getvalue()
