//! Likes: one effect for each key, bounds that write nothing, and users who are loaded, read and forgotten.

use std::collections::{BTreeMap, BTreeSet};

use acclaim::domain::Signal;
use acclaim::engine::Progress;

use super::*;

const SET: Desired = Desired::Exactly(true);
const UNSET: Desired = Desired::Exactly(false);

pub async fn toggles_and_sets(make: Make) {
    let engine = &*opened(make, plain()).await;
    assert_eq!(toggle(engine, "ann", "cup", "k1", 1).await, done(true, true, 1, 1));
    assert_eq!(toggle(engine, "ann", "cup", "k2", 2).await, done(false, true, 2, 2));
    assert_eq!(like(engine, "ann", "cup", "k3", SET, 3).await, done(true, true, 3, 3));
    assert_eq!(like(engine, "ann", "cup", "k4", SET, 4).await, done(true, false, 3, 3));
    assert_eq!(toggle(engine, "bob", "cup", "k5", 5).await, done(true, true, 5, 4));
    assert_eq!(like(engine, "ann", "cup", "k6", UNSET, 6).await, done(false, true, 6, 5));
    assert_eq!(like(engine, "ann", "cup", "k7", UNSET, 7).await, done(false, false, 7, 5));
    assert_eq!(toggle(engine, "ann", "jug", "k8", 8).await, done(true, true, 8, 6));
}

pub async fn writes_an_event(make: Make) {
    let engine = &*opened(make, plain()).await;
    load(engine, 1, "cat", &[("jug", -5_000)]).await;
    toggle(engine, "ann", "cup", "a:b", 10).await;
    toggle(engine, "ann", "cup", "k2", 20).await;
    toggle(engine, "cat", "jug", "k3", 30).await;
    let event = |id: (&str, &str), what: &str, count, occurred, recorded| Event {
        id: EventId::of_like(&user(id.0), &key(id.1)),
        signal: Signal::Like,
        product: product(what),
        user: Some(user(id.0)),
        count,
        occurred_at: at(occurred),
        recorded_at: at(recorded),
        reverses: None,
        is_new: false,
    };
    // What takes a like back occurred when the like did.
    let expected = [
        event(("ann", "a:b"), "cup", 1, 10, 10),
        event(("ann", "k2"), "cup", -1, 10, 20),
        event(("cat", "k3"), "jug", -1, -5_000, 30),
    ];
    let expected: Vec<_> = (1..).map(|seq| Position::new(1, seq)).zip(expected).collect();
    assert_eq!(events(engine, 0).await, expected);
}

pub async fn no_change_answers_the_last_position(make: Make) {
    let engine = &*opened(make, plain()).await;
    assert_eq!(like(engine, "ann", "cup", "k1", UNSET, 1).await, done(false, false, 1, 0));
    toggle(engine, "ann", "cup", "k2", 2).await;
    toggle(engine, "bob", "cup", "k3", 3).await;
    assert_eq!(like(engine, "ann", "cup", "k4", SET, 4).await, done(true, false, 2, 2));
    engine.trim(0, Position::new(1, 2)).await.unwrap();
    assert_eq!(like(engine, "ann", "cup", "k5", SET, 5).await, done(true, false, 2, 2));
    assert_eq!(entries(engine, 0).await, []);
}

pub async fn replays_a_key(make: Make) {
    let engine = &*opened(make, plain()).await;
    let first = toggle(engine, "ann", "cup", "k", 1).await;
    let again = replayed(&first);
    assert_eq!(toggle(engine, "ann", "cup", "k", 2).await, again);
    assert_eq!(like(engine, "ann", "cup", "k", UNSET, 4).await, again);
    // A key is its user's own, and an answer that changed nothing is kept like any other.
    assert_eq!(toggle(engine, "bob", "cup", "k", 5).await, done(true, true, 5, 2));
    let unchanged = like(engine, "ann", "cup", "k2", SET, 6).await;
    assert_eq!(unchanged, done(true, false, 1, 2));
    toggle(engine, "ann", "cup", "k3", 7).await;
    assert_eq!(like(engine, "ann", "cup", "k2", SET, 8).await, replayed(&unchanged));
    assert_eq!(entries(engine, 0).await.len(), 3);
}

