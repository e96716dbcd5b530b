//! `publish`: accepts events, one or a batch. The hot path: one conditional put for each event, and nothing read while
//! workspace and event types are known from a moment ago.

mod accept;
mod answer;
mod check;
mod cloud_event;
mod recent;
mod request;
mod types;
mod workspace;

use std::sync::Arc;

use axum::Router;
use carillon_http::routes;
use carillon_http::routes::Routes;
use utoipa::openapi::OpenApi;

pub use crate::accept::Publisher;
use crate::request::{__path_publish, publish};

/// Every route.
pub fn router(publisher: Arc<Publisher>) -> Router {
    routes().router().with_state(publisher)
}

/// What this function adds to the document of the API.
#[must_use]
pub fn document() -> OpenApi {
    routes().document(OpenApi::default())
}

fn routes() -> Routes<Arc<Publisher>> {
    Routes::new().routes(routes!(publish))
}

#[cfg(test)]
mod tests {
    use carillon_catalogue::builtin_rule;
    use carillon_core::event::Event;
    use carillon_core::workspace::WorkspaceKind;
    use serde_json::Value;

    use super::*;

    fn operation() -> Value {
        let document = serde_json::to_value(document()).unwrap();
        document["paths"]["/v1/workspaces/{workspace}/events"]["post"].clone()
    }

    #[test]
    fn the_operation_says_what_it_needs_and_answers() {
        let operation = operation();
        assert_eq!(operation["security"][0]["oauth2"][0], "carillon/publish");
        assert_eq!(operation["x-carillon-roles"], serde_json::json!(["owner", "publisher"]));
        let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(statuses, ["202", "207", "400", "401", "403", "404", "409", "413", "415", "503"]);
        for (status, response) in operation["responses"].as_object().unwrap() {
            let media_type =
                if status.starts_with('2') { "application/json" } else { "application/problem+json" };
            assert!(response["content"][media_type]["schema"].is_object(), "{status}");
        }
    }

    #[test]
    fn what_is_referred_to_is_in_the_document() {
        let document = serde_json::to_value(document()).unwrap();
        let text = document.to_string();
        for reference in text.split("\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        assert!(text.contains("#/components/schemas/CloudEvent\""));
    }

    #[test]
    fn the_examples_can_be_published() {
        let content = &operation()["requestBody"]["content"];
        let batch = content["application/cloudevents-batch+json"]["example"].as_array().unwrap().clone();
        let single = content["application/cloudevents+json"]["example"].clone();
        assert_eq!(content["application/json"]["example"], single["data"], "the same event in binary mode");
        for event in batch.into_iter().chain([single]) {
            let event = Event::from_structured(&event.to_string()).unwrap();
            let rule = builtin_rule(WorkspaceKind::Consent, event.event_type()).unwrap();
            assert_eq!(rule.check_event(event.json()), Ok(()));
            assert!(event.audience().is_some());
        }
    }
}
