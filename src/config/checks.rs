//! Settings that can't work are refused here, each with one sentence: which, why, and what to set.
//!
//! What may hold a secret is checked after parsing, since clap's own errors repeat the value.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use acclaim::domain::{BoardId, Producer, UserId};

use super::{Auth, Command, Database, Demo, Import, Jwt, Listen, Redis, Remote, Serve, Token};

/// As long as the output of HMAC-SHA-256: RFC 7518, section 3.2, demands it.
const JWT_SECRET_LEN_MIN: usize = 32;

type Check = Result<(), String>;

impl Command {
    /// Fails with one sentence.
    pub fn check(&self) -> Check {
        match self {
            Self::Serve(serve) => serve.check(),
            Self::Demo(demo) => demo.check(),
            Self::Import(Import::Products(file) | Import::Events { file, .. }) => file.remote.check(),
            Self::Migrate(database) => database.check(),
            Self::Verify(verify) => verify.remote.check(),
            Self::Doctor(doctor) => {
                doctor.database.check()?;
                doctor.redis.check()
            }
            Self::Rebuild(rebuild) => rebuild.remote.check(),
            Self::Bench(bench) => bench.check(),
            Self::Schema => Ok(()),
            Self::Token(token) => token.check(),
        }
    }
}

impl Serve {
    pub(super) fn check(&self) -> Check {
        self.auth.check()?;
        self.listen.check(self.auth.is_set())?;
        self.database.check()?;
        self.redis.check()
    }
}

impl Demo {
    fn check(&self) -> Check {
        if !(1.0..=10_000.0).contains(&self.speed) {
            return Err("--speed must be from 1 to 10000".to_owned());
        }
        if !self.listen.listen.ip().is_loopback() {
            return Err(format!(
                "--listen {} can be reached from other machines, and the demo has no auth: listen on 127.0.0.1",
                self.listen.listen
            ));
        }
        Ok(())
    }
}

impl Listen {
    fn check(&self, has_auth: bool) -> Check {
        if has_auth || self.listen.ip().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "--listen {} can be reached from other machines, and without auth settings everyone there may do \
             everything: set --jwt-secret (ACCLAIM_JWT_SECRET), --jwks-file (ACCLAIM_JWKS_FILE) or --jwks-url \
             (ACCLAIM_JWKS_URL), or listen on 127.0.0.1",
            self.listen
        ))
    }
}

impl Auth {
    fn check(&self) -> Check {
        self.jwt.check()?;
        if self.jwks_url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return Err(
                "--jwks-url (ACCLAIM_JWKS_URL) must begin with https://, or anybody on the way could put keys of \
                        his own there"
                    .to_owned(),
            );
        }
        if self.revoked.is_some() && !self.is_set() {
            return Err(
                "--revoked (ACCLAIM_REVOKED) takes tokens back, and this server asks for none: set --jwt-secret, \
                        --jwks-file or --jwks-url as well"
                    .to_owned(),
            );
        }
        self.allow_origin.iter().try_for_each(|origin| check_origin(origin))
    }
}

/// An origin as browsers send it: scheme and host, a port where it is not the usual one, nothing after it.
fn check_origin(origin: &str) -> Check {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_host = |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if host.is_some_and(is_host) {
        return Ok(());
    }
    Err(format!(
        "--allow-origin (ACCLAIM_ALLOW_ORIGIN) {origin:?} is not an origin: set something like \
         https://shop.example.com, without a path"
    ))
}

impl Jwt {
    pub(super) fn check(&self) -> Check {
        match &self.jwt_secret {
            Some(secret) if secret.reveal().len() < JWT_SECRET_LEN_MIN => Err(format!(
                "--jwt-secret (ACCLAIM_JWT_SECRET) has {} bytes, and HS256 needs at least {JWT_SECRET_LEN_MIN}: set it \
                 to what `openssl rand -hex 32` prints",
                secret.reveal().len()
            )),
            _ => Ok(()),
        }
    }
}

