//! Subscriptions in the words of a platform of consents that clients may come from: its own body, on a route of its own.
//! `/smart-keys/interceptors`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use carillon_core::invalid::{FieldError, Findings, Invalid};
use carillon_http::access::Caller;
use carillon_http::body::read_json;
use carillon_http::problem::Problem;
use carillon_http::routes;
use carillon_http::routes::Routes;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::conditional::IdempotencyKey;
use crate::desk::Desk;
use crate::problems::Common;

use super::input::{AuthorizationInput, Secret, SubscriptionInput};
use super::shown::WithSecrets;
use super::{Making, check};

/// Every event of consents: what comes before a consent is there, what comes when it is, and what becomes of it.
const CONSENT_EVENTS: [&str; 3] = ["before:consent:*", "after:consent:*", "consent:*"];

/// The one kind of authentication.
const BASIC: &str = "BASIC";

pub(super) fn router() -> Routes<Arc<Desk>> {
    Routes::new().routes(routes!(register))
}

/// Register a consent webhook
///
/// Makes a subscription, as `createSubscription` does, from the body that Celcoin's consent webhooks are registered by: for
/// clients that have that one. It gets all consent events, in the default format, signed by a secret that is in this answer
/// and in no other. What else there is to a subscription can be changed where `location` says.
#[utoipa::path(
    post,
    path = "/v1/workspaces/{workspace}/smart-keys/interceptors",
    operation_id = "registerInterceptor",
    tag = "subscriptions",
    params(
        ("workspace" = String, Path, description = "The workspace's id"),
        WhoseQuery,
        IdempotencyKey,
    ),
    request_body(content = InterceptorInput, example = json!({
        "endpoint": "https://tpp.example.com/webhooks",
        "isAuthenticated": true,
        "authenticationType": "BASIC",
        "user": "carillon",
        "password": "kept-and-never-shown",
        "type": "DATA",
    })),
    responses(
        (status = 201, description = "Registered: the subscription", body = WithSecrets, headers(
            ("location" = String, description = "Where it is"),
            ("etag" = String, description = "Its state, for `If-Match`"),
        )),
        (status = 409, description = "The workspace is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Another request came with this `Idempotency-Key`", body = Problem, content_type = "application/problem+json"),
        Common,
    ),
    security(("oauth2" = ["carillon/subscribe"])),
    extensions(("x-carillon-roles" = json!(["owner", "subscriber"]))),
)]
async fn register(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(WhoseQuery { subscriber }): Query<WhoseQuery>,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    // What its query says is a part of the request as its body is.
    let whose = subscriber.as_deref().unwrap_or_default();
    let path = format!("/v1/workspaces/{workspace}/smart-keys/interceptors?subscriber={whose}");
    let making = Making::of(&desk, &caller, &workspace, (&path, key, &body)).await?;
    if let Some(answer) = making.before().await? {
        return Ok(answer);
    }
    let interceptor: InterceptorInput = read_json(&headers, &body)?;
    let (input, mut findings) = interceptor.subscription(subscriber);
    let checked = match check(&desk, &making.stored.workspace, input, None).await {
        Ok(wish) => Ok(wish),
        Err(Problem::Invalid(invalid)) => Err(as_named_here(invalid)),
        Err(problem) => return Err(problem),
    };
    let wish = findings.take(checked);
    let wish = findings.into_result(wish)?.ok_or(Problem::Unavailable)?;
    making.finish(wish).await.map_err(|problem| match problem {
        Problem::Invalid(invalid) => as_named_here(invalid).into(),
        problem => problem,
    })
}

/// Whose webhook it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhoseQuery {
    /// The subscriber, as the platform names it. A client that is bound to one need not give it; any other must.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]+$", example = "tpp-1")]
    subscriber: Option<String>,
}

/// A webhook, as it is registered at Celcoin.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Interceptor)]
struct InterceptorInput {
    /// Where deliveries are posted: an HTTPS URL without credentials or fragment, whose host has public addresses.
    #[schema(max_length = 2048, format = "uri", example = "https://tpp.example.com/webhooks")]
    endpoint: String,
    /// Whether deliveries show who sends them, besides their signature. If not, the next three must be empty or absent.
    #[serde(default)]
    #[schema(default = false)]
    is_authenticated: bool,
    /// How they show it: `BASIC`, in capitals or not, is HTTP Basic. There is nothing else.
    #[serde(default)]
    #[schema(pattern = "^([Bb][Aa][Ss][Ii][Cc])?$", default = "", example = "BASIC")]
    authentication_type: String,
    /// The user, without a colon.
    #[serde(default)]
    #[schema(max_length = 512, pattern = r"^[^:\u0000-\u001f\u007f-\u009f]*$", default = "")]
    user: String,
    /// The password.
    #[serde(default)]
    #[schema(
        value_type = String, required = false, write_only,
        max_length = 4096, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", default = "",
    )]
    password: Secret,
    /// What it hears of.
    r#type: InterceptorType,
}

/// What a webhook hears of.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
enum InterceptorType {
    /// Every event of consents: `before:consent:*`, `after:consent:*` and `consent:*`.
    #[serde(rename = "DATA")]
    Data,
}

