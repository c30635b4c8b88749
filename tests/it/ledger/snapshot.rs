//! What boards are computed from: segments of activity, members of a scope, points at a close, and their cursors.

use acclaim::domain::{
    Basis, Board, BoardId, Bucket, Count, Event, Period, Place, Points, Position, ProductId, Scope, Segment, Signal,
    Window,
};
use acclaim::ledger::{ActivityRow, LedgerError, Pace, Snapshot, Wanted};
use jiff::tz::TimeZone;

use super::*;

pub const ALL: Segment = Segment { first: Bucket::MIN, end: Bucket::MAX, is_even: true };

/// An even run of buckets.
pub fn segment(first: i32, end: i32) -> Segment {
    Segment { first: Bucket(first), end: Bucket(end), is_even: true }
}

/// Every signal of every product in some segments.
pub async fn snapshot(ledger: &Ledger, segments: &[Segment]) -> Snapshot {
    let board = board(None, None);
    let wanted = Wanted { segments, ..of(&board) };
    ledger.snapshot(wanted).await.unwrap()
}

fn board(category: Option<&str>, brand: Option<&str>) -> Board {
    let scope = Scope { category: category.map(str::to_owned), brand: brand.map(str::to_owned) };
    Board { scope, ..Board::new(BoardId::daily(), "Daily", Window::Day, TimeZone::UTC) }
}

fn of(board: &Board) -> Wanted<'_> {
    Wanted { signals: &Signal::ALL, ..Wanted::of(board) }
}

/// A producer's event in a bucket.
fn counted(id: &str, signal: Signal, of: &str, count: i64, bucket: i32) -> Event {
    let at = Bucket(bucket).starts_at().plus_ms(1);
    Event { occurred_at: at, recorded_at: at, ..event(id, signal, of, count, 0) }
}

fn row(bucket: i32, of: &str, signal: Signal, count: i64) -> ActivityRow {
    ActivityRow { product: product(of), count: Count { bucket: Bucket(bucket), signal, count } }
}

fn sorted(mut rows: Vec<ActivityRow>) -> Vec<ActivityRow> {
    rows.sort_by_key(|row| (row.count.bucket, row.product.clone(), row.count.signal.code(), row.count.count));
    rows
}

async fn push_some(ledger: &Fresh) {
    ledger
        .push(
            0,
            vec![
                counted("a", Signal::View, "mug", 10, 100),
                counted("b", Signal::View, "mug", 1, 101),
                counted("c", Signal::Order, "pen", 4, 101),
                counted("d", Signal::View, "mug", 5, 104),
                counted("e", Signal::Order, "cup", 3, 100),
                counted("f", Signal::View, "cap", 2, 101),
            ],
        )
        .await;
    ledger
        .push(
            1,
            vec![
                counted("g", Signal::View, "mug", 100, 101),
                Event { reverses: None, ..counted("h", Signal::Order, "cup", -3, 101) },
                counted("i", Signal::View, "cap", -2, 101),
            ],
        )
        .await;
}

