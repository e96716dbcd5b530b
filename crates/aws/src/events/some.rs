//! Several events by their keys.

use carillon_core::event::AcceptedEvent;
use carillon_core::id::EventKey;
use carillon_core::time::UnixMillis;

use super::{EventItem, EventTable, TABLE};
use crate::batch_read::batch_read;
use crate::error::AwsError;

impl EventTable {
    /// Those of these events that are there and not past their time to live, in no order. All of them are in memory at
    /// once, and each can be large.
    pub async fn kept_of(&self, keys: &[EventKey], now: UnixMillis) -> Result<Vec<AcceptedEvent>, AwsError> {
        let items = batch_read(&self.client, keys.iter().map(|key| self.key(key))).await?;
        let mut events = Vec::with_capacity(items.len());
        for item in items.into_values() {
            let item: EventItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
            if item.expires_at > now.as_secs() {
                events.push(item.event()?);
            }
        }
        Ok(events)
    }
}
