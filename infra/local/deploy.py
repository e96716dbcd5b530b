"""Packages and deploys a SAM template to the local AWS, in about a second.

    AWS_ENDPOINT_URL=http://127.0.0.1:4566 python deploy.py --template infra/template.yaml --stack carillon \\
        --functions target/functions --parameter Stage=local --parameter LogLevel=debug

The folder of `--functions` holds NAME/bootstrap for each function resource whose CodeUri ends in functions/NAME. The
stack is created or updated; its outputs are printed as one JSON object. If it fails, the reasons go to stderr and the
exit status is 1. It is for the local AWS alone: keys and region are those of launcher.py.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "carillon-artifacts"
LARGEST_INLINE_TEMPLATE = 51_200
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]


def main() -> None:
    arguments = parse_arguments()
    template = read_template(arguments.template)
    store = Store(client("s3"))
    package_functions(template, arguments.functions, store)
    stack = Stack(client("cloudformation"), arguments.stack)
    stack.deploy(template_argument(template, store), arguments.parameters)
    print(json.dumps(stack.outputs()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Deploys a SAM template to the local AWS.")
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--functions", type=Path, required=True)
    parser.add_argument("--parameter", dest="parameters", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def client(service: str):
    """A client of the local AWS and of no other, whatever endpoints and proxies the caller's shell names."""
    if "AWS_ENDPOINT_URL" not in os.environ:
        sys.exit("AWS_ENDPOINT_URL must name the local AWS")
    session = boto3.Session("test", "test", region_name="us-east-1")
    return session.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=Config(proxies={}))


def read_template(path: Path) -> dict:
    # Through JSON, since an unquoted date such as a policy's version is a date to YAML and a text to CloudFormation.
    return json.loads(json.dumps(yaml.load(path.read_text(), TemplateLoader), default=str))


class TemplateLoader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags."""

    def long_form(self, tag: str, node: yaml.Node) -> dict:
        if isinstance(node, yaml.ScalarNode):
            value = self.construct_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            value = self.construct_sequence(node, deep=True)
        else:
            value = self.construct_mapping(node, deep=True)
        if tag in ("Ref", "Condition"):
            return {tag: value}
        if tag == "GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {f"Fn::{tag}": value}


TemplateLoader.add_multi_constructor("!", TemplateLoader.long_form)


class Store:
    """The bucket that stacks are deployed from."""

    def __init__(self, s3) -> None:
        self.s3 = s3
        s3.create_bucket(Bucket=BUCKET)

    def put_once(self, key: str, content) -> None:
        """Stores what `content()` returns, unless the key, which holds a hash of it, is there."""
        try:
            self.s3.head_object(Bucket=BUCKET, Key=key)
        except ClientError:
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=content())


def package_functions(template: dict, functions: Path, store: Store) -> None:
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        bootstrap = functions / PurePosixPath(resource["Properties"]["CodeUri"]).name / "bootstrap"
        program = bootstrap.read_bytes()
        key = f"{hashlib.sha256(program).hexdigest()}.zip"
        store.put_once(key, lambda: zipped(program))
        resource["Properties"]["CodeUri"] = f"s3://{BUCKET}/{key}"


def zipped(program: bytes) -> bytes:
    """A package with the same bytes for the same program: no time of day, and stored, which is faster than deflated."""
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o100755 << 16
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, program)
    return package.getvalue()


def template_argument(template: dict, store: Store) -> dict:
    body = json.dumps(template, separators=(",", ":"))
    if len(body.encode()) <= LARGEST_INLINE_TEMPLATE:
        return {"TemplateBody": body}
    key = f"{hashlib.sha256(body.encode()).hexdigest()}.json"
    store.put_once(key, body.encode)
    return {"TemplateURL": f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/{key}"}


class Stack:
    """One stack of the local CloudFormation."""

    def __init__(self, cloudformation, name: str) -> None:
        self.cloudformation = cloudformation
        self.name = name

    def deploy(self, template: dict, parameters: list[str]) -> None:
        request = {
            "StackName": self.name,
            "Capabilities": CAPABILITIES,
            "Parameters": [
                dict(zip(("ParameterKey", "ParameterValue"), parameter.split("=", 1))) for parameter in parameters
            ],
            **template,
        }
        started = time.time()
        try:
            if self.exists():
                self.cloudformation.update_stack(**request)
            else:
                self.cloudformation.create_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return
            sys.exit(f"stack {self.name}: {error}")
        if self.settled_status() not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            sys.exit("\n".join([f"stack {self.name} failed:", *self.failures(started)]))

    def exists(self) -> bool:
        try:
            status = self.description()["StackStatus"]
        except ClientError:
            return False
        if status == "ROLLBACK_COMPLETE":
            # What is left of a stack that was never created; CloudFormation only lets it be deleted.
            self.cloudformation.delete_stack(StackName=self.name)
            self.cloudformation.get_waiter("stack_delete_complete").wait(
                StackName=self.name, WaiterConfig={"Delay": 1}
            )
            return False
        return True

    def settled_status(self) -> str:
        while (status := self.description()["StackStatus"]).endswith("_IN_PROGRESS"):
            time.sleep(0.05)
        return status

    def description(self) -> dict:
        return self.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]

    def failures(self, since: float) -> list[str]:
        """Each failed resource with its reason, the cause first."""
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return [
            f"  {event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', '')}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("_FAILED") and event["Timestamp"].timestamp() >= since - 1
        ]

    def outputs(self) -> dict:
        return {output["OutputKey"]: output["OutputValue"] for output in self.description().get("Outputs", [])}


if __name__ == "__main__":
    main()
