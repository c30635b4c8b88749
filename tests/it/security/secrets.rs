//! Secrets stay inside: whatever goes wrong, and however much is logged, none of them is ever told.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;

use super::tokens::claims;
use crate::support::postgres::{self, Stop};
use crate::support::redis::RedisServer;
use crate::support::stack::{Setup, Stack};
use crate::support::until;

/// Stands in every secret, and nowhere else.
const CANARY: &str = "kanarienvogel";
const JWT: &str = "kanarienvogel-of-tokens-0123456789abcdef";
const REDIS: &str = "kanarienvogel-of-redis";
const POSTGRES: &str = "kanarienvogel-of-postgres";

/// What was told, by whom.
#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Told {
    fn add(&mut self, by: &str, text: impl Into<String>) {
        self.0.push((by.to_owned(), text.into()));
    }

    fn add_output(&mut self, by: &str, output: &Output) {
        self.add(by, format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)));
    }

    fn assert_silent(&self) {
        for (by, text) in &self.0 {
            let found = text.lines().find(|line| line.to_lowercase().contains(CANARY));
            assert!(found.is_none(), "{by} tells a secret: {}", found.unwrap());
        }
    }
}

fn acclaim(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    // None of these takes half as long to see that it can't work.
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=1", "30", env!("CARGO_BIN_EXE_acclaim")])
        .args(arguments)
        .env_clear()
        .env("ACCLAIM_LOG", "trace")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full");
    command.env("PATH", std::env::var_os("PATH").unwrap()).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// Runs a command to its end, which must be a failure.
async fn failing(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = acclaim(arguments, environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?} {environment:?}: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_do_not_work_tell_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("l.db").display());
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "known", "on", ">other", "~*", "&*", "+@all"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at =
        |scheme: &str, user: &str, secret: &str, rest: &str| format!("{scheme}://{user}:{secret}@127.0.0.1:{rest}");
    let port = redis.port();
    let engines = [
        at("redis", "known", REDIS, &free.to_string()),
        at("redis", "known", REDIS, &port.to_string()),
        at("redis", "unknown", REDIS, &format!("{port}/0")),
        at("redis", "", REDIS, &format!("{port}/99999")),
        at("redis", "known", REDIS, "port"),
        at("redis", "known", REDIS, &format!("{port}/database")),
        at("redis", "known", &format!("{REDIS}%"), &port.to_string()),
        at("redis", "known", &format!("{REDIS}%ff"), &port.to_string()),
        at("redis", "known", &format!("{REDIS}#"), &port.to_string()),
        at("redis", "known", &format!("{REDIS}/"), &port.to_string()),
        at("rediss", "known", REDIS, &port.to_string()),
        at("rediss", "known", REDIS, &format!("{port}/#insecure")),
        at("http", "known", REDIS, &port.to_string()),
        format!("redis://127.0.0.1:{port}:{REDIS}"),
        REDIS.to_owned(),
    ];
    let ledgers = [
        at("postgres", "known", POSTGRES, &format!("{free}/acclaim")),
        at("postgres", "known", POSTGRES, "port/acclaim"),
        at("postgres", "known", POSTGRES, &format!("{free}/acclaim?sslmode=odd")),
        at("postgres", "known", POSTGRES, &format!("{free}/acclaim?unknown=1")),
        at("postgres", "known", POSTGRES, &format!("{port}/acclaim")),
        at("postgres", "known", POSTGRES, &format!("{port}/acclaim?sslmode=verify-full")),
        at("postgres", "known", &format!("{POSTGRES}%zz"), &format!("{free}/acclaim")),
        at("postgres", "known", &format!("{POSTGRES}%ff"), &format!("{free}/acclaim")),
        at("mysql", "known", POSTGRES, &format!("{free}/acclaim")),
        format!("postgres:{POSTGRES}"),
        format!("postgres://?password={POSTGRES}"),
        POSTGRES.to_owned(),
    ];
    let mut told = Told::default();
    for engine in &engines {
        let environment = [("DATABASE_URL", sqlite.as_str()), ("REDIS_URL", engine)];
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["doctor"]] {
            told.add_output(&format!("{command:?} on {engine}"), &failing(command, &environment).await);
        }
    }
    for ledger in &ledgers {
        let environment = [("DATABASE_URL", ledger.as_str())];
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["doctor"], &["migrate"]] {
            told.add_output(&format!("{command:?} on {ledger}"), &failing(command, &environment).await);
        }
    }
    let secret = [("ACCLAIM_JWT_SECRET", JWT), ("ACCLAIM_TOKEN", JWT), ("DATABASE_URL", &sqlite)];
    let url = format!("http://127.0.0.1:{free}");
    for command in [
        &["serve", "--listen", "nowhere"][..],
        &["serve", "--jwks-file", "/no/such/file"],
        &["serve", "--tick-ms", "1"],
        &["verify", "--url", &url],
        &["rebuild", "--url", &url, "--wait-max", "0"],
        &["bench", "likes", "--url", &url],
        &["bench", "fanout", "--url", &url],
        &["token", "--user", "", "--role", "admin"],
        &["odd"],
    ] {
        told.add_output(&format!("{command:?}"), &failing(command, &secret).await);
    }
    let short = &JWT[..CANARY.len()];
    told.add_output("a short secret", &failing(&["serve"], &[("ACCLAIM_JWT_SECRET", short)]).await);
    told.add_output("a short secret", &failing(&["serve", "--jwt-secret", short], &[]).await);
    assert!(told.0.iter().any(|(_, text)| text.len() > 40));
    told.assert_silent();
}

