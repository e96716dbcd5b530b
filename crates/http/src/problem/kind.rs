//! The kinds of problems, as they are documented.

use http::StatusCode;

/// What problems of one type have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemKind {
    /// The last segment of its type, `/problems/{name}`, where it is explained.
    pub name: &'static str,
    /// A summary that is the same each time.
    pub title: &'static str,
    /// The HTTP status that it is answered with.
    pub status: StatusCode,
    /// What has happened, and what to do.
    pub explanation: &'static str,
}

/// Makes a constant of each kind and the list of all, so that none can be missing in it.
macro_rules! kinds {
    ($($id:ident { $name:literal, $title:literal, $status:ident, $explanation:literal })*) => {
        $(pub(super) const $id: &ProblemKind = &ProblemKind {
            name: $name,
            title: $title,
            status: StatusCode::$status,
            explanation: $explanation,
        };)*

        /// All there are.
        pub(super) const ALL: &[ProblemKind] = &[$(*$id),*];
    };
}

kinds! {
    INVALID {
        "invalid", "The request has wrong fields", BAD_REQUEST,
        "The request could be read, but what it says cannot be accepted. `errors` lists the wrong fields, all of them up \
         to a bound: `pointer` is a JSON Pointer into the body, or `header:NAME`, `query:NAME` or `path:NAME`; `detail` \
         says what would be right. Correct them; the same request is refused each time."
    }
    UNAUTHORIZED {
        "unauthorized", "The request needs a valid token", UNAUTHORIZED,
        "The operation needs an access token, in the header `Authorization: Bearer`, and there was none, or one that is \
         not valid: expired, not for Carillon, or not from the issuer that this deployment trusts. Get a new token from \
         the issuer's token endpoint and send the request again."
    }
    INSUFFICIENT_SCOPE {
        "insufficient-scope", "The token lacks a scope", FORBIDDEN,
        "The token is valid, but it was not issued for operations like this one. The header `WWW-Authenticate` names the \
         scopes that are needed; ask the issuer for a token that has them."
    }
    FORBIDDEN {
        "forbidden", "The client's role does not include this", FORBIDDEN,
        "The client has a role in the workspace, but the operation is for others. An administrator can change the grant."
    }
    NOT_FOUND {
        "not-found", "There is no such thing here", NOT_FOUND,
        "What the path names does not exist, or not for this client: what lies outside of a client's grant is answered as \
         if it were not there. Check the path, and whether the client has a grant in the workspace."
    }
    METHOD_NOT_ALLOWED {
        "method-not-allowed", "The path has other methods", METHOD_NOT_ALLOWED,
        "The path exists, but not with this method. The header `Allow` lists those that it has."
    }
    WORKSPACE_EXISTS {
        "workspace-exists", "A workspace of this id exists", CONFLICT,
        "A workspace's id is chosen by whoever creates it, once. Choose another, or use the workspace that exists."
    }
    WORKSPACE_IN_USE {
        "workspace-in-use", "The workspace has subscriptions", CONFLICT,
        "A workspace that has subscriptions is not deleted by mistake. Delete them first, or delete the workspace with \
         all that it holds by `?cascade=true`."
    }
    WORKSPACE_DELETING {
        "workspace-deleting", "The workspace is being deleted", CONFLICT,
        "A job deletes the workspace with all that it holds; nothing in it can be changed any more. Its id is free again \
         when the job has ended."
    }
    TITLE_TAKEN {
        "title-taken", "The subscriber has a subscription of this title", CONFLICT,
        "A subscription's title is unique for its subscriber. Choose another title, or change the subscription that has it."
    }
    NOT_CONFIRMED {
        "not-confirmed", "The endpoint's owner has not confirmed", CONFLICT,
        "Nothing is sent to an endpoint before its owner has said that it wants to be called. `POST .../verify` asks the \
         owner again."
    }
    EVENT_TYPE_CONFLICT {
        "event-type-conflict", "Another definition has this name and version", CONFLICT,
        "A version of an event type never changes, and a type of the catalogue cannot be defined anew. Put the new \
         definition under the next version, or under another name."
    }
    EVENT_TYPE_IN_USE {
        "event-type-in-use", "A rule names this event type", CONFLICT,
        "Deadlines and cascades of the workspace name it. Write the rules without it first."
    }
    DELIVERY_NOT_FAILED {
        "delivery-not-failed", "The delivery has not failed", CONFLICT,
        "Only what has failed is delivered again as a matter of course; `detail` says where the delivery stands. With `force` \
         one that is under way is begun anew, and one that was delivered is delivered once more."
    }
    DELIVERY_CANCELLED {
        "delivery-cancelled", "The delivery was cancelled", CONFLICT,
        "Its subscription was deleted before it was done. It is delivered to nobody any more."
    }
    SUBSCRIPTION_NOT_ACTIVE {
        "subscription-not-active", "The subscription gets no deliveries", CONFLICT,
        "The subscription is disabled, or its endpoint's owner has not confirmed it yet, so what was delivered again would \
         fail again. Enable it or have it confirmed first. A paused subscription is no obstacle: what it is to get is held."
    }
    JOB_NOT_CANCELLABLE {
        "job-not-cancellable", "The job cannot be cancelled", CONFLICT,
        "It has ended already, or it deletes a workspace, which is of no use to anybody when it is half deleted."
    }
    TOO_MANY_SECRETS {
        "too-many-secrets", "Too many secrets still sign", CONFLICT,
        "Secrets that were rotated sign beside the present one until their overlap ends, and the subscription has as many \
         of them as it may have. Wait until one has ended, or choose shorter overlaps."
    }
    TOO_MANY_INBOXES {
        "too-many-inboxes", "There are as many inboxes as there may be", CONFLICT,
        "A workspace has a bounded number of inboxes, and one subscriber has a share of them. Delete one that is no longer \
         needed, or wait until one's time is over: `expiresAt` says when."
    }
    TOO_EARLY_TO_ROTATE {
        "too-early-to-rotate", "The next key waits, or too many are needed", CONFLICT,
        "A workspace's next key is published a while before it signs, and one at a time waits for that. A key that was \
         replaced is kept until the events that it has signed are gone, and there are only so many. `GET .../keys` lists \
         them; rotate again when the next key signs, or when an old one is no longer needed."
    }
    PRECONDITION_FAILED {
        "precondition-failed", "It has changed in the meantime", PRECONDITION_FAILED,
        "The header `If-Match` names a state that is not the present one: somebody else was faster. Read it again, make \
         the change on what it is now, and send that with the new `ETag`."
    }
    IDEMPOTENCY_CONFLICT {
        "idempotency-conflict", "The key was used for another request", UNPROCESSABLE_ENTITY,
        "The `Idempotency-Key` came before with another request. A key belongs to one request and its repetitions; use a \
         new one for a new request."
    }
    EVENT_CONFLICT {
        "event-conflict", "Another event has this identity", CONFLICT,
        "An event with the same `source` and `id`, but other content, was accepted before. An event is immutable: what \
         is new needs a new `id`."
    }
    EVENT_TOO_LARGE {
        "event-too-large", "The event is too large", PAYLOAD_TOO_LARGE,
        "`detail` names the bound. Put large data where receivers can fetch it, and its address into the event."
    }
    BATCH_TOO_LARGE {
        "batch-too-large", "The batch is too large", PAYLOAD_TOO_LARGE,
        "`detail` names the bounds. Nothing of the batch was accepted; send it in parts."
    }
    BODY_TOO_LARGE {
        "body-too-large", "The body is too large", PAYLOAD_TOO_LARGE,
        "The body is larger than the operation takes. Nothing was changed."
    }
    UNSUPPORTED_MEDIA_TYPE {
        "unsupported-media-type", "The body is of the wrong type", UNSUPPORTED_MEDIA_TYPE,
        "The header `Content-Type` is missing or names another media type than the operation takes; `detail` says which."
    }
    UNAVAILABLE {
        "unavailable", "The service cannot do this at the moment", SERVICE_UNAVAILABLE,
        "A fault on Carillon's side. Nothing is known to have changed. Repeat the request after a moment, and a creation \
         with the same `Idempotency-Key`; if it keeps failing, name the answer's `x-request-id` to whoever runs Carillon."
    }
}
