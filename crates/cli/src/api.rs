//! Calls of the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;
use url::Url;
use uuid::Builder;

use crate::failure::{Failure, usage};
use crate::network::{Answer, exchange, secure_url};
use crate::output::Output;
use crate::session::Session;

/// How often a call is made at most that may be made twice.
const TRIES_MAX: u32 = 4;

/// How long the first wait is between two tries, unless the answer says; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// How long a wait may be. Whoever is asked to wait longer is told so.
const WAIT_MAX: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The API of a deployment, called as one client.
#[derive(Debug)]
pub(crate) struct Api {
    http: Client,
    url: Url,
    session: Session,
    output: Output,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: Bytes,
    idempotency_key: Option<String>,
    repeatable: bool,
}

impl Call {
    /// Reads what is at a path, of which each segment is given.
    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path, "", Bytes::new())
    }

    /// Deletes what is there.
    pub(crate) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path, "", Bytes::new())
    }

    /// Posts JSON.
    pub(crate) fn post(path: &[&str], body: &Value) -> Self {
        Self::post_as(path, JSON, body.to_string())
    }

    /// Posts JSON of another media type.
    pub(crate) fn post_as(path: &[&str], content_type: &'static str, body: String) -> Self {
        Self::new(Method::POST, path, content_type, body.into())
    }

    /// Posts what makes something new, which the API makes once however often the call comes.
    pub(crate) fn create(path: &[&str], body: &Value) -> Result<Self, Failure> {
        Ok(Self { idempotency_key: Some(random_id()?), ..Self::post(path, body).repeatable() })
    }

    /// Puts JSON.
    pub(crate) fn put(path: &[&str], body: &Value) -> Self {
        Self::new(Method::PUT, path, JSON, body.to_string().into())
    }

    /// Changes by a JSON Merge Patch (RFC 7396).
    pub(crate) fn patch(path: &[&str], body: &Value) -> Self {
        Self::new(Method::PATCH, path, MERGE_PATCH, body.to_string().into())
    }

    /// The same, where doing it twice is doing it once.
    #[must_use]
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// With a parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With a parameter, if there is a value.
    #[must_use]
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn new(method: Method, path: &[&str], content_type: &'static str, body: Bytes) -> Self {
        let path = path.iter().map(|segment| (*segment).to_owned()).collect();
        let repeatable = method == Method::GET;
        Self { method, path, query: Vec::new(), content_type, body, idempotency_key: None, repeatable }
    }

    fn url(&self, api: &Url) -> Result<Url, Failure> {
        let mut url = api.clone();
        if let Some(wrong) = self.path.iter().find(|segment| matches!(segment.as_str(), "" | "." | "..")) {
            return Err(usage(format!("`{wrong}` names nothing")));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(&self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

impl Api {
    /// At this URL, with the tokens of this session.
    pub(crate) fn new(http: Client, url: &str, session: Session, output: Output) -> Result<Self, Failure> {
        let url = secure_url(url, "the API's URL")?;
        Ok(Self { http, url, session, output })
    }

    /// Makes a call, and gives the answer unless it is a refusal. Waits and tries again where that may help and can do
    /// no harm.
    pub(crate) async fn call(&self, call: &Call) -> Result<Bytes, Failure> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES_MAX {
            let answer = self.authorized(call).await?;
            let asked = answer.retry_after.unwrap_or(wait);
            let may_pass = answer.status == 429 || answer.status >= 500;
            if !may_pass || !call.repeatable || asked > WAIT_MAX {
                return answer.accepted().map(|answer| answer.body);
            }
            self.output.note(&format!("Answered with {}: asking again in {asked:.1?} ...", answer.status));
            sleep(asked).await;
            wait *= 2;
        }
        self.authorized(call).await?.accepted().map(|answer| answer.body)
    }

    /// The same, parsed.
    pub(crate) async fn parsed<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        parsed(&self.call(call).await?)
    }

    /// Whose tokens it has.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// A token that is refused though it was thought good is replaced once: keys and clocks change.
    async fn authorized(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.send(call, self.session.token().await?.expose()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        self.session.forget();
        self.send(call, self.session.fresh_token().await?.expose()).await
    }

    async fn send(&self, call: &Call, token: &str) -> Result<Answer, Failure> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url(&self.url)?)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(ACCEPT, JSON)
            .header(USER_AGENT, concat!("carillon-cli/", env!("CARGO_PKG_VERSION")));
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, call.content_type).body(call.body.clone());
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        exchange(request, &format!("the API at {}", self.url)).await
    }
}

/// An answer of the API as what it should be.
pub(crate) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        usage(format!("the answer is not what this version knows ({error}): is it Carillon's API?"))
    })
}

/// A UUID of 122 random bits (RFC 9562, version 4).
pub(crate) fn random_id() -> Result<String, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| usage(format!("there is no randomness: {error}")))?;
    Ok(Builder::from_random_bytes(random).into_uuid().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(call: &Call, api: &str) -> Result<String, Failure> {
        call.url(&Url::parse(api).unwrap()).map(String::from)
    }

    #[test]
    fn paths_and_parameters_are_encoded() {
        let call = Call::get(&["workspaces", "acme", "clients", "a/b?c"]).with("cursor", "x&y=z");
        let shown = "/v1/workspaces/acme/clients/a%2Fb%3Fc?cursor=x%26y%3Dz";
        for api in [
            "https://a.example",
            "https://a.example/",
            "https://a.example/x/$default",
            "https://a.example/x/",
        ] {
            let base = api.trim_end_matches('/');
            assert_eq!(url(&call, api).unwrap(), format!("{base}{shown}"));
        }
    }

    #[test]
    fn no_id_leads_elsewhere() {
        for wrong in ["..", ".", ""] {
            assert!(url(&Call::delete(&["workspaces", wrong]), "https://a.example").is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_may_come_twice_is_repeated() {
        assert!(Call::get(&["workspaces"]).repeatable);
        assert!(Call::create(&["workspaces"], &Value::Null).unwrap().repeatable);
        assert!(!Call::post(&["workspaces"], &Value::Null).repeatable);
        assert!(!Call::delete(&["workspaces", "acme"]).repeatable);
    }

    #[test]
    fn ids_are_random() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
    }
}
