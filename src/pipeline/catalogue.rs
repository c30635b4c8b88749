//! The catalogue, as a node remembers it.
//!
//! A row is served from memory for a few seconds and then read again, so that what another node has changed shows soon;
//! while the ledger is away, what is remembered goes on being served. Unknown ids are never remembered, so a new
//! product is there at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::time::timeout;

use super::fault::in_time;
use crate::domain::{Product, ProductId};
use crate::ledger::{Ledger, LedgerError};

/// Rows remembered: some 50 MB, and more products than most boards have.
const ROWS_MAX: usize = 100_000;
/// How old a row may be when it is served.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long a row that is known may wait for a newer one: an answer should not show that the ledger is slow.
const REFRESH_WAIT: Duration = Duration::from_millis(100);

pub struct Catalogue {
    ledger: Ledger,
    rows: Cache<ProductId, (Arc<Product>, Instant)>,
    lookups: AtomicU64,
}

impl Catalogue {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, rows: Cache::new(ROWS_MAX), lookups: AtomicU64::new(0) }
    }

    /// How often the ledger was asked.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Whether there is such a product. Products are never deleted, so one that was ever seen will do.
    pub async fn knows(&self, id: &ProductId) -> Result<bool, LedgerError> {
        if self.rows.get(id).is_some() {
            return Ok(true);
        }
        Ok(self.products(std::slice::from_ref(id)).await?[0].is_some())
    }

    /// In the order asked; `None` for an unknown id. At most one look-up.
    pub async fn products(&self, ids: &[ProductId]) -> Result<Vec<Option<Arc<Product>>>, LedgerError> {
        let known: HashMap<&ProductId, (Arc<Product>, Instant)> =
            ids.iter().filter_map(|id| Some((id, self.rows.get(id)?))).collect();
        let mut stale: Vec<_> = ids
            .iter()
            .filter(|id| known.get(id).is_none_or(|(_, read_at)| read_at.elapsed() > FRESH_FOR))
            .cloned()
            .collect();
        stale.sort();
        stale.dedup();
        let read = if stale.is_empty() {
            HashMap::new()
        } else if stale.iter().all(|id| known.contains_key(id)) {
            match timeout(REFRESH_WAIT, self.read(&stale)).await {
                Ok(Ok(read)) => read,
                // The ledger is away or slow: what is known serves, and is not asked for again at every look.
                Ok(Err(_)) | Err(_) => {
                    for (id, (row, _)) in known.iter().filter(|(id, _)| stale.binary_search(id).is_ok()) {
                        self.rows.insert((*id).clone(), (row.clone(), Instant::now()));
                    }
                    HashMap::new()
                }
            }
        } else {
            self.read(&stale).await?
        };
        let product = |id| read.get(id).cloned().or_else(|| known.get(id).map(|(row, _)| row.clone()));
        Ok(ids.iter().map(product).collect())
    }

    async fn read(&self, ids: &[ProductId]) -> Result<HashMap<ProductId, Arc<Product>>, LedgerError> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let rows = in_time(self.ledger.products(ids)).await?.into_iter().map(|row| (row.id.clone(), Arc::new(row)));
        let rows: HashMap<_, _> = rows.collect();
        for (id, row) in &rows {
            self.rows.insert(id.clone(), (row.clone(), Instant::now()));
        }
        Ok(rows)
    }

    /// Reads these rows anew at the next look.
    pub fn forget<'a>(&self, ids: impl Iterator<Item = &'a ProductId>) {
        for id in ids {
            self.rows.remove(id);
        }
    }
}
