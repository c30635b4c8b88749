//! Who calls: a bearer token, or, in open mode, whoever the header names.
//!
//! Tokens are JWTs (RFC 7519). Invariant: the key decides the algorithm, never the token: a secret verifies HS256 and
//! nothing else, an RSA key RS256, an Ed25519 key EdDSA. `exp` must be there.

mod jwks;
mod revoked;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::{Producer, UserId};
use crate::graphql::errors::Failure;
use crate::graphql::guards::{Caller, Role};
pub use jwks::Source;
use jwks::{Key, Published};
use revoked::{Revoked, TokenId};

/// Names the viewer in open mode.
pub const USER_HEADER: &str = "x-acclaim-user";
/// Clocks of an identity provider and of this node may differ by this many seconds.
const LEEWAY_S: u64 = 30;
/// RFC 7518 asks that an HS256 secret be at least as long as the hash.
const SECRET_LEN_MIN: usize = 32;
/// Bytes of a token: providers that list a person's groups in it need some 4 KiB, and nothing longer is worth decoding and
/// hashing for a stranger.
const TOKEN_LEN_MAX: usize = 8 << 10;

/// A caller, and until when what it showed holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    pub caller: Caller,
    /// `None` for what does not expire.
    pub expires_at: Option<SystemTime>,
    /// The token, where there was one.
    token: Option<TokenId>,
}

impl Identity {
    /// For a caller who has shown nothing that expires.
    pub fn lasting(caller: Caller) -> Self {
        Self { caller, expires_at: None, token: None }
    }

    /// Fails for who may only read metrics.
    pub fn may_operate(self) -> Result<Self, Failure> {
        match self.caller.roles[..] {
            [Role::Metrics] => Err(Failure::Forbidden(Role::User)),
            _ => Ok(self),
        }
    }
}

/// How callers prove who they are.
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Auth {
    /// They need not: the header says who, and everyone has every role. For loopback only.
    Open,
    Tokens(Keys),
}

impl Auth {
    /// The caller of an HTTP request, or of a WebSocket's upgrade. No credentials make an anonymous one.
    pub async fn of_headers(&self, headers: &HeaderMap) -> Result<Identity, Failure> {
        let name = match self {
            Self::Open => USER_HEADER,
            Self::Tokens(_) => header::AUTHORIZATION.as_str(),
        };
        let text = headers.get(name).map(|value| std::str::from_utf8(value.as_bytes())).transpose();
        self.of(text.map_err(|_| unauthenticated(format!("the header {name} is not UTF-8")))?).await
    }

    /// The caller whom a WebSocket's connection_init names; `None` where it names none.
    pub async fn of_connection_init(&self, payload: &Value) -> Result<Option<Identity>, Failure> {
        let name = match self {
            Self::Open => USER_HEADER,
            Self::Tokens(_) => header::AUTHORIZATION.as_str(),
        };
        let fields = payload.as_object().into_iter().flatten();
        match fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            None => Ok(None),
            Some((_, Value::String(text))) => self.of(Some(text)).await.map(Some),
            Some(_) => Err(unauthenticated(format!("{name} is not a string"))),
        }
    }

    /// Comes when what a caller showed is taken back.
    pub fn until_revoked(&self, identity: &Identity) -> BoxFuture<'static, ()> {
        match (self, &identity.token) {
            (Self::Tokens(Keys { revoked: Some(revoked), .. }), Some(token)) => revoked.until(token.clone()).boxed(),
            _ => pending().boxed(),
        }
    }

    /// Follows what its keys, and what is taken back, are read from.
    pub async fn keep_current(&self) {
        let Self::Tokens(keys) = self else { return };
        let published = async {
            if let Some(published) = &keys.published {
                published.keep_current().await;
            }
        };
        let revoked = async {
            if let Some(revoked) = &keys.revoked {
                revoked.keep_current().await;
            }
        };
        tokio::join!(published, revoked);
    }

    async fn of(&self, credentials: Option<&str>) -> Result<Identity, Failure> {
        match (self, credentials) {
            (Self::Open, user) => {
                let user = user.map(UserId::new).transpose().map_err(|error| unauthenticated(error.to_string()))?;
                Ok(Identity::lasting(Caller { user, roles: Role::ALL.to_vec(), producer: None }))
            }
            (Self::Tokens(_), None) => Ok(Identity::lasting(Caller::default())),
            (Self::Tokens(keys), Some(credentials)) => match credentials.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => keys.identity(token.trim()).await,
                _ => Err(unauthenticated("credentials have the form: Bearer <token>".to_owned())),
            },
        }
    }
}

