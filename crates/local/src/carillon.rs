//! A client of the service's own HTTP API.

use std::fmt;

use anyhow::{Result, bail};
use http::Request;
use serde_json::{Value, json};

use crate::client::{Reply, send};

/// The HTTP API of one deployment, as one client calls it.
#[derive(Clone)]
pub struct Carillon {
    api: String,
    token: Option<String>,
    client_id: Option<String>,
}

/// A subscription, with the secret that was shown at its creation.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// The secret that its deliveries are signed with.
    pub secret: String,
}

impl Carillon {
    /// A client of the API at this URL, without a token.
    #[must_use]
    pub fn new(api_url: impl Into<String>) -> Self {
        Self { api: api_url.into(), token: None, client_id: None }
    }

    /// The same API, with this token on every request that brings no `authorization` of its own.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The same, knowing whom the token is for.
    #[must_use]
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// The token.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_else(|| panic!("there is no token"))
    }

    /// The id of the client that the token is for.
    ///
    /// # Panics
    ///
    /// When it was not told.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_else(|| panic!("nobody told whom the token is for"))
    }

    /// Creates a workspace that takes endpoints without HTTPS, which is what endpoints on this machine are.
    pub async fn create_workspace(&self, id: &str, kind: &str) -> Result<Value> {
        let settings = json!({ "httpsRequired": false, "audience": "open" });
        let body = json!({ "id": id, "name": id, "kind": kind, "settings": settings });
        Ok(self.post("/v1/workspaces", "application/json", &body).await?.expect_status(201)?.json())
    }

    /// Creates a workspace and makes this client its owner.
    pub async fn own_workspace(&self, id: &str, kind: &str) -> Result<Value> {
        let created = self.create_workspace(id, kind).await?;
        self.grant(id, self.client_id(), &json!({ "role": "owner" })).await?;
        Ok(created)
    }

    /// Says what a client may do in a workspace: `{"role": "publisher"}`, for example.
    pub async fn grant(&self, workspace: &str, client_id: &str, role: &Value) -> Result<Value> {
        let path = format!("/v1/workspaces/{workspace}/clients/{client_id}");
        let reply = self.put(&path, role).await?;
        if !matches!(reply.status, 200 | 201) {
            bail!("PUT {path} answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        Ok(reply.json())
    }

    /// Subscribes an endpoint of the subscriber `tpp-1` to events of these types.
    pub async fn subscribe(&self, workspace: &str, endpoint: &str, types: &[&str]) -> Result<Subscription> {
        let body = json!({ "subscriber": "tpp-1", "endpoint": endpoint, "types": types });
        self.subscribe_with(workspace, &body).await
    }

    /// Creates a subscription from the whole body of the request.
    pub async fn subscribe_with(&self, workspace: &str, body: &Value) -> Result<Subscription> {
        let path = format!("/v1/workspaces/{workspace}/subscriptions");
        let created = self.post(&path, "application/json", body).await?.expect_status(201)?.json();
        let text = |field: &str| created[field].as_str().unwrap_or_default().to_owned();
        Ok(Subscription { id: text("id"), secret: text("signingSecret") })
    }

    /// Publishes one event, in structured mode.
    pub async fn publish(&self, workspace: &str, event: &Value) -> Result<Reply> {
        let path = format!("/v1/workspaces/{workspace}/events");
        self.post(&path, "application/cloudevents+json", event).await
    }

    /// Publishes several events at once.
    pub async fn publish_batch(&self, workspace: &str, events: &[Value]) -> Result<Reply> {
        let path = format!("/v1/workspaces/{workspace}/events");
        self.post(&path, "application/cloudevents-batch+json", &json!(events)).await
    }

    /// Gets a path of the API.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, &[], Vec::new()).await
    }

    /// Deletes what is at a path of the API.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send("DELETE", path, &[], Vec::new()).await
    }

    /// Posts JSON of some kind to a path of the API.
    pub async fn post(&self, path: &str, content_type: &str, body: &Value) -> Result<Reply> {
        self.send("POST", path, &[("content-type", content_type)], serde_json::to_vec(body)?).await
    }

    /// Puts JSON at a path of the API.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send("PUT", path, &[("content-type", "application/json")], serde_json::to_vec(body)?).await
    }

    /// Changes what is at a path of the API by a JSON Merge Patch (RFC 7396).
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        let content_type = ("content-type", "application/merge-patch+json");
        self.send("PATCH", path, &[content_type], serde_json::to_vec(body)?).await
    }

    /// Sends any request to a path of the API.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let authorized = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(token) = self.token.as_deref().filter(|_| !authorized) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        send(request.body(body)?).await
    }
}

impl fmt::Debug for Carillon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, client_id, token: _ } = self;
        formatter
            .debug_struct("Carillon")
            .field("api", api)
            .field("client_id", client_id)
            .finish_non_exhaustive()
    }
}

/// A CloudEvent with the attributes that it must have.
#[must_use]
pub fn event(id: &str, kind: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "urn:example:bank",
        "type": kind,
        "datacontenttype": "application/json",
        "data": data,
    })
}