pub async fn refuses_a_key_of_another_product(make: Make) {
    let limits = EngineLimits { like_rate: 1, like_burst: 3, ..plain() };
    let engine = &*opened(make, limits).await;
    // Ids may hold spaces, and one may begin as another does.
    for (n, what) in ["cup", "cup 2", " cup"].into_iter().enumerate() {
        toggle(engine, "ann", what, &format!("k{n}"), 0).await;
    }
    for (n, what) in ["cup", "cup 2", " cup"].into_iter().enumerate() {
        for other in ["cup", "cup 2", " cup", "cup ", "c"] {
            for desired in [Desired::Toggled, SET, UNSET] {
                // Before the rate, which is spent by now.
                let expected = match other == what {
                    true => replayed(&done(true, true, 0, n as u64 + 1)),
                    false => LikeOutcome::Conflict,
                };
                assert_eq!(like(engine, "ann", other, &format!("k{n}"), desired, 0).await, expected, "{what} {other}");
            }
        }
    }
    assert_eq!(entries(engine, 0).await.len(), 3, "nothing was written");
    assert_eq!(toggle(engine, "ann", "c", "k3", 1_000).await, done(true, true, 1_000, 4), "nor the rate spent");
    // So with an answer that changed nothing, and with one that the ledger had.
    like(engine, "bob", "cup", "same", UNSET, 0).await;
    assert_eq!(toggle(engine, "bob", "jug", "same", 1).await, LikeOutcome::Conflict);
    let answer = LikeAnswer { liked: true, changed: true, at: at(-100), position: Position::new(1, 9) };
    let answers = vec![(key("old"), product("a cup"), answer)];
    engine
        .load_likes(
            1,
            &[UserLikes { as_of: Position::default(), user: user("cat"), likes: vec![], unliked: vec![], answers }],
            at(0),
        )
        .await
        .unwrap();
    assert_eq!(toggle(engine, "cat", "a jug", "old", 1).await, LikeOutcome::Conflict);
    assert_eq!(toggle(engine, "cat", "a cup", "old", 1).await, LikeOutcome::Replayed(answer));
    // A key is its user's own.
    assert_eq!(toggle(engine, "bob", "jug", "old", 2_000).await, done(true, true, 2_000, 5));
}

pub async fn replays_before_anything_else(make: Make) {
    let limits = EngineLimits { like_rate: 1, like_burst: 1, journal_len_max: 1, ..plain() };
    let engine = &*opened(make, limits).await;
    let first = toggle(engine, "ann", "cup", "k", 0).await;
    assert_eq!(toggle(engine, "ann", "cup", "other", 0).await, LikeOutcome::RateLimited { retry_after_ms: 1_000 });
    assert_eq!(toggle(engine, "ann", "cup", "other", 5_000).await, LikeOutcome::Busy);
    assert_eq!(toggle(engine, "ann", "cup", "k", 0).await, replayed(&first));
    // Answers outlive the epoch, likes do not.
    engine.open(2, 7, LEDGER).await.unwrap();
    let again = |id| LikeRequest {
        is_key_new: false,
        user: user("ann"),
        product: product("cup"),
        key: key(id),
        desired: Desired::Toggled,
        at: at(6_000),
    };
    assert_eq!(engine.like(2, &again("k")).await.unwrap(), replayed(&first));
    assert_eq!(engine.like(2, &again("other")).await.unwrap(), LikeOutcome::NotLoaded);
    assert!(is_lost(engine.like(1, &again("k")).await));
}

