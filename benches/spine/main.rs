//! The figures of the spine: script, sync, projection, likes over HTTP. Ratios in one run, printed as tables.
//!
//! `cargo bench --bench spine` runs all; `cargo bench --bench spine -- sync likes` runs some. Needs redis-server and
//! postgresql, as the tests do.

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "benches use a part of what the tests stand on")]
mod support;

mod http;
mod likes;
mod projection;
mod script;
mod sync;

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if is_wanted("script") {
            script::run().await;
        }
        if is_wanted("sync") {
            sync::run().await;
        }
        if is_wanted("projection") {
            projection::run().await;
        }
        if is_wanted("likes") {
            likes::run().await;
        }
    });
}

/// Prints a table with a title; the first row is its head.
fn table(title: &str, rows: &[Vec<String>]) {
    println!("\n{title}");
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                if column == 0 {
                    format!("{cell:<w$}", w = width(column))
                } else {
                    format!("{cell:>w$}", w = width(column))
                }
            })
            .collect();
        println!("  {}", cells.join("  "));
    }
}

/// A whole number with spaces between thousands.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
}
use row;
