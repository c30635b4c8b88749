//! Reading: likes, answers, events, products, and the checks of both folds.

use acclaim::domain::{Event, EventId, Money, Position, Signal};
use acclaim::engine::{LikeAnswer, Original};
use acclaim::ledger::{Difference, LedgerError, Upserted};

use super::*;

over_both! {
    async fn users_are_loaded_with_their_likes_and_answers(ledger: Fresh) {
        let partition = partition_of_user("ann");
        ledger.push(partition, vec![
            like("ann", "old", "pen", 0),
            like("ann", "k1", "mug", 1000),
            unlike("ann", "k2", "mug", 2000, 1000),
            like("ann", "k3", "cup", 3000),
            // A producer's event about the same user is no answer, and no like that stands.
            Event { user: Some(user("ann")), ..event("shop-1", Signal::Like, "cap", 1, 4000) },
        ]).await;
        ledger.push(partition_of_user("bob"), vec![like("bob", "k1", "mug", 5000)]).await;
        let asked = [user("bob"), user("nobody"), user("ann"), user("bob")];
        let loaded = ledger.user_likes(&asked, at(1000)).await.unwrap();
        assert_eq!(loaded.iter().map(|likes| likes.user.clone()).collect::<Vec<_>>(), asked);
        assert_eq!(loaded[0], loaded[3]);
        assert_eq!(loaded[0].likes, [(product("mug"), at(5000))]);
        assert!(loaded[1].likes.is_empty() && loaded[1].answers.is_empty());
        let ann = &loaded[2];
        assert_eq!(ann.likes.len(), 2);
        assert!(ann.likes.contains(&(product("pen"), at(0))) && ann.likes.contains(&(product("cup"), at(3000))));
        let answer = |liked, ms, seq| LikeAnswer { liked, changed: true, at: at(ms), position: Position::new(0, seq) };
        let key = |text| IdempotencyKey::new(text).unwrap();
        assert_eq!(ann.answers, [
            (key("k1"), product("mug"), answer(true, 1000, 2)),
            (key("k2"), product("mug"), answer(false, 2000, 3)),
            (key("k3"), product("cup"), answer(true, 3000, 4)),
        ]);
        assert_eq!(ledger.user_likes(&[], at(0)).await.unwrap(), []);
    }

    async fn only_the_last_16_answers_are_given(ledger: Fresh) {
        let events = (0..40).map(|n| like("ann", &format!("k{n}"), &format!("p{n}"), n)).collect();
        ledger.push(0, events).await;
        let answers = &ledger.user_likes(&[user("ann")], at(0)).await.unwrap()[0].answers;
        let keys: Vec<_> = answers.iter().map(|(key, ..)| key.to_string()).collect();
        assert_eq!(keys, (24..40).map(|n| format!("k{n}")).collect::<Vec<_>>());
    }

    async fn liked_products_come_newest_first_page_by_page(ledger: Fresh) {
        // Ids by bytes: upper case before lower, whatever the database's language. Three share an instant.
        let names = ["a", "B", "é", "Z", "z", "10", "9"];
        let events = names.iter().zip(0..).map(|(name, n)| like("ann", name, name, n / 3)).collect();
        ledger.push(0, events).await;
        ledger.push(0, vec![unlike("ann", "gone", "a", 99, 0)]).await;
        let mut expected: Vec<_> = names.iter().zip(0..).skip(1).map(|(name, n)| (at(n / 3), product(name))).collect();
        expected.sort_by(|a, b| b.cmp(a));
        for first in [1, 2, 5, 6, 7] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = ledger.liked_products(&user("ann"), after.clone(), first).await.unwrap();
                assert!(page.rows.len() <= first as usize);
                seen.extend(page.rows.iter().map(|(product, at)| (*at, product.clone())));
                assert_eq!(page.has_more, seen.len() < expected.len());
                if !page.has_more {
                    break;
                }
                after = seen.last().cloned();
            }
            assert_eq!(seen, expected);
        }
        assert_eq!(ledger.liked_count(&user("ann")).await.unwrap(), 6);
        // A place from far outside the calendar, as only a forged cursor has it.
        let page = ledger.liked_products(&user("ann"), Some((Timestamp::from_ms(i64::MIN), product("a"))), 5).await;
        assert_eq!(page.unwrap().rows, []);
    }

    async fn originals_say_what_an_event_added(ledger: Fresh) {
        let reversal = Event { reverses: Some(EventId::new("o1").unwrap()), ..event("r1", Signal::Order, "mug", -3, 0) };
        ledger.push(0, vec![event("o1", Signal::Order, "mug", 3, 5), reversal, event("v1", Signal::View, "pen", 7, 9)]).await;
        let ids: Vec<_> = ["v1", "o1", "nothing"].iter().map(|id| EventId::new(id).unwrap()).collect();
        let mut found = ledger.originals(&ids).await.unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let original = |signal, of, count, ms, reversed| Original {
            signal, product: product(of), count, occurred_at: at(ms), reversed,
        };
        assert_eq!(found, [
            (EventId::new("o1").unwrap(), original(Signal::Order, "mug", 3, 5, true)),
            (EventId::new("v1").unwrap(), original(Signal::View, "pen", 7, 9, false)),
        ]);
        assert_eq!(ledger.originals(&[]).await.unwrap(), []);
    }

    async fn products_are_replaced_by_id(ledger: Fresh) {
        let price = |amount: &str| Some(Money { amount: amount.parse().unwrap(), currency: "EUR".to_owned() });
        let full = NewProduct {
            name: "O'Brien \"the\" {mug} \\ é 🦀".to_owned(),
            image_url: Some("https://example.com/a.png?x=1&y=%20".to_owned()),
            price: price("29.90"),
            category: Some("Kitchen".to_owned()),
            brand: Some("ACME".to_owned()),
            ..new_product("mug")
        };
        let twice = [new_product("mug"), new_product("pen"), full.clone()];
        assert_eq!(ledger.upsert_products(&twice, at(0)).await.unwrap().products, 2);
        let ids = [product("mug"), product("pen"), product("none")];
        let read = || async {
            let mut read = ledger.products(&ids).await.unwrap();
            read.sort_by(|a, b| a.id.cmp(&b.id));
            read
        };
        let found = read().await;
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].name, &found[0].image_url, &found[0].price), (&full.name, &full.image_url, &full.price));
        assert_eq!((&found[0].category, &found[0].brand), (&full.category, &full.brand));
        assert_eq!(found[0].price.as_ref().unwrap().amount.to_string(), "29.90");
        assert_eq!((found[1].price.clone(), found[1].name.as_str(), found[1].created_at), (None, "The pen", at(0)));
        // Replacing keeps when it was first there, and takes away what is no longer said.
        let exact = NewProduct { price: price("79228162514264337593543950335"), ..new_product("pen") };
        assert_eq!(ledger.upsert_products(&[exact.clone(), new_product("mug")], at(9)).await.unwrap().products, 2);
        let found = read().await;
        assert_eq!((found[0].price.clone(), found[0].brand.clone(), found[0].created_at), (None, None, at(0)));
        assert_eq!(found[1].price, exact.price);
        assert_eq!(ledger.upsert_products(&[], at(9)).await.unwrap(), Upserted::default());
    }

    async fn a_text_that_one_database_can_not_hold_is_refused_by_both(ledger: Fresh) {
        let bad = NewProduct { name: "a\0b".to_owned(), ..new_product("mug") };
        let refused = ledger.upsert_products(&[new_product("pen"), bad], at(0)).await;
        assert!(matches!(refused, Err(LedgerError::Rejected(_))), "{refused:?}");
        assert_eq!(ledger.products(&[product("pen")]).await.unwrap(), []);
    }

    async fn a_crowd_of_products_is_one_statement(ledger: Fresh) {
        let crowd: Vec<_> = (0..2_000).map(|n| new_product(&format!("p{n}"))).collect();
        assert_eq!(ledger.upsert_products(&crowd, at(0)).await.unwrap(), Upserted { products: 2_000, boards: 0 });
        let ids: Vec<_> = crowd.iter().map(|product| product.id.clone()).collect();
        assert_eq!(ledger.products(&ids).await.unwrap().len(), 2_000);
    }

    async fn planted_differences_are_found(ledger: Fresh) {
        ledger.push(0, vec![
            like("ann", "k1", "mug", 0),
            like("ann", "k2", "pen", 0),
            like("bob", "k1", "mug", 0),
            unlike("bob", "k2", "mug", 1, 0),
            event("o1", Signal::Order, "mug", 3, 0),
        ]).await;
        ledger.assert_sound().await;
        assert_eq!(ledger.check_likes().await.unwrap().checked, 3);
        let difference = |of: &str, who: Option<&str>, expected, actual| Difference {
            product: product(of), user: who.map(user), expected, actual,
        };
        ledger.tamper(
            "DELETE FROM likes WHERE user_id = 'ann' AND product_id = 'mug';
             UPDATE likes SET liked = true WHERE user_id = 'bob';
             INSERT INTO likes SELECT 'eve', product_id, true, liked_at, epoch, seq FROM likes WHERE user_id = 'bob';
             UPDATE activity SET count = count + 1 WHERE signal = 4",
        ).await;
        let found = ledger.check_likes().await.unwrap();
        assert_eq!((found.checked, found.differing), (4, 3));
        assert_eq!(found.rows, [
            difference("mug", Some("ann"), 1, 0),
            difference("mug", Some("bob"), 0, 1),
            difference("mug", Some("eve"), 0, 1),
        ]);
        let found = ledger.check_activity().await.unwrap();
        assert_eq!((found.checked, found.differing, found.rows), (3, 1, vec![difference("mug", None, 3, 4)]));
    }

    async fn events_that_do_not_alternate_are_found(ledger: Fresh) {
        for who in ["ann", "bob", "eve"] {
            ledger.push(0, vec![like(who, "k1", "mug", 0), unlike(who, "k2", "mug", 1, 0), like(who, "k3", "mug", 2)]).await;
        }
        // Each ends where its likes row stands, so only their order gives them away.
        ledger.tamper("UPDATE events SET count = -count WHERE user_id = 'ann' AND count < 0").await;
        ledger.tamper("UPDATE events SET seq = seq - 10 WHERE user_id = 'bob' AND count < 0").await;
        let found = ledger.check_likes().await.unwrap();
        let found: Vec<_> = found.rows.iter().map(|row| (row.user.clone().unwrap().to_string(), row.expected)).collect();
        assert_eq!(found, [("ann".to_owned(), 3), ("bob".to_owned(), -1)]);
    }

    async fn the_first_hundred_differences_are_listed_and_all_are_counted(ledger: Fresh) {
        let events = (0..150).map(|n| event(&format!("e{n}"), Signal::View, &format!("p{n}"), 1, 0)).collect();
        ledger.push(0, events).await;
        ledger.tamper("DELETE FROM activity").await;
        let found = ledger.check_activity().await.unwrap();
        assert_eq!((found.checked, found.differing, found.rows.len()), (150, 150, 100));
    }
}
