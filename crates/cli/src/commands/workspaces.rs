//! `carillon workspaces`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Api, Call, parsed};
use crate::context::{Context, Place, View, done, show};
use crate::failure::{Failure, usage};
use crate::input;
use crate::job;
use crate::listing::{Paging, Row, list};
use crate::moment::{ago, full};
use crate::table::{Cell, Members, Tone};

/// What there is to do with workspaces.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkspacesCommand {
    /// List them
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one: that which commands are about, if none is named
    Show {
        /// Its id
        id: Option<String>,
    },
    /// Make one
    Create(Create),
    /// Delete one, with its grants and event types
    Delete(Delete),
    /// Remember one for all commands that name none
    Use {
        /// Its id
        id: String,
    },
}

const CREATE_HELP: &str = "\
Examples:
  carillon workspaces create acme --name 'Acme Bank' --kind consent --own
  carillon workspaces create lab --kind custom --allow-http --own && carillon workspaces use lab";

/// What `create` takes.
#[derive(Args, Debug)]
#[command(after_help = CREATE_HELP)]
pub(crate) struct Create {
    /// Its id, which stands in URLs; Carillon makes one if there is none
    id: Option<String>,
    /// Its name for people; its id if there is none
    #[arg(long)]
    name: Option<String>,
    /// Its catalogue of event types: consent, identity, directory or custom
    #[arg(long, default_value = "custom")]
    kind: String,
    /// Whether events must name whom they are for: open or required
    #[arg(long, value_name = "WHICH")]
    audience: Option<String>,
    /// How endpoints' owners confirm: none, handshake or challenge
    #[arg(long, value_name = "HOW")]
    verification: Option<String>,
    /// The rate of subscriptions that name none
    #[arg(long, value_name = "PER_MINUTE")]
    rate: Option<u32>,
    /// Take endpoints that are not HTTPS
    #[arg(long)]
    allow_http: bool,
    /// Make this client its owner
    #[arg(long)]
    own: bool,
}

/// What `delete` takes.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Its id
    id: String,
    /// With its subscriptions
    #[arg(long)]
    cascade: bool,
    /// Without being asked
    #[arg(short, long)]
    yes: bool,
    /// Wait for the job that does it
    #[arg(long)]
    wait: bool,
}

/// Does one of them.
pub(crate) async fn run(context: &Context, command: WorkspacesCommand) -> Result<(), Failure> {
    let output = context.output();
    match command {
        WorkspacesCommand::List { paging } => {
            let call = Call::get(&["workspaces"]);
            list::<Workspace>(&context.api()?, output, &call, &paging, "workspaces that you may see").await
        }
        WorkspacesCommand::Show { id } => {
            let id = id.map_or_else(|| context.workspace(), Ok)?;
            show::<Workspace>(output, &context.api()?.call(&Call::get(&["workspaces", &id])).await?)
        }
        WorkspacesCommand::Create(said) => create(context, said).await,
        WorkspacesCommand::Delete(said) => delete(context, said).await,
        WorkspacesCommand::Use { id } => remember(context, id).await,
    }
}

async fn create(context: &Context, said: Create) -> Result<(), Failure> {
    let api = context.api()?;
    let answer = api.call(&Call::create(&["workspaces"], &said.body()?)?).await?;
    if said.own {
        let id = parsed::<Workspace>(&answer)?.id;
        let client = api.session().client_id();
        let grant = Call::put(&["workspaces", &id, "clients", client], &json!({ "role": "owner" }));
        api.call(&grant).await?;
    }
    show::<Workspace>(context.output(), &answer)
}

impl Create {
    fn body(&self) -> Result<Value, Failure> {
        let name = self.name.as_ref().or(self.id.as_ref());
        let name = name.ok_or_else(|| usage("a workspace needs an id or a --name"))?;
        let mut settings = Map::new();
        let texts = [("audience", &self.audience), ("verification", &self.verification)];
        for (member, value) in texts.into_iter().filter_map(|(member, value)| Some((member, value.as_ref()?)))
        {
            settings.insert(member.to_owned(), json!(value));
        }
        if let Some(rate) = self.rate {
            settings.insert("defaultRatePerMinute".to_owned(), json!(rate));
        }
        if self.allow_http {
            settings.insert("httpsRequired".to_owned(), json!(false));
        }
        let mut body = json!({ "name": name, "kind": self.kind });
        if let Some(id) = &self.id {
            body["id"] = json!(id);
        }
        if !settings.is_empty() {
            body["settings"] = Value::Object(settings);
        }
        Ok(body)
    }
}

async fn delete(context: &Context, said: Delete) -> Result<(), Failure> {
    let Delete { id, cascade, yes, wait } = said;
    let what =
        if cascade { "its subscriptions, grants and event types" } else { "its grants and event types" };
    input::confirmed(&format!("Delete the workspace {id} with {what}?"), yes)?;
    let (api, output) = (context.api()?, context.output());
    let call = Call::delete(&["workspaces", &id]).with_some("cascade", cascade.then_some("true"));
    let answer = api.call(&call).await?;
    if answer.is_empty() {
        return done(output, &answer, &format!("Deleted {id}."));
    }
    job::shown(&Place { api, workspace: id, output }, answer, wait, None).await
}

async fn remember(context: &Context, id: String) -> Result<(), Failure> {
    let mut profiles = context.profiles()?;
    let name = context.profile_name(&profiles);
    let Some(profile) = profiles.profiles.get_mut(&name) else {
        return Err(usage("workspaces are remembered in a profile: run `carillon login` first"));
    };
    seen(&context.api()?, &id).await?;
    profile.workspace = Some(id.clone());
    context.save(&profiles)?;
    context.output().line(&format!("Commands of the profile {name} are about the workspace {id}."))
}

/// That it is there, unless this client may not read: then it finds out soon enough.
async fn seen(api: &Api, id: &str) -> Result<(), Failure> {
    match api.call(&Call::get(&["workspaces", id])).await {
        Err(Failure::Refused(refusal)) if refusal.status == 403 => Ok(()),
        other => other.map(drop),
    }
}

/// What is shown of a workspace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workspace {
    id: String,
    name: String,
    kind: String,
    status: String,
    #[serde(default)]
    settings: Map<String, Value>,
    created_at: String,
}

impl View for Workspace {
    fn members(&self, now: Timestamp) -> Members {
        let settings = self.settings.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        });
        Members::default()
            .with("id", self.id.as_str())
            .with("name", self.name.as_str())
            .with("kind", self.kind.as_str())
            .with("status", Cell::word(self.status.as_str()))
            .with("settings", settings.collect::<Vec<_>>().join(", "))
            .with("created", full(&self.created_at, now))
    }
}

impl Row for Workspace {
    const HEADINGS: &'static [&'static str] = &["WORKSPACE", "NAME", "KIND", "STATUS", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.name.as_str().into(),
            self.kind.as_str().into(),
            Cell::word(self.status.as_str()),
            Cell::toned(ago(&self.created_at, now), Tone::Quiet),
        ]
    }
}
