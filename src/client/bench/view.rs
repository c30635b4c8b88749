//! What a subscriber shows, kept by applying what it is sent, and the proof that each step follows from the one before.
//!
//! Invariant: a view without a [`Broken`] is one unbroken chain from its last snapshot, so that after quiet it must
//! equal the ranking.

use serde::Deserialize;

/// One event of `boardChanges`, as the subscription asks for it.
#[derive(Deserialize, Debug)]
#[serde(tag = "__typename")]
pub enum Event {
    #[serde(rename = "BoardSnapshot")]
    Snapshot { seq: u64, reason: String, entries: Vec<Entry> },
    #[serde(rename = "BoardDelta", rename_all = "camelCase")]
    Delta { seq: u64, from_seq: u64, changes: Vec<Change> },
    #[serde(rename = "BoardHeartbeat")]
    Heartbeat { seq: u64 },
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub rank: usize,
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub product_id: String,
    pub score: f64,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    kind: Kind,
    product_id: String,
    from_rank: Option<usize>,
    to_rank: Option<usize>,
    score: Option<f64>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Entered,
    Left,
    Moved,
    Rescored,
}

/// What every event begins with: enough to follow a chain without reading the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    pub seq: u64,
    pub step: Step<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    Snapshot { reason: &'a str },
    Delta { from_seq: u64 },
    Heartbeat,
}

impl Event {
    pub fn head(&self) -> Head<'_> {
        match self {
            Self::Snapshot { seq, reason, .. } => Head { seq: *seq, step: Step::Snapshot { reason } },
            Self::Delta { seq, from_seq, .. } => Head { seq: *seq, step: Step::Delta { from_seq: *from_seq } },
            Self::Heartbeat { seq } => Head { seq: *seq, step: Step::Heartbeat },
        }
    }
}

