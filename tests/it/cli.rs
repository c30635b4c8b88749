//! The command line from outside: exit codes, errors of one line, and no secret in any of them.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::support::stack::{Setup, Stack};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs `acclaim` with nothing of this process's environment but what a program needs to start.
fn acclaim(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_acclaim"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program was built with the tests")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails with this exit code and one line, which is returned.
fn refusal(code: i32, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = acclaim(arguments, environment);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert_eq!((error.lines().count(), text(&output.stdout).as_str()), (1, ""), "{arguments:?}: {error}");
    error
}

#[test]
fn every_command_explains_itself_and_keeps_secrets() {
    let secrets =
        [("ACCLAIM_JWT_SECRET", SECRET), ("ACCLAIM_TOKEN", SECRET), ("DATABASE_URL", SECRET), ("REDIS_URL", SECRET)];
    for command in [
        "serve",
        "demo",
        "import products",
        "import events",
        "migrate",
        "verify",
        "rebuild",
        "doctor",
        "schema",
        "token",
        "bench fanout",
        "bench likes",
        "bench rankings",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = acclaim(&arguments, &secrets);
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(help.contains("Example") && help.contains(&format!("acclaim {command}")), "{help}");
        assert!(!help.contains(SECRET), "{help}");
    }
}

#[test]
fn settings_that_can_not_work_are_refused_in_one_line() {
    let error = refusal(2, &["serve"], &[("ACCLAIM_LISTEN", "0.0.0.0:0")]);
    assert!(error.contains("--jwt-secret (ACCLAIM_JWT_SECRET)"), "{error}");
    let error = refusal(2, &["serve"], &[("DATABASE_URL", "mysql://u:hunter2@host/db")]);
    assert!(error.contains("DATABASE_URL") && !error.contains("hunter2"), "{error}");
    let error = refusal(2, &["schema", "--log", "acclaim=loud"], &[]);
    assert!(error.contains("ACCLAIM_LOG"), "{error}");
    let error = refusal(2, &["schema", "--log", "warning"], &[]);
    assert!(error.contains("\"warning\" is no level"), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = refusal(1, &["serve", "--listen", &address], &[]);
    assert!(error.contains(&address) && error.contains("--listen (ACCLAIM_LISTEN)"), "{error}");
    assert_eq!(acclaim(&["like"], &[]).status.code(), Some(2));
}

#[test]
fn clients_of_a_server_that_is_away_say_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = refusal(1, &["verify", "--url", &url], &[]);
    assert!(error.contains(&url), "{error}");
    let error = refusal(1, &["rebuild", "--url", &url], &[]);
    assert!(error.contains(&url), "{error}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"id,name\na,A\n").unwrap();
    let path = file.path().to_str().unwrap();
    let output = acclaim(&["import", "products", path, "--url", &url, "--wait-max", "0"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("can be loaded again"), "{}", text(&output.stderr));
    let error = refusal(1, &["import", "events", path], &[]);
    assert!(error.contains("no column \"signal\""), "{error}");
    let error = refusal(1, &["import", "events", "no-such-file.csv"], &[]);
    assert!(error.contains("no-such-file.csv"), "{error}");
}

#[test]
fn a_token_is_signed_with_the_secret_and_carries_its_claims() {
    let arguments = ["token", "--user", "ann", "--role", "admin", "--role", "ingest", "--valid-for", "8h"];
    let output = acclaim(&arguments, &[("ACCLAIM_JWT_SECRET", SECRET)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    let token = text(&output.stdout);
    let claims = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &validation).unwrap().claims;
    assert_eq!((&claims["sub"], &claims["roles"]), (&"ann".into(), &serde_json::json!(["ADMIN", "INGEST"])));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 8 * 3600);
}

/// A name that an earlier release took from the machine, or that a newer one knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_board_in_an_unknown_time_zone_is_named() {
    let stack = Stack::new(Setup::Embedded).await;
    assert!(stack.command().arg("migrate").output().unwrap().status.success());
    stack.sql("UPDATE boards SET time_zone = 'localtime' WHERE id = 'daily'").await;
    let output = stack.command().args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("the board \"daily\": \"localtime\" is not an IANA time zone"), "{told}");
    assert!(told.contains("set time_zone in the table boards"), "{told}");
    stack.sql("UPDATE boards SET time_zone = 'UTC' WHERE id = 'daily'").await;
    let server = stack.serve().await;
    let board = server.graphql("ann", "{ board { timeZone } }", serde_json::json!({})).await;
    assert_eq!(board["board"]["timeZone"], "UTC");
}
