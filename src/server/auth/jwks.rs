//! The public keys of an identity provider (a JWKS, RFC 7517): from a file or an https address, read at start, every ten
//! minutes, and when a token names a key that is not there.
//!
//! Invariant: what can't be read, or is no set of keys, changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::InvalidKeys;

/// RFC 7518 asks that an RSA key have at least 2,048 bits.
const RSA_LEN_MIN: usize = 256;
const ED25519_LEN: usize = 32;
/// A set of a hundred keys, with their certificates, is shorter.
const SET_LEN_MAX: usize = 1 << 20;
/// A provider that takes longer is as good as away; somebody waits to be let in.
const READ_TIME_MAX: Duration = Duration::from_secs(3);
/// How often the set is read anew: a key that a provider has withdrawn lets nobody in for longer.
const READ_EVERY: Duration = Duration::from_secs(600);
/// How long after one reading an unknown key leads to another: whoever makes up names of keys must not have us flood the
/// provider.
const UNKNOWN_EVERY: Duration = Duration::from_secs(10);

pub struct Key {
    pub algorithm: Algorithm,
    /// `None` for a secret, and for a public key without a `kid`.
    pub id: Option<String>,
    pub key: DecodingKey,
}

/// Where a set is read.
pub enum Source {
    File(PathBuf),
    Address { url: reqwest::Url, http: reqwest::Client },
}

impl Source {
    /// An https address; `authorities` are certificates (PEM) to trust besides those that browsers do.
    pub fn address(url: &str, authorities: Option<&[u8]>) -> Result<Self, InvalidKeys> {
        let refused = |why: String| InvalidKeys(format!("the JWKS address {why}"));
        let url = reqwest::Url::parse(url).map_err(|error| refused(format!("is none: {error}")))?;
        if url.scheme() != "https" {
            return Err(refused(
                "must begin with https://, or anybody on the way could put keys of his own there".into(),
            ));
        }
        // Where a redirect leads to is nothing that the operator has named.
        let mut http = reqwest::Client::builder().timeout(READ_TIME_MAX).redirect(reqwest::redirect::Policy::none());
        for authority in reqwest::Certificate::from_pem_bundle(authorities.unwrap_or_default())
            .map_err(|error| refused(error.to_string()))?
        {
            http = http.add_root_certificate(authority);
        }
        let http = http.build().map_err(|error| refused(format!("can't be asked: {error}")))?;
        Ok(Self::Address { url, http })
    }

    /// The text of the set.
    async fn text(&self) -> Result<String, InvalidKeys> {
        let bytes = match self {
            Self::File(file) => {
                let read = tokio::task::spawn_blocking({
                    let file = file.clone();
                    move || std::fs::read(file)
                });
                let read = read.await.map_err(std::io::Error::other).flatten();
                read.map_err(|error| InvalidKeys(format!("the JWKS {} can't be read: {error}", file.display())))?
            }
            Self::Address { url, http } => fetched(url, http)
                .await
                .map_err(|error| InvalidKeys(format!("the JWKS can't be had from {url}: {}", error.without_url())))?,
        };
        if bytes.len() > SET_LEN_MAX {
            return Err(InvalidKeys(format!("the JWKS has over {SET_LEN_MAX} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| InvalidKeys("the JWKS is not UTF-8".to_owned()))
    }
}

async fn fetched(url: &reqwest::Url, http: &reqwest::Client) -> reqwest::Result<Vec<u8>> {
    let mut response = http.get(url.clone()).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SET_LEN_MAX {
            break;
        }
    }
    Ok(bytes)
}

/// The keys that a source holds at present.
pub struct Published {
    source: Option<Source>,
    keys: RwLock<Arc<[Key]>>,
    /// When they were last read, or tried to be. One reading at a time.
    read_at: Mutex<Instant>,
}

impl Published {
    /// The keys of a text, which stay as they are.
    pub fn fixed(text: &str) -> Result<Self, InvalidKeys> {
        let keys = RwLock::new(parse(text)?);
        Ok(Self { source: None, keys, read_at: Mutex::new(Instant::now()) })
    }

    pub async fn read(source: Source) -> Result<Self, InvalidKeys> {
        let published = Self::fixed(&source.text().await?)?;
        Ok(Self { source: Some(source), ..published })
    }

    pub fn keys(&self) -> Arc<[Key]> {
        self.keys.read().expect("nothing panics while it holds the keys").clone()
    }

    /// Reads them anew for a key that is not there; whether that was done, by this call or by one that it waited for.
    pub async fn look_for_unknown(&self) -> bool {
        let asked = Instant::now();
        let mut read_at = self.read_at.lock().await;
        if *read_at > asked {
            return true;
        }
        if self.source.is_none() || read_at.elapsed() < UNKNOWN_EVERY {
            return false;
        }
        self.reread().await;
        *read_at = Instant::now();
        true
    }

    /// Reads them anew from time to time.
    pub async fn keep_current(&self) {
        loop {
            tokio::time::sleep(READ_EVERY).await;
            let mut read_at = self.read_at.lock().await;
            self.reread().await;
            *read_at = Instant::now();
        }
    }

    async fn reread(&self) {
        let Some(source) = &self.source else { return };
        match source.text().await.and_then(|text| parse(&text)) {
            Ok(keys) => *self.keys.write().expect("as above") = keys,
            Err(error) => tracing::error!(%error, "the keys for tokens stay as they were"),
        }
    }
}

fn parse(text: &str) -> Result<Arc<[Key]>, InvalidKeys> {
    // The parser's own message is not passed on: it may quote what stands there, and that may be a secret.
    let set: JwkSet = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        InvalidKeys(format!("the JWKS can't be read: line {line}, column {column} is not as RFC 7517 has it"))
    })?;
    let keys: Vec<_> = set.keys.into_iter().filter_map(|jwk| Key::of(jwk).transpose()).collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(InvalidKeys("there is no key to verify tokens with: RSA or Ed25519, for signatures".to_owned()));
    }
    Ok(keys.into())
}

impl Key {
    /// `None` for keys of other kinds and uses: a provider's set may hold them beside ours.
    fn of(jwk: Jwk) -> Result<Option<Self>, InvalidKeys> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return Ok(None),
        };
        let stated = jwk.common.key_algorithm.map(|stated| stated.to_string());
        let is_ours = stated.is_none_or(|stated| stated == format!("{algorithm:?}"))
            && jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        if !is_ours {
            return Ok(None);
        }
        let id = jwk.common.key_id.clone();
        let fault = |what: &str| InvalidKeys(format!("the JWKS key {:?} {what}", id.as_deref().unwrap_or("(no kid)")));
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| fault("can't be read"))?;
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, .. } if n.len() < RSA_LEN_MIN => {
                Err(fault("has under 2,048 bits"))
            }
            DecodingKeyKind::SecretOrDer(x) if x.len() != ED25519_LEN => Err(fault("is not 32 bytes long")),
            _ => Ok(Some(Self { algorithm, id, key })),
        }
    }
}
