//! Who may do what: scopes say what kind of thing a token is for, grants say where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, SubscriberId};
use crate::time::UnixMillis;

/// What a token is for (OAuth 2.0, RFC 6749, section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Workspaces and grants.
    Admin,
    /// Publishing events.
    Publish,
    /// Managing subscriptions.
    Subscribe,
    /// Reading.
    Read,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Publish, Self::Subscribe, Self::Read];

    /// Its name in tokens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "carillon/admin",
            Self::Publish => "carillon/publish",
            Self::Subscribe => "carillon/subscribe",
            Self::Read => "carillon/read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A scope of others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope of Carillon")]
pub struct NotAScope;

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(NotAScope)
    }
}

/// What a client may do in a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything but what only an administrator may.
    Owner,
    /// Publish events.
    Publisher,
    /// Read everything but secrets, and redeliver.
    Support,
    /// Manage the subscriptions of one subscriber and read what concerns it; nothing else is there for it.
    Subscriber(SubscriberId),
}

/// A role without whom it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoleName {
    /// [`Role::Owner`]
    Owner,
    /// [`Role::Publisher`]
    Publisher,
    /// [`Role::Support`]
    Support,
    /// [`Role::Subscriber`]
    Subscriber,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> RoleName {
        match self {
            Self::Owner => RoleName::Owner,
            Self::Publisher => RoleName::Publisher,
            Self::Support => RoleName::Support,
            Self::Subscriber(_) => RoleName::Subscriber,
        }
    }

    /// The one subscriber that it is bound to, if it is.
    #[must_use]
    pub fn subscriber(&self) -> Option<&SubscriberId> {
        match self {
            Self::Subscriber(subscriber) => Some(subscriber),
            Self::Owner | Self::Publisher | Self::Support => None,
        }
    }
}

/// That a client has a role in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub client: ClientId,
    /// As what.
    pub role: Role,
    /// Since when.
    pub created_at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_come_back_as_they_went() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert_eq!("carillon/Admin".parse::<Scope>(), Err(NotAScope));
    }
}
