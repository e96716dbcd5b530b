//! `cargo xtask token`: a token for the API that `cargo xtask up` runs.

use anyhow::{Context as _, Result};
use carillon_local::{ALL_SCOPES, Stack};

use crate::up::{CLIENT, place};

/// What `token` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options<'a> {
    pub(crate) scopes: Vec<&'a str>,
    pub(crate) client: Option<&'a str>,
}

pub(crate) async fn token(options: Options<'_>) -> Result<()> {
    println!("{}", printed(options).await.context("is `cargo xtask up` running in another terminal?")?);
    Ok(())
}

async fn printed(options: Options<'_>) -> Result<String> {
    let stack = Stack::open(&place()?)?;
    let name = options.client.unwrap_or(CLIENT);
    let client = if let Some(client) = stack.client_named(name).await? {
        client
    } else {
        let client = stack.client(name, &ALL_SCOPES).await?;
        eprintln!("Made the client {name}, {}: grants know it by this id.", client.client_id);
        client
    };
    stack.token_with(&client, &options.scopes).await
}
