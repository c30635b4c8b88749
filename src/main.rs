//! The command line. Reads the settings, calls the library, and turns what comes back into lines and an exit code:
//! 0 for done, 1 for failure, bad rows or differences, 2 for a command or setting that can't work.

mod config;
mod doctor;
mod log;
mod welcome;

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acclaim::client::import::{self, Contents};
use acclaim::client::{Caller, Client, bench, demo, rebuild, verify};
use acclaim::domain::{Timestamp, Verdict};
use acclaim::engine::Engine;
use acclaim::engine::memory::MemoryEngine;
use acclaim::engine::redis::RedisEngine;
use acclaim::ledger::{Ledger, name_long_wait};
use acclaim::live::Hub;
use acclaim::pipeline::{self, App};
use acclaim::server::auth::{self, Auth, Expected, Keys, Source};
use acclaim::server::{Proxies, ServerConfig};
use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Bench, Cli, Command, Graphiql, Import, ImportFile, Remote, Role};

/// A request makes hundreds of small allocations on whatever thread it is polled; the system's own allocator spent a tenth
/// of the server's time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What of [`STOP_TIMEOUT`] is left for the journal once requests and sockets are done.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// A bench signs a token for each call, which is answered or given up long before.
const BENCH_TOKEN_VALID_FOR: Duration = Duration::from_secs(600);
/// Bytes of a thread's stack: answering a document of the deepest kind takes some hundreds of KB where it is compiled for
/// speed, and several times as many where it is not. What nobody uses is not taken from memory.
const STACK_LEN: usize = 8 << 20;
/// A server that has not stopped by then is cut off: orchestrators kill soon after, without a word.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // Each socket is an open file, and many systems allow no more than 1,024 unless asked; where more can't be had, what is
    // allowed has to do.
    rlimit::increase_nofile_limit(u64::MAX).ok();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().thread_stack_size(STACK_LEN).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("acclaim: can't start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(execute());
    // A long read of SQLite runs on a thread that can't be stopped; nothing waits for its answer any more.
    runtime.shutdown_timeout(Duration::from_millis(500));
    code
}

