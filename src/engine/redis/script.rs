//! The scripts, one file each in `lua/`, where each says its keys, arguments and reply.
//!
//! A Redis that has no memory left refuses what writes, which is right for likes and events. What frees memory, and what
//! leads to it, runs all the same, with the flag `allow-oom`: leases, announcements, boards (their cursors hold the trim),
//! an epoch's beginning. What these add is bounded by the catalogue and the number of boards.
//!
//! Invariants: a call names a script by its SHA-1 and never brings the text, so that a Redis which has lost its scripts
//! (and with them perhaps its state) says so: NOSCRIPT. One script is the same in all versions, the [`Witness`]: a server
//! that has it has seen the epoch begin, whatever else it lacks.

use std::sync::{Arc, OnceLock};

pub struct Script {
    pub source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    const fn new(source: &'static str) -> Self {
        Self { source, sha: OnceLock::new() }
    }

    /// The name that EVALSHA takes.
    pub fn sha(&self) -> &str {
        self.sha.get_or_init(|| sha1_smol::Sha1::from(self.source).digest().to_string())
    }
}

pub static LIKE: Script = Script::new(concat!(include_str!("lua/age.lua"), include_str!("lua/like.lua")));
pub static LOAD_LIKES: Script = Script::new(include_str!("lua/load_likes.lua"));
pub static VIEWER_LIKES: Script = Script::new(include_str!("lua/viewer_likes.lua"));
pub static HELD_LIKES: Script = Script::new(include_str!("lua/held_likes.lua"));
pub static FORGET_LIKES: Script = Script::new(include_str!("lua/forget_likes.lua"));
pub static CHARGE: Script = Script::new(include_str!("lua/charge.lua"));
pub static RECORD: Script = Script::new(concat!(include_str!("lua/age.lua"), include_str!("lua/record.lua")));
pub static CLAIM: Script = Script::new(include_str!("lua/claim.lua"));
pub static UNDO: Script = Script::new(include_str!("lua/undo.lua"));
pub static OPEN: Script = Script::new(include_str!("lua/open.lua"));
pub static BOARD: Script = Script::new(include_str!("lua/board.lua"));
pub static BEGIN_GENERATION: Script = Script::new(include_str!("lua/begin_generation.lua"));
pub static LOAD_SCORES: Script =
    Script::new(concat!("#!lua flags=allow-oom\n", include_str!("lua/exact.lua"), include_str!("lua/load_scores.lua")));
pub static SET_CURSORS: Script = Script::new(include_str!("lua/set_cursors.lua"));
pub static APPLY: Script =
    Script::new(concat!("#!lua flags=allow-oom\n", include_str!("lua/exact.lua"), include_str!("lua/apply.lua")));
pub static SWITCH: Script = Script::new(include_str!("lua/switch.lua"));
pub static DROP_BOARD: Script = Script::new(include_str!("lua/drop_board.lua"));
pub static PAGE: Script = Script::new(concat!(include_str!("lua/told.lua"), include_str!("lua/page.lua")));
pub static ENTRIES: Script = Script::new(include_str!("lua/entries.lua"));
pub static WHOLE: Script = Script::new(concat!(include_str!("lua/told.lua"), include_str!("lua/whole.lua")));
pub static PUBLISH: Script = Script::new(include_str!("lua/publish.lua"));
pub static ANNOUNCE: Script = Script::new(include_str!("lua/announce.lua"));
pub static LEASE: Script = Script::new(include_str!("lua/lease.lua"));
pub static RELEASE: Script = Script::new(include_str!("lua/release.lua"));

/// Says that a server has seen an epoch begin, and still is the process that did: scripts are neither replicated nor kept on disk.
/// Epoch and history stand in its text, so each beginning of an epoch has its own.
pub struct Witness {
    pub epoch: u64,
    pub source: String,
    pub sha: Arc<str>,
}

impl Witness {
    /// The text is the same in all versions, so that they can work side by side. It must never change.
    pub fn of(epoch: u64, history: u64) -> Self {
        let source = format!("-- Acclaim: this server has seen epoch {epoch} begin, in history {history}\nreturn 1");
        let sha = sha1_smol::Sha1::from(&source).digest().to_string().into();
        Self { epoch, source, sha }
    }
}

/// All steps, which `open` and `join` load.
pub static ALL: [&Script; 24] = [
    &LIKE,
    &LOAD_LIKES,
    &VIEWER_LIKES,
    &HELD_LIKES,
    &FORGET_LIKES,
    &CHARGE,
    &RECORD,
    &CLAIM,
    &UNDO,
    &OPEN,
    &BOARD,
    &BEGIN_GENERATION,
    &LOAD_SCORES,
    &SET_CURSORS,
    &APPLY,
    &SWITCH,
    &DROP_BOARD,
    &PAGE,
    &ENTRIES,
    &WHOLE,
    &PUBLISH,
    &ANNOUNCE,
    &LEASE,
    &RELEASE,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two versions that work side by side each knows the other's.
    #[test]
    fn the_witness_never_changes() {
        assert_eq!(&*Witness::of(7, 12).sha, "37f4eda61e752309425bcdd7f0d6fc716bf1aa3c");
        assert_ne!(Witness::of(7, 12).sha, Witness::of(7, 13).sha);
        assert_ne!(Witness::of(71, 2).sha, Witness::of(7, 12).sha);
    }
}
