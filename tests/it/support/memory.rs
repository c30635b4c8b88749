//! Memory engines.

use std::sync::Arc;

use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::{Engine, EngineLimits};
use futures_util::future::BoxFuture;

/// A new engine, closed and empty.
pub fn engine(limits: EngineLimits) -> BoxFuture<'static, Arc<dyn Engine>> {
    Box::pin(async move { Arc::new(MemoryEngine::new(limits)) as Arc<dyn Engine> })
}