/// Why what a subscriber was sent can't be right.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Broken {
    #[error("the first event is not a snapshot")]
    NoSnapshot,
    #[error("gap: the delta to seq {seq} follows seq {from_seq}, and the subscriber holds seq {held}")]
    Gap { held: u64, from_seq: u64, seq: u64 },
    #[error("seq goes from {held} to {seq}")]
    Back { held: u64, seq: u64 },
    #[error("the snapshot's place {place} has rank {rank}")]
    Rank { place: usize, rank: usize },
    #[error("{product} is {kind} from {}, and it stood at {}", named(*.said), named(*.stood))]
    From { product: String, kind: &'static str, said: Option<usize>, stood: Option<usize> },
    #[error("{product} is {kind} to {} with {}", named(*.to), scored(*.score))]
    To { product: String, kind: &'static str, to: Option<usize>, score: Option<f64> },
    #[error("{product} is put at rank {rank}, below an empty place")]
    Hole { product: String, rank: usize },
    #[error("the score at rank {rank} is above the one before it")]
    Order { rank: usize },
    #[error("{len} places are shown, and {top} were asked for")]
    TooMany { len: usize, top: usize },
}

fn named(rank: Option<usize>) -> String {
    rank.map_or("no rank".to_owned(), |rank| format!("rank {rank}"))
}

fn scored(score: Option<f64>) -> String {
    score.map_or("no score".to_owned(), |score| format!("score {score}"))
}

/// The seq that a subscriber holds.
#[derive(Debug, Default)]
pub struct Chain(Option<u64>);

impl Chain {
    /// Takes one step. A broken chain goes on from what came, so that one gap counts once.
    pub fn take(&mut self, head: Head<'_>) -> Result<(), Broken> {
        let seq = head.seq;
        // A board that has never been shown is alive all the same.
        if self.0.is_none() && head.step == Step::Heartbeat {
            return Ok(());
        }
        match (head.step, self.0.replace(seq)) {
            (Step::Snapshot { .. }, _) => Ok(()),
            (_, None) => Err(Broken::NoSnapshot),
            (Step::Delta { from_seq }, Some(held)) if from_seq != held => Err(Broken::Gap { held, from_seq, seq }),
            (Step::Delta { .. }, Some(held)) if seq <= held => Err(Broken::Back { held, seq }),
            (Step::Heartbeat, Some(held)) if seq < held => Err(Broken::Back { held, seq }),
            _ => Ok(()),
        }
    }
}

/// The places that a subscriber shows, best first.
#[derive(Debug)]
pub struct View {
    top: usize,
    places: Vec<Place>,
}

impl View {
    pub fn new(top: usize) -> Self {
        Self { top, places: Vec::new() }
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn score(&self, product: &str) -> Option<f64> {
        self.places.iter().find(|place| place.product_id == product).map(|place| place.score)
    }

    /// Applies an event as the schema says; that it follows the one before is the [`Chain`]'s to know.
    pub fn apply(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Snapshot { entries, .. } => self.replace(entries)?,
            Event::Delta { changes, .. } => self.change(changes)?,
            Event::Heartbeat { .. } => {}
        }
        if self.places.len() > self.top {
            return Err(Broken::TooMany { len: self.places.len(), top: self.top });
        }
        descending(&self.places)
    }

    fn replace(&mut self, entries: Vec<Entry>) -> Result<(), Broken> {
        let wrong = entries.iter().zip(1..).find(|(entry, place)| entry.rank != *place);
        let wrong = wrong.map(|(entry, place)| Broken::Rank { place, rank: entry.rank });
        self.places = entries.into_iter().map(|entry| entry.place).collect();
        wrong.map_or(Ok(()), Err)
    }

    fn change(&mut self, changes: Vec<Change>) -> Result<(), Broken> {
        for change in &changes {
            let stood = self.places.iter().position(|place| place.product_id == change.product_id).map(|at| at + 1);
            change.check(stood)?;
        }
        self.places.retain(|place| changes.iter().all(|change| change.product_id != place.product_id));
        for Change { product_id, to_rank, score, .. } in changes {
            let (Some(rank), Some(score)) = (to_rank, score) else { continue };
            if rank > self.places.len() + 1 {
                return Err(Broken::Hole { product: product_id, rank });
            }
            self.places.insert(rank - 1, Place { product_id, score });
        }
        Ok(())
    }
}

impl Change {
    /// Whether its kind, its ranks and its score fit together, and fit the rank at which the product stood.
    fn check(&self, stood: Option<usize>) -> Result<(), Broken> {
        let product = || self.product_id.clone();
        let kind = match self.kind {
            Kind::Entered => "ENTERED",
            Kind::Left => "LEFT",
            Kind::Moved => "MOVED",
            Kind::Rescored => "RESCORED",
        };
        if self.from_rank != stood || stood.is_some() == (self.kind == Kind::Entered) {
            return Err(Broken::From { product: product(), kind, said: self.from_rank, stood });
        }
        let fits = match self.kind {
            Kind::Left => self.to_rank.is_none() && self.score.is_none(),
            Kind::Entered => self.to_rank.is_some_and(|rank| rank > 0) && self.score.is_some(),
            Kind::Moved => self.to_rank.is_some_and(|rank| rank > 0) && self.to_rank != stood && self.score.is_some(),
            Kind::Rescored => self.to_rank == stood && self.score.is_some(),
        };
        if fits { Ok(()) } else { Err(Broken::To { product: product(), kind, to: self.to_rank, score: self.score }) }
    }
}

/// Whether scores never rise towards the end.
pub fn descending(places: &[Place]) -> Result<(), Broken> {
    let rises = places.windows(2).position(|pair| pair[1].score > pair[0].score);
    rises.map_or(Ok(()), |at| Err(Broken::Order { rank: at + 2 }))
}

/// The first place at which a view differs from the ranking, said in words; `None` where they are equal.
pub fn difference(view: &[Place], ranking: &[Place]) -> Option<String> {
    let len = view.len().max(ranking.len());
    let at = (0..len).find(|at| view.get(*at) != ranking.get(*at))?;
    let said = |place: Option<&Place>| {
        place.map_or("nothing".to_owned(), |place| format!("{} with {}", place.product_id, place.score))
    };
    Some(format!("shows {} at rank {}, and the ranking {}", said(view.get(at)), at + 1, said(ranking.get(at))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    fn snapshot(rows: &[(&str, f64)]) -> Event {
        let entry = |(rank, (id, score)): (usize, &(&str, f64))| json!({ "rank": rank, "productId": id, "score": score, "product": null });
        let entries: Vec<_> = (1..).zip(rows).map(entry).collect();
        event(json!({ "__typename": "BoardSnapshot", "seq": 1, "reason": "INITIAL", "entries": entries }))
    }

    /// Kind, product, from, to, score.
    type Row<'a> = (&'a str, &'a str, Option<usize>, Option<usize>, Option<f64>);

    fn delta(rows: &[Row<'_>]) -> Event {
        let change = |(kind, id, from, to, score): &Row<'_>| json!({ "kind": kind, "productId": id, "fromRank": from, "toRank": to, "score": score });
        let changes: Vec<_> = rows.iter().map(change).collect();
        event(json!({ "__typename": "BoardDelta", "seq": 2, "fromSeq": 1, "changes": changes }))
    }

    fn view(rows: &[(&str, f64)]) -> View {
        let mut view = View::new(3);
        view.apply(snapshot(rows)).unwrap();
        view
    }

    fn shown(view: &View) -> Vec<(&str, f64)> {
        view.places().iter().map(|place| (place.product_id.as_str(), place.score)).collect()
    }

    const ABC: &[(&str, f64)] = &[("a", 3.0), ("b", 2.0), ("c", 1.0)];

    #[test]
    fn a_chain_goes_from_each_seq_to_the_next() {
        let take = |chain: &mut Chain, seq, step| chain.take(Head { seq, step });
        let mut chain = Chain::default();
        assert_eq!(take(&mut chain, 5, Step::Delta { from_seq: 4 }), Err(Broken::NoSnapshot));
        let mut chain = Chain::default();
        take(&mut chain, 0, Step::Heartbeat).unwrap();
        take(&mut chain, 7, Step::Snapshot { reason: "INITIAL" }).unwrap();
        take(&mut chain, 9, Step::Delta { from_seq: 7 }).unwrap();
        take(&mut chain, 9, Step::Heartbeat).unwrap();
        take(&mut chain, 10, Step::Delta { from_seq: 9 }).unwrap();
        // A snapshot replaces everything, a new epoch's begins to count anew.
        take(&mut chain, 2, Step::Snapshot { reason: "RECOVERED" }).unwrap();
        let gap = take(&mut chain, 5, Step::Delta { from_seq: 4 });
        assert_eq!(gap, Err(Broken::Gap { held: 2, from_seq: 4, seq: 5 }));
        assert!(gap.unwrap_err().to_string().starts_with("gap: the delta to seq 5 follows seq 4"));
        // It goes on from there, so that one gap counts once.
        take(&mut chain, 6, Step::Delta { from_seq: 5 }).unwrap();
        assert_eq!(take(&mut chain, 6, Step::Delta { from_seq: 6 }), Err(Broken::Back { held: 6, seq: 6 }));
        assert_eq!(take(&mut chain, 5, Step::Heartbeat), Err(Broken::Back { held: 6, seq: 5 }));
    }

    #[test]
    fn changes_are_applied_as_the_schema_says() {
        let mut view = view(ABC);
        view.apply(delta(&[
            ("LEFT", "c", Some(3), None, None),
            ("MOVED", "b", Some(2), Some(1), Some(5.0)),
            ("ENTERED", "d", None, Some(2), Some(4.0)),
            ("MOVED", "a", Some(1), Some(3), Some(3.0)),
        ]))
        .unwrap();
        assert_eq!(shown(&view), [("b", 5.0), ("d", 4.0), ("a", 3.0)]);
        view.apply(delta(&[("RESCORED", "b", Some(1), Some(1), Some(6.0))])).unwrap();
        view.apply(event(json!({ "__typename": "BoardHeartbeat", "seq": 2 }))).unwrap();
        assert_eq!(shown(&view), [("b", 6.0), ("d", 4.0), ("a", 3.0)]);
        view.apply(snapshot(&[("z", 1.0)])).unwrap();
        assert_eq!(shown(&view), [("z", 1.0)]);
    }

    #[test]
    fn a_wrong_place_is_told() {
        let wrong = |row: Row<'_>| view(ABC).apply(delta(&[row])).unwrap_err().to_string();
        for (row, said) in [
            // Not where it stood, or not there at all.
            (("MOVED", "b", Some(3), Some(1), Some(4.0)), "b is MOVED from rank 3, and it stood at rank 2"),
            (("LEFT", "x", Some(3), None, None), "x is LEFT from rank 3, and it stood at no rank"),
            (("ENTERED", "b", None, Some(1), Some(4.0)), "b is ENTERED from no rank, and it stood at rank 2"),
            (("ENTERED", "b", Some(2), Some(1), Some(4.0)), "b is ENTERED from rank 2, and it stood at rank 2"),
            // To a place that does not fit what it is called.
            (("MOVED", "b", Some(2), Some(2), Some(2.5)), "b is MOVED to rank 2 with score 2.5"),
            (("RESCORED", "b", Some(2), Some(1), Some(4.0)), "b is RESCORED to rank 1 with score 4"),
            (("LEFT", "c", Some(3), Some(3), None), "c is LEFT to rank 3 with no score"),
            (("ENTERED", "x", None, Some(1), None), "x is ENTERED to rank 1 with no score"),
            (("ENTERED", "x", None, Some(0), Some(9.0)), "x is ENTERED to rank 0 with score 9"),
            (("MOVED", "c", Some(3), Some(5), Some(0.1)), "c is put at rank 5, below an empty place"),
            (("ENTERED", "x", None, Some(1), Some(9.0)), "4 places are shown, and 3 were asked for"),
        ] {
            assert_eq!(wrong(row), said);
        }
        let gap = json!({ "__typename": "BoardSnapshot", "seq": 1, "reason": "GAP", "entries": [{ "rank": 2, "productId": "a", "score": 1 }] });
        assert_eq!(View::new(3).apply(event(gap)), Err(Broken::Rank { place: 1, rank: 2 }));
    }

    #[test]
    fn a_wrong_score_is_told() {
        // One that contradicts the order of the board shows at once.
        let rises = delta(&[("RESCORED", "b", Some(2), Some(2), Some(3.5))]);
        assert_eq!(view(ABC).apply(rises), Err(Broken::Order { rank: 2 }));
        assert_eq!(View::new(3).apply(snapshot(&[("a", 1.0), ("b", 2.0)])), Err(Broken::Order { rank: 2 }));
        // Any other shows against the ranking.
        let mut off = view(ABC);
        off.apply(delta(&[("RESCORED", "b", Some(2), Some(2), Some(2.5))])).unwrap();
        let ranking = view(ABC);
        let said = difference(off.places(), ranking.places()).unwrap();
        assert_eq!(said, "shows b with 2.5 at rank 2, and the ranking b with 2");
        assert_eq!(difference(ranking.places(), ranking.places()), None);
        let short = difference(&ranking.places()[..2], ranking.places()).unwrap();
        assert_eq!(short, "shows nothing at rank 3, and the ranking c with 1");
    }
}
