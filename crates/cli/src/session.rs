//! Tokens for the API (OAuth 2.0, client credentials), kept until shortly before they expire.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Client;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};

use crate::clock::now;
use crate::failure::{Failure, usage};
use crate::input;
use crate::network::{exchange, secure_url};
use crate::profile::PrivateFile;
use crate::secret::Secret;

/// How long before its end a token is no longer used, in seconds: no request takes longer.
const MARGIN_SECONDS: i64 = 60;

/// Who asks for tokens, and where.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Where tokens are fetched.
    pub(crate) token_url: String,
    /// The client.
    pub(crate) client_id: String,
    /// Its secret. If it is not known it is asked for when a token is needed.
    pub(crate) client_secret: Option<Secret>,
    /// What is asked for; all that the client may, if empty.
    pub(crate) scopes: Vec<String>,
}

/// Where the tokens of one client come from.
#[derive(Debug)]
pub(crate) struct Session {
    http: Client,
    token_url: Url,
    credentials: Credentials,
    file: Option<PrivateFile>,
    token: RefCell<Option<Token>>,
}

/// An access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    access_token: Secret,
    /// In seconds since 1970, in UTC.
    expires_at: i64,
}

/// The tokens of the file, each by where it came from, for whom, and with which scopes.
type Tokens = BTreeMap<String, Token>;

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    #[serde(default)]
    expires_in: u32,
}

impl Session {
    /// Of this client. With a folder, its tokens outlast the process.
    pub(crate) fn new(
        http: Client,
        credentials: Credentials,
        folder: Option<&Path>,
    ) -> Result<Self, Failure> {
        let token_url = secure_url(&credentials.token_url, "the token URL")?;
        let file = folder.map(PrivateFile::of_tokens);
        Ok(Self { http, token_url, credentials, file, token: RefCell::default() })
    }

    /// A token that is good for long enough.
    pub(crate) async fn token(&self) -> Result<Secret, Failure> {
        let held = self.token.borrow().clone();
        let kept = held.filter(Token::is_good).or_else(|| self.kept());
        let Some(token) = kept else { return self.fresh_token().await };
        self.token.replace(Some(token.clone()));
        Ok(token.access_token)
    }

    /// A new token, whatever is kept.
    pub(crate) async fn fresh_token(&self) -> Result<Secret, Failure> {
        let token = self.fetch().await?;
        self.keep(&token);
        self.token.replace(Some(token.clone()));
        Ok(token.access_token)
    }

    /// Forgets its tokens.
    pub(crate) fn forget(&self) {
        self.token.replace(None);
        self.change_file(|tokens| drop(tokens.remove(&self.key())));
    }

    /// The client, as grants name it.
    pub(crate) fn client_id(&self) -> &str {
        &self.credentials.client_id
    }

    async fn fetch(&self) -> Result<Token, Failure> {
        let secret = match &self.credentials.client_secret {
            Some(secret) => secret.clone(),
            None => input::secret(&format!("Secret of {}", self.credentials.client_id))?,
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.credentials.scopes.is_empty() {
            form.append_pair("scope", &self.credentials.scopes.join(" "));
        }
        let request = self
            .http
            .post(self.token_url.clone())
            .header(AUTHORIZATION, basic(&self.credentials.client_id, &secret))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish());
        let asked_at = now();
        let answer = exchange(request, &format!("the token service {}", self.token_url)).await?.accepted()?;
        let answer: TokenAnswer = serde_json::from_slice(&answer.body)
            .map_err(|_| usage(format!("{} answers with no token: is it the token URL?", self.token_url)))?;
        // One that does not say how long it lasts is used once.
        let expires_at = asked_at.as_second() + i64::from(answer.expires_in);
        Ok(Token { access_token: answer.access_token, expires_at })
    }

    fn kept(&self) -> Option<Token> {
        let mut tokens = self.file.as_ref()?.read::<Tokens>().ok()?;
        tokens.remove(&self.key()).filter(Token::is_good)
    }

    fn keep(&self, token: &Token) {
        self.change_file(|tokens| drop(tokens.insert(self.key(), token.clone())));
    }

    fn change_file(&self, change: impl FnOnce(&mut Tokens)) {
        let Some(file) = &self.file else { return };
        let mut tokens = file.read::<Tokens>().unwrap_or_default();
        tokens.retain(|_, token| token.is_good());
        change(&mut tokens);
        // A token that cannot be kept is fetched again.
        let _ = file.write(&tokens);
    }

    fn key(&self) -> String {
        let Credentials { client_id, scopes, .. } = &self.credentials;
        format!("{} {client_id} {}", self.token_url, scopes.join(" ")).trim_end().to_owned()
    }
}

impl Token {
    fn is_good(&self) -> bool {
        now().as_second() + MARGIN_SECONDS < self.expires_at
    }
}

/// HTTP Basic, of the encoded id and secret (RFC 6749, section 2.3.1).
fn basic(client_id: &str, secret: &Secret) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(secret.expose()));
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_are_encoded() {
        let header = basic("platform", &Secret::from("a:b c".to_owned()));
        assert_eq!(header, format!("Basic {}", BASE64_STANDARD.encode("platform:a%3Ab+c")));
    }

    #[test]
    fn a_token_is_good_until_shortly_before_its_end() {
        let good_for = |seconds| {
            let expires_at = now().as_second() + seconds;
            Token { access_token: Secret::from(String::new()), expires_at }.is_good()
        };
        assert!(good_for(120) && !good_for(59) && !good_for(0));
    }
}
