//! What goes wrong with Postgres, and how it is set right again.

use std::time::Duration;

use futures_util::FutureExt;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::faults::{Kind, clock_step, server_step};
use crate::world::World;

/// What the database says of a row that it never stores.
pub const REJECTS: &str = "the torture rejects this";

pub async fn strike(world: &World, kind: Kind, lasts: Duration, random: &mut StdRng) -> anyhow::Result<()> {
    const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let mut server = world.postgres.lock().await;
    match kind {
        Kind::PostgresKill => {
            server.kill();
            sleep(lasts).await;
            server.start_again().await?;
        }
        Kind::PostgresStop => {
            server.process()?.signal_all("STOP");
            sleep(lasts).await;
            server.process()?.signal_all("CONT");
        }
        Kind::PostgresRestart => {
            server.process()?.signal("INT");
            server.process()?.has_ended_within(Duration::from_secs(30)).await;
            server.start_again().await?;
        }
        Kind::PostgresClockForward => clock_step(&server.clock, server_step(random), lasts).await?,
        Kind::PostgresClockBack => clock_step(&server.clock, -server_step(random), lasts).await?,
        Kind::PostgresTerminate => {
            for _ in 0..3 {
                server.execute(TERMINATE).await?;
                sleep(lasts / 3).await;
            }
        }
        Kind::PostgresLock => {
            let table = ["events", "cursors", "likes", "activity", "meta", "boards"][random.random_range(0..6)];
            let mut client = server.client().await?;
            let transaction = client.transaction().await?;
            transaction.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
            sleep(lasts).await;
            transaction.rollback().await?;
        }
        Kind::PostgresFull => {
            // Without room for rows statements fail; without room for the WAL as well the server stops, and does not come
            // back before there is room.
            let is_without_wal = random.random_bool(0.5);
            let use_up = async {
                // Each takes one of the WAL's files that were made before.
                loop {
                    server.execute("SELECT pg_switch_wal()").await.ok();
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let use_up = timeout(if is_without_wal { lasts } else { Duration::ZERO }, use_up);
            let (full, ()) = tokio::join!(server.disk.be_full(lasts), use_up.map(|_: Result<(), _>| ()));
            full?;
            server.start_again().await?;
        }
        // The same said by a trigger, for one table: what else a transaction writes has room.
        Kind::PostgresRefuses => {
            server
                .execute(
                    "CREATE OR REPLACE FUNCTION torture_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
                    END $$;
                    CREATE TRIGGER torture_full BEFORE INSERT ON events EXECUTE FUNCTION torture_full()",
                )
                .await?;
            sleep(lasts).await;
            server.execute("DROP TRIGGER torture_full ON events").await?;
        }
        // A rule that somebody has put on the table: some rows are never stored.
        Kind::PostgresRejects => {
            let every = random.random_range(2..50);
            server
                .execute(&format!(
                    "CREATE OR REPLACE FUNCTION torture_rejects() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        RAISE EXCEPTION '{REJECTS}' USING ERRCODE = '23514';
                    END $$;
                    CREATE TRIGGER torture_rejects BEFORE INSERT ON events FOR EACH ROW
                        WHEN (abs(hashtext(NEW.id)) % {every} = 0) EXECUTE FUNCTION torture_rejects()"
                ))
                .await?;
            sleep(lasts).await;
            server.execute("DROP TRIGGER torture_rejects ON events").await?;
        }
        Kind::PostgresReadOnly => {
            server.execute("ALTER DATABASE torture SET default_transaction_read_only = on").await?;
            server.execute(TERMINATE).await?;
            sleep(lasts).await;
            let undo = "BEGIN READ WRITE; ALTER DATABASE torture RESET default_transaction_read_only; COMMIT";
            server.execute(undo).await?;
            server.execute(TERMINATE).await?;
        }
        other => anyhow::bail!("{} is not one of Postgres", other.name()),
    }
    Ok(())
}
