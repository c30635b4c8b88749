//! Reading boards: pages by rank, behind a place and around a product, and entries.

use acclaim::domain::{BoardId, Cursors, PageStart, Place, Rows, Standings};
use acclaim::engine::{Apply, Entries, Generation};

use super::boards::{MAX, batch, build, cursors, places, points, show, step};
use super::*;

async fn page(engine: &dyn Engine, start: PageStart, count: u64) -> Rows {
    let page = engine.page(&BoardId::daily(), &start, count).await.unwrap().expect("shown");
    assert_eq!((page.generation, page.seq), (Generation { number: 1, build: build(1) }, 0));
    page.rows
}

fn after(id: &str, millionths: i128) -> PageStart {
    PageStart::After(Place { product: product(id), points: points(millionths) })
}

fn around(id: &str, radius: u64) -> PageStart {
    PageStart::Around { product: product(id), radius }
}

pub async fn follow_the_order(make: Make) {
    let engine = &*opened(make, plain()).await;
    show(engine, &[("a", 5), ("b", 5), ("B", 5), ("é", 5), ("ab", 5), ("top", 7), ("low", -1)]).await;
    // Equal points rank by id, higher bytes first.
    let order = places(&[("top", 7), ("é", 5), ("b", 5), ("ab", 5), ("a", 5), ("B", 5), ("low", -1)]);
    let rows =
        |from: usize, to: usize| Rows { first_rank: from as u64 + 1, places: order[from..to].to_vec(), total: 7 };
    assert_eq!(page(engine, PageStart::Rank(1), 100).await, rows(0, 7));
    assert_eq!(page(engine, PageStart::Rank(3), 2).await, rows(2, 4));
    assert_eq!(page(engine, PageStart::Rank(7), 5).await, rows(6, 7));
    assert_eq!(page(engine, PageStart::Rank(1), 0).await, rows(0, 0));
    assert_eq!(page(engine, after("é", 5), 3).await, rows(2, 5));
    assert_eq!(page(engine, after("low", -1), 3).await, rows(7, 7));
    assert_eq!(page(engine, around("ab", 1), 3).await, rows(2, 5));
    assert_eq!(page(engine, around("top", 2), 5).await, rows(0, 5));
    assert_eq!(page(engine, around("low", 2), 5).await, rows(4, 7));
    // Beyond the end, and around what is not listed, there is nothing.
    assert_eq!(page(engine, PageStart::Rank(9), 5).await, Rows { first_rank: 9, places: vec![], total: 7 });
    assert_eq!(page(engine, around("x", 2), 5).await, Rows { first_rank: 8, places: vec![], total: 7 });
}

/// Beyond the bound of what ranks tell apart, up and down, products stand by id, and are told exactly.
pub async fn rank_what_lies_beyond_by_id(make: Make) {
    let engine = &*opened(make, plain()).await;
    let order = [
        ("d", MAX),
        ("c", 1 << 100),
        ("b", MAX + 1),
        ("z", MAX - 1),
        ("a", 1),
        ("y", -MAX - 3),
        ("x", -(1 << 80)),
        ("w", -MAX),
    ];
    show(engine, &order).await;
    let order = places(&order);
    let rows =
        |from: usize, to: usize| Rows { first_rank: from as u64 + 1, places: order[from..to].to_vec(), total: 8 };
    assert_eq!(page(engine, PageStart::Rank(1), 100).await, rows(0, 8));
    for (from, place) in order.iter().enumerate() {
        for to in from..=8 {
            assert_eq!(page(engine, PageStart::Rank(from as u64 + 1), (to - from) as u64).await, rows(from, to));
        }
        // A cursor tells how its place ranks, and so where the next page begins.
        let ranked = Place { points: points(place.points.ranked().into()), ..place.clone() };
        for behind in [place.clone(), ranked] {
            assert_eq!(page(engine, PageStart::After(behind), 3).await, rows(from + 1, 8.min(from + 4)), "{from}");
        }
        assert_eq!(page(engine, around(place.product.as_str(), 0), 1).await, rows(from, from + 1));
        let ids = std::slice::from_ref(&place.product);
        let entries = engine.entries(&BoardId::daily(), ids).await.unwrap().unwrap().entries;
        assert_eq!(entries, [Some((from as u64 + 1, place.points))]);
    }
}

