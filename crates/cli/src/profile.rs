//! Profiles: which deployment is spoken to, as whom, and in which workspace.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, usage};
use crate::secret::Secret;

/// The name of the profile that is made if none is named.
pub(crate) const DEFAULT: &str = "default";

/// What only its owner may read.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// The bits that let others in.
const OTHERS: u32 = 0o077;

/// A deployment, a client of it, and the workspace that commands are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    /// Where the API is.
    pub(crate) url: String,
    /// Where tokens are fetched.
    pub(crate) token_url: String,
    /// The client.
    pub(crate) client_id: String,
    /// Its secret; absent if it is to be asked for whenever a token is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_secret: Option<Secret>,
    /// What tokens are asked for; all that the client may, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scopes: Vec<String>,
    /// Which workspace commands are about that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profiles {
    /// Which one is meant if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// A file that its owner alone may read, with a value in JSON.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFile {
    path: PathBuf,
}

impl PrivateFile {
    /// The profiles, secrets included.
    pub(crate) fn of_profiles(folder: &Path) -> Self {
        Self { path: folder.join("profiles.json") }
    }

    /// The tokens that are still good.
    pub(crate) fn of_tokens(folder: &Path) -> Self {
        Self { path: folder.join("tokens.json") }
    }

    /// Reads it; what was never written is the default. A file that others may read is closed to them first.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| usage(format!("cannot read {}: {error}", self.path.display()));
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
            other => other.map_err(|error| failed(&error))?,
        };
        if metadata.permissions().mode() & OTHERS != 0 {
            // Somebody copied it. Where modes cannot be changed they say nothing either.
            let _ = fs::set_permissions(&self.path, Permissions::from_mode(FILE_MODE));
        }
        let text = fs::read(&self.path).map_err(|error| failed(&error))?;
        serde_json::from_slice(&text).map_err(|error| failed(&error))
    }

    /// Writes it whole or not at all, by a file beside it that takes its place.
    pub(crate) fn write(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.replace(value).map_err(|error| usage(format!("cannot write {}: {error}", self.path.display())))
    }

    fn replace(&self, value: &impl Serialize) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        let fresh = self.path.with_extension(format!("{}.new", std::process::id()));
        // One that is left of a process that died had our number.
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("carillon-cli-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn profiles() -> Profiles {
        let profile = Profile {
            url: "https://api.example.com".to_owned(),
            token_url: "https://auth.example.com/token".to_owned(),
            client_id: "platform".to_owned(),
            client_secret: Some(Secret::from("s3cret".to_owned())),
            scopes: Vec::new(),
            workspace: Some("acme".to_owned()),
        };
        Profiles {
            current: Some("default".to_owned()),
            profiles: BTreeMap::from([(DEFAULT.to_owned(), profile)]),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn profiles_are_for_their_owner_alone() {
        let folder = Folder::new("mode");
        let file = PrivateFile::of_profiles(&folder.0);
        assert_eq!(file.read::<Profiles>().unwrap(), Profiles::default());
        file.write(&profiles()).unwrap();
        assert_eq!((mode(&folder.0), mode(&file.path)), (FOLDER_MODE, FILE_MODE));
        assert_eq!(file.read::<Profiles>().unwrap(), profiles());

        fs::set_permissions(&file.path, Permissions::from_mode(0o644)).unwrap();
        file.read::<Profiles>().unwrap();
        assert_eq!(mode(&file.path), FILE_MODE, "closed when read");
        fs::set_permissions(&file.path, Permissions::from_mode(0o644)).unwrap();
        file.write(&profiles()).unwrap();
        assert_eq!(mode(&file.path), FILE_MODE, "closed when written");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_broken_file_is_told_and_kept() {
        let folder = Folder::new("broken");
        let file = PrivateFile::of_profiles(&folder.0);
        file.write(&profiles()).unwrap();
        fs::write(&file.path, "{").unwrap();
        let failure = file.read::<Profiles>().unwrap_err();
        assert!(failure.to_string().contains("profiles.json"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "{");
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", profiles()).contains("s3cret"));
    }
}
