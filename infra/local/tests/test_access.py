"""IAM is enforced: what a role allows works, all else is denied; tokens; kms_conditions, batch_permissions,
statement_permissions, options_requests."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from botocore.exceptions import ClientError

from support import LocalAwsTest, policy

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

    def test_a_statement_needs_the_permission_of_what_it_does_and_for_each_table(self):
        tables = [self.table(suffix) for suffix in ("-one", "-two")]
        client = self.clients_of_a_function(
            {"Effect": "Allow", "Action": "dynamodb:PartiQLInsert", "Resource": tables[0]}
        )("dynamodb")
        names = [table.split("/")[1] for table in tables]

        def insert(name: str) -> dict:
            return {"Statement": f"INSERT INTO \"{name}\" VALUE {{'pk':?}}", "Parameters": [{"S": "a"}]}

        once = client.batch_execute_statement(Statements=[insert(names[0])])
        self.assertNotIn("Error", once["Responses"][0])
        again = client.batch_execute_statement(Statements=[insert(names[0])])
        self.assertEqual(again["Responses"][0]["Error"]["Code"], "DuplicateItem")
        both = [insert(name) for name in names]
        self.assert_denied("dynamodb:PartiQLInsert", client.batch_execute_statement, Statements=both)
        delete = [{"Statement": f"DELETE FROM \"{names[0]}\" WHERE pk = 'a'"}]
        self.assert_denied("dynamodb:PartiQLDelete", client.batch_execute_statement, Statements=delete)

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
    def test_an_api_without_cors_takes_options_for_a_method_like_any_other(self):
        self.function("def handle(event): return event['requestContext']['http']['method']")
        for route in ("$default", "ANY /v1"):
            with self.subTest(route=route):
                request = urllib.request.Request(self.url(route), method="OPTIONS")
                with urllib.request.urlopen(request) as answer:
                    self.assertEqual((answer.status, answer.read()), (200, b"OPTIONS"))

    def url(self, route: str) -> str:
        """The URL of an API with this one route to the test's function."""
        apis = self.client("apigatewayv2")
        function = self.client("lambda").get_function(FunctionName=self.name)["Configuration"]["FunctionArn"]
        api = apis.create_api(Name=self.name, ProtocolType="HTTP")["ApiId"]
        integration = apis.create_integration(
            ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=function, PayloadFormatVersion="2.0"
        )["IntegrationId"]
        apis.create_route(ApiId=api, RouteKey=route, Target=f"integrations/{integration}")
        apis.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
        return f"{self.aws.endpoint}/_aws/execute-api/{api}/$default/v1"


class Tokens(LocalAwsTest):
    """What ministack needs no patch for, and the project builds on."""

    def setUp(self) -> None:
        super().setUp()
        cognito = self.client("cognito-idp")
        self.pool = cognito.create_user_pool(PoolName=self.name)["UserPool"]["Id"]
        scopes = [{"ScopeName": name, "ScopeDescription": name} for name in ("read", "admin")]
        cognito.create_resource_server(UserPoolId=self.pool, Identifier="shop", Name="Shop", Scopes=scopes)
        client = cognito.create_user_pool_client(
            UserPoolId=self.pool,
            ClientName="reader",
            GenerateSecret=True,
            AllowedOAuthFlowsUserPoolClient=True,
            AllowedOAuthFlows=["client_credentials"],
            AllowedOAuthScopes=["shop/read"],
        )["UserPoolClient"]
        self.id, self.secret = client["ClientId"], client["ClientSecret"]

    def test_a_token_carries_the_scopes_of_its_client_and_no_audience(self):
        status, answer = self.token(self.secret)
        self.assertEqual((status, answer["token_type"]), (200, "Bearer"))
        claims = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[1] + "=="))
        self.assertEqual((claims["client_id"], claims["token_use"]), (self.id, "access"))
        self.assertEqual((claims["scope"], "aud" in claims), ("shop/read", False))

        discovery = f"{self.aws.endpoint}/{self.pool}/.well-known/openid-configuration"
        with urllib.request.urlopen(discovery) as found:
            document = json.load(found)
        self.assertEqual(document["issuer"], claims["iss"])
        with urllib.request.urlopen(document["jwks_uri"]) as found:
            keys = {key["kid"] for key in json.load(found)["keys"]}
        header = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[0] + "=="))
        self.assertIn(header["kid"], keys)

    def test_no_token_for_another_scope_or_a_wrong_secret(self):
        self.assertEqual(self.token(self.secret, scope="shop/admin"), (400, {"error": "invalid_grant"}))
        status, answer = self.token("wrong")
        self.assertEqual((status, answer["error"]), (400, "invalid_client"))

    def token(self, secret: str, **form: str) -> tuple[int, dict]:
        basic = base64.b64encode(f"{self.id}:{secret}".encode()).decode()
        form = urllib.parse.urlencode({"grant_type": "client_credentials", **form}).encode()
        request = urllib.request.Request(
            f"{self.aws.endpoint}/oauth2/token", form, {"authorization": f"Basic {basic}"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
