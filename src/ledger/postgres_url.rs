//! What the URL of Postgres says. Its parameters are those of libpq (PostgreSQL 17, 32.1.2), as providers hand them out.
//!
//! Invariant: a parameter is heeded, is known to change nothing here, or is refused by its name. No other value is repeated
//! in a message than one that the parameter can't have.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use super::error::{LedgerError, Result};
use super::tls::Tls;

pub(super) const EXAMPLE: &str =
    "it should look like postgres://user:password@host:5432/acclaim or sqlite://acclaim.db";

/// Which the driver reads itself.
const OF_THE_DRIVER: [&str; 8] =
    ["host", "hostaddr", "port", "user", "password", "dbname", "options", "application_name"];
/// How long a connection may take to come about, and how one is noticed that has died, is the same for every ledger; and a
/// name for programs that have none.
const WITHOUT_EFFECT: [&str; 8] = [
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "keepalives_retries",
    "tcp_user_timeout",
    "fallback_application_name",
];
/// Values that say how it is done anyway; another can't be had.
const AS_IT_IS: [(&str, &[&str]); 8] = [
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["disable", "allow"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("load_balance_hosts", &["disable"]),
];

fn wrong(what: &str) -> LedgerError {
    LedgerError::Internal(format!("the database URL {what}"))
}

/// What connections are made with. `ca_file` goes before the URL's `sslrootcert`.
pub(super) fn read(url: &str, ca_file: Option<&Path>) -> Result<(Config, Option<Tls>)> {
    // A password may hold a question mark.
    let past_password = url.find('@').unwrap_or(0);
    let query_at = url[past_password..].find('?').map_or(url.len(), |at| past_password + at);
    let (start, query) = url.split_at(query_at);
    let (mut asked, mut of_the_driver) = (Asked::default(), Vec::new());
    for parameter in query.trim_start_matches('?').split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if OF_THE_DRIVER.contains(&name) {
            of_the_driver.push(parameter);
        } else {
            asked.take(name, value)?;
        }
    }
    let question = if of_the_driver.is_empty() { "" } else { "?" };
    let url = format!("{start}{question}{}", of_the_driver.join("&"));
    // The parser's own message is not passed on: it may quote the password.
    let mut config: Config = url.parse().map_err(|_| wrong(&format!("is not well formed; {EXAMPLE}")))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(wrong(&format!("names no host; {EXAMPLE}")));
    }
    if config.get_application_name().is_none() {
        config.application_name("acclaim");
    }
    config.target_session_attrs(asked.attrs.unwrap_or(TargetSessionAttrs::Any));
    config.channel_binding(asked.binding.unwrap_or(ChannelBinding::Prefer));
    // What is encrypted is so before the driver sees it. In this mode it sends no request for TLS, and asks the stream
    // which channel it is.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let tls = asked.tls(ca_file)?;
    Ok((config, tls))
}

/// What the parameters ask for that are not the driver's.
#[derive(Default)]
struct Asked {
    mode: Option<String>,
    root_file: Option<PathBuf>,
    /// The authorities of the system, for which those that browsers trust are taken.
    trusts_system: bool,
    binding: Option<ChannelBinding>,
    attrs: Option<TargetSessionAttrs>,
}

impl Asked {
    fn take(&mut self, name: &str, value: &str) -> Result<()> {
        let one_of = |words: &str| Err(wrong(&format!("has an unknown {name}: set {words}")));
        let value = percent_decode_str(value).decode_utf8();
        let value = &*value.map_err(|_| wrong(&format!("has a value of {name} that is not UTF-8")))?;
        match (name, value) {
            ("sslmode", "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full") => {
                self.mode = Some(value.to_owned());
            }
            ("sslmode", _) => return one_of("verify-full or disable"),
            // JDBC's word, which libpq takes in URLs.
            ("ssl", "true") => self.mode = Some("require".to_owned()),
            ("sslrootcert", "system") => self.trusts_system = true,
            ("sslrootcert", _) => self.root_file = Some(PathBuf::from(value)),
            ("channel_binding", "require") => self.binding = Some(ChannelBinding::Require),
            ("channel_binding", "prefer") => self.binding = Some(ChannelBinding::Prefer),
            ("channel_binding", "disable") => self.binding = Some(ChannelBinding::Disable),
            ("channel_binding", _) => return one_of("require, prefer or disable"),
            ("target_session_attrs", "any") => self.attrs = Some(TargetSessionAttrs::Any),
            ("target_session_attrs", "read-write" | "primary") => self.attrs = Some(TargetSessionAttrs::ReadWrite),
            ("target_session_attrs", "read-only" | "standby" | "prefer-standby") => {
                return Err(wrong("asks for a server that only reads, and the ledger is written to: set read-write"));
            }
            ("target_session_attrs", _) => return one_of("read-write or any"),
            _ if WITHOUT_EFFECT.contains(&name) => {}
            _ => return expected(name, value),
        }
        Ok(())
    }

    /// `require` and `verify-ca` check as much as `verify-full` does: encryption to nobody knows whom helps nobody. The other
    /// modes are plain text.
    fn tls(self, ca_file: Option<&Path>) -> Result<Option<Tls>> {
        let file = ca_file.map(Path::to_owned).or(self.root_file);
        let is_bound = self.binding == Some(ChannelBinding::Require);
        let is_asked_for = match self.mode.as_deref() {
            None => file.is_some() || self.trusts_system || is_bound,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) if file.is_some() => {
                return Err(wrong("asks for no TLS, and a CA file is set: set sslmode=verify-full, or no CA file"));
            }
            Some("disable") if is_bound => {
                return Err(wrong("asks for channel binding, and for no TLS: set sslmode=verify-full"));
            }
            // Who would do without TLS, but not without what only TLS gives.
            Some(_) => is_bound,
        };
        if is_asked_for { Tls::trusting(file.as_deref()).map(Some) } else { Ok(None) }
    }
}

