//! What tests stand on: private servers, a real Acclaim process, real connections.

pub mod counted;
pub mod gate;
pub mod hold;
pub mod live;
pub mod memory;
pub mod node;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;
pub mod redis;
pub mod stack;

use std::time::Duration;

/// What an error says besides its message, and the id of its request, which every error has.
pub fn told(error: &serde_json::Value) -> serde_json::Value {
    let mut extensions = error["extensions"].clone();
    let id = extensions.as_object_mut().and_then(|fields| fields.remove("requestId"));
    assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| !id.is_empty())), "{error}");
    extensions
}

/// The value of a line of `/metrics`; `None` where there is none.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.into_iter().find(|(here, _)| *here == name).map(|(_, value)| value.parse().unwrap())
}

/// Looks until a condition holds; fails with its name when it does not within `limit`.
pub async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One test for each set-up.
#[macro_export]
macro_rules! both_setups {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::stack::Setup::Embedded).await;
            })+
        }
        mod servers {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::stack::Setup::Servers).await;
            })+
        }
    };
}
