//! A check-up of the ledger's database: whether it is set up so that Acclaim works on it and its promises hold.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::check::dead_letter_count;
use super::db::{Db, POSTGRES_CONNECTIONS};
use super::error::{LedgerError, Result};
use super::state;
use super::statement::Statement;
use crate::domain::{Finding, Timestamp, Verdict};

/// Postgres 12 is the first that has MATERIALIZED, on which a commit relies.
const VERSION_MIN: i64 = 120_000;

/// What a server does with each table.
const PRIVILEGES: &[(&str, &str)] = &[
    ("products", "SELECT, INSERT, UPDATE"),
    ("events", "SELECT, INSERT"),
    ("likes", "SELECT, INSERT, UPDATE"),
    ("activity", "SELECT, INSERT, UPDATE"),
    ("cursors", "SELECT, INSERT, UPDATE"),
    ("meta", "SELECT, INSERT, UPDATE"),
    ("lease", "SELECT, UPDATE"),
    ("heartbeats", "SELECT, INSERT, UPDATE, DELETE"),
    ("boards", "SELECT, INSERT, UPDATE, DELETE"),
    ("weight_rules", "SELECT, INSERT"),
    ("product_rules", "SELECT, INSERT"),
    ("versions", "SELECT, UPDATE"),
    ("closed_periods", "SELECT, INSERT, UPDATE, DELETE"),
    ("period_results", "SELECT, INSERT, UPDATE, DELETE"),
    ("dead_letters", "SELECT, INSERT, DELETE"),
    ("rejections", "SELECT, INSERT, DELETE"),
    ("audit_log", "SELECT, INSERT"),
];

const ROLE: &str = "Postgres role";

/// How long a SQLite file is looked through for damage: some GB, and half of what a check-up waits for the ledger.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

#[derive(QueryableByName)]
struct Checked {
    #[diesel(sql_type = Text)]
    quick_check: String,
}

#[derive(QueryableByName)]
struct Settings {
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Text)]
    shown_version: String,
    #[diesel(sql_type = BigInt)]
    now_ms: i64,
    #[diesel(sql_type = Bool)]
    only_reads: bool,
    #[diesel(sql_type = Text)]
    fsync: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
    #[diesel(sql_type = BigInt)]
    connections_max: i64,
    #[diesel(sql_type = BigInt)]
    connections: i64,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Nullable<Text>)]
    missing: Option<String>,
}

