//! Taps: how a subscription's resolver and the group that runs it find each other.
//!
//! Invariant: a subscription has one tap, and takes the updates of one topic from it.

use std::sync::Mutex;

use async_graphql::Context;
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::errors::Failure;
use crate::live::{ResumeWith, Topic, Update};

/// Where a subscription's resolver says what it follows, and takes the updates from.
pub struct Tap(Mutex<Option<oneshot::Sender<Opened>>>);

impl Tap {
    pub fn new() -> (Self, oneshot::Receiver<Opened>) {
        let (sender, opened) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), opened)
    }
}

/// What it has said.
pub struct Opened {
    pub topic: Topic,
    pub rate: f64,
    pub resume_with: ResumeWith,
    pub updates: mpsc::Sender<Update>,
}

/// The updates of a topic, `rate` a second at most, for the subscription that is being resolved. Each must be answered by
/// exactly one event.
pub fn updates(ctx: &Context<'_>, topic: Topic, rate: f64) -> Result<impl Stream<Item = Update> + use<>, Failure> {
    resumed_updates(ctx, topic, rate, ResumeWith::default())
}

/// As [`updates`], for a topic that can be resumed.
pub fn resumed_updates(
    ctx: &Context<'_>,
    topic: Topic,
    rate: f64,
    resume_with: ResumeWith,
) -> Result<impl Stream<Item = Update> + use<>, Failure> {
    let tap: &Tap = ctx.data_unchecked();
    let opened = tap.0.lock().expect("nothing panics while it holds the tap").take();
    let opened = opened.ok_or_else(|| Failure::bad("query", "a subscription has exactly one field at its root"))?;
    let (updates, taken) = mpsc::channel(1);
    // Should nobody wait any more, nothing will ever come.
    opened.send(Opened { topic, rate, resume_with, updates }).ok();
    Ok(ReceiverStream::new(taken))
}