pub async fn keeps_sixteen_answers(make: Make) {
    let engine = &*opened(make, plain()).await;
    for n in 0..17 {
        toggle(engine, "ann", &format!("p{n}"), &format!("k{n}"), n).await;
    }
    assert_eq!(toggle(engine, "ann", "p1", "k1", 50).await, replayed(&done(true, true, 1, 2)));
    assert_eq!(toggle(engine, "ann", "p16", "k16", 50).await, replayed(&done(true, true, 16, 17)));
    // The first key has been forgotten: it has a new effect, which pushes the second out.
    assert_eq!(toggle(engine, "ann", "p0", "k0", 51).await, done(false, true, 51, 18));
    assert_eq!(toggle(engine, "ann", "p2", "k2", 52).await, replayed(&done(true, true, 2, 3)));
    assert_eq!(toggle(engine, "ann", "p1", "k1", 53).await, done(false, true, 53, 19));
}

pub async fn limits_the_rate(make: Make) {
    let engine = &*opened(make, EngineLimits { like_rate: 3, like_burst: 2, ..plain() }).await;
    let refused = |retry_after_ms| LikeOutcome::RateLimited { retry_after_ms };
    assert_eq!(toggle(engine, "ann", "cup", "k1", 0).await, done(true, true, 0, 1));
    // A like that changes nothing counts as well.
    assert_eq!(like(engine, "ann", "cup", "k2", SET, 0).await, done(true, false, 0, 1));
    // A third of a second is 333,333 whole microseconds; what is left of it is rounded up.
    assert_eq!(toggle(engine, "ann", "cup", "k3", 0).await, refused(334));
    assert_eq!(toggle(engine, "ann", "cup", "k3", 333).await, refused(1));
    assert_eq!(toggle(engine, "bob", "cup", "k3", 333).await, done(true, true, 333, 2));
    assert_eq!(toggle(engine, "ann", "cup", "k3", 334).await, done(false, true, 334, 3));
    assert_eq!(toggle(engine, "ann", "cup", "k4", 334).await, refused(333));
    // Idle time fills the burst, and no more than that.
    assert_eq!(toggle(engine, "ann", "cup", "k5", 60_000).await, done(true, true, 60_000, 4));
    assert_eq!(toggle(engine, "ann", "cup", "k6", 60_000).await, done(false, true, 60_000, 5));
    assert_eq!(toggle(engine, "ann", "cup", "k7", 60_000).await, refused(334));
}