const SETTINGS: &str = "
    SELECT
        CAST(current_setting('server_version_num') AS BIGINT) AS version,
        current_setting('server_version') AS shown_version,
        CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms,
        pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS only_reads,
        current_setting('fsync') AS fsync,
        current_setting('synchronous_commit') AS synchronous_commit,
        CAST(current_setting('max_connections') AS BIGINT)
            - CAST(current_setting('superuser_reserved_connections') AS BIGINT) AS connections_max,
        (SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
        current_setting('server_encoding') AS encoding,
        (
            SELECT string_agg(privilege || ' on ' || name, ', ' ORDER BY name, privilege)
            FROM UNNEST(string_to_array({tables}, ';'), string_to_array({privileges}, ';')) AS wanted (name, privileges),
                UNNEST(string_to_array(privileges, ', ')) AS privilege
            WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(name, privilege)
        ) AS missing";

pub(super) async fn examine(db: &Db) -> Result<Vec<Finding>> {
    let mut findings = match db {
        Db::Postgres(_) => examine_postgres(db).await?,
        Db::Sqlite(_) => examine_sqlite(db).await,
    };
    // What else would be read of a file that is damaged says nothing, and a Postgres that only reads is one that is down.
    let is_down = |finding: &Finding| finding.verdict == Verdict::Fail && finding.subject == ROLE;
    if matches!(db, Db::Sqlite(_)) && findings.iter().any(|finding| finding.verdict == Verdict::Fail)
        || findings.iter().any(is_down)
    {
        return Ok(findings);
    }
    let subject = "ledger's tables";
    let pending = state::pending(db).await?;
    findings.push(match pending.len() {
        0 => Finding::ok(subject, "up to date"),
        n => Finding::warn(
            subject,
            format!("{n} migrations are not applied: acclaim serve applies them at its start, or run acclaim migrate"),
        ),
    });
    if pending.is_empty() {
        let subject = "dead letters";
        findings.push(match dead_letter_count(db).await? {
            0 => Finding::ok(subject, "there are none"),
            n => Finding::warn(
                subject,
                format!(
                    "{n} entries could not be stored or are missing; see admin {{ deadLetters }} and replayDeadLetters"
                ),
            ),
        });
    }
    Ok(findings)
}

async fn examine_postgres(db: &Db) -> Result<Vec<Finding>> {
    let joined = |part: fn(&(&str, &str)) -> String| PRIVILEGES.iter().map(part).collect::<Vec<_>>().join(";");
    let (tables, privileges) = (joined(|(table, _)| (*table).to_owned()), joined(|(_, wanted)| (*wanted).to_owned()));
    let Db::Postgres(postgres) = db else { return Ok(Vec::new()) };
    let asked_at = Timestamp::now();
    // Outside the pool, whose connections are expected to take writes.
    let mut held = postgres.connector.open().await?;
    let ask = Statement::new(SETTINGS).bind::<Text, _>(tables).bind::<Text, _>(privileges);
    let settings: Result<Settings, _> = ask.get_result(&mut held.diesel).await;
    let settings = settings.map_err(|error| held.explain(error.into()))?;
    // Half of the way there and back has passed.
    let here_ms = (asked_at.as_ms() + Timestamp::now().as_ms()) / 2;
    let Settings { version, shown_version, now_ms, only_reads, fsync, synchronous_commit, .. } = settings;
    let free = settings.connections_max - settings.connections;
    let room = format!("{free} of {} connections are free", settings.connections_max);
    Ok(vec![
        match version {
            VERSION_MIN.. => Finding::ok("Postgres version", shown_version),
            _ => Finding::fail("Postgres version", format!("{shown_version}; Acclaim needs 12 or newer: install that")),
        },
        match only_reads {
            false => Finding::ok(ROLE, "it takes writes"),
            true => Finding::fail(
                ROLE,
                "it only reads, as a standby does, or where default_transaction_read_only is set; set DATABASE_URL to the \
                 primary, or add target_session_attrs=read-write",
            ),
        },
        match settings.encoding.as_str() {
            "UTF8" => Finding::ok("Postgres encoding", "UTF8"),
            other => Finding::fail("Postgres encoding", format!("{other} can't hold every id; use a database in UTF8")),
        },
        match (fsync.as_str(), synchronous_commit.as_str()) {
            ("on", "off") => Finding::warn(
                "Postgres persistence",
                "synchronous_commit is off: a crash may lose the last COMMITTED likes; set it to on",
            ),
            ("on", _) => Finding::ok("Postgres persistence", "a commit is on disk"),
            _ => Finding::fail("Postgres persistence", "fsync is off: a crash may lose the whole ledger; set it to on"),
        },
        match settings.missing {
            None => Finding::ok("Postgres permissions", "the user may do what a server does"),
            Some(missing) => Finding::fail("Postgres permissions", format!("the user lacks {missing}; GRANT it")),
        },
        // Those of the pools, and one each for a lock at the start and for this.
        match free >= i64::from(POSTGRES_CONNECTIONS) + 2 {
            true => Finding::ok("Postgres connections", room),
            false => Finding::warn(
                "Postgres connections",
                format!("{room}, and a server uses up to {}; raise max_connections", POSTGRES_CONNECTIONS + 1),
            ),
        },
        Finding::clock("Postgres clock", Verdict::Fail, now_ms - here_ms, "a server on this machine does not lead"),
    ])
}

async fn examine_sqlite(db: &Db) -> Vec<Finding> {
    let Db::Sqlite(sqlite) = db else { return Vec::new() };
    let subject = "SQLite file";
    let file = sqlite.file.display();
    let written = async {
        let mut held = sqlite.writer().await?;
        let tried = held.batch_execute("BEGIN IMMEDIATE; ROLLBACK").await;
        tried.map_err(|error| LedgerError::Unavailable(error.to_string()))
    };
    let looked_through = async {
        let mut held = sqlite.reader().await?;
        let said: QueryResult<Vec<Checked>> = diesel::sql_query("PRAGMA quick_check(1)").load(&mut *held).await;
        said.map_err(|error| LedgerError::Unavailable(error.to_string()))
    };
    let writable = match written.await {
        Ok(()) => Finding::ok(subject, format!("{file} can be written")),
        Err(error) => Finding::fail(
            subject,
            format!("{file} can't be written ({error}); see who holds it, its permissions and its disk"),
        ),
    };
    let damaged = |why: &str| {
        let why = why.lines().collect::<Vec<_>>().join(" ");
        Finding::fail(subject, format!("{file} is damaged ({why}); put a backup in its place"))
    };
    let sound = match tokio::time::timeout(CHECK_LIMIT, looked_through).await {
        Ok(Ok(said)) => match said.as_slice().first().map(|row| row.quick_check.as_str()) {
            None | Some("ok") => Finding::ok(subject, format!("{file} is sound")),
            Some(why) => damaged(why),
        },
        Ok(Err(error)) => match error.to_string() {
            why if ["malformed", "not a database"].iter().any(|sign| why.contains(sign)) => damaged(&why),
            why => Finding::fail(subject, format!("{file} can't be looked through ({why})")),
        },
        Err(_) => Finding::ok(subject, format!("{file} is too large to be looked through here")),
    };
    let others = std::fs::metadata(&sqlite.file).map(|metadata| metadata.permissions().mode() & 0o077);
    let private = match others {
        Ok(0) => Finding::ok(subject, format!("{file} is its owner's alone")),
        _ => {
            Finding::warn(subject, format!("others on this machine may read {file}, which names people: chmod 600 it"))
        }
    };
    vec![writable, sound, private]
}