impl InterceptorInput {
    /// The subscription that it asks for, and what of it a subscription cannot say.
    fn subscription(self, subscriber: Option<String>) -> (SubscriptionInput, Findings) {
        let mut findings = Findings::default();
        let Self { endpoint, is_authenticated, authentication_type, user, password, r#type } = self;
        let types = match r#type {
            InterceptorType::Data => CONSENT_EVENTS.map(str::to_owned).to_vec(),
        };
        let authorization = if is_authenticated {
            if !authentication_type.eq_ignore_ascii_case(BASIC) {
                findings.add("/authenticationType", format!("must be `{BASIC}`"));
            }
            AuthorizationInput::Basic { user, password: Some(password) }
        } else {
            let fields = [
                ("/authenticationType", authentication_type.is_empty()),
                ("/user", user.is_empty()),
                ("/password", password.expose().is_empty()),
            ];
            // Whoever gives a password does not expect that it is never sent.
            for (pointer, _) in fields.into_iter().filter(|(_, is_empty)| !is_empty) {
                findings.add(pointer, "must be empty where `isAuthenticated` is false");
            }
            AuthorizationInput::default()
        };
        let input =
            SubscriptionInput { subscriber, authorization, ..SubscriptionInput::new(endpoint, types) };
        (input, findings)
    }
}

/// What is wrong with a subscription, by the names that its fields have in the body of an interceptor.
fn as_named_here(Invalid(errors): Invalid) -> Invalid {
    let named = |error: FieldError| {
        let pointer = match error.pointer.as_str() {
            "/authorization/user" => "/user",
            "/authorization/password" => "/password",
            "/subscriber" => "query:subscriber",
            types if types.starts_with("/types") => "/type",
            other => other,
        };
        FieldError { pointer: pointer.to_owned(), detail: error.detail }
    };
    Invalid(errors.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use carillon_core::endpoint::EndpointRules;
    use carillon_core::subscription::{Authorization, Format};
    use carillon_http::body::read_patched;
    use serde_json::{Value, json};

    use super::super::input::{Against, Given, Wish};
    use super::*;

    /// As the route does it, but for the look at where the endpoint leads.
    fn checked(body: &Value, knows_consents: bool) -> Result<Wish, Vec<String>> {
        let pointers = |Invalid(errors): Invalid| errors.into_iter().map(|error| error.pointer).collect();
        let interceptor: InterceptorInput = match read_patched(body) {
            Err(Problem::Invalid(invalid)) => return Err(pointers(invalid)),
            read => read.unwrap(),
        };
        let (input, mut findings) = interceptor.subscription(Some("tpp-1".to_owned()));
        let wish = input.check(&Against {
            workspace: &"acme".parse().unwrap(),
            rules: EndpointRules::default(),
            knows: &|_| knows_consents,
            before: None,
            revisions: false,
        });
        let wish = findings.take(wish.map_err(as_named_here));
        findings.into_result(wish).map(Option::unwrap).map_err(pointers)
    }

    fn registered() -> Value {
        json!({
            "endpoint": "https://www.my-domain.com/webhook",
            "isAuthenticated": false,
            "authenticationType": "",
            "user": "",
            "password": "",
            "type": "DATA",
        })
    }

    fn with(members: &Value) -> Value {
        let mut body = registered();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    }

    #[test]
    fn it_becomes_a_subscription_to_all_consent_events() {
        let wish = checked(&registered(), true).unwrap();
        let types: Vec<_> = wish.details.types.iter().map(ToString::to_string).collect();
        assert_eq!(types, CONSENT_EVENTS);
        assert_eq!(wish.details.endpoint.to_string(), "https://www.my-domain.com/webhook");
        assert_eq!(
            (&wish.details.authorization, wish.details.format),
            (&Authorization::None, Format::default())
        );
        assert_eq!(wish.subscriber, Some("tpp-1".parse().unwrap()));
        assert!(wish.enabled && !wish.paused && wish.details.title.is_none());
        let short = json!({"endpoint": "https://www.my-domain.com/webhook", "type": "DATA"});
        assert_eq!(checked(&short, true).unwrap().details, wish.details);
    }

    #[test]
    fn basic_is_the_authentication_there_is() {
        for basic in ["BASIC", "basic", "Basic"] {
            let body = with(&json!({
                "isAuthenticated": true, "authenticationType": basic, "user": "smart", "password": "keys",
            }));
            let wish = checked(&body, true).unwrap();
            assert_eq!(wish.details.authorization, Authorization::Basic { user: "smart".to_owned() });
            assert!(matches!(&wish.secret, Given::Text(password) if password.expose() == "keys"));
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_by_the_names_of_this_body() {
        for (members, pointers) in [
            (
                json!({"isAuthenticated": true, "endpoint": "ftp://inside"}),
                vec!["/authenticationType", "/endpoint", "/user", "/password"],
            ),
            (
                json!({"isAuthenticated": true, "authenticationType": "DIGEST", "user": "a:b", "password": "p"}),
                vec!["/authenticationType", "/user"],
            ),
            (
                json!({"authenticationType": "BASIC", "user": "u", "password": "p"}),
                vec!["/authenticationType", "/user", "/password"],
            ),
            (json!({"isAuthenticated": "yes"}), vec!["/isAuthenticated"]),
            (json!({"type": "PAYMENT"}), vec!["/type"]),
            (json!({"types": ["*"]}), vec!["/types"]),
            (json!({"endpoint": null}), vec!["/endpoint"]),
        ] {
            let refused = checked(&with(&members), true).err();
            assert_eq!(refused, Some(pointers.into_iter().map(str::to_owned).collect()), "{members}");
        }
        assert_eq!(
            checked(&json!({"endpoint": "https://a.example"}), true).err(),
            Some(vec!["/type".to_owned()])
        );
        let elsewhere = checked(&registered(), false).err().unwrap();
        assert!(
            elsewhere.iter().all(|pointer| pointer == "/type"),
            "a workspace without consents: {elsewhere:?}"
        );
    }

    #[test]
    fn whose_it_is_stands_in_the_query() {
        let wrong = as_named_here(Invalid::field("/subscriber", "is required"));
        assert_eq!(wrong, Invalid::field("query:subscriber", "is required"));
    }
}
