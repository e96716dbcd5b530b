//! The inboxes table: inboxes, and what came to them.
//!
//! | what | pk | sk |
//! |---|---|---|
//! | where an inbox of a workspace is | `WS#{workspace}` | `{slot}` |
//! | inbox | `IN#{token}` | `inbox` |
//! | request | `IN#{token}` | `REQ#{place}` |
//!
//! A workspace has so many slots, so that it has no more inboxes than that, whoever makes them at once. An inbox counts what
//! it receives; the number of a request decides its place, so that the latest are kept and nothing has to be looked for
//! to remove the others.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use carillon_core::id::{InboxId, SubscriberId, SubscriptionId, WorkspaceId};
use carillon_core::inbox::{
    Answer, INBOXES_MAX, Inbox, InboxToken, REQUEST_KEPT, REQUESTS_KEPT, end_of_round, place,
};
use carillon_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::batch_read::{Item, Key, batch_read};
use crate::error::AwsError;
use crate::wire::DynamoDb;

const TABLE: &str = "inboxes";

/// The version of every item's shape that this release writes.
const VERSION: u32 = 1;

/// How many subscriptions an inbox knows that post to it.
pub const SUBSCRIPTIONS_MAX: usize = 50;

/// How long after it was counted a request may still be on its way into the table: longer than the function that keeps it
/// can run.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

const PUT: &str = "dynamodb PutItem";
const UPDATE: &str = "dynamodb UpdateItem";
const DELETE: &str = "dynamodb DeleteItem";
const QUERY: &str = "dynamodb Query";

/// The inboxes table.
#[derive(Clone, Debug)]
pub struct InboxTable {
    client: DynamoDb,
    table: String,
}

/// An inbox with what is known of it beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredInbox {
    /// The inbox.
    pub inbox: Inbox,
    /// The subscriptions that were made to post to it, if they still do; at most [`SUBSCRIPTIONS_MAX`].
    pub subscriptions: Vec<SubscriptionId>,
    /// The number of the latest request.
    received: u64,
    slot: u8,
}

/// A workspace's inboxes.
#[derive(Clone, Debug)]
pub struct Inboxes {
    /// Those that are there, in the order in which they were made.
    pub inboxes: Vec<StoredInbox>,
    /// By slot, the ids of those that are no more.
    left: HashMap<u8, InboxId>,
}

/// What became of a request to an inbox: it has a number, and is to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// What is answered.
    pub answer: Answer,
    /// Its number, from 1 on.
    number: u64,
    /// When it was counted.
    at: UnixMillis,
    /// When the one before was.
    previous_at: UnixMillis,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A request that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// Its number, from 1 on in the order in which requests came.
    pub number: u64,
    /// When it came.
    pub received_at: UnixMillis,
    /// The request.
    pub request: Request,
    /// When the one before came.
    previous_at: UnixMillis,
    expires_at: u64,
}

