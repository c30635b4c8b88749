//! The figures of the spine: script, sync, projection, likes over HTTP. Ratios in one run, printed as tables.
//!
//! `cargo bench --bench spine` runs all; `cargo bench --bench spine -- sync likes` runs some. Needs redis-server and
//! postgresql, as the tests do.

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "benches use a part of what the tests stand on")]
mod support;
#[path = "../table.rs"]
mod table;

mod http;
mod likes;
mod projection;
mod script;
mod sync;

use table::{number, row, table};

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
