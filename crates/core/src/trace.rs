//! The trace that an event belongs to (W3C Trace Context, level 1), as its publisher names it: receivers are told, so that
//! what they do can be seen together with what caused it.
//!
//! It is kept beside the event and handed on as it is: Carillon adds no step of its own. What breaks the specification is
//! treated as if it were not there, as the specification asks for.

use serde::{Deserialize, Serialize};

/// The header, and the extension attribute of CloudEvents ("Distributed tracing"), that names the trace and the step in it.
pub const TRACEPARENT: &str = "traceparent";

/// The header, and the extension attribute, with what tracing systems add of their own.
pub const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is kept, in bytes: as much as the specification wants handed on (section 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// The most members of a `tracestate` (section 3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;

/// The longest name and the longest value of such a member, in bytes (sections 3.3.1.3.1 and 3.3.1.3.2).
const STATE_PART_BYTES_MAX: usize = 256;

/// The longest parts of a name with a tenant and a system.
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Shape")]
pub struct Trace {
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

impl Trace {
    /// From both values. `None` if the first breaks the specification; without the second if that one does.
    #[must_use]
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        is_parent(traceparent)
            .then(|| Self { traceparent: traceparent.to_owned(), tracestate: tracestate.and_then(state) })
    }

    /// The value of `traceparent`: ASCII.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The value of `tracestate`: printable ASCII.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The trace's id, as log lines name it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }
}

/// A trace at rest.
#[derive(Deserialize)]
struct Shape {
    traceparent: String,
    tracestate: Option<String>,
}

impl TryFrom<Shape> for Trace {
    type Error = &'static str;

    fn try_from(shape: Shape) -> Result<Self, Self::Error> {
        Self::read(&shape.traceparent, shape.tracestate.as_deref()).ok_or("is no `traceparent` of version 00")
    }
}

/// Version 00 alone: version, id of the trace, id of the step before, flags (section 3.2.2).
fn is_parent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|byte| byte != b'0');
    version == "00" && id(trace, 32) && id(parent, 16) && hex(flags, 2)
}

/// A `tracestate` without the white space and the empty members that it may have; `None` if it breaks the grammar, names
/// a member twice, is empty or too long.
fn state(text: &str) -> Option<String> {
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let members: Vec<_> = members.filter(|member| !member.is_empty()).collect();
    let mut names = Vec::with_capacity(members.len());
    for member in &members {
        let (name, value) = member.split_once('=')?;
        if !is_name(name) || !is_value(value) || names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    let state = members.join(",");
    (!state.is_empty() && state.len() <= STATE_BYTES_MAX && members.len() <= STATE_MEMBERS_MAX)
        .then_some(state)
}

fn is_name(name: &str) -> bool {
    let rest = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let starts = |part: &str, with: fn(&u8) -> bool| part.as_bytes().first().is_some_and(with);
    match name.split_once('@') {
        None => {
            name.len() <= STATE_PART_BYTES_MAX
                && starts(name, u8::is_ascii_lowercase)
                && name.bytes().all(rest)
        }
        Some((tenant, system)) => {
            tenant.len() <= TENANT_BYTES_MAX
                && system.len() <= SYSTEM_BYTES_MAX
                && starts(tenant, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && starts(system, u8::is_ascii_lowercase)
                && tenant.bytes().chain(system.bytes()).all(rest)
        }
    }
}

/// White space at the end is gone already.
fn is_value(value: &str) -> bool {
    (1..=STATE_PART_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b',' && byte != b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_of_version_00_to_the_letter() {
        assert_eq!(Trace::read(PARENT, None).unwrap().traceparent(), PARENT);
        assert_eq!(Trace::read(PARENT, None).unwrap().id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n",
        ] {
            assert_eq!(Trace::read(wrong, Some("a=1")), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_state_is_kept_or_left_out() {
        let state = |text: &str| Trace::read(PARENT, Some(text)).unwrap().tracestate().map(str::to_owned);
        assert_eq!(
            state("rojo=00f067, congo=t61 rc , ,1t@sys=x").as_deref(),
            Some("rojo=00f067,congo=t61 rc,1t@sys=x")
        );
        let many = |members: usize| (0..members).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join(",");
        assert!(state(&many(32)).is_some() && state(&many(33)).is_none());
        let long = |bytes: usize| format!("a={},b={}", "x".repeat(250), "x".repeat(bytes - 255));
        assert!(state(&long(511)).is_some());
        assert!(state(&format!("a={},b={},c=1", "x".repeat(250), "x".repeat(255))).is_none(), "514 bytes");
        let value = |bytes: usize| state(&format!("a={}", "x".repeat(bytes)));
        assert!(value(256).is_some() && value(257).is_none());
        for wrong in [
            "", " ", "a", "=1", "a=", "A=1", "1a=1", "a=1,a=2", "a=b=c", "a=\u{e9}", "a=\n", "@s=1", "a@=1",
            "a@1=1",
        ] {
            assert_eq!(state(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn it_rests_as_it_was_read() {
        for state in [None, Some("a=1")] {
            let trace = Trace::read(PARENT, state).unwrap();
            let json = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<Trace>(&json).unwrap(), trace);
        }
        assert!(serde_json::from_str::<Trace>(r#"{"traceparent":"00-x"}"#).is_err());
    }
}