impl InboxTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: DynamoDb, table: String) -> Self {
        Self { client, table }
    }

    /// The inboxes of a workspace that was made at `made_at`: those of one that had its id before are nobody's.
    pub async fn of_workspace(
        &self,
        workspace: &WorkspaceId,
        made_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Inboxes, AwsError> {
        let slots = self.slots(workspace).await?;
        let mut found =
            batch_read(&self.client, slots.iter().map(|(_, item)| self.inbox_key(&item.token))).await?;
        let (mut inboxes, mut left) = (Vec::new(), HashMap::new());
        for (slot, item) in slots {
            let inbox = found.remove(&self.inbox_key(&item.token)).map(read_inbox).transpose()?;
            match inbox.filter(|inbox| inbox.is_there(made_at, now)) {
                Some(inbox) => inboxes.push(inbox.stored(item, slot)?),
                None => _ = left.insert(slot, item.id),
            }
        }
        inboxes.sort_by_key(|stored| stored.inbox.id);
        Ok(Inboxes { inboxes, left })
    }

    /// One of them.
    pub async fn inbox(
        &self,
        (workspace, made_at): (&WorkspaceId, UnixMillis),
        id: InboxId,
        now: UnixMillis,
    ) -> Result<Option<StoredInbox>, AwsError> {
        let slots = self.slots(workspace).await?;
        let Some((slot, item)) = slots.into_iter().find(|(_, item)| item.id == id) else { return Ok(None) };
        let found = batch_read(&self.client, [self.inbox_key(&item.token)]).await?;
        let inbox = found.into_values().next().map(read_inbox).transpose()?;
        let inbox = inbox.filter(|inbox| inbox.is_there(made_at, now));
        inbox.map(|inbox| inbox.stored(item, slot)).transpose()
    }

    /// Makes an inbox of a workspace that was made at `made_at`, in a slot that is free among `known`. `false`: there is
    /// none.
    pub async fn create(
        &self,
        (workspace, made_at): (&WorkspaceId, UnixMillis),
        inbox: &Inbox,
        known: &Inboxes,
    ) -> Result<bool, AwsError> {
        let is_taken = |slot: &u8| known.inboxes.iter().any(|stored| stored.slot == *slot);
        let mut free = (0..INBOXES_MAX).filter(|slot| !is_taken(slot)).peekable();
        if free.peek().is_none() {
            return Ok(false);
        }
        // Before the slot names it. Where no slot comes to name it, nobody learns its token.
        let item = InboxItem {
            v: VERSION,
            id: inbox.id,
            workspace: workspace.clone(),
            made_at,
            answer: inbox.answer,
            created_at: inbox.created_at,
            last_at: inbox.created_at,
            received: 0,
            subscriptions: Vec::new(),
            expires_at: inbox.expires_at.as_secs(),
        };
        self.put(&self.inbox_key(&inbox.token.to_string()), &item, None).await?;
        let item = SlotItem {
            v: VERSION,
            id: inbox.id,
            token: inbox.token.to_string(),
            subscriber: inbox.subscriber.clone(),
            expires_at: inbox.expires_at.as_secs(),
        };
        for slot in free {
            let condition = match known.left.get(&slot) {
                Some(left) => {
                    ("attribute_not_exists(pk) OR id = :left", Some((":left", text(left.to_string()))))
                }
                None => ("attribute_not_exists(pk)", None),
            };
            if self.put(&self.slot_key(workspace, slot), &item, Some(condition)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Changes what an inbox answers, and until when it is there. `false`: it is no more.
    pub async fn change(
        &self,
        workspace: &WorkspaceId,
        changed: &StoredInbox,
        now: UnixMillis,
    ) -> Result<bool, AwsError> {
        let Inbox { id, token, answer, expires_at, .. } = &changed.inbox;
        // The slot first: it is not to be given away while the inbox is there.
        let slot = self
            .update(&self.slot_key(workspace, changed.slot))
            .update_expression("SET expires_at = :until")
            .condition_expression("id = :id")
            .expression_attribute_values(":id", text(id.to_string()))
            .expression_attribute_values(":until", number(expires_at.as_secs()));
        if updated(slot).await?.is_none() {
            return Ok(false);
        }
        let answer = serde_dynamo::to_attribute_value(answer).map_err(AwsError::item(TABLE))?;
        let inbox = self
            .update(&self.inbox_key(&token.to_string()))
            .update_expression("SET answer = :answer, expires_at = :until")
            .condition_expression("expires_at > :now")
            .expression_attribute_values(":answer", answer)
            .expression_attribute_values(":until", number(expires_at.as_secs()))
            .expression_attribute_values(":now", number(now.as_secs()));
        Ok(updated(inbox).await?.is_some())
    }

    /// Deletes an inbox. What it has received is nobody's from then on, and goes when its time is over.
    pub async fn delete(&self, workspace: &WorkspaceId, deleted: &StoredInbox) -> Result<(), AwsError> {
        let key = self.inbox_key(&deleted.inbox.token.to_string());
        let inbox = self.client.delete_item().table_name(&self.table).set_key(Some(key.attributes()));
        inbox.send().await.map_err(AwsError::call(DELETE))?;
        // Another inbox may have the slot by now.
        let slot = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(self.slot_key(workspace, deleted.slot).attributes()))
            .condition_expression("id = :id")
            .expression_attribute_values(":id", text(deleted.inbox.id.to_string()));
        match slot.send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(AwsError::call(DELETE)(error)),
            },
        }
    }

    /// Notes that a subscription posts to the workspace's inbox that has this token, if there is such a one. An inbox that
    /// knows as many as it can notes no more.
    pub async fn note_subscription(
        &self,
        workspace: &WorkspaceId,
        token: InboxToken,
        subscription: SubscriptionId,
    ) -> Result<(), AwsError> {
        let request = self
            .update(&self.inbox_key(&token.to_string()))
            .update_expression("ADD subscriptions :subscription")
            .condition_expression(
                "workspace = :workspace AND (attribute_not_exists(subscriptions) OR size(subscriptions) < :max)",
            )
            .expression_attribute_values(":subscription", AttributeValue::Ss(vec![subscription.to_string()]))
            .expression_attribute_values(":workspace", text(workspace.to_string()))
            .expression_attribute_values(":max", AttributeValue::N(SUBSCRIPTIONS_MAX.to_string()));
        updated(request).await.map(drop)
    }

    /// The oldest of what an inbox has received after the request with the number `after`, at most `limit` requests; fewer
    /// if they are large. A request that is still on its way into the table ends the answer, so that whoever asks for
    /// what came after the last one it knows misses none.
    pub async fn requests(
        &self,
        stored: &StoredInbox,
        after: u64,
        limit: i32,
        now: UnixMillis,
    ) -> Result<Vec<KeptRequest>, AwsError> {
        let newest = stored.received;
        let oldest_kept = newest.saturating_sub(REQUESTS_KEPT - 1).max(1);
        let mut next = after.saturating_add(1).max(oldest_kept);
        while next <= newest {
            let end = newest.min(end_of_round(next));
            let (found, is_all) = self.between(&stored.inbox.token, next, end, limit).await?;
            let read_to =
                found.last().filter(|_| !is_all).map_or(end, |last| next - place(next) + place(last.number));
            let (requests, is_waiting) = settled(found, next, now);
            if is_waiting || !requests.is_empty() {
                return Ok(requests);
            }
            next = read_to + 1;
        }
        Ok(Vec::new())
    }

    /// Counts a request to an inbox; `None`: there is no such inbox.
    pub async fn count(&self, token: InboxToken, now: UnixMillis) -> Result<Option<Counted>, AwsError> {
        let request = self
            .update(&self.inbox_key(&token.to_string()))
            .update_expression("SET last_at = :now ADD received :one")
            .condition_expression("expires_at > :seconds")
            .expression_attribute_values(":now", number(now.0))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":seconds", number(now.as_secs()))
            .return_values(ReturnValue::AllOld);
        let Some(before) = updated(request).await? else { return Ok(None) };
        let InboxItem { answer, received, last_at, .. } = read_inbox(before)?;
        Ok(Some(Counted { answer, number: received + 1, at: now, previous_at: last_at }))
    }

    /// Keeps a request that was counted, in the place of the one that had its place a round before. A later one stays.
    pub async fn keep(&self, token: InboxToken, counted: &Counted, request: Request) -> Result<(), AwsError> {
        let Counted { number: n, at, previous_at, .. } = *counted;
        let Request { method, path, headers, body } = request;
        let expires_at = (at + REQUEST_KEPT).as_secs();
        let item = RequestItem { v: VERSION, n, at, previous_at, method, path, headers, body, expires_at };
        let key = self.request_key(&token, n);
        let condition = ("attribute_not_exists(pk) OR n < :n", Some((":n", number(n))));
        self.put(&key, &item, Some(condition)).await.map(drop)
    }

    async fn slots(&self, workspace: &WorkspaceId) -> Result<Vec<(u8, SlotItem)>, AwsError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(partition(workspace)));
        let items = query.send().await.map_err(AwsError::call(QUERY))?.items.unwrap_or_default();
        items.into_iter().map(read_slot).collect()
    }

    /// What is in the places of these numbers, which lie on one round, and whether that is all.
    async fn between(
        &self,
        token: &InboxToken,
        first: u64,
        last: u64,
        limit: i32,
    ) -> Result<(Vec<KeptRequest>, bool), AwsError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(limit)
            .key_condition_expression("pk = :pk AND sk BETWEEN :first AND :last")
            .expression_attribute_values(":pk", text(format!("IN#{token}")))
            .expression_attribute_values(":first", text(request_sort_key(first)))
            .expression_attribute_values(":last", text(request_sort_key(last)));
        let answer = query.send().await.map_err(AwsError::call(QUERY))?;
        let items = answer.items.unwrap_or_default().into_iter();
        Ok((items.map(read_request).collect::<Result<_, _>>()?, answer.last_evaluated_key.is_none()))
    }

    /// Puts an item if the condition holds; `false` if it does not.
    async fn put(
        &self,
        key: &Key,
        item: &impl Serialize,
        condition: Option<(&str, Option<(&str, AttributeValue)>)>,
    ) -> Result<bool, AwsError> {
        let mut attributes: Item = serde_dynamo::to_item(item).map_err(AwsError::item(TABLE))?;
        attributes.extend(key.attributes());
        let mut request = self.client.put_item().table_name(&self.table).set_item(Some(attributes));
        if let Some((condition, value)) = condition {
            request = request.condition_expression(condition);
            if let Some((name, value)) = value {
                request = request.expression_attribute_values(name, value);
            }
        }
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(AwsError::call(PUT)(error)),
            },
        }
    }

    fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).set_key(Some(key.attributes()))
    }

    fn slot_key(&self, workspace: &WorkspaceId, slot: u8) -> Key {
        self.key(partition(workspace), format!("{slot:03}"))
    }

    fn inbox_key(&self, token: &str) -> Key {
        self.key(format!("IN#{token}"), "inbox".to_owned())
    }

    fn request_key(&self, token: &InboxToken, number: u64) -> Key {
        self.key(format!("IN#{token}"), request_sort_key(number))
    }

    fn key(&self, pk: String, sk: String) -> Key {
        Key { table: self.table.clone(), pk, sk: Some(sk) }
    }
}