impl Database {
    fn check(&self) -> Check {
        let known = ["sqlite://", "postgres://", "postgresql://"];
        let rest = known.iter().find_map(|scheme| self.database_url.reveal().strip_prefix(scheme));
        if known[1..].iter().any(|scheme| self.database_url.reveal().starts_with(scheme)) {
            check_password("--database-url (DATABASE_URL)", self.database_url.reveal())?;
        }
        if rest.is_some_and(|rest| !rest.is_empty()) {
            return Ok(());
        }
        Err("--database-url (DATABASE_URL) is neither SQLite's nor Postgres's: set sqlite://FILE or \
             postgres://USER:PASSWORD@HOST/DATABASE"
            .to_owned())
    }
}

impl Redis {
    fn check(&self) -> Check {
        let prefix = &self.redis_prefix;
        // Braces would change which part of a key Redis Cluster places it by, and a long prefix is paid for by every key.
        if !(1..=32).contains(&prefix.len())
            || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        {
            return Err(format!(
                "--redis-prefix (ACCLAIM_REDIS_PREFIX) {prefix:?} can't begin a key: set 1 to 32 letters, digits, or -_.:"
            ));
        }
        match &self.redis_url {
            Some(url)
                if !["redis://", "rediss://", "unix://", "redis+unix://"]
                    .iter()
                    .any(|known| url.reveal().starts_with(known)) =>
            {
                Err("--redis-url (REDIS_URL) is not Redis's: set redis://HOST:PORT, or leave it out to keep hot state \
                     in memory"
                    .to_owned())
            }
            Some(url) if self.redis_ca_file.is_some() && !url.reveal().starts_with("rediss://") => {
                Err("--redis-ca-file (ACCLAIM_REDIS_CA_FILE) is set, and --redis-url (REDIS_URL) asks for no TLS: set \
                     rediss://HOST:PORT"
                    .to_owned())
            }
            // The others are paths of sockets, in which an @ is nothing special.
            Some(url) if url.reveal().starts_with("redis") && !url.reveal().starts_with("redis+") => {
                check_password("--redis-url (REDIS_URL)", url.reveal())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A password with a character that ends it, or the host, would be taken for an address, and addresses are shown.
fn check_password(setting: &str, url: &str) -> Check {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if place.matches('@').count() <= 1 && !after.contains('@') {
        return Ok(());
    }
    Err(format!(
        "{setting} has an @ that is none between password and host: write @ within a password as %40, / as %2F, ? as \
         %3F, # as %23 and % as %25"
    ))
}

impl Remote {
    pub(super) fn check(&self) -> Check {
        if self.url.contains('@') {
            return Err(
                "--url (ACCLAIM_URL) has credentials in it, and they are not what the server asks for: set --token \
                 (ACCLAIM_TOKEN) to what `acclaim token` prints"
                    .to_owned(),
            );
        }
        if self.url.starts_with("http://") || self.url.starts_with("https://") {
            return Ok(());
        }
        Err(format!(
            "--url (ACCLAIM_URL) {:?} is not a server's address: set something like http://127.0.0.1:8080",
            self.url
        ))
    }
}

impl Token {
    fn check(&self) -> Check {
        if self.jwt.jwt_secret.is_none() {
            return Err(
                "there is no secret to sign with: set --jwt-secret (ACCLAIM_JWT_SECRET) to the server's".to_owned()
            );
        }
        self.jwt.check()?;
        UserId::new(&self.user).map(drop).map_err(|error| format!("--user: {error}"))
    }
}

pub(super) fn board(text: &str) -> Result<BoardId, String> {
    BoardId::new(text).map_err(|error| error.to_string())
}

pub(super) fn producer(text: &str) -> Result<Producer, String> {
    Producer::new(text).map_err(|error| error.to_string())
}

/// An address, or `localhost:PORT`, as people write it.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let why = || "set an address and a port, such as 127.0.0.1:8080".to_owned();
    match text.strip_prefix("localhost:") {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().map_err(|_| why())?))),
        None => text.parse().map_err(|_| why()),
    }
}

/// `1d`, `8h`, `1h 30m`: a day is 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = || -> Result<f64, jiff::Error> {
        let span: jiff::Span = text.parse()?;
        span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours()))
    };
    // A century is more than any token should live, and keeps the sum with today within every clock's range.
    match seconds() {
        Ok(seconds) if (1.0..=100.0 * 365.0 * 86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("set a duration such as 30m, 8h or 1d".to_owned()),
    }
}
