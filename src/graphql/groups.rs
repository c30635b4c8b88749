//! Groups: subscriptions that ask the same are executed once for each event, however many they are.
//!
//! ```text
//! member ──ask──> group's task: sequence ──update──> execution ──payload──> delivery ──> every member
//! ```
//!
//! A group's task owns the [`Sequence`] that its members follow and one running subscription, into which it puts an
//! update and takes out its payload. Steps go to all members as one frame; who joins, resumes or has fallen behind asks for
//! what leads to the present step, which is executed once for all who ask the same at that step. Who joins or resumes waits
//! until that step has reached what the board showed when it came ([`Hub::reach`]), and holds up nobody by that.
//!
//! Invariant: a member is given every frame that follows what it holds, or a snapshot that says why it was not; and
//! nobody is given what was executed for another viewer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_graphql::indexmap::IndexMap;
use async_graphql::{Response, ServerError, Variables};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered, unfold};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::answer::{Answer, Writer};
use super::delivery::{Delivery, Frame, LiveEvent, Outlet, Seat, Teller};
use super::document::{Field, NormalForm, Source};
use super::errors::Failure;
use super::executor::panicked;
use super::guards::Audience;
use super::sharing::{Execution, Toll};
use super::tap::{Opened, Tap};
use super::{Schema, errors, new_request_id, sharing};
use crate::domain::{FeedPosition, SnapshotReason};
use crate::engine::EngineError;
use crate::live::{BoardUpdate, FOLLOWED_MAX, Hub, ResumeWith, Sequence, ShownBuild, Update};
use crate::pipeline::{App, AppError, Metrics};

/// Members that may wait for an answer from one group. Beyond this they wait for their turn to wait.
const ASKS_MAX: usize = 1_024;
/// Answers kept within a step: who comes back after a cut has one of the last few positions, and clients could make up any
/// number of others.
const ASKED_MAX: usize = 64;
/// An event waits for the ledger at most, where it shows products that are not remembered. A group whose execution takes
/// longer ends, and its members begin anew.
const EXECUTE_TIME_MAX: Duration = Duration::from_secs(15);
/// When a member may try again whose position can't be looked up.
const RETRY_AFTER_MS: u64 = 1_000;

/// What makes subscriptions the same: who asks, and a hash of what is asked. Each key is kept for as long as its group is, and
/// variables may be long.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    asked: [u8; 32],
    audience: Audience,
}

impl Key {
    /// Of the variables, those that the normal form names.
    pub fn of(form: &NormalForm, variables: &Variables, audience: Audience) -> Self {
        let variables = serde_json::to_vec(variables).expect("variables came from JSON");
        let len = (form.text.len() as u64).to_be_bytes();
        let asked = Sha256::new().chain_update(len).chain_update(&form.text).chain_update(variables).finalize();
        Self { asked: asked.into(), audience }
    }
}

/// How many members there are. Cheap to clone.
#[derive(Clone, Default)]
pub struct OpenSubscriptions(Arc<AtomicUsize>);

impl OpenSubscriptions {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) -> Opening {
        self.0.fetch_add(1, Ordering::Relaxed);
        Opening(self.clone())
    }
}

/// One of them, until it is dropped.
struct Opening(OpenSubscriptions);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct Groups {
    schema: Schema,
    hub: Arc<Hub>,
    groups: Mutex<HashMap<Key, Weak<Group>>>,
    open: OpenSubscriptions,
}

struct Group {
    asks: mpsc::Sender<Ask>,
    delivery: Arc<Delivery>,
}

/// A member's wish for what leads to the present step.
struct Ask {
    want: Want,
    reply: oneshot::Sender<Result<Frame, Vec<ServerError>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Want {
    /// To begin.
    All,
    /// To begin where a client has come from; in the way that the document asks for, or in another.
    Since(FeedPosition, Option<ResumeWith>),
    /// To go on after missed steps, the last one of this build.
    After(Option<ShownBuild>),
}

impl Groups {
    pub fn new(schema: Schema, hub: Arc<Hub>, open: OpenSubscriptions) -> Arc<Self> {
        Arc::new(Self { schema, hub, groups: Mutex::default(), open })
    }

    pub fn app(&self) -> &Arc<App> {
        self.hub.app()
    }

    /// How many members there are.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.app().metrics()
    }

