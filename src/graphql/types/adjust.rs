//! A change of weights as an admin asks for it, and its checks.

use async_graphql::{ID, InputObject};

use super::scalars::DateTime;
use super::weights::Signal;
use crate::domain::{self, BoardId, Bucket, Hours, Timestamp};
use crate::graphql::errors::UserError;
use crate::graphql::inputs;
use crate::ledger::{Author, BoardDefinition, NewWeightRule};

#[derive(InputObject)]
pub struct WeightInput {
    pub signal: Signal,
    pub weight: f64,
}

/// What a rule sets and when it counts, checked.
struct Terms {
    weights: Vec<(domain::Signal, domain::Weight)>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    hours: Option<Hours>,
}

impl Terms {
    /// Adds everything that is wrong to `errors`.
    fn parse(
        weights: &[WeightInput],
        from: Option<DateTime>,
        until: Option<DateTime>,
        hours: Option<&[i32]>,
        errors: &mut Vec<UserError>,
    ) -> Self {
        if weights.is_empty() {
            errors.push(UserError::invalid("weights", "name at least one signal"));
        }
        let mut checked: Vec<(domain::Signal, domain::Weight)> = Vec::with_capacity(domain::Signal::ALL.len());
        for (index, input) in weights.iter().enumerate() {
            let signal = domain::Signal::from(input.signal);
            if weights[..index].iter().any(|earlier| earlier.signal == input.signal) {
                let message = format!("{} is given twice", signal.name());
                errors.push(UserError::invalid(&format!("weights.{index}.signal"), message));
            }
            match domain::Weight::from_f64(input.weight) {
                Ok(weight) => checked.push((signal, weight)),
                Err(error) => errors.push(UserError::invalid(&format!("weights.{index}.weight"), error)),
            }
        }
        let (from, until) = (from.map(|at| at.0), until.map(|at| at.0));
        if from.zip(until).is_some_and(|(from, until)| until <= from) {
            errors.push(UserError::invalid("until", "a rule ends after it begins"));
        } else if until.is_some_and(|until| {
            until <= Bucket::from_instant(from.unwrap_or(Timestamp::from_ms(i64::MIN))).starts_at()
        }) {
            let message = "signals count by quarters of an hour, and none begins within this time";
            errors.push(UserError::invalid("until", message));
        }
        let hours = hours.map(Hours::new).transpose().unwrap_or_else(|error| {
            errors.push(UserError::invalid("hours", error));
            None
        });
        Self { weights: checked, from, until, hours }
    }
}

#[derive(InputObject)]
pub struct AdjustWeightsInput {
    /// Null changes the default of every board; a board's own rules go before it.
    pub board: Option<ID>,
    /// Signals left out keep their weight.
    pub weights: Vec<WeightInput>,
    /// Null re-scores the open periods from their start. An instant, past or future, makes the rule count from there.
    pub from: Option<DateTime>,
    /// The rule ends by itself: an event season, a brand day.
    pub until: Option<DateTime>,
    /// Hours of the day, in the board's time zone, in which the rule counts. Null means all.
    pub hours: Option<Vec<i32>>,
    /// The version the admin looked at; CONFLICT if someone else changed it since. A preview does not look at it.
    pub expected_version: Option<i32>,
    pub note: String,
}

impl AdjustWeightsInput {
    /// Checks everything that is wrong; `boards` are those that there are, `now` says which of their periods are open.
    pub fn parse(
        self,
        author: impl FnOnce(String) -> Author,
        boards: &[BoardDefinition],
        now: Timestamp,
    ) -> Result<NewWeightRule, Vec<UserError>> {
        let mut errors = Vec::new();
        let is_board = |id: &BoardId| !id.is_hidden() && boards.iter().any(|known| known.board.id == *id);
        let board = self.board.and_then(|id| inputs::board("board", &id, is_board, &mut errors));
        let Terms { weights, from, until, hours } =
            Terms::parse(&self.weights, self.from, self.until, self.hours.as_deref(), &mut errors);
        let reached = boards.iter().map(|known| &known.board);
        let reached =
            reached.filter(|known| !known.id.is_hidden() && board.as_ref().is_none_or(|own| *own == known.id));
        // Without `from` a rule counts in open periods only.
        if let (None, Some(until), Some(opened)) = (from, until, reached.map(|known| known.period_at(now).first).min())
            && until <= opened.starts_at()
            && errors.is_empty()
        {
            let message = format!("the rule would count nowhere: the open period begins at {}", opened.starts_at());
            errors.push(UserError::invalid("until", message));
        }
        if self.expected_version.is_some_and(|version| version < 0) {
            errors.push(UserError::invalid("expectedVersion", "a version is 0 or more"));
        }
        inputs::check_note(&self.note, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let expected_version = self.expected_version;
        Ok(NewWeightRule { board, weights, from, until, hours, author: author(self.note), expected_version })
    }
}

#[derive(InputObject)]
pub struct CancelWeightsInput {
    /// Of a rule that `admin.weightRules` lists.
    pub id: ID,
    pub note: String,
}

impl CancelWeightsInput {
    /// The version of the rule, and all that is wrong.
    pub fn parse(&self) -> Result<i32, Vec<UserError>> {
        let mut errors = Vec::new();
        let version = self.id.parse().ok().filter(|version| *version > 0);
        if version.is_none() {
            errors.push(UserError::invalid("id", format!("{:?} is not the id of a rule", self.id.0)));
        }
        inputs::check_note(&self.note, &mut errors);
        version.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Board, Window};