/// What of the places that were read, from the one of the number `first` on, a reader may see; and whether one of them waits
/// for its request. A place without the request that belongs there has lost it to a later one, or to time, or to a
/// function that failed before it was kept; or it is on its way. The request behind tells when that was counted.
fn settled(found: Vec<KeptRequest>, first: u64, now: UnixMillis) -> (Vec<KeptRequest>, bool) {
    let round = first - place(first);
    let mut requests = Vec::new();
    let mut next = first;
    for kept in found {
        let belongs = round + place(kept.number);
        if kept.number < belongs {
            continue;
        }
        if kept.number == belongs {
            if belongs > next && now.since(kept.previous_at) < ON_ITS_WAY {
                return (requests, true);
            }
            if kept.expires_at > now.as_secs() {
                requests.push(kept);
            }
        }
        next = belongs + 1;
    }
    (requests, false)
}

#[derive(Serialize, Deserialize)]
struct SlotItem {
    v: u32,
    id: InboxId,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscriber: Option<SubscriberId>,
    expires_at: u64,
}

#[derive(Serialize, Deserialize)]
struct InboxItem {
    v: u32,
    id: InboxId,
    workspace: WorkspaceId,
    /// When its workspace was made.
    made_at: UnixMillis,
    answer: Answer,
    created_at: UnixMillis,
    /// When the latest request came; before the first, when the inbox was made.
    last_at: UnixMillis,
    received: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subscriptions: Vec<SubscriptionId>,
    expires_at: u64,
}