pub async fn go_on_behind_places_that_moved(make: Make) {
    let engine = &*opened(make, plain()).await;
    show(engine, &[("a", 50), ("b", 40), ("c", 40), ("d", 40), ("e", 30), ("f", 20)]).await;
    assert_eq!(page(engine, PageStart::Rank(1), 3).await.places, places(&[("a", 50), ("d", 40), ("c", 40)]));
    // The last place of that page moves down, up, and away: what ranked below it follows all the same.
    for (from, delta) in (0..).zip([-25, 35, -50]) {
        assert!(engine.apply(&batch(1, from, from + 1, &[("c", delta)])).await.unwrap());
        let rest = page(engine, after("c", 40), 2).await;
        assert_eq!(rest.places, places(&[("b", 40), ("e", 30)]), "after {delta}");
        assert_eq!(rest.first_rank, if delta == 35 { 4 } else { 3 });
    }
    assert_eq!(page(engine, after("never", 45), 1).await.places, places(&[("d", 40)]));
    assert_eq!(page(engine, after("cc", 40), 1).await.places, places(&[("b", 40)]));
    assert_eq!(page(engine, after("zz", 40), 1).await.places, places(&[("d", 40)]));
    assert_eq!(page(engine, after("0", 40), 1).await.places, places(&[("e", 30)]));
}

/// A few hundred products with many ties, and every way to ask.
pub async fn agree_with_standings(make: Make) {
    let engine = &*opened(make, plain()).await;
    let mut standings = Standings::default();
    let listed: Vec<_> = (0..300_i64).map(|n| (product(&format!("p{n}")), points((n * n % 23 - 5).into()))).collect();
    listed.iter().for_each(|(product, points)| standings.set(product, *points));
    let board = BoardId::daily();
    let generation = engine.begin_generation(&board, &Cursors::new()).await.unwrap();
    for chunk in listed.chunks(70) {
        assert!(engine.load_scores(&board, generation, chunk).await.unwrap());
    }
    assert!(engine.switch(&board, generation, &build(1)).await.unwrap());
    let ask = async |start: PageStart, count| {
        let expected = standings.rows(&start, count);
        assert_eq!(page(engine, start.clone(), count).await, expected, "{start:?}");
    };
    for rank in (0..320).step_by(13) {
        ask(PageStart::Rank(rank), 20).await;
    }
    for n in (0..300).step_by(7) {
        ask(around(&format!("p{n}"), n % 12), 2 * (n % 12) + 1).await;
        for millionths in [-9, -5, 0, 3, 17, 30] {
            ask(after(&format!("p{n}"), millionths), 5).await;
        }
    }
    let whole = engine.whole(&board).await.unwrap().unwrap().2;
    assert_eq!(whole, standings.iter().collect::<Vec<_>>());
}

/// What was read, and what had been folded by then, are from one moment.
pub async fn say_what_was_folded(make: Make) {
    let engine = &*opened(make, plain()).await;
    let board = BoardId::daily();
    show(engine, &[("a", 5)]).await;
    let read = async || {
        let page = engine.page(&board, &PageStart::Rank(1), 1).await.unwrap().unwrap();
        let entries = engine.entries(&board, &[product("a")]).await.unwrap().unwrap();
        assert_eq!(page.cursors, entries.cursors);
        (page.cursors, page.rows.places[0].points)
    };
    assert_eq!(read().await, (cursors([0, 0]), points(5)));
    assert!(engine.apply(&batch(1, 0, 3, &[("a", 2)])).await.unwrap());
    assert_eq!(read().await, (cursors([3, 0]), points(7)));
    let both = Apply { moves: vec![step(0, 3, 4), step(1, 0, 9)], ..batch(1, 0, 0, &[]) };
    assert!(engine.apply(&both).await.unwrap());
    assert_eq!(read().await, (cursors([4, 9]), points(7)));
    // What is being built has cursors of its own, until it is shown.
    assert_eq!(engine.begin_generation(&board, &cursors([1, 1])).await.unwrap(), 2);
    assert!(engine.load_scores(&board, 2, &[(product("a"), points(1))]).await.unwrap());
    assert!(engine.set_cursors(&board, 2, &cursors([6, 9])).await.unwrap());
    assert_eq!(read().await, (cursors([4, 9]), points(7)));
    assert!(engine.switch(&board, 2, &build(1)).await.unwrap());
    assert_eq!(read().await, (cursors([6, 9]), points(1)));
}

pub async fn look_up_entries(make: Make) {
    let engine = &*opened(make, plain()).await;
    show(engine, &[("a", 5), ("b", 5), ("c", MAX), ("d", -5)]).await;
    let ids = ["d", "x", "a", "c", "b", "a"].map(product);
    let found = engine.entries(&BoardId::daily(), &ids).await.unwrap().unwrap();
    let (generation, cursors) = (Generation { number: 1, build: build(1) }, cursors([0, 0]));
    assert_eq!((&found.generation, &found.cursors), (&generation, &cursors));
    let entry = |rank, millionths| Some((rank, points(millionths)));
    assert_eq!(found.entries, [entry(4, -5), None, entry(3, 5), entry(1, MAX), entry(2, 5), entry(3, 5)]);
    assert_eq!(
        engine.entries(&BoardId::daily(), &[]).await.unwrap(),
        Some(Entries { generation, cursors, entries: vec![] })
    );
}
