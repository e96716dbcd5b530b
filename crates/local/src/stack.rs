//! The template, deployed on a local AWS.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::carillon::Carillon;
use crate::client::{Reply, send};
use crate::process;

/// The scopes of the API.
pub const ALL_SCOPES: [&str; 4] =
    ["carillon/admin", "carillon/publish", "carillon/subscribe", "carillon/read"];

/// The template, deployed under one name. Stacks of one local AWS share nothing.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    endpoint: String,
    outputs: BTreeMap<String, String>,
}

/// A client of the API, as the stack's issuer knows it.
#[derive(Clone)]
pub struct Credentials {
    /// Its id, which grants name.
    pub client_id: String,
    /// What it proves with that it is the one.
    pub client_secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Stack {
    pub(crate) fn new(name: &str, endpoint: &str, outputs: BTreeMap<String, String>) -> Self {
        Self { name: name.to_owned(), endpoint: endpoint.to_owned(), outputs }
    }

    /// Writes down where it is, for [`Stack::open`] in another program.
    pub fn save(&self, file: &Path) -> Result<()> {
        let place = json!({ "name": self.name, "endpoint": self.endpoint, "outputs": self.outputs });
        fs::write(file, place.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The stack that another program wrote down.
    pub fn open(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let place: Value = serde_json::from_slice(&text)?;
        let text = |field: &str| place[field].as_str().unwrap_or_default();
        let outputs = serde_json::from_value(place["outputs"].clone())?;
        Ok(Self::new(text("name"), text("endpoint"), outputs))
    }

    /// One of the template's outputs.
    ///
    /// # Panics
    ///
    /// When the template has no such output.
    #[must_use]
    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).unwrap_or_else(|| panic!("the template has no output {name}"))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the local AWS that it is on.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where its HTTP API is, without a host name that would have to resolve.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}/_aws/execute-api/{}/$default", self.endpoint, self.output("ApiId"))
    }

    /// The deployed name of one of the functions, `deliver` for example.
    #[must_use]
    pub fn function(&self, function: &str) -> String {
        format!("{}-{function}", self.name)
    }

    /// The processes that run one of its functions now.
    #[must_use]
    pub fn processes(&self, function: &str) -> Vec<u32> {
        process::processes_of(&self.function(function), &self.endpoint)
    }

    /// Calls DynamoDB: `GetItem` and its input, for example.
    pub async fn dynamodb(&self, action: &str, input: Value) -> Result<Value> {
        self.call("dynamodb", &format!("DynamoDB_20120810.{action}"), input).await
    }

    /// Calls SQS: `GetQueueAttributes` and its input, for example.
    pub async fn sqs(&self, action: &str, input: Value) -> Result<Value> {
        self.call("sqs", &format!("AmazonSQS.{action}"), input).await
    }

    /// The user pool that issues its tokens.
    #[must_use]
    pub fn user_pool_id(&self) -> &str {
        self.output("UserPoolId")
    }

    /// Makes a client that can ask for these scopes. Names may repeat; each call makes another client.
    pub async fn client(&self, name: &str, scopes: &[&str]) -> Result<Credentials> {
        let input = json!({
            "UserPoolId": self.user_pool_id(),
            "ClientName": name,
            "GenerateSecret": true,
            "AllowedOAuthFlowsUserPoolClient": true,
            "AllowedOAuthFlows": ["client_credentials"],
            "AllowedOAuthScopes": scopes,
        });
        credentials(&self.cognito("CreateUserPoolClient", input).await?)
    }

    /// The client that was made first under this name, if there is one.
    pub async fn client_named(&self, name: &str) -> Result<Option<Credentials>> {
        let input = json!({ "UserPoolId": self.user_pool_id(), "MaxResults": 60 });
        let listed = self.cognito("ListUserPoolClients", input).await?;
        let clients = listed["UserPoolClients"].as_array().into_iter().flatten();
        let Some(client) = clients.into_iter().find(|client| client["ClientName"] == name) else {
            return Ok(None);
        };
        let input = json!({ "UserPoolId": self.user_pool_id(), "ClientId": client["ClientId"] });
        credentials(&self.cognito("DescribeUserPoolClient", input).await?).map(Some)
    }

    /// A token with all the scopes that a client can ask for.
    pub async fn token(&self, client: &Credentials) -> Result<String> {
        self.token_with(client, &[]).await
    }

