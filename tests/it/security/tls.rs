//! TLS to Redis and Postgres: with an authority of one's own, and never with a stranger.

use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::limited::work;
use crate::support::postgres;
use crate::support::redis::RedisServer;
use crate::support::stack::{Setup, Stack};

/// An authority, and the file of its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, pem("CERTIFICATE", params.self_signed(&key).unwrap().der())).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    pub fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }

    /// Files of a certificate for a name, and of its key.
    pub fn certify(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = (folder.join("server.crt"), folder.join("server.key"));
        std::fs::write(&files.0, pem("CERTIFICATE", certificate.der())).unwrap();
        std::fs::write(&files.1, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        files
    }
}

/// RFC 7468: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// What a server says that does not start with these variables; doctor finds the same.
fn refusal(stack: &Stack, environment: &[(&str, &str)]) -> String {
    let served = stack.command().args(["serve", "--listen", "127.0.0.1:0"]).envs(environment.iter().copied()).output();
    let served = served.unwrap();
    assert!(!served.status.success(), "{environment:?}: {}", text(&served));
    let examined = stack.command().arg("doctor").envs(environment.iter().copied()).output().unwrap();
    assert!(!examined.status.success(), "{environment:?}: {}", text(&examined));
    text(&served)
}

/// A Postgres that speaks TLS with a certificate for localhost, in its own folder.
async fn encrypted(authority: &Authority) -> postgres::Server {
    let database = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    let root = database.url("postgres");
    let (certificate, key) = authority.certify(database.folder(), "localhost");
    postgres::give(&certificate);
    postgres::give(&key);
    for setting in [
        format!("ssl_cert_file = '{}'", certificate.display()),
        format!("ssl_key_file = '{}'", key.display()),
        "ssl = on".to_owned(),
    ] {
        postgres::execute(&root, &format!("ALTER SYSTEM SET {setting}")).await;
    }
    postgres::reload(&root).await;
    database
}

