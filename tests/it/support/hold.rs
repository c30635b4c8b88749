//! Keeps everybody else from writing to a ledger, while reading goes on.

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};

use super::stack::Stack;

pub enum Hold {
    /// A session that has the table of events locked.
    Postgres(tokio_postgres::Client),
    /// The one that may write to the file.
    Sqlite(SqliteConnection),
}

impl Hold {
    pub async fn begin(stack: &Stack) -> Self {
        match &stack.postgres {
            Some(url) => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                client.batch_execute("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
                Self::Postgres(client)
            }
            None => {
                let mut other = SqliteConnection::establish(stack.sqlite_file().to_str().unwrap()).unwrap();
                other.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(other)
            }
        }
    }

    pub async fn end(self) {
        match self {
            Self::Postgres(client) => client.batch_execute("ROLLBACK").await.unwrap(),
            Self::Sqlite(mut other) => other.batch_execute("ROLLBACK").unwrap(),
        }
    }
}
