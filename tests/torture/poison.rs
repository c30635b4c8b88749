//! Journal entries that can not be events, as a broken client of the same Redis might write them.

use acclaim::engine::redis::keys::Key;
use rand::Rng;
use rand::rngs::StdRng;

use crate::redis::{named, text};
use crate::world::{PARTITIONS, World};

/// Puts entries into the journal that can not be events.
pub async fn poison(world: &World, random: &mut StdRng) -> anyhow::Result<()> {
    const POISON: [&[&str]; 5] = [
        &["poison", "x"],
        &["id", "poison", "signal", "99", "product", "p0"],
        &["id", "poison", "signal", "4", "product", "p0", "user", "", "count", "one and a half", "recorded_at", "1"],
        &["poison", "\u{0}\u{1}\u{fffd}"],
        // The database can not keep this product.
        &[
            "id",
            "poison",
            "signal",
            "4",
            "product",
            "p\u{0}0",
            "user",
            "",
            "count",
            "1",
            "occurred_at",
            "1",
            "recorded_at",
            "1",
            "reverses",
            "",
        ],
    ];
    let mut pair = world.redis.lock().await;
    let primary = pair.primary();
    for _ in 0..random.random_range(1..6) {
        let partition = random.random_range(0..PARTITIONS);
        let epoch = primary.command(&["HGET", &named(Key::Meta(partition)), "epoch"]).await?;
        // Closed, while it is recovered.
        if text(&epoch).is_empty() {
            continue;
        }
        let (journal, id) = (named(Key::Journal(partition)), format!("{}-*", text(&epoch)));
        let mut words = vec!["XADD", &journal, &id];
        words.extend(POISON[random.random_range(0..POISON.len())]);
        primary.command(&words).await?;
        world.record.poisoned.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}
