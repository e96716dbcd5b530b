//! What an operation needs, as the OpenAPI document says beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use carillon_core::access::{RoleName, Scope};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::problem::Problem;

/// The extension of an operation that lists the roles that may call it.
pub const ROLES_EXTENSION: &str = "x-carillon-roles";

/// How a path names the workspace.
const WORKSPACE: &str = "{workspace}";

/// What operations need cannot be told: the function does not start.
#[derive(Debug, thiserror::Error)]
pub enum BadRequirement {
    /// The document is none.
    #[error("the document of the API cannot be read: {0}")]
    Document(#[from] serde_json::Error),
    /// The declaration of an operation makes no sense.
    #[error("{method} {path} {problem}")]
    Operation {
        /// In capitals.
        method: String,
        /// As the document has it.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What is read of a document (`OpenAPI` 3.1): by path and method what is said of access. All else is passed over.
#[derive(Deserialize)]
struct Document {
    paths: BTreeMap<String, BTreeMap<String, Operation>>,
}

#[derive(Deserialize)]
struct Operation {
    security: Option<Vec<BTreeMap<String, Vec<String>>>>,
    #[serde(rename = "x-carillon-roles")]
    roles: Option<Value>,
}

/// What each operation needs.
#[derive(Debug)]
pub(super) struct Requirements(HashMap<(String, String), Requirement>);

/// What one operation needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// Nothing, not even a token.
    Open,
    /// A token that has all scopes of one of these alternatives, and a grant with one of the roles, if there are any.
    Token { alternatives: Vec<BTreeSet<Scope>>, roles: Option<BTreeSet<RoleName>> },
}

impl Requirements {
    pub(super) fn read(document: &str) -> Result<Self, BadRequirement> {
        let Document { paths } = serde_json::from_str(document)?;
        let mut requirements = HashMap::new();
        for (path, operations) in paths {
            for (method, operation) in operations {
                let method = method.to_uppercase();
                match Requirement::read(&path, operation) {
                    Ok(requirement) => requirements.insert((method, path.clone()), requirement),
                    Err(problem) => return Err(BadRequirement::Operation { method, path, problem }),
                };
            }
        }
        Ok(Self(requirements))
    }

    /// `None` for what the document does not describe. HEAD is GET without a body (RFC 9110, section 9.3.2).
    pub(super) fn of(&self, method: &Method, path: &str) -> Option<&Requirement> {
        let method = if *method == Method::HEAD { Method::GET.as_str() } else { method.as_str() };
        self.0.get(&(method.to_owned(), path.to_owned()))
    }
}

impl Requirement {
    fn read(path: &str, operation: Operation) -> Result<Self, String> {
        let Some(alternatives) = operation.security else {
            return Err("does not say what it needs: an open operation has `security(())`".to_owned());
        };
        let roles = operation.roles.map(serde_json::from_value::<BTreeSet<RoleName>>).transpose();
        let roles = roles.map_err(|error| format!("has odd roles: {error}"))?;
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

/// The scopes of one alternative. Nothing but tokens with scopes is known here, so an alternative without is refused.
fn scopes(alternative: &BTreeMap<String, Vec<String>>) -> Result<BTreeSet<Scope>, String> {
    let names = alternative.values().flatten();
    let scopes = names.map(|name| name.parse().map_err(|_| format!("needs the unknown scope {name}")));
    let scopes: BTreeSet<Scope> = scopes.collect::<Result<_, _>>()?;
    if scopes.is_empty() { Err("has an alternative without scopes".to_owned()) } else { Ok(scopes) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATH: &str = "/v1/workspaces/{workspace}/events";

    fn read(path: &str, operation: &Value) -> Result<Requirements, BadRequirement> {
        let mut operation = operation.clone();
        operation["responses"] = json!({});
        let info = json!({"title": "An API", "version": "1"});
        let api = json!({"openapi": "3.1.0", "info": info, "paths": {path: {"post": operation}}});
        Requirements::read(&api.to_string())
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
