//! What `deliver` is compared with: a loop that signs and posts, and nothing else.

use std::io::Read as _;
use std::time::Instant;

use anyhow::{Result, ensure};
use carillon_core::id::{DeliveryId, EventKey, SubscriptionId};
use carillon_core::signature::SigningSecret;
use carillon_tests::harness::Used;
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// What starts it: this, a URL, and how often; what is posted comes as its input.
pub(crate) const COMMAND: &str = "bare-loop";

const AT_ONCE: usize = 10;

/// Before the first that counts: connections are made.
const WARM_UP: usize = 100;

/// Prints the seconds on the processor, and the seconds on the clock.
pub(crate) async fn run(url: &str, count: usize) -> Result<()> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let body = bytes::Bytes::from(body);
    #[expect(clippy::disallowed_methods, reason = "what the sender is compared with")]
    let client = reqwest::Client::builder().no_proxy().build()?;
    let secret = SigningSecret::from_bytes(vec![7; 32]);
    let event: EventKey = "acme/00000000000000000000000000000000".parse()?;
    let subscription: SubscriptionId = "sub_00000000000000000000000000".parse()?;
    let post = async |number: usize| {
        let id = DeliveryId::of(&event, subscription);
        let timestamp = u64::try_from(number)?;
        let signature = secret.sign(id, timestamp, &body);
        let request = client
            .post(url)
            .header("content-type", "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body.clone());
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "the sink answered {}", answer.status());
        answer.bytes().await?;
        Ok(())
    };
    let post_all = async |count| {
        stream::iter(0..count).map(&post).buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await
    };
    post_all(WARM_UP).await?;
    let (began, before) = (Instant::now(), Used::by(std::process::id())?);
    post_all(count).await?;
    let after = Used::by(std::process::id())?;
    println!("{} {}", after.processor - before.processor, began.elapsed().as_secs_f64());
    Ok(())
}