    /// A token with these scopes, or with all that the client can ask for if there are none.
    pub async fn token_with(&self, client: &Credentials, scopes: &[&str]) -> Result<String> {
        let basic = BASE64_STANDARD.encode(format!("{}:{}", client.client_id, client.client_secret));
        let mut form = "grant_type=client_credentials".to_owned();
        if !scopes.is_empty() {
            // Scopes are of letters and slashes alone, which stand for themselves in a form.
            form = format!("{form}&scope={}", scopes.join("+"));
        }
        let request = http::Request::post(self.output("TokenUrl"))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.into_bytes())?;
        let answer = send(request).await?.expect_status(200)?.json();
        Ok(answer["access_token"].as_str().context("the answer holds no token")?.to_owned())
    }

    /// Its API, spoken to by a new client with every scope. The client has no grant yet.
    pub async fn carillon(&self) -> Result<Carillon> {
        let client = self.client("carillon", &ALL_SCOPES).await?;
        let token = self.token(&client).await?;
        Ok(Carillon::new(self.api_url()).with_token(token).with_client_id(client.client_id))
    }

    /// Invokes one of the functions with a payload and gives its answer. Fails when the function does.
    pub async fn invoke(&self, function: &str, payload: &Value) -> Result<Value> {
        let path = format!("/2015-03-31/functions/{}/invocations", self.function(function));
        let reply = self.lambda("POST", &path, payload).await?.expect_status(200)?;
        if let Some(kind) = reply.headers.get("x-amz-function-error") {
            bail!("{function} failed ({kind:?}): {}", String::from_utf8_lossy(&reply.body));
        }
        Ok(reply.json())
    }

    /// The variables that the template gives to a function.
    pub async fn environment(&self, function: &str) -> Result<serde_json::Map<String, Value>> {
        let path = self.configuration_path(function);
        let mut configuration = self.lambda("GET", &path, &Value::Null).await?.expect_status(200)?.json();
        match configuration["Environment"]["Variables"].take() {
            Value::Object(variables) => Ok(variables),
            other => bail!("the environment of {function} is {other}"),
        }
    }

    /// Adds variables to a function's environment. Its processes are started anew with them.
    pub async fn set_environment(&self, function: &str, variables: &[(&str, &str)]) -> Result<()> {
        let mut environment = self.environment(function).await?;
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        let path = self.configuration_path(function);
        let changed = json!({ "Environment": { "Variables": environment } });
        self.lambda("PUT", &path, &changed).await?.expect_status(200)?;
        Ok(())
    }

    /// Deletes it, and with it its functions' processes.
    pub async fn delete(&self) -> Result<()> {
        let action = format!("Action=DeleteStack&Version=2010-05-15&StackName={}", self.name);
        let request = self.request("POST", "/", "cloudformation");
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(action.into_bytes());
        send(request?).await?.expect_status(200)?;
        Ok(())
    }

    /// How many messages a queue holds, by the name of the output with its URL: visible, in flight and delayed.
    pub async fn queue_depth(&self, queue_url_output: &str) -> Result<u64> {
        let counts = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ];
        let input = json!({ "QueueUrl": self.output(queue_url_output), "AttributeNames": counts });
        let attributes = self.sqs("GetQueueAttributes", input).await?["Attributes"].clone();
        Ok(counts.iter().filter_map(|name| attributes[*name].as_str()?.parse::<u64>().ok()).sum())
    }

    fn configuration_path(&self, function: &str) -> String {
        format!("/2015-03-31/functions/{}/configuration", self.function(function))
    }

    async fn cognito(&self, action: &str, input: Value) -> Result<Value> {
        self.call("cognito-idp", &format!("AWSCognitoIdentityProviderService.{action}"), input).await
    }

    async fn call(&self, service: &str, target: &str, input: Value) -> Result<Value> {
        let request = self
            .request("POST", "/", service)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", target)
            .body(serde_json::to_vec(&input)?)?;
        let reply = send(request).await?;
        Ok(reply.expect_status(200).with_context(|| target.to_owned())?.json())
    }

    async fn lambda(&self, method: &str, path: &str, input: &Value) -> Result<Reply> {
        let body = if input.is_null() { Vec::new() } else { serde_json::to_vec(input)? };
        let request =
            self.request(method, path, "lambda").header("content-type", "application/json").body(body)?;
        send(request).await
    }

    /// A request as the account's root, whom the local AWS takes at their word: only roles' signatures are checked.
    fn request(&self, method: &str, path: &str, service: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header("authorization", root_authorization(service))
    }
}

/// What a request to a service brings as the account's root.
pub(crate) fn root_authorization(service: &str) -> String {
    let credential = format!("test/20260101/us-east-1/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0")
}

fn credentials(answer: &Value) -> Result<Credentials> {
    let text = |field: &str| {
        let value = answer["UserPoolClient"][field].as_str().map(str::to_owned);
        value.with_context(|| format!("the client has no {field}"))
    };
    Ok(Credentials { client_id: text("ClientId")?, client_secret: text("ClientSecret")? })
}
