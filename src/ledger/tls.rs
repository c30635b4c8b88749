//! Encryption to Postgres: whom it trusts, and the handshake.
//!
//! TLS is spoken below the driver, so that what watches its messages ([`super::postgres`]) sees them in the clear.
//! Invariant: whoever asks for TLS reaches a server whose certificate and name were checked, or none.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{LedgerError, Result};
use super::wire::Stream;

/// A message of 8 bytes, with a code that is no version of the protocol (PostgreSQL 15, 55.7).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[derive(Clone)]
pub(super) struct Tls(MakeRustlsConnect);

type Session = <MakeRustlsConnect as MakeTlsConnect<Box<dyn Stream>>>::Stream;

impl Stream for Session {
    fn channel_binding(&self) -> ChannelBinding {
        TlsStream::channel_binding(self)
    }
}

/// Why no TLS session came about.
pub(super) enum NoSession {
    /// The connection broke.
    Lost(io::Error),
    /// The server has none to offer, or one that is not trusted.
    Refused(String),
}

impl Tls {
    /// Trusts what the file's authorities have signed, or, without one, those that browsers trust.
    pub(super) fn trusting(ca_file: Option<&Path>) -> Result<Self> {
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
        Ok(Self(MakeRustlsConnect::new(config)))
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
        if ServerName::try_from(host).is_err() {
            return Err(NoSession::Refused("no certificate can be made for this name".to_owned()));
        }
        let Ok(connector) = MakeTlsConnect::<Box<dyn Stream>>::make_tls_connect(&mut self.0.clone(), host);
        match connector.connect(stream).await {
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