#[derive(Serialize, Deserialize)]
struct RequestItem {
    v: u32,
    /// Its number.
    n: u64,
    at: UnixMillis,
    previous_at: UnixMillis,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    expires_at: u64,
}

impl InboxItem {
    fn is_there(&self, made_at: UnixMillis, now: UnixMillis) -> bool {
        self.made_at == made_at && self.expires_at > now.as_secs()
    }

    fn stored(self, slot: SlotItem, number: u8) -> Result<StoredInbox, AwsError> {
        let token = slot.token.parse().map_err(|_| unreadable("its token is none"))?;
        let inbox = Inbox {
            id: self.id,
            token,
            subscriber: slot.subscriber,
            answer: self.answer,
            created_at: self.created_at,
            expires_at: UnixMillis(self.expires_at.saturating_mul(1000)),
        };
        let Self { subscriptions, received, .. } = self;
        Ok(StoredInbox { inbox, subscriptions, received, slot: number })
    }
}

fn read_slot(item: Item) -> Result<(u8, SlotItem), AwsError> {
    let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok()?.parse().ok());
    let slot = sort_key.ok_or_else(|| unreadable("its sort key is no slot"))?;
    let item: SlotItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    readable(item.v)?;
    Ok((slot, item))
}

fn read_inbox(item: Item) -> Result<InboxItem, AwsError> {
    let item: InboxItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    readable(item.v)?;
    Ok(item)
}

fn read_request(item: Item) -> Result<KeptRequest, AwsError> {
    let item: RequestItem = serde_dynamo::from_item(item).map_err(AwsError::item(TABLE))?;
    readable(item.v)?;
    let RequestItem { n, at, previous_at, method, path, headers, body, expires_at, .. } = item;
    let request = Request { method, path, headers, body };
    Ok(KeptRequest { number: n, received_at: at, request, previous_at, expires_at })
}

fn readable(version: u32) -> Result<(), AwsError> {
    if version == VERSION { Ok(()) } else { Err(unreadable(&format!("it has version {version}"))) }
}

fn unreadable(detail: &str) -> AwsError {
    AwsError::Item { table: TABLE, detail: detail.to_owned() }
}

/// Makes a conditional update: what it returns, or `None` where the condition does not hold.
async fn updated(request: UpdateItemFluentBuilder) -> Result<Option<Item>, AwsError> {
    match request.send().await {
        Ok(updated) => Ok(Some(updated.attributes.unwrap_or_default())),
        Err(error) => match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(None),
            _ => Err(AwsError::call(UPDATE)(error)),
        },
    }
}

