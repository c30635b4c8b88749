//! What is accepted, what is refused, and that no help page gives a secret away.

use acclaim::graphql::guards::Explanations;
use clap::{CommandFactory, FromArgMatches};

use super::*;

/// Parses without this process's environment, so that a developer's own settings play no part.
fn parse(line: &str) -> Result<Command, String> {
    let matches = without_environment(Cli::command())
        .try_get_matches_from(line.split_whitespace())
        .map_err(|error| error.to_string())?;
    let command = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?.command;
    command.check()?;
    Ok(command)
}

fn without_environment(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.env(None::<&str>)).mut_subcommands(without_environment)
}

fn refusal(line: &str) -> String {
    parse(line).err().unwrap_or_else(|| panic!("{line} is accepted"))
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn nothing_set_means_memory_sqlite_and_loopback() {
    let Command::Serve(serve) = parse("acclaim serve").unwrap() else { panic!("not serve") };
    assert_eq!(serve.listen.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(serve.database.database_url.reveal(), "sqlite://acclaim.db");
    assert!(serve.redis.redis_url.is_none() && !serve.auth.is_set());
    assert_eq!(serve.redis.redis_prefix, Redis::PREFIX);
    assert_eq!(serve.tuning.engine_limits(), EngineLimits::default());
    let tuning = Tuning::default();
    assert_eq!(serve.limits.plain(false), acclaim::server::Limits::default());
    assert_eq!(Limits::default().plain(false), acclaim::server::Limits::default());
    assert_eq!((serve.tuning.ack_timeout_ms, serve.tuning.tick_ms), (tuning.ack_timeout_ms, tuning.tick_ms));
}

#[test]
fn the_demo_takes_nothing_but_its_own_settings() {
    let Command::Demo(demo) = parse("acclaim demo --listen localhost:9000").unwrap() else { panic!("not demo") };
    let serve = demo.serve(std::path::Path::new("folder/demo.db"));
    assert_eq!(serve.listen.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(serve.database.database_url.reveal(), "sqlite://folder/demo.db");
    assert_eq!(serve.redis.redis_prefix, Redis::PREFIX);
    assert!(serve.check().is_ok());
    assert!(refusal("acclaim demo --listen 0.0.0.0:9000").contains("listen on 127.0.0.1"));
}

#[test]
fn other_machines_are_let_in_only_with_auth() {
    let refused = refusal("acclaim serve --listen 0.0.0.0:8080");
    assert!(refused.contains("--jwt-secret (ACCLAIM_JWT_SECRET)") && !refused.contains('\n'), "{refused}");
    assert!(parse(&format!("acclaim serve --listen 0.0.0.0:8080 --jwt-secret {SECRET}")).is_ok());
    assert!(parse("acclaim serve --listen [::]:8080 --jwks-file keys.json").is_ok());
    assert!(parse("acclaim serve --listen [::1]:8080").is_ok());
}

#[test]
fn refusals_name_the_setting_and_keep_the_secret() {
    for (line, setting) in [
        ("acclaim serve --jwt-secret hunter2", "ACCLAIM_JWT_SECRET"),
        ("acclaim token --user u --role admin --jwt-secret hunter2", "ACCLAIM_JWT_SECRET"),
        ("acclaim serve --database-url mysql://u:hunter2@host/db", "DATABASE_URL"),
        ("acclaim serve --database-url sqlite://", "DATABASE_URL"),
        ("acclaim migrate --database-url hunter2", "DATABASE_URL"),
        ("acclaim serve --redis-url http://u:hunter2@host", "REDIS_URL"),
        ("acclaim serve --database-url postgres://u:p@hunter2@host/db", "DATABASE_URL"),
        ("acclaim serve --database-url postgres://u:p/hunter2@host/db", "DATABASE_URL"),
        ("acclaim serve --redis-url redis://u:p@hunter2@host", "REDIS_URL"),
        ("acclaim serve --redis-url redis://u:1#hunter2@host", "REDIS_URL"),
        ("acclaim verify --url http://u:hunter2@host", "ACCLAIM_URL"),
        ("acclaim verify --url u:hunter2@host:8080", "ACCLAIM_URL"),
        ("acclaim serve --redis-prefix {p0}", "ACCLAIM_REDIS_PREFIX"),
        ("acclaim serve --allow-origin https://shop.example.com/", "ACCLAIM_ALLOW_ORIGIN"),
        ("acclaim serve --allow-origin *", "ACCLAIM_ALLOW_ORIGIN"),
        ("acclaim verify --url localhost:8080", "ACCLAIM_URL"),
        ("acclaim token --user u --role admin", "ACCLAIM_JWT_SECRET"),
    ] {
        let refused = refusal(line);
        assert!(
            refused.contains(setting) && !refused.contains("hunter2") && !refused.contains('\n'),
            "{line}: {refused}"
        );
    }
}

#[test]
fn limits_hold() {
    for line in [
        "acclaim serve --partitions 0",
        "acclaim serve --partitions 65",
        "acclaim serve --tick-ms 9",
        "acclaim serve --like-burst 0",
        "acclaim serve --event-memory 59",
        "acclaim serve --listen 8080",
        "acclaim serve --depth-max 31",
        "acclaim serve --tokens-max 99",
        "acclaim serve --introspection maybe",
        "acclaim serve --header-timeout 0",
        "acclaim serve --trusted-proxy 10.0.0.0/33",
        "acclaim serve --trusted-proxy proxy.internal",
        "acclaim serve --jwks-url http://id.example/keys",
        "acclaim serve --jwks-url https://id.example/keys --jwks-file keys.json",
        "acclaim serve --revoked revoked.json",
        "acclaim serve --budget-burst 0",
        "acclaim serve --in-flight-max 0",
        "acclaim serve --graphiql maybe",
        "acclaim verify Daily",
        "acclaim token --user u --role boss",
        "acclaim demo --speed 0",
        "acclaim import orders f.csv",
    ] {
        refusal(line);
    }
    let Command::Serve(serve) = parse("acclaim serve --introspection false --connections-per-user 0").unwrap() else {
        panic!("not serve")
    };
    let limits = serve.limits.plain(false);
    assert!(!limits.documents.introspection && limits.connections_per_user == 0);
    assert_eq!(limits.documents.explanations, Explanations::Anyone);
    assert_eq!(serve.limits.plain(true).documents.explanations, Explanations::Admins);
    let Command::Serve(serve) = parse("acclaim serve --explanations users").unwrap() else { panic!() };
    assert_eq!(serve.limits.plain(true).documents.explanations, Explanations::Users);
    assert_eq!(serve.limits.plain(false).documents.explanations, Explanations::Users);
    let proxies = "acclaim serve --trusted-proxy 10.0.0.0/8,2001:db8::1 --trusted-proxy 192.0.2.1 --budget 0";
    let Command::Serve(serve) = parse(proxies).unwrap() else { panic!() };
    let proxies: Vec<_> = serve.auth.trusted_proxy.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "2001:db8::1/128", "192.0.2.1/32"]);
    assert_eq!(serve.limits.plain(true).budget_rate, 0);
    assert!(parse("acclaim serve --like-rate 0 --allow-origin https://a.example,http://localhost:5173").is_ok());
}

#[test]
fn a_token_takes_roles_and_a_duration() {
    let line = format!("acclaim token --user ann --role admin --role ingest --valid-for 1d12h --jwt-secret {SECRET}");
    let Command::Token(token) = parse(&line).unwrap() else { panic!("not token") };
    assert_eq!(token.role, [Role::Admin, Role::Ingest]);
    assert_eq!(token.valid_for, Duration::from_secs(36 * 3600));
    for bad in ["0s", "-1h", "soon", "200y"] {
        refusal(&format!("acclaim token --user ann --role admin --valid-for {bad} --jwt-secret {SECRET}"));
    }
}

#[test]
fn secrets_are_not_shown_for_debugging() {
    for line in [
        "acclaim serve --database-url postgres://u:hunter2-hunter2-hunter2-hunter2-hunter2@h/d --redis-url redis://:hunter2@h",
        "acclaim serve --jwt-secret hunter2-hunter2-hunter2-hunter2-hunter2",
        "acclaim doctor --database-url postgres://u:hunter2@h/d --redis-url redis://:hunter2@h",
        "acclaim migrate --database-url postgres://u:hunter2@h/d",
        "acclaim verify --token hunter2",
        "acclaim token --user u --role admin --jwt-secret hunter2-hunter2-hunter2-hunter2-hunter2",
    ] {
        let shown = format!("{:?}", parse(line).unwrap());
        assert!(shown.contains("Secret(…)") && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn every_help_page_explains_and_no_setting_that_may_hold_a_secret_shows_its_value() {
    fn visit(command: &mut clap::Command, pages: &mut u32) {
        *pages += 1;
        let page = command.render_long_help().to_string();
        assert!(page.contains("acclaim "), "{page}");
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "help" && arg.get_id() != "version") {
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
            let id = arg.get_id().as_str();
            let may_be_secret = ["secret", "token", "redis_url", "database_url"].iter().any(|word| id.ends_with(word));
            assert_eq!(arg.is_hide_env_values_set(), may_be_secret, "{id}");
        }
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
            visit(sub, pages);
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut pages = 0;
    visit(&mut command, &mut pages);
    assert_eq!(pages, 17, "acclaim, its ten commands, the two imports and the four benches");
    assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(…)");
}