pub async fn likes_again_at_the_time_of_the_first(make: Make) {
    let limits = EngineLimits { like_again_ms: 1_000, likes_max: 3, ..plain() };
    let engine = &*opened(make, limits).await;
    let occurred = async || {
        let (_, last) = events(engine, 0).await.pop().unwrap();
        (last.count, last.occurred_at.since_ms(at(0)))
    };
    let click = async |what: &str, key: &str, ms| {
        let answer = toggle(engine, "ann", what, key, ms).await;
        let LikeOutcome::Done(LikeAnswer { changed: true, at: answered, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(answered, at(ms), "the answer says when it was clicked");
        occurred().await
    };
    let held = async || {
        let mut held = engine.held_likes(1, &[user("ann")], at(0)).await.unwrap().remove(0).unwrap();
        held.sort();
        held
    };
    assert_eq!(click("cup", "k1", 0).await, (1, 0));
    assert_eq!(click("cup", "k2", 100).await, (-1, 0));
    assert_eq!(held().await, []);
    assert_eq!(engine.viewer_likes(1, &user("ann"), &[product("cup")], at(100)).await.unwrap(), Some(vec![None]));
    assert_eq!(click("cup", "k3", 999).await, (1, 0), "soon after");
    assert_eq!(
        engine.viewer_likes(1, &user("ann"), &[product("cup")], at(999)).await.unwrap(),
        Some(vec![Some(at(0))])
    );
    assert_eq!(click("cup", "k4", 5_000).await, (-1, 0));
    assert_eq!(click("cup", "k5", 5_001).await, (1, 5_001), "the first was long ago");
    assert_eq!(click("cup", "k6", 5_002).await, (-1, 5_001));
    assert_eq!(click("cup", "k7", 6_001).await, (1, 6_001), "not within the time any more");
    // What was unliked takes no room from likes, and the oldest is forgotten first.
    for (n, what) in ["jug", "pot"].into_iter().enumerate() {
        let ms = 6_100 + n as i64;
        click(what, &format!("on {what}"), ms).await;
        assert_eq!(click(what, &format!("off {what}"), 6_200).await, (-1, ms));
    }
    click("tin", "on tin", 6_300).await;
    assert_eq!(held().await, [product("cup"), product("tin")]);
    assert_eq!(click("pot", "again pot", 6_301).await, (1, 6_101));
    let full = toggle(engine, "ann", "jug", "again jug", 6_302).await;
    assert_eq!(full, LikeOutcome::TooMany);
    assert_eq!(click("pot", "off again", 6_303).await, (-1, 6_101));
    assert_eq!(click("jug", "again jug", 6_304).await, (1, 6_304), "forgotten");
    // The ledger knows it too. Of a product that comes twice the last counts, and a like counts before any.
    let unliked = vec![(product("cup"), at(7_000)), (product("jug"), at(6_900)), (product("cup"), at(7_100))];
    let bob = UserLikes {
        as_of: Position::default(),
        user: user("cat"),
        likes: vec![(product("jug"), at(6_950))],
        unliked,
        answers: vec![],
    };
    engine.load_likes(1, &[bob], at(7_200)).await.unwrap();
    assert!(matches!(
        toggle(engine, "cat", "cup", "k1", 7_200).await,
        LikeOutcome::Done(LikeAnswer { liked: true, .. })
    ));
    assert_eq!(occurred().await, (1, 7_100));
    assert!(matches!(
        toggle(engine, "cat", "jug", "k2", 7_200).await,
        LikeOutcome::Done(LikeAnswer { liked: false, .. })
    ));
    assert_eq!(occurred().await, (-1, 6_950));
}

pub async fn charges_after_the_fact(make: Make) {
    let engine = &*opened(make, EngineLimits { like_rate: 3, like_burst: 2, ..plain() }).await;
    assert_eq!(toggle(engine, "ann", "cup", "k1", 0).await, done(true, true, 0, 1));
    engine.charge_likes(&user("ann"), 1, at(0)).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k2", 0).await, LikeOutcome::RateLimited { retry_after_ms: 334 });
    // Nobody owes more than a burst.
    engine.charge_likes(&user("ann"), 1_000, at(0)).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k2", 0).await, LikeOutcome::RateLimited { retry_after_ms: 334 });
    assert_eq!(toggle(engine, "ann", "cup", "k2", 334).await, done(false, true, 334, 2));
    engine.charge_likes(&user("bob"), 1, at(0)).await.unwrap();
    assert_eq!(toggle(engine, "bob", "cup", "k1", 0).await, done(true, true, 0, 3));
    assert_eq!(toggle(engine, "bob", "cup", "k2", 0).await, LikeOutcome::RateLimited { retry_after_ms: 334 });
}

pub async fn rate_survives_a_clock_set_back(make: Make) {
    let engine = &*opened(make, EngineLimits { like_rate: 10, like_burst: 3, ..plain() }).await;
    toggle(engine, "ann", "cup", "k1", 3_600_000).await;
    // The time stored is an hour ahead, which no burst explains: one like is let through, and the next must wait.
    assert!(matches!(toggle(engine, "ann", "cup", "k2", 0).await, LikeOutcome::Done(_)));
    assert_eq!(toggle(engine, "ann", "cup", "k3", 0).await, LikeOutcome::RateLimited { retry_after_ms: 100 });
    assert!(matches!(toggle(engine, "ann", "cup", "k3", 100).await, LikeOutcome::Done(_)));
}

pub async fn refusals_write_nothing(make: Make) {
    // With a burst of one, a refusal that spent the rate would show at the next like.
    let limits = EngineLimits { like_rate: 1, like_burst: 1, journal_len_max: 2, ..plain() };
    let engine = &*opened(make, limits).await;
    assert_eq!(toggle(engine, "new", "cup", "k1", 0).await, LikeOutcome::NotLoaded);
    load(engine, 1, "new", &[]).await;
    assert_eq!(toggle(engine, "new", "cup", "k1", 0).await, done(true, true, 0, 1));
    toggle(engine, "ann", "cup", "k2", 0).await;
    assert_eq!(toggle(engine, "bob", "cup", "k3", 0).await, LikeOutcome::Busy);
    // The rate is looked at before the user and the journal.
    assert_eq!(toggle(engine, "ann", "cup", "k4", 0).await, LikeOutcome::RateLimited { retry_after_ms: 1_000 });
    engine.forget_likes(&[user("ann")], at(1)).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k4", 0).await, LikeOutcome::RateLimited { retry_after_ms: 1_000 });
    assert_eq!(toggle(engine, "ann", "cup", "k4", 1_000).await, LikeOutcome::NotLoaded);
    engine.trim(0, Position::new(1, 2)).await.unwrap();
    assert_eq!(toggle(engine, "bob", "cup", "k3", 0).await, done(true, true, 0, 3));
    assert_eq!(entries(engine, 0).await.len(), 1);
}

pub async fn loads_once(make: Make) {
    let engine = &*opened(make, plain()).await;
    load(engine, 1, "cat", &[("cup", -10), ("jug", -20)]).await;
    load(engine, 1, "cat", &[("pot", -30)]).await;
    load(engine, 1, "ann", &[("cup", -40)]).await;
    assert_eq!(like(engine, "cat", "cup", "k1", SET, 1).await, done(true, false, -10, 0));
    assert_eq!(toggle(engine, "cat", "pot", "k2", 2).await, done(true, true, 2, 1));
    assert_eq!(toggle(engine, "ann", "cup", "k3", 3).await, done(true, true, 3, 2));
}

pub async fn loads_answers_as_older(make: Make) {
    let engine = &*opened(make, plain()).await;
    let answer = |seq| LikeAnswer { liked: true, changed: true, at: at(-100), position: Position::new(1, seq) };
    let stored = |n| (key(&format!("old{n}")), product("cup"), answer(n));
    let load_answers = async |answers: Vec<_>| {
        let loaded =
            UserLikes { as_of: Position::default(), user: user("ann"), likes: vec![], unliked: vec![], answers };
        engine.load_likes(1, &[loaded], at(0)).await.unwrap();
    };
    let known = toggle(engine, "ann", "cup", "k", 1).await;
    // Fifteen places are left: the five oldest of twenty find none. A key that is known keeps its answer.
    let mut answers: Vec<_> = (100..120).map(stored).collect();
    answers.push((key("k"), product("cup"), answer(7)));
    load_answers(answers).await;
    assert_eq!(toggle(engine, "ann", "cup", "k", 2).await, replayed(&known));
    for n in 105..120 {
        let outcome = toggle(engine, "ann", "cup", &format!("old{n}"), 2).await;
        assert_eq!(outcome, LikeOutcome::Replayed(answer(n)), "{n}");
    }
    // The next answer takes the place of the oldest; loading again does not bring that one back.
    assert_eq!(toggle(engine, "ann", "cup", "next", 3).await, done(false, true, 3, 2));
    load_answers((100..120).map(stored).collect()).await;
    assert_eq!(toggle(engine, "ann", "cup", "old106", 4).await, LikeOutcome::Replayed(answer(106)));
    assert_eq!(toggle(engine, "ann", "cup", "old105", 4).await, done(true, true, 4, 3));
}

pub async fn busy_by_length(make: Make) {
    let engine = &*opened(make, EngineLimits { journal_len_max: 3, ..plain() }).await;
    for n in 1..=3 {
        assert_eq!(toggle(engine, "ann", "cup", &format!("k{n}"), n).await, done(n != 2, true, n, n as u64));
    }
    assert_eq!(toggle(engine, "ann", "cup", "k4", 4).await, LikeOutcome::Busy);
    assert_eq!(like(engine, "ann", "cup", "k4", SET, 4).await, LikeOutcome::Busy);
    // Only the trim makes room; what the ledger has is not what counts.
    let progress = Progress::Ledger { partition: 0, from: Position::default(), position: Position::new(1, 3) };
    engine.announce(&[progress]).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k4", 4).await, LikeOutcome::Busy);
    engine.trim(0, Position::new(1, 1)).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k4", 4).await, done(false, true, 4, 4));
    assert_eq!(toggle(engine, "ann", "cup", "k5", 5).await, LikeOutcome::Busy);
}

pub async fn busy_by_age(make: Make) {
    let engine = &*opened(make, EngineLimits { journal_age_ms_max: 1_000, ..plain() }).await;
    let committed = async |epoch, seq| {
        let progress =
            Progress::Ledger { partition: 0, from: Position::default(), position: Position::new(epoch, seq) };
        engine.announce(&[progress]).await.unwrap();
    };
    toggle(engine, "ann", "cup", "k1", 0).await;
    assert_eq!(toggle(engine, "ann", "cup", "k2", 999).await, done(false, true, 999, 2));
    assert_eq!(toggle(engine, "ann", "cup", "k3", 1_000).await, LikeOutcome::Busy);
    // The count of likes may be as far as it likes.
    let likes = Progress::Likes { partition: 0, position: Position::new(1, 2) };
    engine.announce(&[likes]).await.unwrap();
    assert_eq!(toggle(engine, "ann", "cup", "k3", 1_000).await, LikeOutcome::Busy);
    committed(1, 1).await;
    assert_eq!(toggle(engine, "ann", "cup", "k3", 1_998).await, done(true, true, 1_998, 3));
    assert_eq!(toggle(engine, "ann", "cup", "k4", 1_999).await, LikeOutcome::Busy);
    committed(1, 2).await;
    // An announcement that comes late takes nothing back.
    committed(1, 1).await;
    committed(0, 9).await;
    assert_eq!(toggle(engine, "ann", "cup", "k4", 2_997).await, done(false, true, 2_997, 4));
    assert_eq!(toggle(engine, "ann", "cup", "k5", 2_998).await, LikeOutcome::Busy);
    committed(1, 4).await;
    assert_eq!(toggle(engine, "ann", "cup", "k5", 1_000_000).await, done(true, true, 1_000_000, 5));
    // A new epoch begins with nothing to wait for.
    engine.open(2, 7, LEDGER).await.unwrap();
    load(engine, 2, "ann", &[]).await;
    let late = LikeRequest {
        is_key_new: false,
        user: user("ann"),
        product: product("cup"),
        key: key("k6"),
        desired: Desired::Toggled,
        at: at(9_000_000),
    };
    assert!(matches!(engine.like(2, &late).await.unwrap(), LikeOutcome::Done(_)));
}

pub async fn shows_a_viewer_their_likes(make: Make) {
    let engine = &*opened(make, plain()).await;
    let liked = async |who, what: &[&str]| {
        let products: Vec<_> = what.iter().map(|id| product(id)).collect();
        engine.viewer_likes(1, &user(who), &products, at(100)).await.unwrap()
    };
    load(engine, 1, "cat", &[("cup", -10), ("jug", -20)]).await;
    assert_eq!(liked("new", &["cup"]).await, None);
    assert_eq!(liked("ann", &[]).await, Some(vec![]));
    assert_eq!(liked("ann", &["cup"]).await, Some(vec![None]));
    toggle(engine, "cat", "cup", "k1", 1).await;
    toggle(engine, "cat", "pot", "k2", 2).await;
    let expected = vec![Some(at(2)), None, Some(at(-20)), None, Some(at(2))];
    assert_eq!(liked("cat", &["pot", "cup", "jug", "tin", "pot"]).await, Some(expected));
}

/// Every user who is loaded, and what each likes.
async fn held(engine: &dyn Engine) -> BTreeMap<String, Vec<String>> {
    let (mut users, mut cursor) = (BTreeSet::new(), 0);
    loop {
        let (page, next) = engine.loaded_users(cursor).await.unwrap();
        users.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let users: Vec<_> = users.into_iter().collect();
    let likes = engine.held_likes(1, &users, at(0)).await.unwrap();
    let of_user = |(user, likes): (&UserId, Option<Vec<ProductId>>)| {
        let mut likes: Vec<_> = likes.expect("loaded").iter().map(ToString::to_string).collect();
        likes.sort();
        (user.to_string(), likes)
    };
    users.iter().zip(likes).map(of_user).collect()
}

pub async fn shows_what_it_holds(make: Make) {
    let engine = &*opened(make, EngineLimits { partitions: 3, ..plain() }).await;
    let many: Vec<_> =
        (0..2_500).map(|n| (format!("user-{n}"), vec![format!("p{}", n % 7), "cup".to_owned()])).collect();
    for (who, likes) in &many {
        let likes: Vec<_> = likes.iter().map(|product| (product.as_str(), 0)).collect();
        load(engine, 1, who, &likes).await;
    }
    toggle(engine, "ann", "jug", "k", 1).await;
    let mut expected: BTreeMap<_, _> = many
        .into_iter()
        .map(|(who, mut likes)| {
            likes.sort();
            (who, likes)
        })
        .collect();
    expected.insert("ann".to_owned(), vec!["jug".to_owned()]);
    expected.insert("bob".to_owned(), vec![]);
    assert_eq!(held(engine).await, expected);
    assert_eq!(engine.held_likes(1, &[user("nobody"), user("bob")], at(0)).await.unwrap(), [None, Some(vec![])]);
    assert!(is_lost(engine.held_likes(2, &[user("bob")], at(0)).await));
    // More than one reply has room for.
    let much: Vec<_> = (0..7_000).map(|n| format!("p{n}")).collect();
    let much: Vec<_> = much.iter().map(|product| (product.as_str(), 0)).collect();
    let heavy = ["heavy-1", "heavy-2", "heavy-3"];
    for who in heavy {
        load(engine, 1, who, &much).await;
    }
    let likes = engine.held_likes(1, &heavy.map(user), at(0)).await.unwrap();
    let lens: Vec<_> = likes.iter().map(|likes| likes.as_ref().map(Vec::len)).collect();
    assert_eq!(lens, [Some(7_000); 3]);
    engine.open(2, 8, LEDGER).await.unwrap();
    assert_eq!(engine.held_likes(2, &[user("ann")], at(0)).await.unwrap(), [None]);
}

pub async fn forgets(make: Make) {
    let engine = &*opened(make, plain()).await;
    toggle(engine, "ann", "cup", "k1", 1).await;
    toggle(engine, "bob", "cup", "k1", 2).await;
    engine.forget_likes(&[user("ann"), user("nobody")], at(2)).await.unwrap();
    assert_eq!(engine.viewer_likes(1, &user("ann"), &[product("cup")], at(3)).await.unwrap(), None);
    assert_eq!(toggle(engine, "ann", "cup", "k1", 3).await, LikeOutcome::NotLoaded);
    assert_eq!(toggle(engine, "bob", "cup", "k1", 3).await, replayed(&done(true, true, 2, 2)));
    load(engine, 1, "ann", &[("jug", -1)]).await;
    assert_eq!(toggle(engine, "ann", "cup", "k1", 4).await, done(true, true, 4, 3));
}

/// Three users toggle one product with ten keys each, and every key is sent fifteen times, all at once: each key has one
/// effect, and the events of each (user, product) alternate from +1.
pub async fn many_at_once_alternate(make: Make) {
    let engine = make(EngineLimits { like_rate: 0, ..EngineLimits::default() }).await;
    engine.open(1, 7, LEDGER).await.unwrap();
    for id in ["ann", "bob", "cat"] {
        load(&*engine, 1, id, &[]).await;
    }
    let sent = (0..450).map(|n| {
        let engine = engine.clone();
        let who = ["ann", "bob", "cat"][n % 3];
        // Ten keys for each user, so that no answer is pushed out before the last retry.
        let id = format!("k{}", n % 30);
        tokio::spawn(async move { (who, toggle(&*engine, who, "cup", &id, n as i64).await) })
    });
    let mut effects = BTreeMap::new();
    for answer in futures_util::future::join_all(sent).await {
        match answer.unwrap() {
            (who, LikeOutcome::Done(answer)) if answer.changed => *effects.entry(who).or_insert(0) += 1,
            (_, LikeOutcome::Replayed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(effects, BTreeMap::from([("ann", 10), ("bob", 10), ("cat", 10)]));
    let mut liked = BTreeMap::new();
    for partition in 0..engine.limits().partitions {
        for (_, event) in events(&*engine, partition).await {
            let sum = liked.entry(event.user).or_insert(0);
            *sum += event.count;
            assert!(matches!(*sum, 0 | 1), "two alike in a row");
        }
    }
    assert!(liked.values().all(|sum| *sum == 0), "ten toggles come to nothing");
    assert_eq!(liked.len(), 3);
}

pub async fn stops_at_the_most(make: Make) {
    let engine = &*opened(make, EngineLimits { likes_max: 2, ..plain() }).await;
    assert_eq!(toggle(engine, "ann", "cup", "k1", 1).await, done(true, true, 1, 1));
    assert_eq!(toggle(engine, "ann", "mug", "k2", 2).await, done(true, true, 2, 2));
    assert_eq!(toggle(engine, "ann", "pan", "k3", 3).await, LikeOutcome::TooMany);
    assert_eq!(like(engine, "ann", "pan", "k3", Desired::Exactly(true), 4).await, LikeOutcome::TooMany);
    // What adds nothing goes on.
    assert_eq!(like(engine, "ann", "pan", "k4", Desired::Exactly(false), 5).await, done(false, false, 5, 2));
    assert_eq!(like(engine, "ann", "mug", "k5", Desired::Exactly(true), 6).await, done(true, false, 2, 2));
    assert_eq!(toggle(engine, "bob", "pan", "k3", 7).await, done(true, true, 7, 3));
    assert_eq!(toggle(engine, "ann", "cup", "k6", 8).await, done(false, true, 8, 4));
    assert_eq!(toggle(engine, "ann", "pan", "k3", 9).await, done(true, true, 9, 5), "a refusal is no answer");
}

/// More than a step brings at once.
pub async fn loads_very_many(make: Make) {
    let engine = &*opened(make, plain()).await;
    let likes: Vec<_> = (0..25_000).map(|n| (product(&format!("p{n}")), at(n))).collect();
    let answer = LikeAnswer { liked: true, changed: true, at: at(5), position: Position::new(1, 0) };
    let answers = vec![(key("k1"), product("p5"), answer)];
    let heavy = UserLikes { as_of: Position::default(), user: user("eve"), likes, unliked: vec![], answers };
    for _ in 0..2 {
        engine.load_likes(1, std::slice::from_ref(&heavy), at(0)).await.unwrap();
        let asked = ["p0", "p24999", "p25000"].map(product);
        let liked = engine.viewer_likes(1, &user("eve"), &asked, at(1)).await.unwrap();
        assert_eq!(liked, Some(vec![Some(at(0)), Some(at(24_999)), None]));
    }
    assert_eq!(toggle(engine, "eve", "p5", "k1", 2).await, LikeOutcome::Replayed(answer));
    assert_eq!(toggle(engine, "eve", "p7", "k2", 3).await, done(false, true, 3, 1));
    assert_eq!(toggle(engine, "eve", "p25000", "k3", 4).await, done(true, true, 4, 2));
    assert!(is_lost(engine.load_likes(2, &[heavy], at(5)).await));
}
