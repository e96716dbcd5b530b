//! Settings of a function, from the environment that the template gives it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// A setting that is missing or makes no sense: the function does not start.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} {problem}")]
pub struct SettingError {
    name: &'static str,
    problem: String,
}

/// The value of a setting, parsed.
pub fn setting<T: FromStr<Err: Display>>(name: &'static str) -> Result<T, SettingError> {
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    let text = std::env::var(name).map_err(|error| SettingError { name, problem: error.to_string() })?;
    text.parse().map_err(|error| SettingError { name, problem: format!("is `{text}`: {error}") })
}

/// How long events, deliveries and what belongs to them are kept.
pub fn retention() -> Result<Duration, SettingError> {
    Ok(DAY * setting("RETENTION_DAYS")?)
}