    fn board() -> Board {
        Board::new(BoardId::daily(), "Daily", Window::Day, jiff::tz::TimeZone::UTC)
    }

    fn input(weights: &[(Signal, f64)], note: &str) -> AdjustWeightsInput {
        let weights = weights.iter().map(|(signal, weight)| WeightInput { signal: *signal, weight: *weight }).collect();
        AdjustWeightsInput {
            board: None,
            weights,
            from: None,
            until: None,
            hours: None,
            expected_version: None,
            note: note.to_owned(),
        }
    }

    fn ann(note: String) -> Author {
        Author { name: "ann".to_owned(), at: Timestamp::now(), note }
    }

    fn paths(input: AdjustWeightsInput) -> Vec<String> {
        let definition = BoardDefinition { board: board(), revision: 0, closed_from: None, reopened: 0 };
        let errors = input.parse(ann, &[definition], Timestamp::parse("2026-11-22T12:00:00Z").unwrap()).err();
        errors.into_iter().flatten().map(|error| error.path.unwrap().join(".")).collect()
    }

    #[test]
    fn changes_are_checked_whole() {
        assert_eq!(paths(input(&[(Signal::View, 0.5)], "more")), [""; 0]);
        assert_eq!(paths(input(&[], "")), ["weights", "note"]);
        assert_eq!(
            paths(input(&[(Signal::View, 0.5), (Signal::View, -1.0)], "x")),
            ["weights.1.signal", "weights.1.weight"]
        );
        assert_eq!(paths(input(&[(Signal::View, 0.5)], &"x".repeat(501))), ["note"]);
        let mut elsewhere = input(&[(Signal::View, 0.5)], "x");
        elsewhere.board = Some(ID("weekly".to_owned()));
        let errors = elsewhere.parse(ann, &[], Timestamp::now()).unwrap_err();
        assert_eq!(errors[0].code, crate::graphql::errors::UserErrorCode::NotFound);
    }

    #[test]
    fn a_rule_that_would_count_nowhere_is_refused() {
        let until = |from: Option<&str>, until: &str| {
            let at = |text: &str| DateTime(Timestamp::parse(text).unwrap());
            paths(AdjustWeightsInput {
                from: from.map(at),
                until: Some(at(until)),
                ..input(&[(Signal::View, 0.5)], "x")
            })
        };
        // It is noon on the 22nd.
        assert_eq!(until(None, "2026-11-22T00:00:00Z"), ["until"]);
        assert_eq!(until(None, "2026-11-22T00:00:01Z"), [""; 0], "the first quarter of the day counts anew");
        assert_eq!(
            until(Some("2026-11-20T00:00:00Z"), "2026-11-21T00:00:00Z"),
            [""; 0],
            "for when that day is rebuilt"
        );
        assert_eq!(until(Some("2026-11-23T09:01:00Z"), "2026-11-23T09:15:00Z"), ["until"]);
        assert_eq!(until(Some("2026-11-23T09:01:00Z"), "2026-11-23T09:15:01Z"), [""; 0]);
        assert_eq!(until(Some("1700-01-01T00:00:00Z"), "2026-11-23T09:00:00Z"), [""; 0], "means: ever since");
    }

    #[test]
    fn a_rule_ends_after_it_begins_and_hours_are_of_a_day() {
        let weights = [WeightInput { signal: Signal::View, weight: 0.5 }];
        let wrong = |from: Option<&str>, until: Option<&str>, hours: Option<&[i32]>| {
            let at = |text: &str| DateTime(Timestamp::parse(text).unwrap());
            let mut errors = Vec::new();
            Terms::parse(&weights, from.map(at), until.map(at), hours, &mut errors);
            errors.into_iter().map(|error| error.path.unwrap().join(".")).collect::<Vec<_>>()
        };
        let (noon, one) = (Some("2026-11-22T12:00:00Z"), Some("2026-11-22T13:00:00Z"));
        assert_eq!(wrong(noon, one, Some(&[0, 23])), [""; 0]);
        assert_eq!(wrong(None, noon, None), [""; 0]);
        assert_eq!(wrong(one, noon, Some(&[24])), ["until", "hours"]);
        assert_eq!(wrong(noon, noon, Some(&[])), ["until", "hours"]);
    }
}
