//! What an operation needs, as the OpenAPI document says beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use carillon_core::access::{RoleName, Scope};
use http::Method;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};

use crate::problem::Problem;

/// The extension of an operation that lists the roles that may call it.
pub const ROLES_EXTENSION: &str = "x-carillon-roles";

/// How a path names the workspace.
const WORKSPACE: &str = "{workspace}";

/// An operation whose declaration makes no sense: the function does not start.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} {problem}")]
pub struct BadRequirement {
    method: Method,
    path: String,
    problem: String,
}

/// What each operation needs.
#[derive(Debug)]
pub(super) struct Requirements(HashMap<(Method, String), Requirement>);

/// What one operation needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// Nothing, not even a token.
    Open,
    /// A token that has all scopes of one of these alternatives, and a grant with one of the roles, if there are any.
    Token { alternatives: Vec<BTreeSet<Scope>>, roles: Option<BTreeSet<RoleName>> },
}

impl Requirements {
    pub(super) fn read(api: &OpenApi) -> Result<Self, BadRequirement> {
        let mut requirements = HashMap::new();
        for (path, item) in &api.paths.paths {
            for (method, operation) in operations(item) {
                let requirement = Requirement::read(path, operation).map_err(|problem| BadRequirement {
                    method: method.clone(),
                    path: path.clone(),
                    problem,
                })?;
                requirements.insert((method, path.clone()), requirement);
            }
        }
        Ok(Self(requirements))
    }

    /// `None` for what the document does not describe. HEAD is GET without a body (RFC 9110, section 9.3.2).
    pub(super) fn of(&self, method: &Method, path: &str) -> Option<&Requirement> {
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(method, path.to_owned()))
    }
}

impl Requirement {
    fn read(path: &str, operation: &Operation) -> Result<Self, String> {
        let Some(security) = &operation.security else {
            return Err("does not say what it needs: an open operation has `security(())`".to_owned());
        };
        let alternatives = serde_json::to_value(security).and_then(serde_json::from_value);
        let alternatives: Vec<BTreeMap<String, Vec<String>>> =
            alternatives.map_err(|error| error.to_string())?;
        let roles = roles(operation)?;
        if alternatives.iter().all(BTreeMap::is_empty) {
            return if roles.is_none() { Ok(Self::Open) } else { Err("is open and has roles".to_owned()) };
        }
        let alternatives = alternatives.iter().map(scopes).collect::<Result<Vec<_>, _>>()?;
        let is_for_administrators = alternatives.iter().all(|scopes| scopes.contains(&Scope::Admin));
        match (path.contains(WORKSPACE), &roles) {
            (false, Some(_)) => Err(format!("has roles, but no {WORKSPACE} that they could be in")),
            (true, None) if !is_for_administrators => {
                Err(format!("has a workspace, but no {ROLES_EXTENSION}"))
            }
            _ => Ok(Self::Token { alternatives, roles }),
        }
    }
}

/// Whether a token with these scopes is let in, and whether as an administrator's.
pub(super) fn admits(
    alternatives: &[BTreeSet<Scope>],
    scopes: &BTreeSet<Scope>,
) -> Result<Admission, Problem> {
    let mut sufficient = alternatives.iter().filter(|alternative| alternative.is_subset(scopes)).peekable();
    if sufficient.peek().is_none() {
        // The least that would do: what only administrators have comes last.
        let least = alternatives.iter().min_by_key(|alternative| alternative.contains(&Scope::Admin));
        return Err(Problem::InsufficientScope(least.into_iter().flatten().copied().collect()));
    }
    let as_admin = sufficient.any(|alternative| alternative.contains(&Scope::Admin));
    Ok(if as_admin { Admission::Admin } else { Admission::ByGrant })
}

/// As what a token is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// As an administrator's, who needs no grant.
    Admin,
    /// As anybody's, who needs one wherever the operation has roles.
    ByGrant,
}

fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::OPTIONS, &item.options),
        (Method::HEAD, &item.head),
        (Method::PATCH, &item.patch),
        (Method::TRACE, &item.trace),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn roles(operation: &Operation) -> Result<Option<BTreeSet<RoleName>>, String> {
    let extensions = operation.extensions.as_ref();
    let Some(roles) = extensions.and_then(|extensions| extensions.get(ROLES_EXTENSION)) else {
        return Ok(None);
    };
    serde_json::from_value(roles.clone()).map(Some).map_err(|error| format!("has odd roles: {error}"))
}