fn unauthenticated(message: String) -> Failure {
    Failure::Unauthenticated(message)
}

/// A key set that can't be used; the message says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeys(String);

/// The keys that tokens are verified with, and what else a token must say.
pub struct Keys {
    secret: Option<Arc<[Key]>>,
    published: Option<Published>,
    expected: Expected,
    revoked: Option<Revoked>,
}

/// For whom tokens must be made, and by whom. What is `None` is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// The claim `aud`, or one of a list there.
    pub audience: Option<String>,
}

impl Keys {
    /// Takes a secret for HS256, the text of a JWKS (RFC 7517), or both.
    pub fn new(secret: Option<&str>, jwks: Option<&str>) -> Result<Self, InvalidKeys> {
        Self::of(secret, jwks.map(Published::fixed).transpose()?)
    }

    /// Takes a secret for HS256, and where the public keys are read, and read again.
    pub async fn reading(secret: Option<&str>, source: Option<Source>) -> Result<Self, InvalidKeys> {
        let published = match source {
            Some(source) => Some(Published::read(source).await?),
            None => None,
        };
        Self::of(secret, published)
    }

    fn of(secret: Option<&str>, published: Option<Published>) -> Result<Self, InvalidKeys> {
        if let Some(secret) = secret.filter(|secret| secret.len() < SECRET_LEN_MIN) {
            let len = secret.len();
            return Err(InvalidKeys(format!("the JWT secret has {len} bytes; HS256 needs at least {SECRET_LEN_MIN}")));
        }
        let secret = secret.map(|secret| {
            let key = DecodingKey::from_secret(secret.as_bytes());
            Arc::from([Key { algorithm: Algorithm::HS256, id: None, key }])
        });
        if secret.is_none() && published.is_none() {
            return Err(InvalidKeys("there is no key to verify tokens with".to_owned()));
        }
        Ok(Self { secret, published, expected: Expected::default(), revoked: None })
    }

    /// Has tokens refused that a file takes back.
    pub fn without_revoked(self, file: Option<PathBuf>) -> Result<Self, InvalidKeys> {
        Ok(Self { revoked: file.map(Revoked::read).transpose()?, ..self })
    }

    /// Has tokens refused that are by another issuer or for another audience, or do not say so.
    pub fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// Verifies a token and says who holds it.
    async fn identity(&self, token: &str) -> Result<Identity, Failure> {
        match (self.verified(token), &self.published) {
            (Ok(identity), _) => Ok(identity),
            // The provider may have begun to sign with a new key.
            (Err(Refused::KeyUnknown), Some(published)) if published.look_for_unknown().await => {
                self.verified(token).map_err(Failure::from)
            }
            (Err(refused), _) => Err(refused.into()),
        }
    }

    fn verified(&self, token: &str) -> Result<Identity, Refused> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(unauthenticated(format!("the token is not valid: it has over {TOKEN_LEN_MAX} bytes")).into());
        }
        let header = decode_header(token).map_err(|error| refused(&error))?;
        // No extension of JWS is understood here, and RFC 7515 has such tokens refused.
        if header.crit.is_some() {
            return Err(unauthenticated("the token is not valid: it needs an extension (crit)".to_owned()).into());
        }
        let sets = [self.secret.clone(), self.published.as_ref().map(Published::keys)];
        let candidates = sets.iter().flatten().flat_map(|keys| keys.iter()).filter(|key| {
            let named = header.kid.is_none() || key.id.is_none() || header.kid == key.id;
            key.algorithm == header.alg && named
        });
        let mut refusal = Refused::KeyUnknown;
        for key in candidates {
            match decode::<Map<String, Value>>(token, &key.key, &self.expected.validation(key.algorithm)) {
                Ok(token) => return Ok(self.unless_revoked(identity(&token.claims)?)?),
                Err(error) => refusal = refused(&error).into(),
            }
        }
        Err(refusal)
    }

    fn unless_revoked(&self, identity: Identity) -> Result<Identity, Failure> {
        match (&self.revoked, &identity.token) {
            (Some(revoked), Some(token)) if revoked.has(token) => {
                Err(unauthenticated("the token is not valid: it was taken back".to_owned()))
            }
            _ => Ok(identity),
        }
    }
}

/// Why a token lets nobody in.
enum Refused {
    /// None of ours has made it, or a key that is not known yet.
    KeyUnknown,
    For(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::For(failure)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::KeyUnknown => {
                unauthenticated("the token is not valid: no key for its algorithm and kid".to_owned())
            }
            Refused::For(failure) => failure,
        }
    }
}

