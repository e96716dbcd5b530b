"""IAM is enforced: what a role allows works, all else is denied; kms_conditions, batch_permissions."""

import urllib.error
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from support import ALLOW_ALL, LocalAwsTest, policy

CREDENTIALS = """
def handle(event):
    return [os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
"""


class Access(LocalAwsTest):
    def clients_of_a_function(self, *statements: dict):
        """The clients that a function with this role would have."""
        self.function(CREDENTIALS, role=self.role(*statements))
        credentials = self.invoke()
        return lambda service: self.aws.client(service, *credentials)

    def assert_denied(self, action: str, call, **arguments) -> None:
        with self.assertRaises(ClientError) as denied:
            call(**arguments)
        self.assertIn("AccessDenied", denied.exception.response["Error"]["Code"])
        self.assertIn(action, denied.exception.response["Error"]["Message"])

    def test_a_function_has_its_role_and_no_more(self):
        url, arn = self.queue()
        client = self.clients_of_a_function({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn})
        client("sqs").send_message(QueueUrl=url, MessageBody="x")
        self.assert_denied("sqs:ReceiveMessage", client("sqs").receive_message, QueueUrl=url)
        self.assert_denied("dynamodb:ListTables", client("dynamodb").list_tables)

    def test_who_may_send_a_message_may_send_a_batch_and_no_one_else(self):
        url, arn = self.queue()
        client = self.clients_of_a_function({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn})("sqs")
        entries = [{"Id": str(number), "MessageBody": "x"} for number in range(2)]
        self.assertEqual(len(client.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]), 2)
        receipts = [{"Id": "1", "ReceiptHandle": "x"}]
        self.assert_denied("sqs:DeleteMessage", client.delete_message_batch, QueueUrl=url, Entries=receipts)

    def test_each_part_of_a_transaction_and_each_table_of_a_batch_is_checked(self):
        tables = [self.table(suffix) for suffix in ("-one", "-two")]
        client = self.clients_of_a_function(
            {"Effect": "Allow", "Action": ["dynamodb:PutItem", "dynamodb:BatchGetItem"], "Resource": tables[0]}
        )("dynamodb")
        names = [table.split("/")[1] for table in tables]
        put = {"Put": {"TableName": names[0], "Item": {"pk": {"S": "a"}}}}
        check = {
            "ConditionCheck": {
                "TableName": names[0],
                "Key": {"pk": {"S": "b"}},
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }
        client.transact_write_items(TransactItems=[put])
        self.assert_denied("dynamodb:ConditionCheckItem", client.transact_write_items, TransactItems=[put, check])
        keys = {"Keys": [{"pk": {"S": "a"}}]}
        client.batch_get_item(RequestItems={names[0]: keys})
        self.assert_denied("dynamodb:BatchGetItem", client.batch_get_item, RequestItems=dict.fromkeys(names, keys))

    def table(self, suffix: str) -> str:
        return self.client("dynamodb").create_table(
            TableName=self.name + suffix,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )["TableDescription"]["TableArn"]

    def test_a_condition_on_the_encryption_context_holds(self):
        root = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kms:*"}
        key = self.client("kms").create_key(Policy=policy({**root, "Resource": "*"}))["KeyMetadata"]
        for operator in ("ForAnyValue:StringEquals", "ForAllValues:StringEquals"):
            with self.subTest(operator=operator):
                self.setUp()
                kms = self.clients_of_a_function(
                    {
                        "Effect": "Allow",
                        "Action": ["kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"],
                        "Resource": key["Arn"],
                        "Condition": {
                            operator: {"kms:EncryptionContextKeys": ["workspace"]},
                            "Null": {"kms:EncryptionContextKeys": "false"},
                        },
                    }
                )("kms")
                context = {"workspace": "acme"}
                data_key = kms.generate_data_key_without_plaintext(
                    KeyId=key["Arn"], KeySpec="AES_256", EncryptionContext=context
                )["CiphertextBlob"]
                kms.decrypt(CiphertextBlob=data_key, EncryptionContext=context)
                self.assert_denied("kms:Decrypt", kms.decrypt, CiphertextBlob=data_key)
                self.assert_denied(
                    "kms:Decrypt", kms.decrypt, CiphertextBlob=data_key, EncryptionContext={"tenant": "acme"}
                )

    def test_one_value_of_the_encryption_context(self):
        key = self.client("kms").create_key()["KeyMetadata"]
        kms = self.clients_of_a_function(
            {
                "Effect": "Allow",
                "Action": "kms:GenerateDataKeyWithoutPlaintext",
                "Resource": key["Arn"],
                "Condition": {"StringEquals": {"kms:EncryptionContext:workspace": "acme"}},
            }
        )("kms")
        call = kms.generate_data_key_without_plaintext
        call(KeyId=key["Arn"], KeySpec="AES_256", EncryptionContext={"workspace": "acme"})
        self.assert_denied(
            "kms:GenerateDataKeyWithoutPlaintext",
            call, KeyId=key["Arn"], KeySpec="AES_256", EncryptionContext={"workspace": "other"},
        )


class Routes(LocalAwsTest):
    def test_a_route_with_iam_authorization_takes_signed_requests_of_permitted_callers(self):
        for authorization, unsigned in (("NONE", 200), ("AWS_IAM", 403)):
            with self.subTest(authorization=authorization):
                self.setUp()
                url = self.route(authorization)
                self.assertEqual(self.status(url), unsigned)
                self.assertEqual(self.status(url, "test", "test"), 200)
        permitted, secret = self.key({**ALLOW_ALL, "Action": "execute-api:Invoke"})
        self.assertEqual(self.status(url, permitted, secret), 200)
        self.assertEqual(self.status(url, permitted, "forged"), 403)
        self.assertEqual(self.status(url, *self.key({**ALLOW_ALL, "Action": "sqs:SendMessage"})), 403)

    def route(self, authorization: str) -> str:
        """The URL of an API whose one route has this AuthorizationType."""
        apis = self.client("apigatewayv2")
        function = self.client("lambda").get_function(FunctionName=self.function("def handle(event): return 'in'"))
        api = apis.create_api(Name=self.name, ProtocolType="HTTP")["ApiId"]
        integration = apis.create_integration(
            ApiId=api,
            IntegrationType="AWS_PROXY",
            IntegrationUri=function["Configuration"]["FunctionArn"],
            PayloadFormatVersion="2.0",
        )["IntegrationId"]
        apis.create_route(
            ApiId=api, RouteKey="$default", AuthorizationType=authorization, Target=f"integrations/{integration}"
        )
        apis.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
        return f"{self.aws.endpoint}/_aws/execute-api/{api}/$default/v1"

    def key(self, *statements: dict) -> tuple[str, str]:
        """The access key of a new user with this policy."""
        iam = self.client("iam")
        user = f"user-{self.name}-{len(iam.list_users()['Users'])}"
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=policy(*statements))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def status(self, url: str, *key: str) -> int:
        """The status of a request, signed if there is a key."""
        request = AWSRequest("GET", url)
        if key:
            SigV4Auth(Credentials(*key), "execute-api", "us-east-1").add_auth(request)
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(request.headers))) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