    /// Joins the group of `key`, which executes what `begin` gives where there is none. A member that resumes is given what it
    /// has missed. The response is why the subscription was refused.
    pub async fn join(
        self: &Arc<Self>,
        key: Key,
        begin: impl FnOnce() -> Execution,
        held: Option<FeedPosition>,
    ) -> Result<Member, Response> {
        let group = self.group(key, begin);
        let want = held.map_or(Want::All, |held| Want::Since(held, None));
        let first = group.ask(want).await.map_err(Response::from_errors)?;
        let seat = group.delivery.seat(first.step, first.build);
        let Frame { events: ready, followed, is_last, .. } = first;
        Ok(Member { group, seat, ready, given: 0, followed, is_last, _opening: self.open.one_more() })
    }

    fn group(self: &Arc<Self>, key: Key, begin: impl FnOnce() -> Execution) -> Arc<Group> {
        let mut groups = self.groups.lock().expect("nothing panics while it holds the groups");
        if let Some(group) = groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (teller, delivery) = Delivery::new(self.metrics().clone());
        let group = Arc::new(Group { asks, delivery });
        let own = Arc::downgrade(&group);
        groups.insert(key.clone(), own.clone());
        let (all, execution) = (self.clone(), begin());
        self.hub.spawn(async move {
            let stopping = all.hub.app().stopping();
            stopping.run_until_cancelled(serve(&all, execution, asked, teller)).await;
            let mut groups = all.groups.lock().expect("as above");
            // Whoever came after the last member had left has begun a new one under the same key.
            if let Entry::Occupied(entry) = groups.entry(key)
                && entry.get().ptr_eq(&own)
            {
                entry.remove();
            }
        });
        group
    }
}

/// Runs a group until its last member has left.
async fn serve(groups: &Groups, execution: Execution, mut asked: mpsc::Receiver<Ask>, teller: Teller) {
    let errors = match Running::start(groups, execution).await {
        Ok(running) => return running.serve(asked, teller).await,
        Err(response) => response.errors,
    };
    while let Some(ask) = asked.recv().await {
        // Whoever gave up waiting has dropped the other end.
        ask.reply.send(Err(errors.clone())).ok();
    }
}

/// A running subscription, fed update by update.
struct Running<'a> {
    groups: &'a Groups,
    form: Arc<NormalForm>,
    sequence: Sequence,
    resume_with: ResumeWith,
    cost: u64,
    toll: Option<Toll>,
    updates: mpsc::Sender<Update>,
    responses: BoxStream<'static, Response>,
    request_id: String,
    step: u64,
    /// What was executed for those who asked at this step.
    asked: HashMap<Want, (Arc<[LiveEvent]>, &'static str)>,
    /// Whether the last step could not be executed, so that the next one must not build on it.
    is_broken: bool,
}

impl<'a> Running<'a> {
    async fn start(groups: &'a Groups, execution: Execution) -> Result<Self, Response> {
        let Execution { form, variables, audience, cost, toll } = execution;
        let (tap, opened) = Tap::new();
        let request_id = new_request_id();
        if let [Field { source: Source::Invalid(failure), pos, key, .. }] = &form.root.fields[..] {
            return Err(errors::failed_at(failure.clone(), *pos, key, &request_id));
        }
        let [step] = &form.steps[..] else { unreachable!("only a mutation has several steps") };
        let request = step.request(variables).data(audience).data(tap);
        let stream = AssertUnwindSafe(groups.schema.execute_stream(request)).catch_unwind();
        let id = request_id.clone();
        let mut responses = stream
            .map(move |response| match response {
                Ok(response) => errors::told(response, &id),
                Err(panic) => panicked(panic.as_ref(), &id),
            })
            .boxed();
        let Opened { topic, rate, resume_with, updates } = tokio::select! {
            biased;
            Ok(opened) = opened => opened,
            refused = responses.next() => return Err(refused.unwrap_or_default()),
        };
        let sequence = groups.hub.sequence(topic, rate).map_err(|crowded| {
            errors::failed(Failure::too_many("followedProducts", FOLLOWED_MAX, crowded), &request_id)
        })?;
        let asked = HashMap::new();
        Ok(Self {
            groups,
            form,
            sequence,
            resume_with,
            cost,
            toll,
            updates,
            responses,
            request_id,
            step: 0,
            asked,
            is_broken: false,
        })
    }

