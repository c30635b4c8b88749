//! Delivery: how a group's frames come to its members.
//!
//! A new frame is put straight into the outlet of each member that waits for it and has one; only who has none, or can't take
//! a frame at once, is woken to take it by itself. A task woken for each delivery would cost more than the delivery.
//!
//! Invariant: nothing queues for a member. It holds a step, and there is one latest frame; who is more than a step behind
//! it has missed some. And no member holds up another: putting never waits.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use tokio::task::JoinSet;

use super::executor::Payload;
use crate::domain::FeedPosition;
use crate::live::ShownBuild;
use crate::pipeline::Metrics;

/// Members told by one task: about a millisecond's work, after which others have their turn on its thread.
const TOLD_AT_ONCE: usize = 128;

/// A member's way out that needs no task.
pub trait Outlet: Send {
    /// Takes a payload as the next one, or refuses it. Never waits.
    fn put(&self, payload: &Payload) -> Put;
}

/// What became of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    Whole,
    /// It is taken, and the member's task has to see to the rest of it.
    Part,
    /// Nothing is taken, and the member's task has to take the payload.
    Refused,
}

/// One event of a subscription.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    pub payload: Payload,
    /// Where it leads to, for transports whose clients can resume by themselves: `None` for what can't be resumed from.
    pub position: Option<FeedPosition>,
}

/// What all members are told at a step.
#[derive(Clone)]
pub struct Frame {
    pub step: u64,
    /// Of what is shown at this step.
    pub build: Option<ShownBuild>,
    pub events: Arc<[LiveEvent]>,
    /// How many single products are followed.
    pub followed: usize,
    /// Whether the subscription is over after it.
    pub is_last: bool,
}

/// What a group and its members share.
pub struct Delivery {
    latest: Mutex<Latest>,
    places: Mutex<BTreeMap<u64, Arc<Place>>>,
    metrics: Arc<Metrics>,
}

struct Latest {
    frame: Frame,
    /// Whether the group has ended, so that nothing follows.
    is_over: bool,
}

struct Place(Mutex<Held>);

/// How far a member is.
struct Held {
    /// The step that what it was given leads to.
    step: u64,
    build: Option<ShownBuild>,
    /// Of the member's task, while it has nothing left to give and waits for the next frame.
    waiting: Option<Waker>,
    outlet: Option<Box<dyn Outlet>>,
}

/// A member's place; given up when dropped.
pub struct Seat {
    delivery: Arc<Delivery>,
    id: u64,
    place: Arc<Place>,
}

/// A group's end of its delivery, which ends it when dropped.
pub struct Teller(Arc<Delivery>);

impl Delivery {
    pub fn new(metrics: Arc<Metrics>) -> (Teller, Arc<Self>) {
        let frame = Frame { step: 0, build: None, events: Arc::new([]), followed: 0, is_last: false };
        let latest = Mutex::new(Latest { frame, is_over: false });
        let delivery = Arc::new(Self { latest, places: Mutex::default(), metrics });
        (Teller(delivery.clone()), delivery)
    }

    /// A place for who has been given what leads to a step.
    pub fn seat(self: &Arc<Self>, step: u64, build: Option<ShownBuild>) -> Seat {
        let place = Arc::new(Place(Mutex::new(Held { step, build, waiting: None, outlet: None })));
        let mut places = lock(&self.places);
        let id = places.last_key_value().map_or(0, |(last, _)| last + 1);
        places.insert(id, place.clone());
        drop(places);
        Seat { delivery: self.clone(), id, place }
    }

    /// Tells some members, and counts those who need no task for it: one addition for all of them.
    fn tell(&self, places: &[Arc<Place>], frame: &Frame) {
        let put = places.iter().filter(|place| place.tell(frame)).count();
        self.metrics.delivered(put);
    }

    /// The first places from `id` on, and the id to go on with.
    fn places_from(&self, id: u64) -> (Vec<Arc<Place>>, Option<u64>) {
        let places = lock(&self.places);
        let mut from = places.range(id..);
        let part = from.by_ref().take(TOLD_AT_ONCE).map(|(_, place)| place.clone()).collect();
        (part, from.next().map(|(next, _)| *next))
    }
}

impl Teller {
    /// Tells all members. Comes back when each has its frame or is about to take it, so that a machine without time for
    /// that has fewer steps instead of members that miss some.
    pub async fn tell(&self, frame: Frame) {
        lock(&self.0.latest).frame = frame.clone();
        let mut told = JoinSet::new();
        let mut id = 0;
        loop {
            let (part, next) = self.0.places_from(id);
            let Some(next) = next else {
                self.0.tell(&part, &frame);
                break;
            };
            let (frame, delivery) = (frame.clone(), self.0.clone());
            told.spawn(async move { delivery.tell(&part, &frame) });
            id = next;
        }
        while told.join_next().await.is_some() {}
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        lock(&self.0.latest).is_over = true;
        for place in lock(&self.0.places).values() {
            place.wake();
        }
    }
}

impl Place {
    /// Whether the frame's payload was put straight.
    fn tell(&self, frame: &Frame) -> bool {
        let mut held = lock(&self.0);
        // Whoever doesn't wait looks for itself when it comes to wait.
        if held.waiting.is_none() || frame.step <= held.step {
            return false;
        }
        if let (Some(outlet), [event]) = (&held.outlet, &*frame.events)
            && frame.step == held.step + 1
            // After the last one there is more to say than a payload.
            && !frame.is_last
        {
            let put = outlet.put(&event.payload);
            if put != Put::Refused {
                (held.step, held.build) = (frame.step, frame.build);
            }
            if put == Put::Whole {
                return true;
            }
            drop(held);
            self.wake();
            return put == Put::Part;
        }
        drop(held);
        self.wake();
        false
    }

