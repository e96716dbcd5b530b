//! The sender against every mode of the hostile receiver: each post ends in its documented outcome, within its time, and
//! memory stays flat.

#![allow(clippy::print_stderr, reason = "the numbers are to be read")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use carillon_local::{AUTHORITY, Hostile, MODES, root};
use serde_json::{Value, json};

/// How long each post may take, in seconds: short, since many modes take all of it.
const TIMEOUT: f64 = 2.5;

/// The same for floods, which are visited one at a time.
const TIMEOUT_OF_FLOODS: f64 = 1.5;

/// The same for modes that end by a bound of their own.
const TIMEOUT_OF_BOUNDED: f64 = 8.0;

/// How much later than its bound a post may be seen to end, in seconds, on a machine that floods itself meanwhile.
const SLACK: f64 = 4.0;

/// What floods as long as it is listened to: visited last and one at a time, or a busy machine would see the others late.
const FLOODS: [&str; 7] = [
    "continue-flood",
    "processing-flood",
    "hints-flood",
    "h2-settings-flood",
    "h2-ping-flood",
    "h2-hints-flood",
    "h2-body-flood",
];

/// How often all other modes are visited.
const ROUNDS: u64 = 2;

/// How much more memory all rounds but the first may take, in KiB.
const GROWTH_MAX: u64 = 16 * 1024;

/// How much a reply to a failed post keeps of the answer, in bytes.
const EXCERPT_BYTES_MAX: usize = 1024;

/// How each mode ends, and within how many seconds if that is not its whole time.
const ENDS: &[(&str, &str, Option<f64>)] = &[
    ("silent", "timedOut", None),
    ("deaf", "timedOut", None),
    ("status-drip", "timedOut", None),
    ("header-drip", "timedOut", None),
    ("close", "broken", None),
    ("reset", "broken", None),
    ("continue-flood", "timedOut", None),
    ("continue-drip", "timedOut", None),
    ("processing-flood", "timedOut", None),
    ("hints-flood", "timedOut", None),
    ("crowded", "unreachable", Some(5.0)),
    ("closed", "unreachable", None),
    ("nameless", "dns", Some(5.0)),
    ("body-drip", "delivered", Some(2.0)),
    ("refusal-drip", "serverError", Some(2.0)),
    ("body-silent", "delivered", Some(2.0)),
    ("body-flood", "delivered", None),
    ("refusal-flood", "serverError", None),
    ("gzip-bomb", "serverError", None),
    ("body-reset", "delivered", None),
    ("refusal-reset", "serverError", None),
    ("body-short", "delivered", None),
    ("header-flood", "broken", None),
    ("header-many", "broken", None),
    ("header-huge", "broken", None),
    ("garbage", "broken", None),
    ("status-letters", "broken", None),
    ("version-0.9", "broken", None),
    ("version-9", "broken", None),
    ("length-negative", "broken", None),
    ("length-twice", "broken", None),
    ("chunk-overflow", "delivered", None),
    ("chunk-garbage", "serverError", None),
    ("switching", "serverError", None),
    ("status-099", "broken", None),
    ("status-999", "serverError", None),
    ("accepted-garbage", "delivered", None),
    ("no-content-body", "delivered", None),
    ("two-answers", "delivered", None),
    ("cookie", "delivered", None),
    ("unauthorized", "unauthorized", None),
    ("gone", "gone", None),
    ("too-large", "unacceptable", None),
    ("unsupported", "unacceptable", None),
    ("refused-token", "rejected", None),
    ("throttled", "throttled", None),
    ("retry-seconds", "throttled", None),
    ("retry-date", "throttled", None),
    ("retry-past", "throttled", None),
    ("retry-huge", "throttled", None),
    ("retry-negative", "throttled", None),
    ("retry-garbage", "throttled", None),
    ("retry-twice", "throttled", None),
    ("redirect-inside", "redirected", None),
    ("redirect-loop", "redirected", None),
    ("idle-close", "delivered", None),
    ("reuse-close", "delivered", None),
    ("reuse-reset", "delivered", None),
    ("tls-silent", "unreachable", Some(5.0)),
    ("tls-close", "unreachable", None),
    ("tls-garbage", "tls", None),
    ("tls-plain", "tls", None),
    ("tls-flood", "tls", None),
    ("tls-1.0", "tls", None),
    ("tls-alert", "tls", None),
    ("tls-good", "delivered", None),
    ("tls-expired", "tls", None),
    ("tls-elsewhere", "tls", None),
    ("tls-self-signed", "tls", None),
    ("tls-mutual", "delivered", None),
    ("tls-cut", "delivered", None),
    ("h2-good", "delivered", None),
    ("h2-silent", "timedOut", None),
    ("h2-goaway", "broken", None),
    ("h2-leave", "delivered", None),
    ("h2-reset", "broken", None),
    ("h2-settings-flood", "timedOut", None),
    ("h2-ping-flood", "timedOut", None),
    ("h2-hints-flood", "timedOut", None),
    ("h2-continuation-flood", "broken", None),
    ("h2-header-huge", "broken", None),
    ("h2-body-flood", "delivered", None),
    ("h2-garbage", "broken", None),
];