    async fn serve(mut self, mut asks: mpsc::Receiver<Ask>, teller: Teller) {
        let mut reaching = FuturesUnordered::new();
        loop {
            let done = tokio::select! {
                ask = asks.recv(), if reaching.len() < ASKS_MAX => match ask {
                    Some(ask) => match self.reached(&ask) {
                        Some(reached) => {
                            reaching.push(async move { (ask, reached.await) });
                            Some(())
                        }
                        None => self.answer(ask, Ok(()), &teller).await,
                    },
                    None => return,
                },
                Some((ask, reached)) = reaching.next() => self.answer(ask, reached, &teller).await,
                updates = self.sequence.next() => match updates {
                    Some(updates) => {
                        let done = self.advance(updates, &teller).await;
                        sharing::pay(self.toll.as_ref(), self.cost).await;
                        done
                    }
                    None => return self.end(&teller).await,
                },
            };
            if done.is_none() {
                tracing::error!(request_id = self.request_id, "a subscription has ended by itself");
                return;
            }
        }
    }

    /// What an ask waits for: a client that begins may have read the board just before.
    fn reached(&self, ask: &Ask) -> Option<impl Future<Output = Result<(), EngineError>> + use<>> {
        let board = match ask.want {
            Want::All | Want::Since(..) => self.sequence.board()?.clone(),
            Want::After(_) => return None,
        };
        let hub = self.groups.hub.clone();
        Some(async move { hub.reach(&board).await })
    }

    async fn answer(&mut self, ask: Ask, reached: Result<(), EngineError>, teller: &Teller) -> Option<()> {
        let held = match ask.want {
            Want::Since(held, _) => Some(held),
            Want::All | Want::After(_) => None,
        };
        if !matches!(ask.want, Want::After(_)) {
            let updates = self.sequence.catch_up(held);
            if !updates.is_empty() {
                self.advance(updates, teller).await?;
            }
        }
        // What this node has may be older than what the client has seen.
        if let (Some(held), Err(error)) = (held, reached)
            && self.sequence.is_behind(held)
        {
            self.groups.metrics().resumed("unavailable");
            let away = AppError::Unavailable { reason: error.to_string(), retry_after_ms: RETRY_AFTER_MS };
            ask.reply.send(Err(errors::failed(away, &self.request_id).errors)).ok();
            return Some(());
        }
        let (events, led_on_by) = match self.asked.get(&ask.want) {
            Some(known) => known.clone(),
            None => {
                let updates = match ask.want {
                    Want::All => self.sequence.whole(SnapshotReason::Initial),
                    Want::Since(held, with) => self.sequence.since(held, with.unwrap_or(self.resume_with)).await,
                    Want::After(build) => self.sequence.whole_after(build),
                };
                let led_on_by = led_on_by(&updates);
                let events = self.execute(updates).await?.events;
                if self.asked.len() >= ASKED_MAX {
                    self.asked.clear();
                }
                self.asked.insert(ask.want, (events.clone(), led_on_by));
                (events, led_on_by)
            }
        };
        match ask.want {
            Want::All => {}
            Want::Since(..) => self.groups.metrics().resumed(led_on_by),
            Want::After(_) => self.groups.metrics().lagged(),
        }
        ask.reply.send(Ok(self.frame(events))).ok();
        Some(())
    }

    fn frame(&self, events: Arc<[LiveEvent]>) -> Frame {
        let (build, followed) = (self.sequence.build(), self.sequence.followed());
        Frame { step: self.step, build, events, followed, is_last: false }
    }

    /// Tells all members why nothing more will come, where it is not that the node stops.
    async fn end(mut self, teller: &Teller) {
        let Some(board) = self.sequence.deleted() else { return };
        let deleted = Failure::bad("board", format!("the board {board} has been deleted"));
        self.step += 1;
        let payload = Answer::from(errors::failed(deleted, &self.request_id)).payload;
        let events = Arc::new([LiveEvent { payload, position: None }]);
        teller.tell(Frame { is_last: true, ..self.frame(events) }).await;
    }

    async fn advance(&mut self, updates: Vec<Update>, teller: &Teller) -> Option<()> {
        let stands_alone =
            |update: &Update| matches!(update, Update::Board(BoardUpdate::Snapshot { .. }) | Update::Rule { .. });
        let leads_nowhere = !updates.iter().all(stands_alone);
        let is_broken = std::mem::take(&mut self.is_broken);
        let updates = if is_broken && leads_nowhere { self.sequence.whole(SnapshotReason::Gap) } else { updates };
        let Executed { events, has_failed } = self.execute(updates).await?;
        self.is_broken = has_failed;
        self.step += 1;
        self.asked.clear();
        teller.tell(self.frame(events)).await;
        Some(())
    }

