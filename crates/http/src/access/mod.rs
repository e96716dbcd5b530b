//! Who may do what: a token says what kind of operations a client may call, a grant says where.
//!
//! What an operation needs is declared once, in the `#[utoipa::path(...)]` beside its handler: `security` lists the
//! scopes, the extension `x-carillon-roles` the roles. [`Access`] reads both from the very document that is published,
//! so the check and the documentation cannot differ. `keys` finds the keys of the tokens' issuer, `token` verifies a
//! token by them, `requirement` is what an operation needs, `grants` knows who has a role where, and `layer` is the
//! check before each route.

mod grants;
mod keys;
mod layer;
mod requirement;
#[cfg(test)]
mod testing;
mod token;

use axum::extract::FromRequestParts;
use carillon_core::access::Role;
use carillon_core::id::{ClientId, SubscriberId};
use http::request::Parts;

pub use self::grants::Grants;
pub use self::layer::{Access, NoAccess};
pub use self::requirement::{BadRequirement, ROLES_EXTENSION};
pub use self::token::TokenRules;
use crate::problem::Problem;

/// The client that a request comes from, as far as the operation lets it in. Handlers of operations that are not open
/// take it as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub client: ClientId,
    /// Whether it acts as an administrator: everywhere, and without a grant.
    pub admin: bool,
    /// Its role in the workspace of the path, if the operation asks for one.
    pub role: Option<Role>,
}

impl Caller {
    /// The one subscriber that the caller is bound to; for it there are no others.
    #[must_use]
    pub fn subscriber(&self) -> Option<&SubscriberId> {
        self.role.as_ref().and_then(Role::subscriber)
    }
}

/// Refuses where no check has let the request in: a handler that asks for a caller never runs without one.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or(Problem::NoToken)
    }
}
