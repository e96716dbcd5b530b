//! Kept connections that turn out to be closed.
//!
//! A receiver closes its idle connections when it likes. Most often that is seen before a request is written, and hyper
//! takes another connection. If it closes one at the very moment when a request is on its way, the request breaks off, and
//! says nothing of the receiver: whether it would answer is asked once more. It may then see the request twice, as with
//! any delivery.

use std::cell::Cell;
use std::io;

use reqwest::{Client, Error, Request, Response};
use tower::util::MapRequestLayer;

use crate::failure::cause;

tokio::task_local! {
    /// Whether a connection was made for the request that this task sends.
    static CONNECTED: Cell<bool>;
}

/// What a client's connector needs, so that it is seen when a connection is made.
pub(crate) fn layer<T>() -> MapRequestLayer<fn(T) -> T> {
    MapRequestLayer::new(noted)
}

/// Sends; once more if a kept connection broke before any answer.
pub(crate) async fn send(client: &Client, request: Request) -> Result<Response, Error> {
    let again = request.try_clone();
    let sending = async {
        let sent = client.execute(request).await;
        (sent, CONNECTED.with(Cell::get))
    };
    match (CONNECTED.scope(Cell::new(false), sending).await, again) {
        ((Err(error), false), Some(again)) if is_closed(&error) => client.execute(again).await,
        ((sent, _), _) => sent,
    }
}

/// The connector is called by the task that sends, so this knows whose connection it is.
fn noted<T>(destination: T) -> T {
    // Outside of a request, when the client makes one for its pool, nobody asks.
    _ = CONNECTED.try_with(|connected| connected.set(true));
    destination
}

/// Whether the other side closed the connection, in good order or not.
fn is_closed(error: &Error) -> bool {
    let closed =
        |error: &hyper::Error| error.is_incomplete_message() || error.is_closed() || error.is_canceled();
    let broken = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    };
    cause(error).is_some_and(closed) || cause(error).is_some_and(broken)
}