async fn execute() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = cli.command.check() {
        eprintln!("acclaim: {why}");
        return ExitCode::from(2);
    }
    // The database's driver repeats what Postgres says of tables that are there already.
    let quiet_unless_asked = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info,tokio_postgres=warn" };
    let filter = cli.log.as_deref().unwrap_or(quiet_unless_asked);
    if let Err(why) = log::begin(filter) {
        eprintln!("acclaim: {why}");
        return ExitCode::from(2);
    }
    match run(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("acclaim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(settings) => {
            let listener = bind(&settings.listen).await?;
            until_stopped(|shutdown| server(settings, listener, shutdown)).await?;
        }
        Command::Demo(settings) => run_demo(settings).await?,
        Command::Import(Import::Products(file)) => return import_file(file, Contents::Products).await,
        Command::Import(Import::Events { file, shift_to_now }) => {
            return import_file(file, Contents::Events { shift_to_now }).await;
        }
        Command::Migrate(database) => {
            let ledger = ledger(&database).await?;
            let applied = ledger.migrate().await?;
            print(&match applied.len() {
                0 => "the ledger is up to date".to_owned(),
                _ => format!("applied: {}", applied.join(", ")),
            })?;
        }
        Command::Verify(settings) => {
            let client = client(&settings.remote)?;
            let patience = Duration::from_secs(settings.wait_max);
            let mut report = verify::verify(&client, settings.board.as_ref(), patience).await?;
            print(&report.to_string())?;
            if settings.repair && report.differing > 0 {
                print(&verify::repair(&client, patience).await?.to_string())?;
                report = verify::verify(&client, settings.board.as_ref(), patience).await?;
                print(&report.to_string())?;
            }
            return Ok(if report.differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Rebuild(settings) => {
            let (board, from) = (settings.board.as_ref(), settings.from.as_deref());
            let patience = Duration::from_secs(settings.wait_max);
            rebuild::rebuild(&client(&settings.remote)?, board, from, patience).await?;
        }
        Command::Doctor(settings) => {
            let findings = doctor::examine(&settings).await;
            for finding in &findings {
                print(&finding.to_string())?;
            }
            print(&doctor::summary(&findings))?;
            let fails = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
            return Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        Command::Bench(kind) => return run_bench(kind).await,
        Command::Schema => print(acclaim::graphql::sdl().trim_end())?,
        Command::Token(settings) => print(&token(&settings)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

// ------------------------------------------------------------ serving

/// A node and its server, from connecting to the last synced entry.
async fn server(settings: config::Serve, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    #[cfg(feature = "planted-bugs")]
    settings.planted_bug.iter().for_each(|bug| bug.plant());
    let auth = auth(&settings.auth).await?;
    let ledger = name_long_wait("the database at DATABASE_URL to answer", ledger(&settings.database)).await;
    let ledger = ledger.context("DATABASE_URL")?;
    let migrated = name_long_wait("the ledger's tables to be brought up to date", ledger.migrate()).await;
    migrated.context("DATABASE_URL: the ledger's tables can't be brought up to date")?;
    let engine = name_long_wait("Redis to answer", engine(&settings)).await.context("REDIS_URL")?;
    let pace = pipeline::Settings {
        ack_timeout: Duration::from_millis(settings.tuning.ack_timeout_ms),
        tick: Duration::from_millis(settings.tuning.tick_ms),
        follows_ledger_clock: true,
        ..pipeline::Settings::default()
    };
    let app = App::start(engine, ledger, pace).await?;
    let hub = Hub::start(&app);
    let address = listener.local_addr()?;
    let has_page = settings.pages.graphiql == Graphiql::On;
    eprint!("{}", welcome::text(address, app.engine().kind(), app.ledger().kind(), &auth, has_page));
    let limits = settings.limits.plain(settings.auth.is_set());
    let config = ServerConfig {
        auth,
        allow_origin: settings.auth.allow_origin,
        allow_host: settings.auth.allow_host,
        graphiql: has_page,
        graphiql_assets: settings.pages.graphiql_assets,
        limits,
        proxies: Proxies::trusting(settings.auth.trusted_proxy),
        metrics: settings.pages.metrics.plain(),
    };
    let served = acclaim::server::serve(listener, app.clone(), hub, config, shutdown).await;
    app.stop(SYNC_TIMEOUT).await;
    served
}

async fn auth(settings: &config::Auth) -> anyhow::Result<Auth> {
    if !settings.is_set() {
        return Ok(Auth::Open);
    }
    let authorities = settings.jwks_ca_file.as_ref().map(|file| {
        std::fs::read(file).with_context(|| format!("ACCLAIM_JWKS_CA_FILE: can't read {}", file.display()))
    });
    let authorities = authorities.transpose()?;
    let source = match (&settings.jwks_file, &settings.jwks_url) {
        (Some(file), _) => Some(Source::File(file.clone())),
        (None, Some(url)) => Some(Source::address(url, authorities.as_deref())?),
        (None, None) => None,
    };
    let has_source = source.is_some();
    let secret = settings.jwt.jwt_secret.as_ref().map(config::Secret::reveal);
    let keys = Keys::reading(secret, source).await?.without_revoked(settings.revoked.clone())?;
    let jwt = &settings.jwt;
    if has_source && jwt.jwt_audience.is_none() {
        tracing::warn!(
            "tokens for other audiences are taken as well, if the identity provider signs any: set --jwt-audience \
             (ACCLAIM_JWT_AUDIENCE)"
        );
    }
    let expected = Expected { issuer: jwt.jwt_issuer.clone(), audience: jwt.jwt_audience.clone() };
    Ok(Auth::Tokens(keys.expecting(expected)))
}

async fn ledger(settings: &config::Database) -> acclaim::ledger::Result<Ledger> {
    Ledger::connect_trusting(settings.database_url.reveal(), settings.database_ca_file.as_deref()).await
}

async fn engine(settings: &config::Serve) -> anyhow::Result<Arc<dyn Engine>> {
    let limits = settings.tuning.engine_limits();
    let Some(url) = &settings.redis.redis_url else { return Ok(Arc::new(MemoryEngine::new(limits))) };
    let ca_file = settings.redis.redis_ca_file.as_deref();
    let engine = RedisEngine::connect_trusting(url.reveal(), ca_file, &settings.redis.redis_prefix, limits).await?;
    for warning in engine.check_settings().await? {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(engine))
}

async fn bind(listen: &config::Listen) -> anyhow::Result<TcpListener> {
    let address = listen.listen;
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("can't listen on {address}: set another address with --listen (ACCLAIM_LISTEN)"))
}

/// Runs a server until it ends by itself or a signal stops it. A second signal ends the process at once.
async fn until_stopped<F: Future<Output = anyhow::Result<()>>>(
    server: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn({
        let shutdown = shutdown.clone();
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        async move {
            let mut signal = async || tokio::select! { _ = interrupt.recv() => 2, _ = terminate.recv() => 15 };
            signal().await;
            shutdown.cancel();
            // 128 and the signal's number is how shells report an end by signal.
            std::process::exit(128 + signal().await);
        }
    });
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    let ended = tokio::select! {
        ended = server(shutdown.clone()) => ended,
        () = late => Err(anyhow::anyhow!("the server did not stop within {} s", STOP_TIMEOUT.as_secs())),
    };
    signals.abort();
    ended
}

/// The demo's server, and what happens in its shop, side by side. The shop goes first when they are stopped.
async fn run_demo(settings: config::Demo) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("acclaim-demo-").tempdir().context("can't make a temporary folder")?;
    let speed = settings.speed;
    let settings = settings.serve(&folder.path().join("demo.db"));
    let listener = bind(&settings.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    until_stopped(async |shutdown| {
        let stopping = CancellationToken::new();
        let shop = async {
            let ended = tokio::select! {
                ended = demo::run(&url, speed) => ended.map(|never| match never {}),
                () = shutdown.cancelled() => Ok(()),
            };
            stopping.cancel();
            ended
        };
        tokio::try_join!(server(settings, listener, stopping.clone()), shop).map(|_| ())
    })
    .await?;
    folder.close().context("can't remove the demo's folder")
}

// ------------------------------------------------------------ clients

fn client(remote: &Remote) -> anyhow::Result<Client> {
    let caller = match &remote.token {
        Some(token) => Caller::Token(token.reveal().to_owned()),
        None => Caller::Name("acclaim".to_owned()),
    };
    Client::new(&remote.url, caller)
}

async fn import_file(settings: ImportFile, contents: Contents) -> anyhow::Result<ExitCode> {
    let patience = Duration::from_secs(settings.wait_max);
    let summary = import::import_file(&client(&settings.remote)?, &settings.file, contents, patience).await?;
    Ok(if summary.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one kind of load until its time is over or Ctrl-C ends it; a second one ends the process at once.
async fn run_bench(kind: Bench) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    let outcome = match kind {
        Bench::Fanout(settings) => {
            let target = settings.load.target(client(&settings.load.remote)?);
            bench::fanout::run(&target, &settings.settings(), &stop).await?
        }
        Bench::Rankings(settings) => {
            let target = settings.load.target(client(&settings.load.remote)?);
            bench::rankings::run(&target, &settings.settings(), &stop).await?
        }
        Bench::Hostile(settings) => {
            let target = settings.load.target(client(&settings.load.remote)?);
            bench::hostile::run(&target, &settings.settings(), &stop).await?
        }
        Bench::Likes(settings) => {
            let jwt = settings.jwt;
            let caller = move |user: &str, roles: &[Role]| match &jwt.jwt_secret {
                Some(secret) => Ok(Caller::Token(sign(&jwt, secret, user, roles)?)),
                None => Ok(Caller::Name(user.to_owned())),
            };
            let shop = match &settings.load.remote.token {
                Some(_) => client(&settings.load.remote)?,
                None => client(&settings.load.remote)?.called_by(caller("bench", &[Role::User, Role::Ingest])?),
            };
            let target = settings.load.target(shop);
            let caller_of = Box::new(move |user: &str| caller(user, &[Role::User]));
            let (clients, users) = (settings.clients as usize, settings.users as usize);
            let settings = bench::likes::Settings { clients, users, caller_of };
            bench::likes::run(&target, settings, &stop).await?
        }
    };
    print(&outcome.to_string())?;
    for fault in &outcome.faults {
        eprintln!("acclaim: {fault}");
    }
    Ok(if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn token(settings: &config::Token) -> anyhow::Result<String> {
    let secret = settings.jwt.jwt_secret.as_ref().context("checked with the settings: there is a secret")?;
    let claims = claims(&settings.jwt, &settings.user, &settings.role, settings.valid_for)?;
    let claims = auth::Claims { producer: settings.producer.as_ref().map(ToString::to_string), ..claims };
    Ok(auth::sign(secret.reveal(), &claims)?)
}

/// A token that is valid from now on.
fn sign(jwt: &config::Jwt, secret: &config::Secret, user: &str, roles: &[Role]) -> anyhow::Result<String> {
    Ok(auth::sign(secret.reveal(), &claims(jwt, user, roles, BENCH_TOKEN_VALID_FOR)?)?)
}

fn claims(jwt: &config::Jwt, user: &str, roles: &[Role], valid_for: Duration) -> anyhow::Result<auth::Claims> {
    let now = u64::try_from(Timestamp::now().as_ms() / 1000).context("the clock is before 1970")?;
    let role = |role: &Role| match role {
        Role::User => "USER".to_owned(),
        Role::Ingest => "INGEST".to_owned(),
        Role::Admin => "ADMIN".to_owned(),
        Role::Metrics => "METRICS".to_owned(),
    };
    Ok(auth::Claims {
        sub: user.to_owned(),
        iat: Some(now),
        exp: now + valid_for.as_secs(),
        roles: roles.iter().map(role).collect(),
        iss: jwt.jwt_issuer.clone(),
        aud: jwt.jwt_audience.clone(),
        jti: Some(acclaim::graphql::new_request_id()),
        producer: None,
    })
}

/// A line on standard output. Whoever reads it may have seen enough: `acclaim schema | head` is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
