//! That no two keys meet, and that they lie evenly.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

fn keys(partitions: u16) -> Keys {
    Keys::new("acc", 0, partitions)
}

fn board(id: &str) -> BoardId {
    BoardId::new(id).unwrap()
}

/// Ids that are as like each other, and as like the words of the layout, as they may be.
const WORDS: [&str; 14] = [
    "p0",
    "p1",
    "p:0",
    "b:0",
    "meta",
    "journal",
    "likes:meta",
    "next",
    "next:scores",
    "owner:",
    "lease:pipeline",
    "0:meta",
    "{p:0}",
    "}:0:meta",
];

fn any_word() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(&WORDS[..]);
    prop_oneof![words.prop_map(str::to_owned), "[a-z0-9:{}_-]{1,12}", "\\PC{1,8}"]
}

fn any_key() -> impl Strategy<Value = Key> {
    let user = || any_word().prop_map(|id| UserId::new(&id).unwrap());
    let partition = || 0..64_u16;
    let board = prop_oneof!["[a-z0-9-]{1,32}", "p[0-9]{1,2}", Just("owner".to_owned()), Just("lease".to_owned())];
    prop_oneof![
        Just(Key::Owner),
        partition().prop_map(Key::Meta),
        partition().prop_map(Key::Journal),
        (partition(), user()).prop_map(|(partition, user)| Key::Likes(partition, user)),
        (partition(), any::<u64>(), user()).prop_map(|(partition, call, user)| Key::Staged(partition, call, user)),
        (partition(), user()).prop_map(|(partition, user)| Key::Answers(partition, user)),
        (partition(), user()).prop_map(|(partition, user)| Key::Rate(partition, user)),
        (partition(), any_word()).prop_map(|(partition, id)| Key::Event(partition, EventId::new(&id).unwrap())),
        (board, proptest::sample::select(&BoardKey::ALL[..]))
            .prop_map(|(id, key)| Key::Board(super::tests::board(&id), key)),
        proptest::sample::select(&BoardKey::ALL[..]).prop_map(|key| Key::Board(BoardId::likes(), key)),
        "[a-z]{1,12}".prop_map(Key::Lease),
        "[a-z]".prop_map(Key::Scratch),
    ]
}

proptest! {
    /// What reads back as one key is the name of no other.
    #[test]
    fn a_name_is_of_one_key_alone(key in any_key()) {
        let keys = keys(64);
        let name = keys.name(&key);
        prop_assert_eq!(keys.read(&name), Some(key.clone()), "{}", name);
        // Nor of a key that an earlier version made: what is removed of that is none of these.
        prop_assert_eq!(keys.former().read(&name), None, "{}", name);
        // Nor of another prefix, whatever that begins with or goes on with.
        for other in ["ac", "acc:b", "acc:lease", "acc:lease:pipeline", "b"] {
            prop_assert_eq!(Keys::new(other, 0, 64).read(&name), None);
            prop_assert_eq!(keys.read(&Keys::new(other, 0, 64).name(&key)), None);
            prop_assert_eq!(keys.former().read(&Keys::new(other, 0, 64).name(&key)), None);
        }
    }

    #[test]
    fn other_names_are_none_of_ours(name in "(acc)?:?\\{?[pb]?:?[0-9]{0,5}\\}?:?[0-9a-z:]{0,12}") {
        if let Some(key) = keys(4).read(&name) {
            prop_assert_eq!(keys(4).name(&key), name);
        }
    }
}

#[test]
fn what_an_earlier_version_named_is_found() {
    let former = keys(4).former();
    for (name, key) in [
        ("acc:{p3}:journal", Key::Journal(3)),
        ("acc:{p3}:likes:ann:b", Key::Likes(3, UserId::new("ann:b").unwrap())),
        ("acc:{p3}:ops:ann", Key::Answers(3, UserId::new("ann").unwrap())),
        ("acc:{p0}:scores", Key::Board(board("p0"), BoardKey::Scores)),
        ("acc:{_likes}:next:cursor", Key::Board(BoardId::likes(), BoardKey::NextCursor)),
        ("acc:lease:pipeline", Key::Lease("pipeline".to_owned())),
    ] {
        assert_eq!(former.read(name), Some(key), "{name}");
    }
    for other in
        ["acc:{p3}:other", "acc:{Daily}:meta", "acc:lease:x:{p3}:journal", "acc:p3:journal", "acc:{p03}:journal"]
    {
        assert_eq!(former.read(other), None, "{other}");
    }
}

