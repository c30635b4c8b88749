//! Which slots of a Redis Cluster keys lie in. A hash tag is chosen for the slot that it lies in, so that partitions, and
//! boards, lie evenly over the servers of a cluster.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::domain::BoardId;

/// Slots of a Redis Cluster: its servers share them, each a range or more.
pub const SLOTS: u16 = 16_384;

/// Partition `i` of `P` lies in the middle of the `i`-th of `P` equal shares of the slots.
pub fn partition_tag(partition: u16, partitions: u16) -> String {
    let middle = (2 * u32::from(partition) + 1) * u32::from(SLOTS) / (2 * u32::from(partitions.max(1)));
    static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| numbers("p"));
    format!("p:{}", NUMBERS[(middle % u32::from(SLOTS)) as usize])
}

/// With this seed the seven boards that each ledger begins with lie as evenly as seven can, over up to seven servers.
const BOARDS_SEED: u64 = 83_705;

/// A board lies in a slot that its id alone decides, so that it stays there whatever other boards come and go.
pub fn board_tag(board: &BoardId) -> String {
    let hash = xxh3_64_with_seed(board.as_str().as_bytes(), BOARDS_SEED);
    static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| numbers("b"));
    format!("b:{}", NUMBERS[(hash % u64::from(SLOTS)) as usize])
}

/// By slot, the smallest number of which the tag `<space>:<number>` lies in it.
fn numbers(space: &str) -> Vec<u32> {
    let mut numbers = vec![None; usize::from(SLOTS)];
    let mut missing = numbers.len();
    for number in 0.. {
        let found = &mut numbers[usize::from(slot_of_tag(&format!("{space}:{number}")))];
        if found.is_none() {
            *found = Some(number);
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    numbers.into_iter().flatten().collect()
}

/// As the specification of Redis Cluster says: CRC-16/XMODEM of the hash tag.
fn slot_of_tag(tag: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

/// The slot in which a key of such a name lies.
pub fn slot_of(name: &str) -> u16 {
    let tagged = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    slot_of_tag(tagged.filter(|tag| !tag.is_empty()).unwrap_or(name))
}
