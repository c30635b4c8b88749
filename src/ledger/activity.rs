//! Reads activity for boards and adds it up here: grouping half a million rows by text takes a database longer than handing
//! them over.
//!
//! A board may take half a second of work, and a rebuild has it done in short pieces ([`Pace`]), so that whoever reads rankings
//! meanwhile gets a processor at once, even on a machine that has two.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer, SmallInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::StreamExt;

use super::db::SqliteConn;
use super::error::{Failure, LedgerError, Result};
use super::schema::activity;
use super::{ActivityRow, Pace};
use crate::domain::{Bucket, Count, ProductId, Segment, Signal};

/// Rows that are read and added up in one piece, in well under a millisecond.
const PIECE_LEN: usize = 1_000;

/// Which rows to read.
#[derive(Clone)]
pub(super) struct Run {
    pub segment: Segment,
    /// By code.
    pub signals: Vec<i16>,
    /// `None` for every product.
    pub products: Option<Vec<String>>,
    pub pace: Pace,
    pub counts_max: Option<usize>,
}

/// Bucket, product, signal and count, of one partition.
type Row = (i32, String, i16, i64);

macro_rules! rows_of {
    ($run:expr) => {{
        activity::table
            .select((activity::bucket, activity::product_id, activity::signal, activity::count))
            .filter(activity::bucket.ge($run.segment.first.0))
            .filter(activity::bucket.lt($run.segment.end.0))
            .filter(activity::signal.eq_any(&$run.signals))
    }};
}

/// How the counts of some products are added up.
const BY_PRODUCT: (activity::product_id, activity::signal) = (activity::product_id, activity::signal);
const BY_BUCKET: (activity::bucket, activity::product_id, activity::signal) =
    (activity::bucket, activity::product_id, activity::signal);

/// As above, of some products: what partitions and, of an even segment, buckets have counted is added up by the database.
macro_rules! sums_of {
    ($run:expr, $ids:expr, $most:expr, $bucket:expr, $groups:expr) => {
        activity::table
            .group_by($groups)
            .select(($bucket, activity::product_id, activity::signal, sql::<BigInt>("CAST(SUM(count) AS BIGINT)")))
            .filter(activity::bucket.ge($run.segment.first.0))
            .filter(activity::bucket.lt($run.segment.end.0))
            .filter(activity::signal.eq_any(&$run.signals))
            .filter(activity::product_id.eq_any($ids))
            .limit($most)
    };
}

/// A connection that activity can be read from.
pub(super) trait ReadsActivity {
    /// Adds a run to what was read before.
    async fn add_up(&mut self, run: &Run, tally: Tally) -> Result<Tally, Failure>;
}

impl ReadsActivity for AsyncPgConnection {
    async fn add_up(&mut self, run: &Run, mut tally: Tally) -> Result<Tally, Failure> {
        if let Some(ids) = &run.products {
            let most = tally.room(run);
            let rows: Vec<Row> = match run.segment.is_even {
                true => sums_of!(run, ids, most, sql::<Integer>("MIN(bucket)"), BY_PRODUCT).load(self).await?,
                false => sums_of!(run, ids, most, activity::bucket, BY_BUCKET).load(self).await?,
            };
            return Ok(tally.with(rows, run)?);
        }
        match run.pace {
            Pace::Whole => {
                let mut rows = rows_of!(run).load_stream::<Row>(self).await?.enumerate();
                while let Some((index, row)) = rows.next().await {
                    tally.add(row?, run)?;
                    if index % PIECE_LEN == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            // By a cursor, for which this must be in a transaction. All its rows will be wanted, not the first few.
            Pace::Pieces => {
                self.batch_execute("SET LOCAL cursor_tuple_fraction = 1").await?;
                Declare(rows_of!(run)).execute(self).await?;
                let fetch = format!("FETCH {PIECE_LEN} FROM activity_rows");
                loop {
                    let piece: Vec<Row> = sql::<(Integer, Text, SmallInt, BigInt)>(&fetch).load(self).await?;
                    let is_last = piece.len() < PIECE_LEN;
                    for row in piece {
                        tally.add(row, run)?;
                    }
                    if is_last {
                        break;
                    }
                }
                self.batch_execute("CLOSE activity_rows").await?;
            }
        }
        tally.end(run.segment);
        Ok(tally)
    }
}

/// Opens the cursor over what a query selects.
#[derive(QueryId)]
struct Declare<Q>(Q);

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Declare<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("DECLARE activity_rows NO SCROLL CURSOR FOR ");
        self.0.walk_ast(out)
    }
}

impl ReadsActivity for SqliteConn {
    async fn add_up(&mut self, run: &Run, mut tally: Tally) -> Result<Tally, Failure> {
        let run = run.clone();
        let read = self.spawn_blocking(move |conn| {
            if let Some(ids) = &run.products {
                let most = tally.room(&run);
                let rows: Vec<Row> = match run.segment.is_even {
                    true => {
                        let sums = sums_of!(run, ids, most, sql::<Integer>("MIN(bucket)"), BY_PRODUCT);
                        diesel::RunQueryDsl::load(sums, conn)?
                    }
                    false => diesel::RunQueryDsl::load(sums_of!(run, ids, most, activity::bucket, BY_BUCKET), conn)?,
                };
                return Ok(tally.with(rows, &run));
            }
            let rows = diesel::RunQueryDsl::load_iter::<Row, _>(rows_of!(run), conn)?;
            for (index, row) in rows.enumerate() {
                if let Err(error) = tally.add(row?, &run) {
                    return Ok(Err(error));
                }
                if index % PIECE_LEN == 0 {
                    std::thread::yield_now();
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
    /// Rows read so far.
    read: usize,
    /// What is read: a product's place, and a count.
    counts: Vec<(usize, Count)>,
}

impl Tally {
    /// How many rows may still be read, and one more, by which too many are noticed.
    fn room(&self, run: &Run) -> i64 {
        run.counts_max.map_or(i64::MAX, |most| (most + 1).saturating_sub(self.read) as i64)
    }

    fn with(mut self, rows: Vec<Row>, run: &Run) -> Result<Self> {
        rows.into_iter().try_for_each(|row| self.add(row, run))?;
        self.end(run.segment);
        Ok(self)
    }

    fn add(&mut self, (bucket, product, signal, count): Row, run: &Run) -> Result<()> {
        self.read += 1;
        if let Some(most) = run.counts_max.filter(|most| self.read > *most) {
            let message = "too much has been counted for these products in the board's period; ask for fewer of them";
            return Err(LedgerError::TooMany { limit: "counts", value: most, message });
        }
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
        if run.segment.is_even {
            if self.sums.len() <= place {
                self.sums.resize(self.products.len(), Default::default());
            }
            // Nine million million events of the largest count would fill it.
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
