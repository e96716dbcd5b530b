//! `api`: workspaces, grants, event types and subscriptions over HTTP. Handlers are thin: they parse, call the domain and
//! the tables, and say what came of it.
//!
//! What an operation takes, answers and needs stands beside its handler, and the document is made from that.

mod audit;
mod clients;
mod conditional;
mod deliveries;
mod desk;
mod docs;
mod events;
mod inboxes;
mod jobs;
mod keys;
mod parameters;
mod problems;
mod redeliveries;
mod rules;
mod subscriptions;
mod types;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use carillon_core::access::Scope;
use carillon_http::problem::Problem;
use carillon_http::routes::Routes;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, RefOr};

pub use crate::desk::Desk;
pub use crate::docs::DOCUMENT;

/// Every route.
pub fn router(desk: Arc<Desk>) -> Router {
    routes().router().with_state(desk)
}

/// What this function adds to the document of the API.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = routes().document(About::openapi());
    complete(&mut document);
    document
}

fn routes() -> Routes<Arc<Desk>> {
    Routes::new()
        .merge(workspaces::router())
        .merge(clients::router())
        .merge(types::router())
        .merge(rules::router())
        .merge(subscriptions::router())
        .merge(inboxes::router())
        .merge(events::router())
        .merge(deliveries::router())
        .merge(redeliveries::router())
        .merge(keys::router())
        .merge(jobs::router())
        .merge(audit::router())
        .merge(problems::router())
        .merge(docs::router())
}

/// Adds to a document, such as one that other functions' operations were merged into, what holds for every operation: the
/// request's id in each answer, what is answered to parameters and bodies that cannot be read, and how tokens are got.
pub fn complete(document: &mut OpenApi) {
    problems::complete(document);
    let components = document.components.get_or_insert_with(Components::new);
    components.security_schemes.insert("oauth2".to_owned(), RefOr::T(oauth2()));
}

/// The description of the API as a whole.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Carillon",
        description = "One event rings every bell that asked for it: webhooks, signed, filtered and tried again.\n\n\
            Every operation but those that are marked as open needs an access token with one of the scopes that stand \
            beside it. A token says what kind of operations a client may call; a grant says in which workspace, and as \
            what. What lies outside of a client's grants is answered as if it were not there.\n\n\
            Refusals are problems as RFC 9457 has them; the `type` of each leads to a page that explains it. Some \
            requests are answered by the gateway in front of Carillon, in its own words, `{\"message\": \"...\"}`: with 413 \
            where a body is too large for it, with 429 where it is called too often, with 5xx where Carillon gave no \
            answer or none in time.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "..", description = "Where this document comes from")),
    tags(
        (name = "workspaces", description = "The tenants"),
        (name = "clients", description = "Which client may do what in a workspace"),
        (name = "event types", description = "What a workspace's events can be"),
        (name = "events", description = "What has happened"),
        (name = "subscriptions", description = "Who hears of it, and how"),
        (name = "deliveries", description = "What became of each event at each subscription"),
        (name = "confirmations", description = "Owners of endpoints say that they want to be called"),
        (name = "inboxes", description = "Receiving URLs to try webhooks with. Where the deployment has none, all of this is 404"),
        (name = "keys", description = "What deliveries are signed with, besides the secrets of subscriptions"),
        (name = "public keys", description = "What receivers verify deliveries with. Open to everybody"),
        (name = "jobs", description = "Work that outlasts a request"),
        (name = "audit", description = "Who changed what"),
        (name = "about", description = "The API itself. Open to everybody"),
    ),
    components(schemas(Problem, deliveries::AttemptedStatus)),
)]
struct About;

fn oauth2() -> SecurityScheme {
    let means = |scope: Scope| match scope {
        Scope::Admin => "Create and delete workspaces, and say which client may do what in them",
        Scope::Publish => "Publish events",
        Scope::Subscribe => "Change subscriptions, and what workspaces have and demand",
        Scope::Read => "Read",
    };
    let scopes = Scopes::from_iter(Scope::ALL.map(|scope| (scope.as_str(), means(scope))));
    let flow = Flow::ClientCredentials(ClientCredentials::new(TOKEN_URL, scopes));
    SecurityScheme::OAuth2(OAuth2::with_description(
        [flow],
        "Where tokens come from is the deployment's choice: the output `TokenUrl` of its stack, or the token endpoint of \
         the issuer that it was given.",
    ))
}

/// Stands for the deployment's own, which the document cannot know.
const TOKEN_URL: &str = "https://issuer.example.com/oauth2/token";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn operations() -> Vec<(String, Value)> {
        let document = serde_json::to_value(document()).unwrap();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations.push((format!("{method} {path}"), operation.clone()));
            }
        }
        operations
    }

    #[test]
    fn every_operation_is_described() {
        let mut ids = BTreeSet::new();
        for (name, operation) in operations() {
            assert!(ids.insert(operation["operationId"].to_string()), "{name}");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
            assert!(operation["security"].is_array(), "{name}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let identified =
                    response["headers"]["x-request-id"].is_object() || response["$ref"].is_string();
                assert!(identified, "{name} {status}");
            }
        }
    }

    #[test]
    fn what_needs_a_token_says_so() {
        for (name, operation) in operations() {
            let open = operation["security"][0].as_object().unwrap().is_empty();
            let about =
                ["about", "confirmations", "public keys"].iter().any(|tag| operation["tags"][0] == *tag);
            assert_eq!(open, about, "{name}");
            for status in ["401", "403", "404", "503"] {
                assert!(open || operation["responses"][status].is_object(), "{name} {status}");
            }
        }
    }

    #[test]
    fn everything_that_is_referred_to_is_there() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = serde_json::to_value(document()).unwrap();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.contains("#/components/schemas/Problem"));
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }
}
