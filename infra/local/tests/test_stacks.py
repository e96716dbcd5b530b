"""Stacks from templates: deploy.py, mapping_permissions, mapping_types, table_ttl, api_cors."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path

from support import LOCAL, LocalAwsTest, bootstrap

TEMPLATE = Path(__file__).with_name("template.yaml")


class StackTest(LocalAwsTest):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.functions = Path(folder.name)
        self.build("def handle(event): return os.environ['AWS_LAMBDA_FUNCTION_NAME']")

    def build(self, handler: str) -> None:
        (self.functions / "echo").mkdir(exist_ok=True)
        (self.functions / "echo" / "bootstrap").write_text(bootstrap(handler))

    def run_deploy(self, *parameters: str, template: Path = TEMPLATE) -> subprocess.CompletedProcess:
        command = [sys.executable, LOCAL / "deploy.py", "--template", template, "--stack", self.name]
        command += ["--functions", self.functions]
        for parameter in parameters:
            command += ["--parameter", parameter]
        environment = {**os.environ, "AWS_ENDPOINT_URL": self.aws.endpoint}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def deploy(self, *parameters: str, template: Path = TEMPLATE) -> dict:
        done = self.run_deploy(*parameters, template=template)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def request(self, outputs: dict, method: str = "GET", **headers: str) -> tuple[int, HTTPMessage, bytes]:
        url = f"{self.aws.endpoint}/_aws/execute-api/{outputs['ApiId']}/$default/v1"
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()


class Deploying(StackTest):
    def test_a_stack_is_made_and_answers(self):
        outputs = self.deploy()
        self.assertEqual(outputs["FunctionName"], f"{self.name}-echo")
        self.assertEqual(self.request(outputs)[2].decode(), f"{self.name}-echo")

    def test_deploying_again_without_a_change_succeeds(self):
        self.assertEqual(self.deploy(), self.deploy())

    def test_new_code_and_parameters_update_the_stack(self):
        outputs = self.deploy()
        self.build("def handle(event): return 'new'")
        self.assertEqual(self.deploy("ExpiresAt=gone_at"), outputs)
        self.assertEqual(self.request(outputs)[2].decode(), "new")
        described = self.client("dynamodb").describe_time_to_live(TableName=outputs["TableName"])
        self.assertEqual(described["TimeToLiveDescription"]["AttributeName"], "gone_at")

    def test_a_template_too_large_for_a_request_goes_by_its_url(self):
        large = self.functions / "large.yaml"
        padding = "\n".join(f"  Output{number}:\n    Value: {'x' * 600}" for number in range(100))
        large.write_text(f"{TEMPLATE.read_text()}{padding}\n")
        self.assertEqual(len(self.deploy(template=large)["Output99"]), 600)

    def test_a_failure_names_the_resource_and_its_reason_and_can_be_repaired(self):
        done = self.run_deploy("QueueActions=sqs:ReceiveMessage")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("Tasks (AWS::Lambda::EventSourceMapping)", done.stderr)
        self.assertIn("does not have permissions to call DeleteMessage on SQS", done.stderr)
        self.deploy()


class Templates(StackTest):
    def test_time_to_live_of_a_table(self):
        described = self.client("dynamodb").describe_time_to_live(TableName=self.deploy()["TableName"])
        self.assertEqual(
            described["TimeToLiveDescription"], {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
        )

    def test_preflight_requests_of_the_api(self):
        outputs = self.deploy("Origin=https://console.example")
        preflight = {"Access-Control-Request-Method": "POST"}
        status, headers, _ = self.request(outputs, "OPTIONS", Origin="https://console.example", **preflight)
        self.assertEqual((status, headers["Access-Control-Allow-Methods"]), (204, "POST"))
        self.assertEqual(self.request(outputs, "OPTIONS", Origin="https://other.example", **preflight)[0], 403)

    def test_numbers_and_booleans_of_a_mapping_may_come_from_parameters(self):
        outputs = self.deploy("Mapped=false")
        sqs, url = self.client("sqs"), outputs["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="x")
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

        def waiting() -> int:
            return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"].values()))

        time.sleep(0.3)
        self.assertEqual(waiting(), 1)
        self.deploy("Mapped=true", "Concurrency=3")
        self.eventually(lambda: waiting() == 0)
