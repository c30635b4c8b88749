//! Recording producers' events: dedupe by id, and reversals.

use super::partition::Partition;
use crate::domain::{EntryBody, Event, EventId, Timestamp};
use crate::engine::{Original, RecordOutcome, RecordRequest, Result};

impl Partition {
    pub fn record(&mut self, epoch: u64, requests: &[RecordRequest], at: Timestamp) -> Result<Vec<RecordOutcome>> {
        self.journal.expect_epoch(epoch)?;
        Ok(requests.iter().map(|request| self.record_one(request, at)).collect())
    }

    fn record_one(&mut self, request: &RecordRequest, at: Timestamp) -> RecordOutcome {
        if self.events.get(&request.id, at).is_some() {
            return RecordOutcome::Duplicate;
        }
        let reversal = match &request.reverses {
            None => None,
            Some((id, given)) => {
                let Some(original) = self.events.get(id, at).or(given.as_ref()) else {
                    return RecordOutcome::UnknownOriginal;
                };
                if (&original.product, original.signal) != (&request.product, request.signal) {
                    return RecordOutcome::Mismatch;
                }
                if original.reversed {
                    return RecordOutcome::Duplicate;
                }
                Some((id.clone(), original.clone()))
            }
        };
        if self.journal.is_busy(&self.limits, at) {
            return RecordOutcome::Busy;
        }

        let (count, occurred_at) = match &reversal {
            Some((_, original)) => (-original.count, original.occurred_at),
            None => (request.count, request.occurred_at),
        };
        let position = self.journal.append(EntryBody::Event(Event {
            id: request.id.clone(),
            signal: request.signal,
            product: request.product.clone(),
            user: request.user.clone(),
            count,
            occurred_at,
            recorded_at: at,
            reverses: reversal.as_ref().map(|(id, _)| id.clone()),
            is_new: false,
        }));
        if let Some((id, original)) = reversal {
            self.remember(id, Original { reversed: true, ..original }, at);
        }
        let (signal, product) = (request.signal, request.product.clone());
        self.remember(request.id.clone(), Original { signal, product, count, occurred_at, reversed: false }, at);
        RecordOutcome::Recorded(position)
    }

    pub fn remember(&mut self, id: EventId, event: Original, at: Timestamp) {
        self.events.put(id, event, at, at.plus_ms(self.limits.event_memory_ms));
    }
}
