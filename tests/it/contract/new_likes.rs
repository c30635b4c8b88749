//! Likes that are new: boards count them before the ledger has them.

use acclaim::engine::Progress;

use super::*;

/// A like or unlike in an epoch; whether its event is new.
async fn is_new(engine: &dyn Engine, epoch: u64, who: &str, id: &str, is_key_new: bool) -> bool {
    let (user, product, key) = (user(who), product("cup"), key(id));
    let request = LikeRequest { user, product, key, is_key_new, desired: Desired::Toggled, at: at(1) };
    let LikeOutcome::Done(answer) = engine.like(epoch, &request).await.unwrap() else { panic!("{who} {id}") };
    let events = events(engine, 0).await;
    events.into_iter().find(|(position, _)| *position == answer.position).unwrap().1.is_new
}

async fn committed(engine: &dyn Engine, epoch: u64, seq: u64) {
    let (from, position) = (Position::new(epoch, 0), Position::new(epoch, seq));
    engine.announce(&[Progress::Ledger { partition: 0, from, position }]).await.unwrap();
}

pub async fn rest_on_nothing_uncertain(make: Make) {
    let engine = &*opened(make, plain()).await;
    assert!(is_new(engine, 1, "ann", "k1", true).await);
    assert!(is_new(engine, 1, "ann", "k2", true).await, "what it rests on is new as well");
    assert!(!is_new(engine, 1, "bob", "k3", false).await);
    assert!(!is_new(engine, 1, "ann", "k4", true).await, "it stands behind one that may be refused");
    committed(engine, 1, 3).await;
    assert!(!is_new(engine, 1, "ann", "k5", true).await, "so does the one before it");
    committed(engine, 1, 5).await;
    assert!(is_new(engine, 1, "ann", "k6", true).await);
    assert!(!is_new(engine, 1, "bob", "k7", false).await);
    // All that was in the journal is in the ledger.
    engine.open(2, 8, LEDGER).await.unwrap();
    load(engine, 2, "ann", &[]).await;
    assert!(is_new(engine, 2, "ann", "k8", true).await);
}

pub async fn need_a_user_who_was_not_loaded_too_early(make: Make) {
    let engine = &*opened(make, plain()).await;
    let load_as_of = async |seq| {
        let ann = UserLikes {
            as_of: Position::new(1, seq),
            user: user("ann"),
            likes: vec![],
            unliked: vec![],
            answers: vec![],
        };
        engine.load_likes(1, &[ann], at(1)).await.unwrap();
    };
    let forget = async || engine.forget_likes(&[user("ann")], at(1)).await.unwrap();
    assert!(is_new(engine, 1, "ann", "k1", true).await);
    assert!(is_new(engine, 1, "bob", "k2", true).await);
    forget().await;
    load_as_of(1).await;
    // Whatever is committed since, it was read before.
    committed(engine, 1, 2).await;
    assert!(!is_new(engine, 1, "ann", "k3", true).await);
    committed(engine, 1, 3).await;
    assert!(is_new(engine, 1, "bob", "k4", true).await, "others are as they were");
    assert!(!is_new(engine, 1, "ann", "k5", true).await, "ann is loaded as before");
    let cups = engine.viewer_likes(1, &user("ann"), &[product("cup")], at(2)).await.unwrap().unwrap();
    assert_eq!(cups, [None]);
    assert_eq!(engine.held_likes(1, &[user("ann")], at(2)).await.unwrap(), [Some(vec![])]);
    forget().await;
    assert_eq!(engine.held_likes(1, &[user("ann")], at(2)).await.unwrap(), [None]);
    committed(engine, 1, 5).await;
    load_as_of(5).await;
    assert!(is_new(engine, 1, "ann", "k6", true).await);
}