/// Takes values that change nothing. What is refused is named, and so is what to do.
fn expected(name: &str, value: &str) -> Result<()> {
    match AS_IT_IS.iter().find(|(known, _)| *known == name) {
        Some((_, words)) if words.contains(&value) => return Ok(()),
        Some((_, words)) => {
            return Err(wrong(&format!("has a {name} that is not supported: take it out, or set {}", words[0])));
        }
        None => {}
    }
    Err(match name {
        "sslcert" | "sslkey" | "sslpassword" => wrong(&format!(
            "has the parameter {name}, but no certificates of clients are sent: take it out, and set a password"
        )),
        _ => {
            let name: String = percent_decode_str(name).decode_utf8_lossy().chars().take(40).collect();
            wrong(&format!("has the parameter {name:?}, which is not supported: take it out"))
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn refusal(url: &str, file: Option<&str>) -> String {
        read(url, file.map(Path::new)).err().unwrap_or_else(|| panic!("{url}")).to_string()
    }

    #[test]
    fn parameters_of_libpq_are_heeded() {
        let (config, tls) = read("postgres://u:p?@host/db?application_name=x&options=-c%20a%3Db", None).unwrap();
        assert_eq!(config.get_hosts(), [Host::Tcp("host".to_owned())]);
        assert_eq!((config.get_application_name(), config.get_options()), (Some("x"), Some("-c a=b")));
        assert_eq!((config.get_password(), tls.is_some()), (Some(&b"p?"[..]), false));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::Any);

        let is_encrypted = |query: &str| read(&format!("postgres://host/db?{query}"), None).unwrap().1.is_some();
        for query in [
            "sslmode=require",
            "sslmode=verify-ca",
            "sslmode=verify-full",
            "sslmode=verify%2Dfull",
            "ssl=true",
            "sslrootcert=system",
            "sslmode=prefer&channel_binding=require",
        ] {
            assert!(is_encrypted(query), "{query}");
        }
        for query in ["", "sslmode=disable", "sslmode=prefer", "channel_binding=prefer", "channel_binding=disable"] {
            assert!(!is_encrypted(query), "{query}");
        }
        for (value, attrs) in
            [("primary", TargetSessionAttrs::ReadWrite), ("read-write", TargetSessionAttrs::ReadWrite)]
        {
            let (config, _) = read(&format!("postgres://host/db?target_session_attrs={value}"), None).unwrap();
            assert_eq!(config.get_target_session_attrs(), attrs);
        }
    }

    #[test]
    fn urls_of_providers_are_taken() {
        for query in [
            "sslmode=require&channel_binding=require",
            "channel_binding=require",
            "sslmode=require&options=endpoint%3Dep-cool-darkness-123456&connect_timeout=10",
            "sslmode=verify-full&options=--cluster%3Dquick-otter-123&target_session_attrs=primary",
            "sslmode=require&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5",
            "sslmode=require&gssencmode=disable&sslsni=1&sslnegotiation=postgres&ssl_min_protocol_version=TLSv1.2",
            "fallback_application_name=psql&client_encoding=utf8&tcp_user_timeout=10000&load_balance_hosts=disable",
        ] {
            if let Err(error) = read(&format!("postgres://u:p@host/db?{query}"), None) {
                panic!("{query}: {error}");
            }
        }
    }

    #[test]
    fn what_can_not_be_had_is_named() {
        for (query, said) in [
            ("pgbouncer=true", "\"pgbouncer\", which is not supported: take it out"),
            ("schema=public&connection_limit=1", "\"schema\""),
            ("sslmode", "an unknown sslmode: set verify-full or disable"),
            ("sslmode=on", "verify-full"),
            ("channel_binding=on", "an unknown channel_binding: set require, prefer or disable"),
            ("sslmode=disable&channel_binding=require", "channel binding, and for no TLS"),
            ("target_session_attrs=standby", "only reads"),
            ("target_session_attrs=secondary", "an unknown target_session_attrs"),
            ("sslnegotiation=direct", "sslnegotiation that is not supported: take it out, or set postgres"),
            ("gssencmode=require", "gssencmode"),
            ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
            ("sslcert=a.crt&sslkey=a.key", "sslcert, but no certificates of clients"),
            ("passfile=/x", "\"passfile\""),
            ("require_auth=none", "\"require_auth\""),
            ("sslmode=disable&sslrootcert=ca.pem", "no TLS, and a CA file"),
            ("sslrootcert=%2Fno%2Fsuch", "/no/such"),
        ] {
            let error = refusal(&format!("postgres://u:hunter2@host/db?{query}"), None);
            assert!(error.contains(said) && !error.contains("hunter2"), "{query}: {error}");
        }
        assert!(refusal("postgres://host/db", Some("/no/such/file")).contains("/no/such/file"));
        assert!(refusal("postgres://host/db?sslmode=disable", Some("ca.pem")).contains("no TLS"));
        assert!(refusal("postgres:///db", None).contains("names no host"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(refusal("postgres://host/db", empty.path().to_str()).contains("no certificate"));
    }
}
