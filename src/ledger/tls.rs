//! Encryption to Postgres: what of its URL asks for it, and the handshake.
//!
//! The driver's own parser knows neither `verify-full` nor `sslrootcert`, and TLS is spoken below the driver, so that what
//! watches its messages ([`super::postgres`]) sees them in the clear.
//! Invariant: whoever asks for TLS reaches a server whose certificate and name were checked, or none.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::error::{LedgerError, Result};
use super::postgres::Stream;

/// A message of 8 bytes, with a code that is no version of the protocol (PostgreSQL 15, 55.7).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

/// Why no TLS session came about.
pub(super) enum NoSession {
    /// The connection broke.
    Lost(io::Error),
    /// The server has none to offer, or one that is not trusted.
    Refused(String),
}

/// Takes `sslmode` and `sslrootcert` out of a URL; what is left is the driver's. `require` and `verify-ca` check as much as
/// `verify-full` does: encryption to nobody knows whom helps nobody. The other modes are plain text.
pub(super) fn split(url: &str, ca_file: Option<&Path>) -> Result<(String, Option<Tls>)> {
    let wrong = |what: &str| LedgerError::Internal(format!("the database URL {what}"));
    // A password may hold a question mark.
    let past_password = url.find('@').unwrap_or(0);
    let query_at = url[past_password..].find('?').map_or(url.len(), |at| past_password + at);
    let (start, query) = url.split_at(query_at);
    let (mut mode, mut file, mut rest) = (None, ca_file.map(Path::to_owned), Vec::new());
    for parameter in query.trim_start_matches('?').split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) if file.is_none() => {
                let path = percent_decode_str(value).decode_utf8();
                file = Some(PathBuf::from(&*path.map_err(|_| wrong("has an sslrootcert that is not UTF-8"))?));
            }
            Some(("sslrootcert", _)) => {}
            _ => rest.push(parameter),
        }
    }
    let is_asked_for = match mode {
        None => file.is_some(),
        Some("require" | "verify-ca" | "verify-full") => true,
        Some("disable" | "allow" | "prefer") if file.is_some() => {
            return Err(wrong("asks for no TLS, and a CA file is set: set sslmode=verify-full, or no CA file"));
        }
        Some("disable" | "allow" | "prefer") => false,
        Some(_) => return Err(wrong("has an unknown sslmode: set verify-full or disable")),
    };
    let tls = if is_asked_for { Some(Tls::trusting(file.as_deref())?) } else { None };
    let question = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{start}{question}{}", rest.join("&")), tls))
}

impl Tls {
    /// Trusts what the file's authorities have signed, or, without one, those that browsers trust.
    fn trusting(ca_file: Option<&Path>) -> Result<Self> {
        let roots = match ca_file {
            Some(file) => authorities(file)?,
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| LedgerError::Internal(format!("TLS can't be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn over(&self, mut stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, NoSession> {
        let asked = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match asked.await.map_err(NoSession::Lost)? {
            b'S' => {}
            _ => return Err(NoSession::Refused("it does not speak TLS; set ssl = on there".to_owned())),
        }
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| NoSession::Refused("no certificate can be made for this name".to_owned()))?;
        match self.0.connect(name, stream).await {
            Ok(session) => Ok(Box::new(session)),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                let advice = "set the authority that signed its certificate, and the name that stands in it";
                Err(NoSession::Refused(format!("{error}; {advice}")))
            }
            Err(error) => Err(NoSession::Lost(error)),
        }
    }
}

fn authorities(file: &Path) -> Result<RootCertStore> {
    let wrong = |why: &dyn Display| {
        LedgerError::Internal(format!("the database's CA file {} can not be used: {why}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"it holds no certificate"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_gets_what_it_knows() {
        let plain = |url: &str| match split(url, None) {
            Ok((rest, None)) => rest,
            _ => panic!("{url}"),
        };
        let whole = "postgres://u:p?@host/db?connect_timeout=1&application_name=x";
        assert_eq!(plain(whole), whole);
        assert_eq!(plain("postgres://host/db?sslmode=disable"), "postgres://host/db");
        for mode in ["require", "verify-ca", "verify-full"] {
            let (rest, tls) = split(&format!("postgres://host/db?sslmode={mode}&connect_timeout=1"), None).unwrap();
            assert_eq!((rest.as_str(), tls.is_some()), ("postgres://host/db?connect_timeout=1", true));
        }
    }

    #[test]
    fn what_can_not_be_trusted_is_refused() {
        let refused = |url: &str, file: Option<&str>| {
            split(url, file.map(Path::new)).err().unwrap_or_else(|| panic!("{url}")).to_string()
        };
        assert!(refused("postgres://host/db?sslmode=on", None).contains("verify-full"));
        assert!(refused("postgres://host/db", Some("/no/such/file")).contains("/no/such/file"));
        assert!(refused("postgres://host/db?sslrootcert=%2Fno%2Fsuch", None).contains("/no/such"));
        assert!(refused("postgres://host/db?sslmode=disable", Some("ca.pem")).contains("no TLS"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(refused("postgres://host/db", empty.path().to_str()).contains("no certificate"));
    }
}