    fn wake(&self) {
        let waiting = lock(&self.0).waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl Seat {
    /// From now on, frames are put straight into `outlet` while [`Seat::next`] waits for one.
    pub fn put_into(&self, outlet: Box<dyn Outlet>) {
        lock(&self.place.0).outlet = Some(outlet);
    }

    /// The latest frame, once the member doesn't hold it, and whether it is the next one; `None` when the group has ended.
    pub async fn next(&self) -> Option<(Frame, bool)> {
        poll_fn(|context| {
            let mut held = lock(&self.place.0);
            let Latest { frame, is_over } = &*lock(&self.delivery.latest);
            if frame.step > held.step {
                held.waiting = None;
                return Poll::Ready(Some((frame.clone(), frame.step == held.step + 1)));
            }
            if *is_over {
                return Poll::Ready(None);
            }
            held.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The member's task was given a payload.
    pub fn counts_one(&self) {
        self.delivery.metrics.delivered(1);
    }

    /// What the member holds already.
    pub fn build(&self) -> Option<ShownBuild> {
        lock(&self.place.0).build
    }

    /// The member was given what leads to a frame's step.
    pub fn holds(&self, frame: &Frame) {
        let mut held = lock(&self.place.0);
        (held.step, held.build) = (frame.step, frame.build);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.delivery.places).remove(&self.id);
        // A task that is telling may still hold the place; nothing is put for a member that has left.
        *lock(&self.place.0) = Held { step: u64::MAX, build: None, waiting: None, outlet: None };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a place or what all share")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use futures_util::FutureExt;

    use super::*;

    /// Takes everything in one way, and counts it.
    #[derive(Clone)]
    struct Counting(Put, Arc<AtomicUsize>);

    impl Counting {
        fn new(put: Put) -> Self {
            Self(put, Arc::default())
        }

        fn count(&self) -> usize {
            self.1.load(Ordering::Relaxed)
        }
    }

    impl Outlet for Counting {
        fn put(&self, _: &Payload) -> Put {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn frame(step: u64) -> Frame {
        let event = LiveEvent { payload: Payload::from_static(b"{}"), position: None };
        Frame { step, build: Some((1, step)), events: Arc::new([event]), followed: 0, is_last: false }
    }

    fn seat(delivery: &Arc<Delivery>, outlet: &Counting) -> Seat {
        let seat = delivery.seat(0, None);
        seat.put_into(Box::new(outlet.clone()));
        seat
    }

    fn step_given(seat: &Seat) -> Option<(u64, bool)> {
        let given = seat.next().now_or_never()?;
        given.map(|(frame, follows)| (frame.step, follows))
    }

    #[tokio::test]
    async fn who_waits_is_put_what_comes_and_woken_only_for_the_rest() {
        for (put, woken, given) in [(Put::Whole, 0, None), (Put::Part, 1, None), (Put::Refused, 1, Some((1, true)))] {
            let (teller, delivery) = Delivery::new(Arc::default());
            let outlet = Counting::new(put);
            let seat = seat(&delivery, &outlet);
            let wakes = Arc::new(Woken::default());
            let waker = Waker::from(wakes.clone());
            let mut next = Box::pin(seat.next());
            assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            teller.tell(frame(1)).await;
            assert_eq!((outlet.count(), wakes.0.load(Ordering::Relaxed)), (1, woken), "{put:?}");
            assert_eq!(step_given(&seat), given, "{put:?}: nothing comes twice");
            assert_eq!(seat.build(), given.map_or(Some((1, 1)), |_| None));
        }
    }

    #[tokio::test]
    async fn who_does_not_wait_finds_the_latest_and_knows_what_it_missed() {
        let (teller, delivery) = Delivery::new(Arc::default());
        let outlet = Counting::new(Put::Whole);
        let seat = seat(&delivery, &outlet);
        teller.tell(frame(1)).await;
        assert_eq!(step_given(&seat), Some((1, true)));
        teller.tell(frame(2)).await;
        assert_eq!(step_given(&seat), Some((2, false)), "it was never said to hold the first");
        seat.holds(&frame(2));
        assert_eq!(step_given(&seat), None);
        assert_eq!(outlet.count(), 0);
        // Nor is anything put that would not follow.
        teller.tell(frame(4)).await;
        assert_eq!((outlet.count(), step_given(&seat)), (0, Some((4, false))));
    }

    #[tokio::test]
    async fn everybody_is_told_and_nobody_who_has_left() {
        let (teller, delivery) = Delivery::new(Arc::default());
        let (present, left) = (Counting::new(Put::Whole), Counting::new(Put::Whole));
        let seats: Vec<Seat> = (0..3 * TOLD_AT_ONCE).map(|_| seat(&delivery, &present)).collect();
        let gone = seat(&delivery, &left);
        let place = gone.place.clone();
        for seat in seats.iter().chain([&gone]) {
            assert_eq!(step_given(seat), None);
        }
        drop(gone);
        teller.tell(frame(1)).await;
        place.tell(&frame(1));
        assert_eq!((present.count(), left.count()), (seats.len(), 0));
        // The last frame is given, and after it the end.
        teller.tell(Frame { is_last: true, ..frame(2) }).await;
        assert_eq!((present.count(), step_given(&seats[0])), (seats.len(), Some((2, true))));
        seats[0].holds(&frame(2));
        let end = tokio::spawn(async move { seats[0].next().await.is_none() });
        tokio::task::yield_now().await;
        drop(teller);
        assert!(end.await.unwrap(), "a group's end wakes its members");
    }
}
