//! The check before each route.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use carillon_aws::config::ConfigTable;
use carillon_aws::environment::{SettingError, setting};
use carillon_aws::now;
use carillon_core::access::{Role, RoleName};
use carillon_core::endpoint::EndpointError;
use carillon_core::id::{ClientId, WorkspaceId};
use carillon_core::time::UnixMillis;
use carillon_sender::Sender;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tracing::Span;

use super::Caller;
use super::grants::{Grants, KnownGrants};
use super::keys::{Issuer, Keys, NoKey};
use super::requirement::{Admission, BadRequirement, Requirement, Requirements, admits};
use super::token::{Refused, Token, TokenRules, Verifier};
use crate::problem::Problem;
use crate::server::CLIENT;

/// The name of the workspace among a path's parameters.
const WORKSPACE: &str = "workspace";

/// Lets requests in, or not.
pub struct Access<G = ConfigTable> {
    requirements: Requirements,
    verifier: Verifier,
    grants: KnownGrants<G>,
}

/// Access cannot be checked: the function does not start.
#[derive(Debug, thiserror::Error)]
pub enum NoAccess {
    /// A setting is missing.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The issuer's configuration lies where requests may not go.
    #[error("the address of the issuer's configuration {0}")]
    Discovery(#[from] EndpointError),
    /// An operation does not say what it needs.
    #[error(transparent)]
    Requirement(#[from] BadRequirement),
}

impl Access<ConfigTable> {
    /// For the operations of this document (OpenAPI as JSON), with the issuer and the audience that the environment names.
    pub fn from_environment(document: &str, grants: ConfigTable, sender: Sender) -> Result<Self, NoAccess> {
        let audience: String = setting("JWT_AUDIENCE")?;
        let rules = TokenRules {
            issuer: setting("JWT_ISSUER")?,
            discovery: setting("JWT_DISCOVERY")?,
            audience: Some(audience).filter(|audience| !audience.is_empty()),
        };
        Self::new(document, rules, grants, sender)
    }
}

impl<G: Grants> Access<G> {
    /// For the operations of this document (OpenAPI as JSON), with tokens by these rules.
    pub fn new(document: &str, rules: TokenRules, grants: G, sender: Sender) -> Result<Self, NoAccess> {
        let TokenRules { issuer, discovery, audience } = rules;
        let keys = Keys::new(Issuer::new(issuer, &discovery, sender)?);
        Ok(Self {
            requirements: Requirements::read(document)?,
            verifier: Verifier::new(keys, audience),
            grants: KnownGrants::new(grants),
        })
    }

    /// Puts the check before every route that the router has now. A route that the document does not describe is
    /// answered as if it were not there.
    pub fn protect<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        router.route_layer(from_fn_with_state(Arc::new(self), check::<G>))
    }

    /// Who calls, if the operation lets it in; `None` where nobody needs to say.
    async fn admit(&self, parts: &mut Parts, now: UnixMillis) -> Result<Option<Caller>, Problem> {
        let path = parts.extensions.get::<MatchedPath>().ok_or(Problem::NotFound)?;
        let requirement = self.requirements.of(&parts.method, path.as_str()).ok_or(Problem::NotFound)?;
        let Requirement::Token { alternatives, roles } = requirement else { return Ok(None) };
        let Token { client, scopes } = self.token(&parts.headers, now).await?;
        Span::current().record(CLIENT, client.as_str());
        let admission = admits(alternatives, &scopes)?;
        let role = match roles {
            Some(roles) if admission == Admission::ByGrant => {
                Some(self.role(parts, &client, roles, now).await?)
            }
            _ => None,
        };
        Ok(Some(Caller { client, admin: admission == Admission::Admin, role }))
    }

    async fn token(&self, headers: &HeaderMap, now: UnixMillis) -> Result<Token, Problem> {
        let verified = self.verifier.verify(bearer(headers)?, now).await;
        verified.map_err(|refused| {
            tracing::info!(reason = %refused, "a token was refused");
            match refused {
                Refused::Key(NoKey::NotFetched) => Problem::Unavailable,
                _ => Problem::InvalidToken,
            }
        })
    }

    /// The client's role in the workspace of the path. Without one, there is no such workspace for it.
    async fn role(
        &self,
        parts: &mut Parts,
        client: &ClientId,
        roles: &BTreeSet<RoleName>,
        now: UnixMillis,
    ) -> Result<Role, Problem> {
        let workspace = workspace(parts).await.ok_or(Problem::NotFound)?;
        let role = self.grants.role(workspace, client, now).await?.ok_or(Problem::NotFound)?;
        if roles.contains(&role.name()) { Ok(role) } else { Err(Problem::Forbidden) }
    }
}

async fn check<G: Grants>(
    State(access): State<Arc<Access<G>>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    if let Some(caller) = access.admit(&mut parts, now()).await? {
        parts.extensions.insert(caller);
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// The token of the header `Authorization` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut credentials = headers.get_all(AUTHORIZATION).iter();
    let (Some(first), None) = (credentials.next(), credentials.next()) else {
        return Err(if headers.contains_key(AUTHORIZATION) {
            Problem::InvalidToken
        } else {
            Problem::NoToken
        });
    };
    let (scheme, token) =
        first.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Problem::InvalidToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Problem::NoToken) }
}

