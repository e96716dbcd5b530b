//! `carillon login`, `logout` and `profiles`

use clap::{Args, Subcommand};
use serde_json::json;

use crate::api::Call;
use crate::context::Context;
use crate::failure::{Failure, usage};
use crate::input;
use crate::listing::Page;
use crate::network::secure_url;
use crate::profile::Profile;
use crate::table::{Cell, Table, Tone};

const LOGIN_HELP: &str = "\
The secret is asked for without being shown, read from the standard input if that is no terminal, or taken from
CARILLON_CLIENT_SECRET; never from an argument, which others on the machine could read. It is kept with the profile, in
~/.config/carillon/profiles.json, which its owner alone may read (mode 0600). With --forget-secret it is not kept but
asked for whenever a token is needed; tokens last for an hour or so, and are kept in tokens.json there.

Examples:
  carillon login --url https://api.example.com --token-url https://auth.example.com/oauth2/token --client-id platform
  pass carillon/staging | carillon login --profile staging --url ... --token-url ... --client-id ...";

/// What `login` takes.
#[derive(Args, Debug)]
#[command(after_help = LOGIN_HELP)]
pub(crate) struct Login {
    /// Where the API is
    #[arg(long)]
    url: Option<String>,
    /// Where tokens are fetched (OAuth 2.0, client credentials)
    #[arg(long, value_name = "URL")]
    token_url: Option<String>,
    /// As which client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Ask for this scope, not for all that the client may; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Do not keep the secret
    #[arg(long)]
    forget_secret: bool,
}

/// What there is to do with profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfilesCommand {
    /// List them
    List,
    /// Make one the current one
    Use {
        /// Its name
        name: String,
    },
}

/// Makes a profile, if its client gets a token and the API answers.
pub(crate) async fn login(context: &Context, login: Login) -> Result<(), Failure> {
    let mut profiles = context.profiles()?;
    let name = context.profile_name(&profiles);
    let before = profiles.profiles.get(&name);
    let said = context.environment();
    let url = login.url.or_else(|| said.url.clone());
    let url = given(url, before.map(|before| &before.url), "URL of the API")?;
    secure_url(&url, "the API's URL")?;
    let token_url = login.token_url.or_else(|| said.token_url.clone());
    let token_url = given(token_url, before.map(|before| &before.token_url), "URL of the token service")?;
    secure_url(&token_url, "the token URL")?;
    let client_id = login.client_id.or_else(|| said.client_id.clone());
    let client_id = given(client_id, before.map(|before| &before.client_id), "Client id")?;
    let secret = match &said.client_secret {
        Some(secret) => secret.clone(),
        None => input::secret(&format!("Secret of {client_id}"))?,
    };
    let mut profile = Profile {
        url,
        token_url,
        client_id,
        client_secret: Some(secret),
        scopes: login.scopes,
        workspace: context.named_workspace().map(str::to_owned),
    };
    // Who logs in again goes on where they were.
    let same = before.filter(|before| before.url == profile.url).and_then(|before| before.workspace.clone());
    profile.workspace = profile.workspace.or(same);

    let workspaces = reached(context, &profile).await?;
    // Where there is one to choose from, it is chosen.
    if let ([only], None) = (&workspaces[..], &profile.workspace) {
        profile.workspace = Some(only.clone());
    }
    if login.forget_secret {
        profile.client_secret = None;
    }
    let workspace = profile.workspace.clone();
    let (shown, client_id) = (json!({ "profile": name, "workspace": workspace }), profile.client_id.clone());
    profiles.profiles.insert(name.clone(), profile);
    profiles.current = Some(name.clone());
    context.save(&profiles)?;

    let output = context.output();
    if output.is_json() {
        return output.json(&shown.to_string());
    }
    output.line(&format!("Logged in as {client_id}, in the profile {name}."))?;
    match workspace {
        Some(workspace) => output.line(&format!("Commands are about the workspace {workspace}.")),
        None => output.line("Choose a workspace: `carillon workspaces list`, `carillon workspaces use ID`."),
    }
}

/// Removes the profile, its secret and its tokens.
pub(crate) fn logout(context: &Context) -> Result<(), Failure> {
    let mut profiles = context.profiles()?;
    let name = context.profile_name(&profiles);
    let profile = profiles.profiles.remove(&name);
    let profile = profile.ok_or_else(|| usage(format!("there is no profile `{name}`")))?;
    // What tokens there are is found by what the profile says.
    if let Ok(api) = context.api_of(&profile) {
        api.session().forget();
    }
    profiles.current = profiles.current.filter(|current| *current != name);
    context.save(&profiles)?;
    context.output().line(&format!("Removed the profile {name}, its secret and its tokens."))
}

/// Lists profiles, or changes which is the current one.
pub(crate) fn profiles(context: &Context, command: ProfilesCommand) -> Result<(), Failure> {
    let mut profiles = context.profiles()?;
    let output = context.output();
    let current = context.profile_name(&profiles);
    match command {
        ProfilesCommand::Use { name } if !profiles.profiles.contains_key(&name) => {
            Err(usage(format!("there is no profile `{name}`: `carillon login --profile {name}` makes it")))
        }
        ProfilesCommand::Use { name } => {
            profiles.current = Some(name.clone());
            context.save(&profiles)?;
            output.line(&format!("{name} is the current profile."))
        }
        ProfilesCommand::List if output.is_json() => {
            for (name, Profile { url, client_id, workspace, .. }) in &profiles.profiles {
                let current = *name == current;
                let shown = json!({ "name": name, "current": current, "url": url, "clientId": client_id,
                    "workspace": workspace });
                output.json(&shown.to_string())?;
            }
            Ok(())
        }
        ProfilesCommand::List => {
            let row = |(name, profile): (&String, &Profile)| {
                let mark = if *name == current { Cell::toned("*", Tone::Good) } else { Cell::default() };
                let workspace = profile.workspace.clone().unwrap_or_default();
                vec![
                    mark,
                    name.as_str().into(),
                    profile.client_id.as_str().into(),
                    workspace.into(),
                    profile.url.as_str().into(),
                ]
            };
            let rows = profiles.profiles.iter().map(row).collect::<Vec<_>>();
            output.rows(&mut Table::new(&["", "PROFILE", "CLIENT", "WORKSPACE", "API"]), &rows)
        }
    }
}

/// Gets a token for the profile, and the ids of the workspaces that its client sees at the API.
async fn reached(context: &Context, profile: &Profile) -> Result<Vec<String>, Failure> {
    let api = context.api_of(profile)?;
    api.session().fresh_token().await?;
    match api.parsed::<Page>(&Call::get(&["workspaces"])).await {
        Ok(page) => Ok(page.items.iter().filter_map(|item| id(item.get())).collect()),
        // A client that only publishes sees no list, but was let in.
        Err(Failure::Refused(refusal)) if refusal.status == 403 => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

fn id(item: &str) -> Option<String> {
    let item = serde_json::from_str::<serde_json::Value>(item).ok()?;
    item["id"].as_str().map(str::to_owned)
}

/// What was said, or what the user types, or what was there before.
fn given(said: Option<String>, before: Option<&String>, prompt: &str) -> Result<String, Failure> {
    match (said, before) {
        (Some(said), _) => Ok(said),
        (None, Some(before)) => Ok(before.clone()),
        (None, None) if input::is_interactive() => input::line(prompt),
        (None, None) => Err(usage(format!("{prompt}: not given; `carillon login --help` says how"))),
    }
}
