//! What a command works with.

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::api::{Api, Call, parsed};
use crate::arguments::Common;
use crate::clock::now;
use crate::environment::Environment;
use crate::failure::{Failure, usage};
use crate::network;
use crate::output::Output;
use crate::profile::{DEFAULT, PrivateFile, Profile, Profiles};
use crate::session::{Credentials, Session};
use crate::table::Members;

/// What was said on the command line, by the environment and by the profiles.
#[derive(Debug)]
pub(crate) struct Context {
    environment: Environment,
    profile: Option<String>,
    workspace: Option<String>,
    output: Output,
}

/// The API and a workspace of it.
#[derive(Debug)]
pub(crate) struct Place {
    /// The API.
    pub(crate) api: Api,
    /// The workspace's id.
    pub(crate) workspace: String,
    /// How things are shown.
    pub(crate) output: Output,
}

/// Something of the API that is shown by its members.
pub(crate) trait View: DeserializeOwned {
    /// The members.
    fn members(&self, now: Timestamp) -> Members;
}

impl Context {
    /// Of these.
    pub(crate) fn new(environment: Environment, common: &Common, output: Output) -> Self {
        let profile = common.profile.clone().or_else(|| environment.profile.clone());
        let workspace = common.workspace.clone().or_else(|| environment.workspace.clone());
        Self { environment, profile, workspace, output }
    }

    /// How things are shown.
    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// All profiles.
    pub(crate) fn profiles(&self) -> Result<Profiles, Failure> {
        self.profiles_file().map_or_else(|| Ok(Profiles::default()), |file| file.read())
    }

    /// Changes the profiles for good.
    pub(crate) fn save(&self, profiles: &Profiles) -> Result<(), Failure> {
        let file = self.profiles_file();
        file.ok_or_else(|| usage("there is no folder for profiles: set HOME or XDG_CONFIG_HOME"))?
            .write(profiles)
    }

    /// The name of the profile that is meant.
    pub(crate) fn profile_name(&self, profiles: &Profiles) -> String {
        let named = self.profile.clone().or_else(|| profiles.current.clone());
        named.unwrap_or_else(|| DEFAULT.to_owned())
    }

    /// The workspace that was named, by an option or the environment.
    pub(crate) fn named_workspace(&self) -> Option<&str> {
        self.workspace.as_deref()
    }

    /// The API of the profile.
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        let profiles = self.profiles()?;
        let name = self.profile_name(&profiles);
        let profile = profiles.profiles.get(&name);
        if profile.is_none() && self.profile.is_some() {
            return Err(usage(format!(
                "there is no profile `{name}`: `carillon login --profile {name}` makes it"
            )));
        }
        let said = &self.environment;
        let choose = |said: &Option<String>, member: fn(&Profile) -> &String, variable: &str| {
            let chosen = said.clone().or_else(|| profile.map(|profile| member(profile).clone()));
            chosen.ok_or_else(|| usage(format!("not logged in: run `carillon login`, or set {variable}")))
        };
        let url = choose(&said.url, |profile| &profile.url, "CARILLON_URL")?;
        let credentials = Credentials {
            token_url: choose(&said.token_url, |profile| &profile.token_url, "CARILLON_TOKEN_URL")?,
            client_id: choose(&said.client_id, |profile| &profile.client_id, "CARILLON_CLIENT_ID")?,
            client_secret: said.client_secret.clone().or_else(|| profile?.client_secret.clone()),
            scopes: profile.map(|profile| profile.scopes.clone()).unwrap_or_default(),
        };
        self.called(&url, credentials)
    }

    /// The API of this very profile, whatever the environment says.
    pub(crate) fn api_of(&self, profile: &Profile) -> Result<Api, Failure> {
        let Profile { url, token_url, client_id, client_secret, scopes, .. } = profile.clone();
        self.called(&url, Credentials { token_url, client_id, client_secret, scopes })
    }

    fn called(&self, url: &str, credentials: Credentials) -> Result<Api, Failure> {
        let http = network::client()?;
        let session = Session::new(http.clone(), credentials, self.environment.folder.as_deref())?;
        Api::new(http, url, session, self.output)
    }

    /// The API, and the workspace that is meant.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let api = self.api()?;
        let workspace = self.workspace()?;
        Ok(Place { api, workspace, output: self.output })
    }

    /// The workspace that is meant.
    pub(crate) fn workspace(&self) -> Result<String, Failure> {
        if let Some(named) = &self.workspace {
            return Ok(named.clone());
        }
        let mut profiles = self.profiles()?;
        let name = self.profile_name(&profiles);
        let remembered = profiles.profiles.remove(&name).and_then(|profile| profile.workspace);
        remembered
            .ok_or_else(|| usage("which workspace? Say --workspace ID, or `carillon workspaces use ID` once"))
    }

    fn profiles_file(&self) -> Option<PrivateFile> {
        self.environment.folder.as_deref().map(PrivateFile::of_profiles)
    }
}

impl Place {
    /// Where something of the workspace is.
    pub(crate) fn at<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [&["workspaces", self.workspace.as_str()], rest].concat()
    }

    /// Makes a call and shows what it answers.
    pub(crate) async fn show<V: View>(&self, call: &Call) -> Result<(), Failure> {
        show::<V>(self.output, &self.api.call(call).await?)
    }
}

/// Shows an answer: by its members, or as it came.
pub(crate) fn show<V: View>(output: Output, answer: &Bytes) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&String::from_utf8_lossy(answer));
    }
    output.members(&parsed::<V>(answer)?.members(now()))
}

/// Says in words that something was done, or shows what the API answered to scripts.
pub(crate) fn done(output: Output, answer: &Bytes, words: &str) -> Result<(), Failure> {
    match (output.is_json(), answer.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => output.json(&String::from_utf8_lossy(answer)),
        (false, _) => output.line(words),
    }
}