async fn workspace(parts: &mut Parts) -> Option<WorkspaceId> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, workspace) = params.iter().find(|(name, _)| *name == WORKSPACE)?;
    workspace.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use carillon_aws::error::AwsError;
    use carillon_core::access::Grant;
    use http::header::WWW_AUTHENTICATE;
    use http::{Method, StatusCode};
    use serde_json::{Value, json};
    use tower::ServiceExt as _;
    use utoipa::openapi::OpenApi;

    use super::super::testing::{FakeIssuer, Secret, jwt, sender};
    use super::*;
    use crate::routes;
    use crate::routes::Routes;
    use crate::server::complete;

    #[utoipa::path(get, path = "/v1/health", security(()))]
    async fn health() -> &'static str {
        "well"
    }

    #[utoipa::path(get, path = "/v1/workspaces", security(("oauth2" = ["carillon/read"])))]
    async fn list(caller: Caller) -> String {
        format!("{caller:?}")
    }

    #[utoipa::path(
        put,
        path = "/v1/workspaces/{workspace}/clients/{client}",
        security(("oauth2" = ["carillon/admin"]))
    )]
    async fn put_grant(caller: Caller) -> String {
        format!("{caller:?}")
    }

    #[utoipa::path(
        get,
        path = "/v1/workspaces/{workspace}/subscriptions",
        security(("oauth2" = ["carillon/admin"]), ("oauth2" = ["carillon/subscribe"])),
        extensions(("x-carillon-roles" = json!(["owner", "subscriber"])))
    )]
    async fn subscriptions(caller: Caller) -> String {
        format!("{} {:?}", caller.admin, caller.subscriber().map(ToString::to_string))
    }

    /// Each client has one grant, in `ws_1`.
    struct Table;

    impl Grants for Table {
        async fn grant(&self, workspace: &WorkspaceId, client: &ClientId) -> Result<Option<Grant>, AwsError> {
            let role = match (workspace.as_str(), client.as_str()) {
                ("ws_1", "owner") => Role::Owner,
                ("ws_1", "publisher") => Role::Publisher,
                ("ws_1", "bound") => Role::Subscriber("tpp-1".parse().unwrap()),
                _ => return Ok(None),
            };
            Ok(Some(Grant { client: client.clone(), role, created_at: UnixMillis(0) }))
        }
    }

    struct World {
        issuer: FakeIssuer,
        router: Router,
    }

    impl World {
        async fn new() -> Self {
            let issuer = FakeIssuer::with(vec![Secret::rsa().jwk("rsa")]).await;
            let rules =
                TokenRules { issuer: issuer.url().to_owned(), discovery: issuer.discovery(), audience: None };
            let routes = Routes::new()
                .routes(routes!(health))
                .routes(routes!(list))
                .routes(routes!(put_grant))
                .routes(routes!(subscriptions));
            let document = routes.document(OpenApi::default()).to_json().unwrap();
            let router = routes.router().route("/v1/undescribed", get(async || "secret"));
            let access = Access::new(&document, rules, Table, sender()).unwrap();
            Self { issuer, router: complete(access.protect(router)) }
        }

        fn token(&self, client: &str, scopes: &str) -> String {
            let mut claims = self.issuer.claims(now());
            claims["client_id"] = client.into();
            claims["scope"] = scopes.into();
            format!("Bearer {}", jwt(Secret::rsa(), &json!({"alg": "RS256", "kid": "rsa"}), &claims))
        }

        async fn ask(&self, method: Method, path: &str, authorization: Option<&str>) -> Told {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let request = request.body(Body::empty()).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let challenge = response.headers().get(WWW_AUTHENTICATE);
            let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
            let status = response.status();
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            Told { status, challenge, body: String::from_utf8(body.into()).unwrap() }
        }

        async fn get(&self, path: &str, client: &str, scopes: &str) -> Told {
            self.ask(Method::GET, path, Some(&self.token(client, scopes))).await
        }
    }

    #[derive(Debug)]
    struct Told {
        status: StatusCode,
        challenge: Option<String>,
        body: String,
    }

    const HERE: &str = "/v1/workspaces/ws_1/subscriptions";

    #[tokio::test]
    async fn what_is_open_needs_nothing_and_fetches_no_keys() {
        let world = World::new().await;
        for authorization in [None, Some("Bearer nonsense")] {
            assert_eq!(world.ask(Method::GET, "/v1/health", authorization).await.body, "well");
        }
        let head = world.ask(Method::HEAD, "/v1/health", None).await;
        assert_eq!((head.status, &head.body[..]), (StatusCode::OK, ""));
        assert_eq!(world.issuer.fetched(), 0);
    }

    #[tokio::test]
    async fn without_a_token_or_with_a_bad_one_it_is_401() {
        let world = World::new().await;
        let good = world.token("owner", "carillon/subscribe");
        let no_token = r#"Bearer realm="carillon""#;
        let invalid = r#"Bearer realm="carillon", error="invalid_token""#;
        for (authorization, challenge) in [
            (None, no_token),
            (Some("Basic dXNlcjpwYXNzd29yZA=="), no_token),
            (Some("Bearer"), invalid),
            (Some("Bearer "), invalid),
            (Some("Bearer nonsense"), invalid),
            (Some(&good[..good.len() - 8]), invalid),
        ] {
            let told = world.ask(Method::GET, HERE, authorization).await;
            assert_eq!(told.status, StatusCode::UNAUTHORIZED, "{authorization:?}");
            assert_eq!(told.challenge.as_deref(), Some(challenge), "{authorization:?}");
        }
        let lower_case = good.replace("Bearer", "bearer");
        assert_eq!(world.ask(Method::GET, HERE, Some(&lower_case)).await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_scope_that_lacks_is_403_and_named() {
        let world = World::new().await;
        for path in [HERE, "/v1/workspaces/ws_none/subscriptions", "/v1/workspaces/%ff/subscriptions"] {
            let told = world.get(path, "owner", "carillon/read").await;
            assert_eq!(told.status, StatusCode::FORBIDDEN, "{path}");
            let challenge =
                r#"Bearer realm="carillon", error="insufficient_scope", scope="carillon/subscribe""#;
            assert_eq!(told.challenge.as_deref(), Some(challenge), "{path}");
        }
    }

    #[tokio::test]
    async fn outside_of_a_grant_there_is_nothing() {
        let world = World::new().await;
        let mut bodies = Vec::new();
        for (workspace, client) in [
            ("ws_1", "stranger"),
            ("ws_2", "owner"),
            ("ws_none", "owner"),
            ("no%20workspace", "owner"),
            ("%ff", "owner"),
        ] {
            let path = format!("/v1/workspaces/{workspace}/subscriptions");
            let told = world.get(&path, client, "carillon/subscribe").await;
            assert_eq!((told.status, told.challenge), (StatusCode::NOT_FOUND, None), "{path} {client}");
            let mut body: Value = serde_json::from_str(&told.body).unwrap();
            body["instance"].take();
            bodies.push(body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "they differ in nothing");
    }

    #[tokio::test]
    async fn roles_let_in_those_who_have_them() {
        let world = World::new().await;
        let scope = "carillon/subscribe";
        assert_eq!(world.get(HERE, "owner", scope).await.body, "false None");
        assert_eq!(world.get(HERE, "bound", scope).await.body, r#"false Some("tpp-1")"#);
        assert_eq!(world.get(HERE, "publisher", scope).await.status, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn administrators_need_no_grant_where_they_have_a_place() {
        let world = World::new().await;
        assert_eq!(world.get(HERE, "admin", "carillon/admin").await.body, "true None");
        let token = world.token("admin", "carillon/admin");
        let grant = world.ask(Method::PUT, "/v1/workspaces/ws_1/clients/c", Some(&token)).await;
        assert_eq!(grant.status, StatusCode::OK);
        let list = world.get("/v1/workspaces", "admin", "carillon/admin").await;
        assert_eq!(list.status, StatusCode::FORBIDDEN);
        let list = world.get("/v1/workspaces", "anybody", "carillon/read").await;
        assert_eq!(list.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_the_document_does_not_describe_is_not_there() {
        let world = World::new().await;
        let told = world.get("/v1/undescribed", "admin", "carillon/admin carillon/read").await;
        assert_eq!(told.status, StatusCode::NOT_FOUND);
        assert!(!told.body.contains("secret"));
    }

    #[tokio::test]
    async fn without_keys_it_is_nobodys_fault_but_ours() {
        let world = World::new().await;
        world.issuer.goes_down();
        let told = world.get(HERE, "owner", "carillon/subscribe").await;
        assert_eq!((told.status, told.challenge), (StatusCode::SERVICE_UNAVAILABLE, None));
    }
}