#[test]
fn help_tells_no_secret() {
    let environment =
        [("ACCLAIM_JWT_SECRET", JWT), ("ACCLAIM_TOKEN", JWT), ("DATABASE_URL", POSTGRES), ("REDIS_URL", REDIS)];
    let mut told = Told::default();
    for command in [
        "",
        "serve",
        "demo",
        "import",
        "import products",
        "import events",
        "migrate",
        "verify",
        "rebuild",
        "doctor",
        "bench",
        "bench fanout",
        "bench likes",
        "bench rankings",
        "schema",
        "token",
    ] {
        for flag in ["--help", "-h"] {
            let arguments: Vec<_> = command.split_whitespace().chain([flag]).collect();
            let output = acclaim(&arguments, &environment).output().unwrap();
            assert!(output.status.success(), "{command}");
            told.add_output(&format!("{command} {flag}"), &output);
        }
    }
    told.assert_silent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_trouble_tells_no_secret() {
    let mut stack = Stack::new(Setup::Servers).await;
    let mut redis = stack.redis.take().unwrap();
    let allow = |redis: &RedisServer, password: &str| {
        redis.command(&["ACL", "SETUSER", "acclaim", "reset", "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    };
    allow(&redis, REDIS);
    let redis_url = format!("redis://acclaim:{REDIS}@127.0.0.1:{}/", redis.port());
    stack.redis_url = Some(redis_url.clone());
    let database = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let owner = database.url("postgres");
    postgres::execute(&owner, &format!("CREATE ROLE acclaim SUPERUSER LOGIN PASSWORD '{POSTGRES}'")).await;
    postgres::ask_for_passwords(&owner).await;
    stack.postgres = Some(owner.replace("postgres@", &format!("acclaim:{POSTGRES}@")));
    stack.arguments = ["--jwt-secret", JWT, "--log", "trace"].map(str::to_owned).to_vec();
    stack.redis = Some(redis);
    let server = stack.serve().await;
    redis = stack.redis.take().unwrap();
    let token = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims("boss"),
        &jsonwebtoken::EncodingKey::from_secret(JWT.as_bytes()),
    )
    .unwrap();

    let mut told = Told::default();
    let ask = async |told: &mut Told, when: &str| {
        let operations = [
            "{ ranking { nodes { productId } } admin { system { engine { kind } } auditLog { nodes { note } } } }",
            "mutation { upsertProducts(input: { products: [{ id: \"p0\", name: \"Mug\" }] }) { upserted } }",
            "mutation { setLike(input: { productId: \"p0\", liked: true }) { durability } }",
            "mutation { adjustWeights(input: { weights: [{ signal: VIEW, weight: 1 }], note: \"n\" }) { version } }",
            "{ nothing",
        ];
        for query in operations {
            let request = server.http.post(format!("{}/graphql", server.url)).bearer_auth(&token);
            let answer = request.json(&json!({ "query": query })).send().await.unwrap();
            let headers = format!("{:?}", answer.headers());
            told.add(&format!("{when}: {query}"), headers + &answer.text().await.unwrap());
        }
        for path in ["healthz", "readyz", "metrics", "graphiql", "graphql/stream", "no/such/page"] {
            for token in [token.as_str(), "forged"] {
                let answer = server.http.get(format!("{}/{path}", server.url)).bearer_auth(token).send().await.unwrap();
                told.add(&format!("{when}: /{path}"), answer.text().await.unwrap());
            }
        }
        told.add_output(
            &format!("{when}: doctor"),
            &stack.command().arg("doctor").env("ACCLAIM_LOG", "trace").env("REDIS_URL", &redis_url).output().unwrap(),
        );
    };
    ask(&mut told, "all is well").await;
    assert!(told.0.iter().any(|(_, text)| text.contains("COMMITTED")), "likes are taken");

    // Another password meanwhile, and connections cut: the next ones are refused.
    allow(&redis, "another");
    redis.command(&["CLIENT", "KILL", "USER", "acclaim"]);
    ask(&mut told, "Redis has another password").await;
    redis.kill();
    ask(&mut told, "Redis is away").await;
    redis.run();
    ask(&mut told, "Redis knows no such user").await;
    allow(&redis, REDIS);
    postgres::execute(&owner, "ALTER ROLE acclaim PASSWORD 'another'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'acclaim'").await;
    ask(&mut told, "Postgres has another password").await;
    let database = tokio::task::spawn_blocking(move || {
        database.stop(Stop::Fast);
        database
    });
    let database = database.await.unwrap();
    ask(&mut told, "Postgres is away").await;
    let database = tokio::task::spawn_blocking(move || {
        database.start_again();
        database
    });
    let database = database.await.unwrap();
    postgres::execute(&owner, &format!("ALTER ROLE acclaim PASSWORD '{POSTGRES}'")).await;
    until("all is well again", Duration::from_secs(60), async || {
        server.http.get(format!("{}/readyz", server.url)).send().await.unwrap().status().is_success()
    })
    .await;
    server.ask_to_stop();
    let log = server.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "everything is logged");
    told.add("the log", log);
    told.add("the log of tokens", server.log().replace(&token, JWT));
    told.assert_silent();
    tokio::task::spawn_blocking(move || drop(database)).await.unwrap();
}