const SUB: &str = "its sub must be there, and a string";
const EXP: &str = "its exp must be there, and a number, in seconds since 1970";

/// Says no more than the kind of fault: the token itself must not come back in a message or a log.
fn refused(error: &jsonwebtoken::errors::Error) -> Failure {
    use jsonwebtoken::errors::ErrorKind::*;
    let reason = match error.kind() {
        ExpiredSignature => "it has expired",
        ImmatureSignature => "it does not hold yet (nbf)",
        InvalidSignature => "its signature is wrong",
        InvalidIssuer => "it is by another issuer (iss)",
        InvalidAudience => "it is for another audience (aud)",
        MissingRequiredClaim(claim) if claim == "iss" => "it lacks an issuer (iss)",
        MissingRequiredClaim(claim) if claim == "aud" => "it lacks an audience (aud)",
        MissingRequiredClaim(claim) if claim == "sub" => SUB,
        MissingRequiredClaim(_) => EXP,
        InvalidClaimFormat(claim) if claim == "nbf" => "its nbf must be a number, in seconds since 1970",
        InvalidClaimFormat(_) => EXP,
        Json(_) => "what it claims must be a JSON object",
        _ => "it can't be read",
    };
    unauthenticated(format!("the token is not valid: {reason}"))
}

impl Expected {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp", "sub"];
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        if let Some(issuer) = &self.issuer {
            required.push("iss");
            validation.set_issuer(&[issuer]);
        }
        // Without a name of its own, the server trusts whatever its keys sign, for whomever.
        validation.validate_aud = self.audience.is_some();
        if let Some(audience) = &self.audience {
            required.push("aud");
            validation.set_audience(&[audience]);
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Who holds a verified token. Its `exp` has been checked by then.
fn identity(claims: &Map<String, Value>) -> Result<Identity, Failure> {
    let wrong = |what: &str| unauthenticated(format!("the token is not valid: {what}"));
    let user = claims.get("sub").and_then(Value::as_str).ok_or_else(|| wrong(SUB))?;
    let user = UserId::new(user).map_err(|error| unauthenticated(format!("the token's sub: {error}")))?;
    let producer = match claims.get("producer") {
        None | Some(Value::Null) => user.as_str(),
        Some(Value::String(producer)) => producer,
        Some(_) => return Err(wrong("its producer must be a string")),
    };
    let producer =
        Producer::new(producer).map_err(|error| unauthenticated(format!("the token's producer: {error}")))?;
    // Seconds since 1970, perhaps with a fraction.
    let exp = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| wrong(EXP))?;
    // One issuer, by RFC 7519: with a list, each of several could pass for any other.
    if !matches!(claims.get("iss"), None | Some(Value::Null | Value::String(_))) {
        return Err(wrong("its iss must be a string"));
    }
    // What lies beyond the clock's reach never comes.
    let expires_in = Duration::try_from_secs_f64(exp + LEEWAY_S as f64).ok();
    let expires_at = expires_in.and_then(|since_1970| SystemTime::UNIX_EPOCH.checked_add(since_1970));
    let roles =
        roles(claims.get("roles")).ok_or_else(|| wrong("its roles must be a list of strings, as [\"USER\"]"))?;
    let jti = claims.get("jti").and_then(Value::as_str).map(str::to_owned);
    let token = TokenId { jti, sub: user.to_string(), iat: claims.get("iat").and_then(Value::as_f64) };
    Ok(Identity {
        caller: Caller { user: Some(user), roles, producer: Some(producer) },
        expires_at,
        token: Some(token),
    })
}

/// `None` where the claim is not a list of strings. Another form is never taken for no roles: whoever made the token meant
/// some.
fn roles(claim: Option<&Value>) -> Option<Vec<Role>> {
    let mut roles = Vec::new();
    for name in claim.map_or(Some(&Vec::new()), Value::as_array)? {
        // Other roles of the same provider are none of ours.
        roles.extend(Role::from_name(name.as_str()?).filter(|role| !roles.contains(role)));
    }
    // Somebody known is at least a user.
    if roles.is_empty() {
        roles.push(Role::User);
    }
    Some(roles)
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claims {
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Names of roles, in upper case.
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// By which the token can be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// To whom the events belong that the holder records; the subject's own name where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
}

/// Signs a token with HS256.
pub fn sign(secret: &str, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests;