#[test]
fn partitions_lie_in_the_middle_of_equal_shares() {
    for partitions in 1..=64_u16 {
        let keys = keys(partitions);
        let share = f64::from(SLOTS) / f64::from(partitions);
        for partition in 0..partitions {
            let slot = slot_of(&keys.name(&Key::Journal(partition)));
            let middle = (f64::from(partition) + 0.5) * share;
            assert!((f64::from(slot) - middle).abs() <= 1.0, "{partition} of {partitions}: {slot}, not {middle}");
            assert_eq!(slot_of(&keys.name(&Key::Likes(partition, UserId::new("{ann}").unwrap()))), slot);
        }
        // Over any number of servers none has two more than another.
        for servers in 1..=16 {
            let (least, most) = spread((0..partitions).map(|partition| keys.name(&Key::Meta(partition))), servers);
            assert!(most - least <= 1, "{partitions} partitions on {servers} servers: {least} to {most}");
        }
    }
}

/// The fewest and the most of these keys that one of so many servers has, each with an equal range of the slots.
fn spread(names: impl Iterator<Item = String>, servers: usize) -> (usize, usize) {
    let mut by_server: BTreeMap<usize, usize> = (0..servers).map(|server| (server, 0)).collect();
    for name in names {
        *by_server.get_mut(&(usize::from(slot_of(&name)) * servers / usize::from(SLOTS))).unwrap() += 1;
    }
    (*by_server.values().min().unwrap(), *by_server.values().max().unwrap())
}

fn of_board(id: &BoardId) -> String {
    keys(4).name(&Key::Board(id.clone(), BoardKey::Scores))
}

#[test]
fn the_boards_that_each_ledger_begins_with_lie_evenly() {
    let first = ["daily", "hourly", "weekly", "monthly", "all-time", "trending"].map(board);
    let first: Vec<_> = first.into_iter().chain([BoardId::likes()]).collect();
    for servers in 1..=first.len() {
        let (least, most) = spread(first.iter().map(of_board), servers);
        assert!(most - least <= 1, "{servers} servers: {least} to {most}");
    }
    for id in first {
        let slots: Vec<_> =
            BoardKey::ALL.iter().map(|key| slot_of(&keys(4).name(&Key::Board(id.clone(), *key)))).collect();
        assert!(slots.iter().all(|slot| *slot == slots[0]), "a step over a board has one slot");
    }
}

/// Any ids: as evenly as chance would have it. With 64 of 3 servers the fullest has a third and three standard deviations.
#[test]
fn boards_that_are_named_alike_do_not_crowd_together() {
    for pattern in ["board-#", "p#", "#", "shop-#-daily", "0000000000-0000000000-0000000-#"] {
        let names = (0..64).map(|n| of_board(&board(&pattern.replace('#', &n.to_string())))).collect::<Vec<_>>();
        let slots: HashMap<_, usize> = names.iter().fold(HashMap::new(), |mut slots, name| {
            *slots.entry(slot_of(name)).or_default() += 1;
            slots
        });
        assert!(slots.len() >= 60, "{pattern}: 64 boards in {} slots", slots.len());
        for servers in [2, 3, 6, 16_usize] {
            let mean = 64.0 / servers as f64;
            let (_, most) = spread(names.iter().cloned(), servers);
            assert!(most as f64 <= mean + 3.0 * mean.sqrt(), "{pattern} on {servers} servers: {most} on one");
        }
    }
}

#[test]
fn names_stay_as_they_are() {
    let keys = keys(4);
    let names = [
        Key::Owner,
        Key::Meta(0),
        Key::Likes(3, UserId::new("ann").unwrap()),
        Key::Board(BoardId::daily(), BoardKey::NextScores),
        Key::Lease("pipeline".to_owned()),
        Key::Scratch("h".to_owned()),
    ]
    .map(|key| keys.name(&key));
    let expected = [
        "acc:{owner:}",
        "acc:{p:9799}:0:meta",
        "acc:{p:10929}:3:likes:ann",
        "acc:{b:5144}:daily:next:scores",
        "acc:{lease:pipeline}",
        "acc:{doctor:}:h",
    ];
    assert_eq!(names, expected);
}