    /// `None` where the subscription has ended, which a panic in a resolver makes it.
    async fn execute(&mut self, updates: Vec<Update>) -> Option<Executed> {
        let mut events = Vec::with_capacity(updates.len());
        let mut has_failed = false;
        for update in updates {
            if let Update::Board(BoardUpdate::Snapshot { reason, .. }) = &update {
                self.groups.metrics().snapshot(reason.name());
            }
            let leads_to = update.position();
            self.updates.send(update).await.ok()?;
            let response = timeout(EXECUTE_TIME_MAX, self.responses.next()).await.ok()??;
            self.groups.metrics().executed();
            let Answer { payload, is_null, .. } = self.write(response);
            has_failed |= is_null;
            events.push(LiveEvent { payload, position: leads_to.filter(|_| !is_null) });
        }
        Some(Executed { events: events.into(), has_failed })
    }

    fn write(&self, response: Response) -> Answer {
        if response.errors.iter().any(|error| error.path.is_empty()) {
            return response.into();
        }
        let none = IndexMap::new();
        let mut writer = Writer::new(&self.form, &none, &self.request_id);
        writer.step(0..1, response);
        writer.finish()
    }
}

/// How a member that resumes goes on, as it is counted.
fn led_on_by(updates: &[Update]) -> &'static str {
    match updates {
        [] => "nothing",
        [Update::Board(BoardUpdate::Delta { .. })] => "delta",
        _ => "snapshot",
    }
}

struct Executed {
    events: Arc<[LiveEvent]>,
    /// Whether one of them has errors instead of data.
    has_failed: bool,
}

impl Group {
    async fn ask(&self, want: Want) -> Result<Frame, Vec<ServerError>> {
        let (reply, answer) = oneshot::channel();
        let ended = || {
            let reason = "the server is stopping".to_owned();
            errors::failed(AppError::Unavailable { reason, retry_after_ms: 1_000 }, &new_request_id()).errors
        };
        self.asks.send(Ask { want, reply }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// A subscription that has begun.
pub struct Member {
    group: Arc<Group>,
    seat: Seat,
    ready: Arc<[LiveEvent]>,
    /// How many of `ready` were given.
    given: usize,
    followed: usize,
    /// Whether nothing follows `ready`.
    is_last: bool,
    _opening: Opening,
}

impl Member {
    /// Goes on from a state that the client holds, as it is known to the transport, by what has changed since. To be called
    /// before anything is taken.
    pub async fn resume_from(&mut self, held: FeedPosition) -> Result<(), Response> {
        let want = Want::Since(held, Some(ResumeWith::Delta));
        let frame = self.group.ask(want).await.map_err(Response::from_errors)?;
        self.take(frame);
        Ok(())
    }

    /// All that is still to come, as a stream.
    pub fn into_stream(self) -> BoxStream<'static, LiveEvent> {
        unfold(self, async |mut member| Some((member.next().await?, member))).boxed()
    }

    /// How many single products it follows.
    pub fn followed(&self) -> usize {
        self.followed
    }

    /// Whether the subscription has come to its end, and all was said.
    pub fn is_complete(&self) -> bool {
        self.is_last && self.given == self.ready.len()
    }

    /// From now on, payloads that can be are put straight into `outlet`, and [`Member::next`] gives the others.
    pub fn put_into(&self, outlet: Box<dyn Outlet>) {
        self.seat.put_into(outlet);
    }

    /// The next event; `None` when the subscription has ended. Can be cut off.
    pub async fn next(&mut self) -> Option<LiveEvent> {
        loop {
            if let Some(event) = self.ready.get(self.given) {
                self.given += 1;
                self.seat.counts_one();
                return Some(event.clone());
            }
            if self.is_last {
                return None;
            }
            let (mut frame, follows) = self.seat.next().await?;
            #[cfg(feature = "planted-bugs")]
            let follows = follows || crate::domain::planted::Bug::DeltasWithoutGapCheck.is_planted();
            if !follows && !frame.is_last {
                // Steps went by while the client took nothing.
                frame = self.group.ask(Want::After(self.seat.build())).await.ok()?;
            }
            self.take(frame);
        }
    }

    fn take(&mut self, frame: Frame) {
        self.seat.holds(&frame);
        (self.ready, self.given, self.is_last) = (frame.events, 0, frame.is_last);
    }
}