fn partition(workspace: &WorkspaceId) -> String {
    format!("WS#{workspace}")
}

fn request_sort_key(number: u64) -> String {
    format!("REQ#{:03}", place(number))
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn text(value: String) -> AttributeValue {
    AttributeValue::S(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_339_800_000);

    /// A request that came so many seconds ago, as the one before it did.
    fn request(number: u64, seconds_ago: u64) -> KeptRequest {
        let at = NOW.minus(Duration::from_secs(seconds_ago));
        KeptRequest {
            number,
            received_at: at,
            request: Request {
                method: "POST".to_owned(),
                path: "/".to_owned(),
                headers: vec![("a".to_owned(), "b".to_owned())],
                body: vec![0, 255],
            },
            previous_at: at,
            expires_at: (at + REQUEST_KEPT).as_secs(),
        }
    }

    fn seen(first: u64, found: &[(u64, u64)]) -> (Vec<u64>, bool) {
        let found = found.iter().map(|(number, seconds_ago)| request(*number, *seconds_ago)).collect();
        let (requests, is_waiting) = settled(found, first, NOW);
        (requests.into_iter().map(|request| request.number).collect(), is_waiting)
    }

    #[test]
    fn what_is_there_is_seen_in_its_order() {
        assert_eq!(seen(1, &[]), (vec![], false));
        assert_eq!(seen(1, &[(1, 1), (2, 1), (3, 0)]), (vec![1, 2, 3], false));
        assert_eq!(seen(1498, &[(1498, 1), (1499, 1)]), (vec![1498, 1499], false));
    }

    #[test]
    fn what_is_on_its_way_ends_what_is_seen_until_it_is_too_late() {
        assert_eq!(seen(1, &[(1, 1), (3, 1)]), (vec![1], true));
        assert_eq!(seen(1, &[(2, 29)]), (vec![], true));
        assert_eq!(seen(1, &[(1, 1), (3, 30)]), (vec![1, 3], false));
        // Its place still has the request of a round before.
        assert_eq!(seen(501, &[(501, 1), (2, 90), (503, 1)]), (vec![501], true));
        assert_eq!(seen(501, &[(501, 1), (2, 90)]), (vec![501], false));
    }

    #[test]
    fn what_lost_its_place_or_its_time_is_not_waited_for() {
        let a_day = REQUEST_KEPT.as_secs();
        assert_eq!(seen(1, &[(1, a_day), (2, a_day - 1)]), (vec![2], false));
        // A burst of more than a round comes in while the ring is read.
        assert_eq!(seen(1, &[(501, 0), (502, 0), (3, 1)]), (vec![3], false));
        // The one before came a day ago, and is gone.
        let mut new = request(2, 0);
        new.previous_at = NOW.minus(REQUEST_KEPT);
        assert_eq!(settled(vec![new.clone()], 1, NOW), (vec![new], false));
    }

    #[test]
    fn items_are_read_as_they_were_written() {
        let item = RequestItem {
            v: VERSION,
            n: 7,
            at: NOW,
            previous_at: NOW,
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: vec![("a".to_owned(), "b".to_owned())],
            body: vec![0, 255],
            expires_at: (NOW + REQUEST_KEPT).as_secs(),
        };
        assert_eq!(read_request(serde_dynamo::to_item(&item).unwrap()).unwrap(), request(7, 0));
        let inbox = InboxItem {
            v: VERSION,
            id: InboxId::new(NOW, [7; 10]),
            workspace: "acme".parse().unwrap(),
            made_at: NOW,
            answer: Answer::new(503, 10).unwrap(),
            created_at: NOW,
            last_at: NOW,
            received: 3,
            subscriptions: Vec::new(),
            expires_at: NOW.as_secs(),
        };
        let mut item: Item = serde_dynamo::to_item(&inbox).unwrap();
        let subscription = SubscriptionId::new(NOW, [1; 10]);
        item.insert("subscriptions".to_owned(), AttributeValue::Ss(vec![subscription.to_string()]));
        let read = read_inbox(item.clone()).unwrap();
        assert_eq!((read.answer, read.received), (inbox.answer, 3));
        assert_eq!(read.subscriptions, vec![subscription]);
        let earlier = NOW.minus(Duration::from_secs(1));
        assert!(read.is_there(NOW, earlier) && !read.is_there(NOW, NOW), "its time is over");
        assert!(!read.is_there(earlier, earlier), "of a workspace that is no more");
        item.insert("v".to_owned(), number(2));
        assert!(read_inbox(item).is_err());
    }
}
