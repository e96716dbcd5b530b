//! The environment: read once.

use std::path::PathBuf;

use crate::secret::Secret;

/// What the environment says. Each variable goes before what a profile says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `CARILLON_PROFILE`
    pub(crate) profile: Option<String>,
    /// `CARILLON_URL`
    pub(crate) url: Option<String>,
    /// `CARILLON_TOKEN_URL`
    pub(crate) token_url: Option<String>,
    /// `CARILLON_CLIENT_ID`
    pub(crate) client_id: Option<String>,
    /// `CARILLON_CLIENT_SECRET`
    pub(crate) client_secret: Option<Secret>,
    /// `CARILLON_WORKSPACE`
    pub(crate) workspace: Option<String>,
    /// `NO_COLOR` (<https://no-color.org>)
    pub(crate) no_colour: bool,
    /// Where profiles are kept: `carillon` in the folder that the XDG Base Directory Specification names. Nowhere, if
    /// there is no home.
    pub(crate) folder: Option<PathBuf>,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        Self::from(|name| std::env::var_os(name).and_then(|value| value.into_string().ok()))
    }

    /// A variable that is empty is taken for absent.
    fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        // The specification has relative paths ignored.
        let configuration = said("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let configuration =
            configuration.or_else(|| said("HOME").map(|home| PathBuf::from(home).join(".config")));
        Self {
            profile: said("CARILLON_PROFILE"),
            url: said("CARILLON_URL"),
            token_url: said("CARILLON_TOKEN_URL"),
            client_id: said("CARILLON_CLIENT_ID"),
            client_secret: said("CARILLON_CLIENT_SECRET").map(Secret::from),
            workspace: said("CARILLON_WORKSPACE"),
            no_colour: said("NO_COLOR").is_some(),
            folder: configuration.map(|folder| folder.join("carillon")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn folders() {
        for (variables, folder) in [
            (&[("HOME", "/home/a")][..], Some("/home/a/.config/carillon")),
            (&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/etc/a")], Some("/etc/a/carillon")),
            (&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "here")], Some("/home/a/.config/carillon")),
            (&[], None),
        ] {
            assert_eq!(environment(variables).folder, folder.map(PathBuf::from));
        }
    }

    #[test]
    fn variables() {
        let read =
            environment(&[("CARILLON_CLIENT_SECRET", "s3cret"), ("CARILLON_URL", ""), ("NO_COLOR", "1")]);
        assert_eq!(read.client_secret.as_ref().map(Secret::expose), Some("s3cret"));
        assert_eq!(read.url, None);
        assert!(read.no_colour);
        assert!(!format!("{read:?}").contains("s3cret"));
    }
}