/// The scopes of one alternative. Nothing but tokens with scopes is known here, so an alternative without is refused.
fn scopes(alternative: &BTreeMap<String, Vec<String>>) -> Result<BTreeSet<Scope>, String> {
    let names = alternative.values().flatten();
    let scopes = names.map(|name| name.parse().map_err(|_| format!("needs the unknown scope {name}")));
    let scopes: BTreeSet<Scope> = scopes.collect::<Result<_, _>>()?;
    if scopes.is_empty() { Err("has an alternative without scopes".to_owned()) } else { Ok(scopes) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PATH: &str = "/v1/workspaces/{workspace}/events";

    fn read(path: &str, operation: &Value) -> Result<Requirements, BadRequirement> {
        let mut operation = operation.clone();
        operation["responses"] = json!({});
        let info = json!({"title": "An API", "version": "1"});
        let api = json!({"openapi": "3.1.0", "info": info, "paths": {path: {"post": operation}}});
        Requirements::read(&serde_json::from_value(api).unwrap())
    }

    fn problem(path: &str, operation: &Value) -> String {
        read(path, operation).unwrap_err().to_string()
    }

    #[test]
    fn what_an_operation_says_is_what_it_needs() {
        let operation = json!({
            "security": [{"oauth2": ["carillon/publish"]}, {"oauth2": ["carillon/admin", "carillon/read"]}],
            "x-carillon-roles": ["owner", "publisher"],
        });
        let requirements = read(PATH, &operation).unwrap();
        let expected = Requirement::Token {
            alternatives: vec![[Scope::Publish].into(), [Scope::Admin, Scope::Read].into()],
            roles: Some([RoleName::Owner, RoleName::Publisher].into()),
        };
        assert_eq!(requirements.of(&Method::POST, PATH), Some(&expected));
        assert_eq!(requirements.of(&Method::GET, PATH), None);
        assert_eq!(requirements.of(&Method::POST, "/elsewhere"), None);
        for open in [json!({"security": [{}]}), json!({"security": []})] {
            assert_eq!(read(PATH, &open).unwrap().of(&Method::POST, PATH), Some(&Requirement::Open));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_the_start() {
        let publish = json!([{"oauth2": ["carillon/publish"]}]);
        let roles = json!(["owner"]);
        for (path, operation, says) in [
            (PATH, json!({}), "does not say what it needs"),
            (PATH, json!({"security": publish}), "has a workspace, but no x-carillon-roles"),
            (PATH, json!({"security": publish, ROLES_EXTENSION: ["king"]}), "has odd roles"),
            (PATH, json!({"security": [{}], ROLES_EXTENSION: roles}), "is open and has roles"),
            (PATH, json!({"security": [{"oauth2": []}], ROLES_EXTENSION: roles}), "without scopes"),
            (PATH, json!({"security": [{}, {"oauth2": ["carillon/read"]}]}), "without scopes"),
            (PATH, json!({"security": [{"oauth2": ["carillon/king"]}]}), "unknown scope carillon/king"),
            ("/v1/workspaces", json!({"security": publish, ROLES_EXTENSION: roles}), "no {workspace}"),
        ] {
            let problem = problem(path, &operation);
            assert!(problem.contains(says), "{problem} does not say {says}");
            assert!(problem.starts_with(&format!("POST {path} ")), "{problem}");
        }
        let for_administrators = json!({"security": [{"oauth2": ["carillon/admin"]}]});
        assert!(read(PATH, &for_administrators).is_ok());
    }

    #[test]
    fn one_alternative_must_be_met_as_a_whole() {
        let alternatives =
            [[Scope::Admin].into(), [Scope::Publish, Scope::Read].into(), [Scope::Subscribe].into()];
        let admitted = |scopes: &[Scope]| admits(&alternatives, &scopes.iter().copied().collect());
        assert_eq!(admitted(&[Scope::Subscribe]), Ok(Admission::ByGrant));
        assert_eq!(admitted(&[Scope::Publish, Scope::Read]), Ok(Admission::ByGrant));
        assert_eq!(admitted(&[Scope::Subscribe, Scope::Admin]), Ok(Admission::Admin));
        let lacking = Err(Problem::InsufficientScope(vec![Scope::Publish, Scope::Read]));
        assert_eq!(admitted(&[Scope::Publish]), lacking);
        assert_eq!(admitted(&[]), lacking);
        let without_administrators = [[Scope::Read].into()];
        assert_eq!(
            admits(&without_administrators, &[Scope::Admin, Scope::Read].into()),
            Ok(Admission::ByGrant),
            "where administrators have no place, they are like anybody"
        );
    }
}
