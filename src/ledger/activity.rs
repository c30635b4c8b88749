//! Reads activity for boards, row by row as the database hands it over, and adds it up here.
//!
//! Grouping half a million rows by text takes a database three times as long as handing them over, and what it hands over
//! is added up here while it reads on.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::ActivityRow;
use super::db::SqliteConn;
use super::error::{Failure, LedgerError, Result};
use super::schema::activity;
use crate::domain::{Bucket, Count, ProductId, Segment, Signal};

/// After so many rows, some 50 µs, a thread that serves others too gives them their turn.
const ROWS_AT_ONCE: usize = 128;

/// Which rows to read.
#[derive(Clone)]
pub(super) struct Run {
    pub segment: Segment,
    /// By code.
    pub signals: Vec<i16>,
    /// `None` for every product.
    pub products: Option<Vec<String>>,
}

/// Bucket, product, signal and count, of one partition.
type Row = (i32, String, i16, i64);

macro_rules! rows_of {
    ($run:expr) => {{
        let mut rows = activity::table
            .select((activity::bucket, activity::product_id, activity::signal, activity::count))
            .filter(activity::bucket.ge($run.segment.first.0))
            .filter(activity::bucket.lt($run.segment.end.0))
            .filter(activity::signal.eq_any(&$run.signals))
            .into_boxed();
        if let Some(ids) = &$run.products {
            rows = rows.filter(activity::product_id.eq_any(ids));
        }
        rows
    }};
}

/// A connection that activity can be read from.
pub(super) trait ReadsActivity {
    /// Adds a run to what was read before.
    async fn add_up(&mut self, run: &Run, tally: Tally) -> Result<Tally, Failure>;
}

impl ReadsActivity for AsyncPgConnection {
    async fn add_up(&mut self, run: &Run, mut tally: Tally) -> Result<Tally, Failure> {
        let mut rows = rows_of!(run).load_stream::<Row>(self).await?;
        let mut read = 0_usize;
        while let Some(row) = rows.try_next().await? {
            tally.add(row, run.segment)?;
            read += 1;
            if read.is_multiple_of(ROWS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        tally.end(run.segment);
        Ok(tally)
    }
}

impl ReadsActivity for SqliteConn {
    async fn add_up(&mut self, run: &Run, mut tally: Tally) -> Result<Tally, Failure> {
        let run = run.clone();
        let read = self.spawn_blocking(move |conn| {
            let rows = diesel::RunQueryDsl::load_iter::<Row, _>(rows_of!(run), conn)?;
            for row in rows {
                if let Err(error) = tally.add(row?, run.segment) {
                    return Ok(Err(error));
                }
            }
            tally.end(run.segment);
            Ok(Ok(tally))
        });
        Ok(read.await??)
    }
}

/// Counts as they are read.
#[derive(Default)]
pub(super) struct Tally {
    /// Each product's place in `products`.
    places: HashMap<Arc<str>, usize>,
    products: Vec<ProductId>,
    /// Of the even segment that is being read: for each product, a sum for each signal.
    sums: Vec<[i64; Signal::ALL.len()]>,
    /// What is read: a product's place, and a count.
    counts: Vec<(usize, Count)>,
}

impl Tally {
    fn add(&mut self, (bucket, product, signal, count): Row, segment: Segment) -> Result<()> {
        let signal = Signal::from_code(signal).ok_or_else(|| {
            LedgerError::Internal(format!("activity has a signal {signal} that this version does not know"))
        })?;
        let place = match self.places.get(product.as_str()) {
            Some(place) => *place,
            None => {
                let (product, place) = (Arc::<str>::from(product), self.products.len());
                self.products.push(ProductId::from_stored(product.clone()));
                self.places.insert(product, place);
                place
            }
        };
        if segment.is_even {
            if self.sums.len() <= place {
                self.sums.resize(self.products.len(), Default::default());
            }
            let sum = &mut self.sums[place][signal as usize];
            *sum = sum.saturating_add(count);
        } else {
            self.counts.push((place, Count { bucket: Bucket(bucket), signal, count }));
        }
        Ok(())
    }

    /// After the last row of a segment. An even one is told as if all had happened in its first bucket.
    fn end(&mut self, segment: Segment) {
        for (place, sums) in self.sums.drain(..).enumerate() {
            let counts = Signal::ALL.into_iter().zip(sums).filter(|(_, count)| *count != 0);
            let counts = counts.map(|(signal, count)| Count { bucket: segment.first, signal, count });
            self.counts.extend(counts.map(|count| (place, count)));
        }
    }

    /// One row for each product, bucket and signal that does not come to nothing; those of a product stand together.
    pub(super) fn finish(self) -> Vec<ActivityRow> {
        let Self { products, mut counts, .. } = self;
        let key = |(place, count): &(usize, Count)| (*place, count.bucket, count.signal);
        counts.sort_unstable_by_key(key);
        // What several partitions have counted.
        counts.dedup_by(|later, first| {
            let is_same = key(later) == key(first);
            if is_same {
                first.1.count = first.1.count.saturating_add(later.1.count);
            }
            is_same
        });
        let counts = counts.into_iter().filter(|(_, count)| count.count != 0);
        counts.map(|(place, count)| ActivityRow { product: products[place].clone(), count }).collect()
    }
}
