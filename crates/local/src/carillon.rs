//! A client of the service's own HTTP API.

use anyhow::Result;
use http::Request;
use serde_json::{Value, json};

use crate::client::{Reply, send};

/// The HTTP API of one deployment.
#[derive(Clone, Debug)]
pub struct Carillon {
    api: String,
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
    /// A client of the API at this URL.
    #[must_use]
    pub fn new(api_url: impl Into<String>) -> Self {
        Self { api: api_url.into() }
    }

    /// Creates a workspace.
    pub async fn create_workspace(&self, id: &str, kind: &str) -> Result<Value> {
        let body = json!({ "id": id, "name": id, "kind": kind });
        Ok(self.post("/v1/workspaces", "application/json", &body).await?.expect_status(201)?.json())
    }

    /// Subscribes an endpoint to events of these types.
    pub async fn subscribe(&self, workspace: &str, endpoint: &str, types: &[&str]) -> Result<Subscription> {
        let path = format!("/v1/workspaces/{workspace}/subscriptions");
        let body = json!({ "endpoint": endpoint, "types": types });
        let created = self.post(&path, "application/json", &body).await?.expect_status(201)?.json();
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
        send(request.body(body)?).await
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
