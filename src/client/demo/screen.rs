//! What the demo shows: where to click, and the top of the board as it moves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::day::{Day, Floor};
use super::{PATIENCE, lock};
use crate::client::Client;

/// Places shown.
const TOP: usize = 5;
/// Often enough to see every overtaking, seldom enough to read the names.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Without a terminal the same goes out as lines, for a log.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How long an arrow stays beside a product that moved.
const ARROW_FOR: Duration = Duration::from_secs(5);
/// Room for most names of the catalogue on a terminal of 80 columns.
const NAME_LEN: usize = 42;

const BOARD: &str = "query Top { ranking(first: 20) { nodes { rank score productId product { name } } } }";

pub(super) fn welcome(day: &Day, speed: f64) -> String {
    let first = day.orders[0].at.in_zone(&TimeZone::UTC);
    format!(
        "\nThe demo's shop is open: {} products and {} orders of {}, moved to now and sped up {speed} times \
         (a day in {:.0} minutes, then again).\n\
         The orders are real: Online Retail, Daqing Chen, UCI Machine Learning Repository, CC BY 4.0. \
         Likes and views are simulated.\n\
         Nothing is kept: Ctrl-C ends the demo and removes its files.\n",
        day.catalogue.len(),
        day.orders.len(),
        first.strftime("%-d %B %Y"),
        day.lap_seconds(speed) / 60.0,
    )
}

#[derive(Deserialize)]
struct Answer {
    ranking: Ranking,
}

#[derive(Deserialize)]
struct Ranking {
    nodes: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    rank: u32,
    score: f64,
    product_id: String,
    product: Option<Product>,
}

#[derive(Deserialize)]
struct Product {
    name: String,
}

/// Redraws the top of the board on a terminal; elsewhere prints a line now and then.
pub(super) async fn show(client: &Client, floor: &Mutex<Floor>) -> anyhow::Result<Infallible> {
    let screen = ProgressBar::new_spinner();
    screen.set_style(ProgressStyle::with_template("{msg}").expect("the template is correct"));
    let is_terminal = !screen.is_hidden();
    let mut arrows = Arrows::default();
    let mut ticks = tokio::time::interval(if is_terminal { REDRAW_EVERY } else { LINE_EVERY });
    loop {
        ticks.tick().await;
        let answer: Answer = client.call_patiently(BOARD, &serde_json::json!({}), PATIENCE, |_| ()).await?;
        let entries = answer.ranking.nodes;
        arrows.note(&entries, Instant::now());
        let counts = counts(&lock(floor));
        if is_terminal {
            screen.set_message(format!("{counts}\n{}", table(&entries, &arrows)));
        } else if let Some(best) = entries.first() {
            println!("{counts}; first is {} with {}", name(best), best.score);
        }
    }
}

fn counts(floor: &Floor) -> String {
    let Floor { orders, views, likes, unlikes, .. } = floor;
    let clock = floor.clock.in_zone(&TimeZone::UTC).strftime("%H:%M").to_string();
    format!("{clock} in the shop: {orders} orders; simulated: {likes} likes, {unlikes} taken back, {views} views")
}

fn name(entry: &Entry) -> &str {
    entry.product.as_ref().map_or(&entry.product_id, |product| &product.name)
}

fn table(entries: &[Entry], arrows: &Arrows) -> String {
    let mut table = String::new();
    for entry in entries.iter().take(TOP) {
        let name: String = name(entry).chars().take(NAME_LEN).collect();
        let arrow = arrows.of(&entry.product_id);
        writeln!(table, "{:>4} {arrow} {name:<NAME_LEN$} {:>9.1}", entry.rank, entry.score)
            .expect("a String takes all");
    }
    table
}

/// Who has just moved, and which way.
#[derive(Default)]
struct Arrows {
    ranks: HashMap<String, u32>,
    moved: HashMap<String, (char, Instant)>,
}

impl Arrows {
    fn note(&mut self, entries: &[Entry], now: Instant) {
        self.moved.retain(|_, (_, at)| now.duration_since(*at) < ARROW_FOR);
        for entry in entries {
            // What is not among the ranks has come from below, but for the first look, when nothing has moved.
            let before = self.ranks.get(&entry.product_id).copied();
            let before = before.unwrap_or(if self.ranks.is_empty() { entry.rank } else { u32::MAX });
            let arrow = if entry.rank < before { '▲' } else { '▼' };
            if entry.rank != before {
                self.moved.insert(entry.product_id.clone(), (arrow, now));
            }
        }
        self.ranks = entries.iter().map(|entry| (entry.product_id.clone(), entry.rank)).collect();
    }

    fn of(&self, product: &str) -> char {
        self.moved.get(product).map_or(' ', |(arrow, _)| *arrow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(ids: &[&str]) -> Vec<Entry> {
        let entry = |(rank, id): (u32, &&str)| Entry { rank, score: 1.25, product_id: (*id).to_owned(), product: None };
        (1..).zip(ids).map(entry).collect()
    }

    #[test]
    fn arrows_show_who_has_just_moved() {
        let now = Instant::now();
        let mut arrows = Arrows::default();
        arrows.note(&entries(&["a", "b"]), now);
        assert_eq!((arrows.of("a"), arrows.of("b")), (' ', ' '));
        arrows.note(&entries(&["c", "a", "b"]), now);
        assert_eq!((arrows.of("c"), arrows.of("a")), ('▲', '▼'));
        assert!(table(&entries(&["c"]), &arrows).starts_with("   1 ▲ c "));
        arrows.note(&entries(&["c", "a", "b"]), now + ARROW_FOR);
        assert_eq!(arrows.of("c"), ' ');
    }

    #[test]
    fn what_is_simulated_is_called_so() {
        let day = Day::embedded().unwrap();
        let text = welcome(&day, 45.0);
        assert!(text.contains("6 December 2010") && text.contains("Likes and views are simulated"), "{text}");
        assert!(text.contains("CC BY 4.0"));
        assert!(counts(&Floor::new(&day)).starts_with("08:34 in the shop: 0 orders; simulated: "));
    }
}