/// The waits that `Retry-After` asks for, in seconds; those that ask for nothing sensible have none.
const WAITS: &[(&str, Option<u64>)] = &[
    ("throttled", None),
    ("retry-seconds", Some(120)),
    ("retry-date", Some(120)),
    ("retry-past", Some(0)),
    ("retry-huge", Some(24 * 60 * 60)),
    ("retry-negative", None),
    ("retry-garbage", None),
    ("retry-twice", Some(7)),
];

#[tokio::test]
async fn every_mode_ends_as_documented() -> Result<()> {
    let hostile = Hostile::start()?;
    let told = posted(&hostile)?;
    let results = told["results"].as_array().context("results")?;
    let of = |name: &str| {
        let result = results.iter().find(|result| result["name"] == name);
        result.and_then(|result| result["ends"].as_array()).with_context(|| format!("no result of {name}"))
    };
    let mut wrong = Vec::new();
    for mode in MODES {
        let Some((name, outcome, seconds)) = ENDS.iter().find(|(name, ..)| *name == mode.name) else {
            wrong.push(format!("{} has no documented end", mode.name));
            continue;
        };
        let bound = seconds.unwrap_or(TIMEOUT) + SLACK;
        for end in of(name)? {
            let is_late = end["seconds"].as_f64().is_none_or(|seconds| seconds > bound);
            let is_long = end["response"].as_str().is_some_and(|text| text.len() > EXCERPT_BYTES_MAX);
            if end["outcome"] != *outcome || is_late || is_long {
                wrong.push(format!("{name}: {end}, not {outcome} within {bound} s"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (name, wait) in WAITS {
        assert_eq!(of(name)?[0]["retryAfter"], json!(wait), "{name}");
    }
    let peaks: Vec<_> = told["peaks"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    eprintln!("{} modes, resident memory (KiB) before and after each round: {peaks:?}", MODES.len());
    let growth = peaks.last().zip(peaks.get(1)).map(|(last, first)| last - first);
    assert!(growth.is_some_and(|growth| growth < GROWTH_MAX), "{peaks:?}");

    let visits = usize::try_from(2 * ROUNDS)?;
    for name in ["redirect-inside", "redirect-loop", "cookie", "gone", "tls-good"] {
        let requests = hostile.requests(name)?;
        assert_eq!(requests.len(), visits, "{name}: one request for each post");
        for request in requests {
            assert!(!request.contains("\r\ncookie:"), "{name}: a cookie is not sent back");
            assert!(!request.contains("\r\naccept-encoding:"), "{name}: no compression is asked for");
        }
    }
    assert_eq!(of("two-answers")?[1]["status"], 204, "an answer that came too soon is no later request's");
    let refused = &of("refusal-drip")?[0]["response"];
    assert!(refused.as_str().is_some_and(|text| text.starts_with("because")), "what came is kept: {refused}");
    let bomb = of("gzip-bomb")?[0]["response"].as_str().context("what came is kept")?;
    assert!(bomb.starts_with('\u{fffd}') || bomb.starts_with('\u{1f}'), "nothing is unpacked: {bomb:?}");
    assert!(!bomb.contains("BBBB"), "nothing is unpacked");
    // From round to round so many hosts come between that the client begins anew.
    let connections = hostile.connections("tls-good")?;
    assert!(connections <= usize::try_from(ROUNDS)?, "a connection is kept from post to post: {connections}");
    Ok(())
}

/// What `post` tells of all modes, each of which it visits twice in each round.
fn posted(hostile: &Hostile) -> Result<Value> {
    let targets = MODES.iter().map(|mode| {
        let is_bounded = ENDS.iter().any(|(name, _, seconds)| *name == mode.name && seconds.is_some());
        let alone = FLOODS.contains(&mode.name);
        let timeout = match (is_bounded, alone) {
            (true, _) => TIMEOUT_OF_BOUNDED,
            (_, true) => TIMEOUT_OF_FLOODS,
            _ => TIMEOUT,
        };
        let posts = if alone { 1 } else { 2 };
        let url = hostile.url(mode.name)?;
        Ok(json!({ "name": mode.name, "url": url, "timeout": timeout, "posts": posts, "alone": alone }))
    });
    let mut targets = targets.collect::<Result<Vec<_>>>()?;
    // Those that take longest first, so that nobody waits for them alone in the end.
    targets.sort_by_key(|target| target["timeout"] != TIMEOUT_OF_BOUNDED);
    let mut post = Command::new(env!("CARGO_BIN_EXE_post"))
        .env("SSL_CERT_FILE", root().join(AUTHORITY))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = json!({ "rounds": ROUNDS, "targets": targets }).to_string();
    post.stdin.take().context("it has an input")?.write_all(input.as_bytes())?;
    let told = post.wait_with_output()?;
    Ok(serde_json::from_slice(&told.stdout)?)
}
