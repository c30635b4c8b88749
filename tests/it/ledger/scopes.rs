//! Products that move, and the boards that they leave and enter.

use acclaim::domain::{Board, Scope, Window};
use acclaim::ledger::Upserted;
use jiff::tz::TimeZone;

use super::*;

async fn scoped_boards(ledger: &Ledger) {
    for (id, category, brand) in
        [("kitchen", Some("kitchen"), None), ("acme", None, Some("acme")), ("both", Some("kitchen"), Some("acme"))]
    {
        let scope = Scope { category: category.map(str::to_owned), brand: brand.map(str::to_owned) };
        let board = Board { scope, ..Board::new(board_id(id), id, Window::Day, TimeZone::UTC) };
        ledger.save_board(&board, &ada()).await.unwrap();
    }
}

fn placed(id: &str, category: Option<&str>, brand: Option<&str>) -> NewProduct {
    NewProduct { category: category.map(str::to_owned), brand: brand.map(str::to_owned), ..new_product(id) }
}

over_both! {
    async fn a_board_is_raised_when_a_product_leaves_or_enters_it(ledger: Fresh) {
        scoped_boards(&ledger).await;
        let boards = ["all-time", "kitchen", "acme", "both"];
        let mut known = revisions(&ledger, boards).await;
        let mut upsert = async |products: &[NewProduct], raised: [i64; 4]| {
            let boards_raised = raised.iter().sum::<i64>() as u64;
            let upserted = ledger.upsert_products(products, at(0)).await.unwrap();
            assert_eq!(upserted, Upserted { products: products.len() as u64, boards: boards_raised }, "{products:?}");
            let now = revisions(&ledger, boards).await;
            let grown: Vec<_> = now.iter().zip(known).map(|(now, before)| now - before).collect();
            assert_eq!(grown, raised, "{products:?}");
            known = now;
        };
        // New products enter; those outside every scope raise nothing.
        upsert(&[placed("cow", None, None), placed("car", Some("garage"), Some("Acme"))], [0, 0, 0, 0]).await;
        upsert(&[placed("pan", Some("kitchen"), None)], [0, 1, 0, 0]).await;
        upsert(&[placed("mug", Some("kitchen"), Some("acme"))], [0, 1, 1, 1]).await;
        // The same again, and other columns, move nothing.
        let dearer = NewProduct { name: "Dear mug".to_owned(), ..placed("mug", Some("kitchen"), Some("acme")) };
        upsert(&[placed("pan", Some("kitchen"), None), dearer], [0, 0, 0, 0]).await;
        // Within the category the brand changes, and back.
        upsert(&[placed("mug", Some("kitchen"), Some("other"))], [0, 0, 1, 1]).await;
        upsert(&[placed("pan", Some("kitchen"), Some("acme"))], [0, 0, 1, 1]).await;
        // Away altogether, some in one call with those that stay: each board once.
        let all = [placed("pan", None, None), placed("mug", Some("garage"), None), placed("car", Some("garage"), Some("Acme"))];
        upsert(&all, [0, 1, 1, 1]).await;
        upsert(&[placed("mug", None, Some("acme")), placed("pan", None, Some("acme"))], [0, 0, 1, 0]).await;
        upsert(&[], [0, 0, 0, 0]).await;
    }

    async fn boards_that_are_deleted_or_list_everything_are_left_alone(ledger: Fresh) {
        let boards = ["_likes", "all-time", "daily"];
        let before = revisions(&ledger, boards).await;
        let mug = placed("mug", Some("kitchen"), Some("acme"));
        assert_eq!(ledger.upsert_products(std::slice::from_ref(&mug), at(0)).await.unwrap(), Upserted { products: 1, boards: 0 });
        scoped_boards(&ledger).await;
        for id in ["kitchen", "acme", "both"] {
            ledger.delete_board(&board_id(id), &ada()).await.unwrap().unwrap();
        }
        assert_eq!(ledger.upsert_products(&[new_product("mug")], at(0)).await.unwrap(), Upserted { products: 1, boards: 0 });
        assert_eq!(revisions(&ledger, boards).await, before);
    }

    /// Callers with the same product compare with what the others have left, so each move is seen by somebody.
    async fn products_moved_by_many_at_once_raise_once_for_each_move(ledger: Fresh) {
        scoped_boards(&ledger).await;
        let [before] = revisions(&ledger, ["kitchen"]).await;
        let tasks: Vec<_> = (0..16).map(|n| {
            let ledger = ledger.ledger.clone();
            let category = if n % 2 == 0 { "kitchen" } else { "garage" };
            tokio::spawn(async move { ledger.upsert_products(&[placed("mug", Some(category), None)], at(0)).await.unwrap().boards })
        }).collect();
        let mut raised = 0;
        for task in tasks {
            raised += task.await.unwrap();
        }
        let [after] = revisions(&ledger, ["kitchen"]).await;
        assert_eq!(after, before + raised as i64);
        // In and out take turns, beginning with in: odd where it is in at the end.
        let kitchen = ledger.definitions().await.unwrap().board(&board_id("kitchen")).unwrap().board.clone();
        let is_in = ledger.members(&kitchen).await.unwrap().contains(&product("mug"));
        assert_eq!(raised % 2 == 1, is_in);
        assert!(raised >= 1);
    }
}