fn ids<'a>(members: impl IntoIterator<Item = &'a ProductId>) -> Vec<String> {
    let mut ids: Vec<_> = members.into_iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

over_both! {
    async fn no_more_is_read_than_is_asked_for(ledger: Fresh) {
        push_some(&ledger).await;
        let (board, mugs) = (board(None, None), [product("mug")]);
        // A sum of an even segment, and a bucket of another.
        let segments = [segment(100, 102), Segment { is_even: false, ..segment(102, 105) }];
        for pace in [Pace::Whole, Pace::Pieces] {
            let read = async |most| {
                let wanted = Wanted { segments: &segments, products: Some(&mugs), pace, counts_max: Some(most), ..of(&board) };
                ledger.snapshot(wanted).await.map(|read| read.activity.len())
            };
            assert_eq!(read(2).await.unwrap(), 2);
            for fewer in [0, 1] {
                let refused = read(fewer).await.unwrap_err();
                assert!(matches!(refused, LedgerError::TooMany { limit: "counts", value, .. } if value == fewer), "{refused}");
            }
        }
    }

    async fn an_even_segment_is_added_up_and_an_uneven_one_bucket_by_bucket(ledger: Fresh) {
        push_some(&ledger).await;
        let uneven = |first, end| Segment { is_even: false, ..segment(first, end) };
        // What comes to nothing is left out: over the whole segment here, in each bucket there.
        assert_eq!(sorted(snapshot(&ledger, &[segment(100, 104)]).await.activity), [
            row(100, "mug", Signal::View, 111),
            row(100, "pen", Signal::Order, 4),
        ]);
        let by_bucket = [
            row(100, "cup", Signal::Order, 3),
            row(100, "mug", Signal::View, 10),
            row(101, "cup", Signal::Order, -3),
            row(101, "mug", Signal::View, 101),
            row(101, "pen", Signal::Order, 4),
        ];
        assert_eq!(sorted(snapshot(&ledger, &[uneven(100, 104)]).await.activity), by_bucket);
        // Side by side, each in its own way, and nothing twice.
        let both = snapshot(&ledger, &[uneven(100, 101), segment(101, 105)]).await;
        let runs = both.activity.chunk_by(|one, other| one.product == other.product);
        assert_eq!(runs.count(), 3, "a product's rows stand together: {:?}", both.activity);
        assert_eq!(sorted(both.activity), [
            row(100, "cup", Signal::Order, 3),
            row(100, "mug", Signal::View, 10),
            row(101, "cup", Signal::Order, -3),
            row(101, "mug", Signal::View, 106),
            row(101, "pen", Signal::Order, 4),
        ]);
        assert_eq!(snapshot(&ledger, &[uneven(102, 104), segment(90, 100)]).await.activity, []);
        let board = board(None, None);
        let views = Wanted { segments: &[uneven(100, 102)], signals: &[Signal::View], ..of(&board) };
        let views = ledger.snapshot(views).await.unwrap();
        assert_eq!(sorted(views.activity), [row(100, "mug", Signal::View, 10), row(101, "mug", Signal::View, 101)]);
    }

    async fn pieces_add_up_to_the_whole(ledger: Fresh) {
        // More rows than two pieces have, and as many as two have, in two segments.
        let events = |bucket: i32, count: usize| {
            (0..count).map(move |n| counted(&format!("{bucket}-{n}"), Signal::View, &format!("p{n}"), 1, bucket)).collect()
        };
        ledger.push(0, events(100, 2_001)).await;
        ledger.push(1, events(101, 2_000)).await;
        let (board, segments) = (board(None, None), [segment(100, 101), segment(101, 102)]);
        let read = async |pace| {
            let wanted = Wanted { segments: &segments, pace, ..of(&board) };
            sorted(ledger.snapshot(wanted).await.unwrap().activity)
        };
        let whole = read(Pace::Whole).await;
        assert_eq!(whole.len(), 4_001);
        assert_eq!(read(Pace::Pieces).await, whole);
    }

    async fn of_some_products_the_same_is_read(ledger: Fresh) {
        push_some(&ledger).await;
        let (board, some) = (board(None, None), [product("mug"), product("unknown")]);
        let wanted = |segments| Wanted { segments, products: Some(&some), ..of(&board) };
        let (even, uneven) = ([segment(100, 104)], [Segment { is_even: false, ..segment(100, 104) }]);
        let found = ledger.snapshot(wanted(&uneven)).await.unwrap();
        assert_eq!(sorted(found.activity), [row(100, "mug", Signal::View, 10), row(101, "mug", Signal::View, 101)]);
        let found = ledger.snapshot(wanted(&even)).await.unwrap();
        assert_eq!(found.activity, [row(100, "mug", Signal::View, 111)]);
        assert_eq!(found.cursors[&0], Position::new(0, 6));
        assert_eq!(found.cursors[&1], Position::new(0, 3));
    }

    async fn members_are_what_matches_the_whole_scope(ledger: Fresh) {
        let new = |id: &str, category: Option<&str>, brand: Option<&str>| NewProduct {
            category: category.map(str::to_owned),
            brand: brand.map(str::to_owned),
            ..new_product(id)
        };
        let products = [
            new("mug", Some("kitchen"), Some("acme")),
            new("pan", Some("kitchen"), None),
            new("pen", Some("Kitchen"), Some("acme")),
            new("car", None, Some("acme")),
            new("cow", None, None),
        ];
        ledger.upsert_products(&products, at(0)).await.unwrap();
        let members = async |category, brand| ids(&ledger.members(&board(category, brand)).await.unwrap());
        assert_eq!(members(Some("kitchen"), None).await, ["mug", "pan"]);
        assert_eq!(members(None, Some("acme")).await, ["car", "mug", "pen"]);
        assert_eq!(members(Some("kitchen"), Some("acme")).await, ["mug"]);
        assert_eq!(members(Some("garden"), None).await, [""; 0]);
        assert_eq!(members(None, None).await, [""; 0], "every product is meant, so none is listed");
        // Of one product only whether it is one.
        let scoped = board(Some("kitchen"), None);
        for (id, expected) in [("mug", vec!["mug"]), ("car", vec![]), ("unknown", vec![])] {
            let id = [product(id)];
            let found = ledger.snapshot(Wanted { products: Some(&id), ..of(&scoped) }).await.unwrap();
            assert_eq!(ids(&found.members), expected);
        }
    }

    async fn points_at_a_close_are_those_of_products_that_are_there(ledger: Fresh) {
        ledger.upsert_products(&["mug", "pen"].map(new_product), at(0)).await.unwrap();
        let board = board(None, None);
        let period = |key: &str| board.period_of_key(key).unwrap();
        let place = |id: &str, millionths| Place { product: product(id), points: Points::from_millionths(millionths) };
        let basis = Basis::default();
        let definitions = ledger.definitions().await.unwrap();
        let write = async |board: &BoardId, period: &Period, places: &[Place]| {
            let definition = definitions.board(board).unwrap();
            assert!(ledger.write_results(definition, period, places, basis).await.unwrap());
        };
        let places = [place("gone", 9_000_000), place("mug", 7_000_001), place("pen", -5)];
        write(&board.id, &period("2026-11-21"), &places).await;
        write(&board.id, &period("2026-11-20"), &[place("mug", 1)]).await;
        write(&BoardId::new("hourly").unwrap(), &period("2026-11-21"), &[place("mug", 2)]).await;
        let at_close = async |carry_from, products| {
            let found = ledger.snapshot(Wanted { carry_from, products, ..of(&board) }).await.unwrap();
            let mut rows: Vec<_> =
                found.at_close.into_iter().map(|(id, points)| (id.to_string(), points.millionths())).collect();
            rows.sort();
            rows
        };
        let mug = [product("mug")];
        assert_eq!(at_close(Some("2026-11-21"), None).await, [("mug".into(), 7_000_001), ("pen".into(), -5)]);
        assert_eq!(at_close(Some("2026-11-21"), Some(&mug[..])).await, [("mug".into(), 7_000_001)]);
        assert_eq!(at_close(Some("2026-11-20"), None).await, [("mug".into(), 1)]);
        assert_eq!(at_close(Some("2026-11-22"), None).await, []);
        assert_eq!(at_close(None, None).await, []);
    }
}
