//! Whether the engine's state is the one that the ledger needs: at a start, in recovery, and at a node's every look.

use crate::domain::Cursors;
use crate::engine::{PartitionSurvey, Survey};
use crate::ledger::Epoch;

/// Why an engine can't be worked on in an epoch of the ledger's; `None` where it can.
///
/// Both move on while they are looked at, so the ledger is read twice: `before` the survey, to tell a journal that has lost
/// what the ledger has, and `after` it (`None` where it does not answer), to tell a ledger that has gone back behind what
/// was announced as committed: one that was restored from an older copy, or whose standby was behind when it took over.
pub fn disagreement(epoch: &Epoch, before: &Cursors, survey: &Survey, after: Option<&Cursors>) -> Option<String> {
    let number = epoch.number;
    if number == 0 {
        return Some("the ledger is new".to_owned());
    }
    for (partition, here) in (0_u16..).zip(&survey.partitions) {
        if here.epoch != Some(number) {
            let present = here.epoch.map_or("closed".to_owned(), |present| format!("in epoch {present}"));
            return Some(format!("partition {partition} is {present}, and the ledger in epoch {number}"));
        }
        if here.history != epoch.history {
            return Some(format!(
                "partition {partition} is in another history of epoch {number}: the ledger was restored from an older copy, or \
                 is a copy"
            ));
        }
        // Of another epoch they say nothing here.
        let known = before.get(&partition).filter(|position| position.epoch == number);
        if let Some(known) = known
            && here.last.is_none_or(|last| last < *known)
        {
            return Some(format!("part of the journal of partition {partition} is gone: the ledger is at {known}"));
        }
        let announced = here.committed.max(known.copied());
        if let (Some(announced), Some(cursor)) = (announced, after.and_then(|after| after.get(&partition)))
            && announced > *cursor
        {
            return Some(format!(
                "the ledger has gone back: partition {partition} was committed up to {announced}, and is at {cursor} there"
            ));
        }
    }
    if !survey.has_witness {
        return Some("it was restarted, or is another one: it has not seen the epoch begin".to_owned());
    }
    None
}

/// The newest epoch of which the engine has anything; `None` for an empty one.
pub fn newest_epoch(survey: &Survey) -> Option<u64> {
    let epochs = |partition: &PartitionSurvey| partition.epoch.max(partition.last.map(|last| last.epoch));
    survey.partitions.iter().filter_map(epochs).max()
}