/// What URLs of managed Postgres ask for. The driver refuses `channel_binding=require` unless SCRAM-SHA-256-PLUS is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_bound_to_its_channel_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let own = Authority::new(folder.path(), "own");
    let stack = Stack::new(Setup::Embedded).await;
    let database = encrypted(&own).await;
    let root = database.url("postgres");
    postgres::execute(&root, "CREATE ROLE shop LOGIN PASSWORD 'hunter2'").await;
    postgres::execute(&root, "CREATE DATABASE shop OWNER shop").await;
    let by = async |method: &str| {
        let lines = format!("host all postgres 127.0.0.1/32 trust\nhost all shop all {method}");
        postgres::admit(&root, &lines).await;
    };
    let migrate = |query: &str| {
        let url = format!("postgres://shop:hunter2@localhost:{}/shop?{query}", database.port());
        let environment = [("DATABASE_URL", url.as_str()), ("ACCLAIM_DATABASE_CA_FILE", own.path())];
        let output = stack.command().arg("migrate").envs(environment).output().unwrap();
        (output.status.success(), text(&output))
    };
    let every = "application_name=a&connect_timeout=10&keepalives=1&keepalives_idle=30&target_session_attrs=read-write\
        &gssencmode=disable&options=-c%20statement_timeout%3D60000";
    by("scram-sha-256").await;
    for query in ["sslmode=require&channel_binding=require", "channel_binding=require", "channel_binding=disable", ""] {
        let (done, told) = migrate(&format!("{query}&{every}"));
        assert!(done, "{query}: {told}");
    }
    for (method, reason) in [("password", "channel binding"), ("trust", "channel binding")] {
        by(method).await;
        let (done, told) = migrate("sslmode=require&channel_binding=require");
        assert!(!done && told.contains(reason) && told.contains("set channel_binding=prefer"), "{method}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
        let (done, told) = migrate("sslmode=require&channel_binding=prefer");
        assert!(done, "{method}: {told}");
    }
    for (query, said) in [
        ("sslmode=require&pgbouncer=true", "\"pgbouncer\", which is not supported: take it out"),
        ("sslmode=require&channel_binding=on", "an unknown channel_binding: set require, prefer or disable"),
    ] {
        let (done, told) = migrate(query);
        assert!(!done && told.contains(said), "{query}: {told}");
    }
    tokio::task::spawn_blocking(move || drop(database)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_are_reached_encrypted_by_their_names_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (Authority::new(folder.path(), "own"), Authority::new(folder.path(), "other"));
    let mut stack = Stack::new(Setup::Servers).await;

    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (certificate, key) = own.certify(folder.path(), "localhost");
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let options = [
        ["--save", ""],
        ["--appendonly", "yes"],
        ["--tls-port", &tls_port.to_string()],
        ["--tls-cert-file", certificate],
        ["--tls-key-file", key],
        ["--tls-ca-cert-file", own.path()],
        ["--tls-auth-clients", "no"],
    ];
    let redis = RedisServer::start_with(options.as_flattened());
    let plain_redis = redis.url();
    stack.redis = Some(redis);
    stack.redis_url = Some(format!("rediss://localhost:{tls_port}/"));

    let database = encrypted(&own).await;
    let root = database.url("postgres");
    let (certificate, key) = (database.folder().join("server.crt"), database.folder().join("server.key"));
    let (port, at) = (database.port(), |host: &str, more: &str| {
        format!("postgres://postgres@{host}:{}/postgres{more}", database.port())
    });
    let full = at("localhost", "?sslmode=verify-full");
    stack.postgres = Some(full.clone());

    let (redis_ca, ledger_ca) = ("ACCLAIM_REDIS_CA_FILE", "ACCLAIM_DATABASE_CA_FILE");
    let (tls, trusted) = (stack.redis_url.clone().unwrap(), own.path().to_owned());
    let by_address = format!("rediss://127.0.0.1:{tls_port}/");
    let to_plain = plain_redis.replace("redis://127.0.0.1", "rediss://localhost");
    // Redis: a stranger's certificate, another name, no authority, no TLS there, checks turned off.
    for (url, authority, said) in [
        (tls.as_str(), Some(other.path()), "not trusted"),
        (&by_address, Some(own.path()), "not trusted"),
        (&tls, None, "not trusted"),
        (&to_plain, Some(own.path()), "does not answer"),
        (&format!("{tls}#insecure"), Some(own.path()), "Redis"),
        (&plain_redis, Some(own.path()), "rediss://"),
        (&tls, Some("/no/such/file"), "/no/such/file"),
        (&tls, Some(key.to_str().unwrap()), "no certificate"),
    ] {
        let mut environment = vec![("REDIS_URL", url), (ledger_ca, trusted.as_str())];
        environment.extend(authority.map(|file| (redis_ca, file)));
        let refused = refusal(&stack, &environment);
        assert!(refused.contains(said), "{url}, {authority:?}: {refused}");
    }
    let plain = crate::support::postgres::database().await.replace("127.0.0.1", "localhost");
    for (url, authority, said) in [
        (full.as_str(), Some(other.path()), "not trusted"),
        (&at("127.0.0.1", "?sslmode=verify-full"), Some(own.path()), "not trusted"),
        (&at("127.0.0.1", "?sslmode=require"), Some(own.path()), "not trusted"),
        (&full, None, "not trusted"),
        (&format!("{plain}?sslmode=verify-full"), Some(own.path()), "does not speak TLS"),
        (&at("localhost", "?sslmode=disable"), Some(own.path()), "no TLS"),
        (&at("localhost", "?sslmode=odd"), Some(own.path()), "sslmode"),
        (&full, Some("/no/such/file"), "/no/such/file"),
        (&full, Some(certificate.parent().unwrap().to_str().unwrap()), "CA file"),
    ] {
        let mut environment = vec![("DATABASE_URL", url), (redis_ca, trusted.as_str())];
        environment.extend(authority.map(|file| (ledger_ca, file)));
        let refused = refusal(&stack, &environment);
        assert!(refused.contains(said), "{url}, {authority:?}: {refused}");
    }

    // From here on Postgres takes nothing in the clear, but from who looks at it.
    postgres::admit(&root, "host postgres postgres 127.0.0.1/32 trust\nhostssl acclaim_tls all 127.0.0.1/32 trust\nhostssl acclaim_tls all ::1/128 trust").await;
    postgres::execute(&root, "CREATE DATABASE acclaim_tls").await;
    let encrypted = format!("postgres://postgres@localhost:{port}/acclaim_tls");
    let in_the_clear = refusal(&stack, &[("DATABASE_URL", &encrypted), (redis_ca, &trusted)]);
    assert!(in_the_clear.contains("sslmode=verify-full"), "{in_the_clear}");
    // By a parameter of the URL, as libpq takes it, or by the setting.
    let by_url = format!("{encrypted}?sslmode=verify-full&sslrootcert={}", trusted.replace('/', "%2F"));
    let migrated = stack.command().arg("migrate").env("DATABASE_URL", &by_url).output().unwrap();
    assert!(migrated.status.success(), "{}", text(&migrated));
    stack.postgres = Some(encrypted);
    stack.arguments = ["--redis-ca-file", &trusted, "--database-ca-file", &trusted].map(str::to_owned).to_vec();
    let server = stack.serve().await;
    work(&server).await;
    let by_whom = "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'acclaim' AND";
    assert_eq!(postgres::column(&root, &format!("{by_whom} NOT ssl")).await, ["0"]);
    assert_ne!(postgres::column(&root, &format!("{by_whom} ssl")).await, ["0"]);
    let clients: String = redis::from_redis_value(stack.redis.as_ref().unwrap().command(&["CLIENT", "LIST"])).unwrap();
    let (encrypted, clear): (Vec<_>, Vec<_>) =
        clients.lines().partition(|line| line.contains(&format!("laddr=127.0.0.1:{tls_port} ")));
    // Calls, what is told, and the journal; and whoever asks for this list.
    assert!(encrypted.len() >= 3 && clear.len() == 1, "{clients}");
    let environment = [(redis_ca, trusted.as_str()), (ledger_ca, &trusted)];
    let examined = stack.command().arg("doctor").envs(environment).output().unwrap();
    assert!(examined.status.success(), "{}", text(&examined));
    drop(server);
    tokio::task::spawn_blocking(move || drop(database)).await.unwrap();
}
