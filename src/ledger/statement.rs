//! A statement that diesel's query builder can not say: SQL text with `{name}` where a value stands, and the values in
//! the order of those places. Unlike `sql_query` it is prepared once per connection.

use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// Rows are read by name, with `#[derive(QueryableByName)]`.
pub(super) struct Statement<'a, DB: Backend> {
    text: &'static str,
    values: Vec<Box<dyn QueryFragment<DB> + Send + 'a>>,
}

impl<'a, DB: Backend> Statement<'a, DB> {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, values: Vec::new() }
    }

    /// The value for the next place, as a value of the SQL type `ST`.
    pub(super) fn bind<ST, V>(mut self, value: V) -> Self
    where
        DB: HasSqlType<ST>,
        ST: Send + 'a,
        V: ToSql<ST, DB> + Send + 'a,
    {
        self.values.push(Box::new(Value(value, PhantomData::<ST>)));
        self
    }
}

struct Value<V, ST>(V, PhantomData<ST>);

impl<V, ST, DB> QueryFragment<DB> for Value<V, ST>
where
    DB: Backend + HasSqlType<ST>,
    V: ToSql<ST, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param(&self.0)
    }
}

impl<DB: Backend> QueryFragment<DB> for Statement<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut rest = self.text;
        let mut values = self.values.iter();
        while let Some((before, after)) = rest.split_once('{') {
            out.push_sql(before);
            values.next().expect("every place has a value").walk_ast(out.reborrow())?;
            rest = after.split_once('}').expect("every place is closed").1;
        }
        debug_assert!(values.next().is_none(), "every value has a place");
        out.push_sql(rest);
        Ok(())
    }
}

/// No static id: diesel then knows a prepared statement by its text.
impl<DB: Backend> QueryId for Statement<'_, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> Query for Statement<'_, DB> {
    type SqlType = Untyped;
}

/// For SQLite, whose transactions may run as one piece on a blocking thread.
impl<Conn, DB: Backend> diesel::RunQueryDsl<Conn> for Statement<'_, DB> {}
