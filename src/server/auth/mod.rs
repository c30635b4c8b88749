//! Who calls: a bearer token, or, in open mode, whoever the header names.
//!
//! Tokens are JWTs (RFC 7519). Invariant: the key decides the algorithm, never the token: a secret verifies HS256 and
//! nothing else, an RSA key RS256, an Ed25519 key EdDSA. `exp` must be there.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::UserId;
use crate::graphql::errors::Failure;
use crate::graphql::guards::{Caller, Role};

/// Names the viewer in open mode.
pub const USER_HEADER: &str = "x-acclaim-user";
/// Clocks of an identity provider and of this node may differ by this many seconds.
const LEEWAY_S: u64 = 30;
/// RFC 7518 asks that an HS256 secret be at least as long as the hash.
const SECRET_LEN_MIN: usize = 32;
/// RFC 7518 asks that an RSA key have at least 2,048 bits.
const RSA_LEN_MIN: usize = 256;
const ED25519_LEN: usize = 32;
/// Bytes of a token: providers that list a person's groups in it need some 4 KiB, and nothing longer is worth decoding and
/// hashing for a stranger.
const TOKEN_LEN_MAX: usize = 8 << 10;

/// A caller, and until when what it showed holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub caller: Caller,
    /// `None` for what does not expire.
    pub expires_at: Option<SystemTime>,
}

impl Identity {
    fn lasting(caller: Caller) -> Self {
        Self { caller, expires_at: None }
    }
}

/// How callers prove who they are.
pub enum Auth {
    /// They need not: the header says who, and everyone has every role. For loopback only.
    Open,
    Tokens(Keys),
}

impl Auth {
    /// The caller of an HTTP request, or of a WebSocket's upgrade. No credentials make an anonymous one.
    pub fn of_headers(&self, headers: &HeaderMap) -> Result<Identity, Failure> {
        let name = match self {
            Self::Open => USER_HEADER,
            Self::Tokens(_) => header::AUTHORIZATION.as_str(),
        };
        let text = headers.get(name).map(|value| std::str::from_utf8(value.as_bytes())).transpose();
        self.of(text.map_err(|_| unauthenticated(format!("the header {name} is not UTF-8")))?)
    }

    /// The caller whom a WebSocket's connection_init names; `None` where it names none.
    pub fn of_connection_init(&self, payload: &Value) -> Result<Option<Identity>, Failure> {
        let name = match self {
            Self::Open => USER_HEADER,
            Self::Tokens(_) => header::AUTHORIZATION.as_str(),
        };
        let fields = payload.as_object().into_iter().flatten();
        match fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            None => Ok(None),
            Some((_, Value::String(text))) => self.of(Some(text)).map(Some),
            Some(_) => Err(unauthenticated(format!("{name} is not a string"))),
        }
    }

    fn of(&self, credentials: Option<&str>) -> Result<Identity, Failure> {
        match (self, credentials) {
            (Self::Open, user) => {
                let user = user.map(UserId::new).transpose().map_err(|error| unauthenticated(error.to_string()))?;
                Ok(Identity::lasting(Caller { user, roles: Role::ALL.to_vec() }))
            }
            (Self::Tokens(_), None) => Ok(Identity::lasting(Caller::default())),
            (Self::Tokens(keys), Some(credentials)) => match credentials.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => keys.identity(token.trim()),
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
    keys: Vec<Key>,
    expected: Expected,
}

/// For whom tokens must be made, and by whom. What is `None` is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// The claim `aud`, or one of a list there.
    pub audience: Option<String>,
}

struct Key {
    algorithm: Algorithm,
    /// `None` for a secret, and for a public key without a `kid`.
    id: Option<String>,
    key: DecodingKey,
}

impl Keys {
    /// Takes a secret for HS256, the text of a JWKS (RFC 7517), or both.
    pub fn new(secret: Option<&str>, jwks: Option<&str>) -> Result<Self, InvalidKeys> {
        let mut keys = Vec::new();
        if let Some(secret) = secret {
            if secret.len() < SECRET_LEN_MIN {
                return Err(InvalidKeys(format!(
                    "the JWT secret has {} bytes; HS256 needs at least {SECRET_LEN_MIN}",
                    secret.len()
                )));
            }
            keys.push(Key { algorithm: Algorithm::HS256, id: None, key: DecodingKey::from_secret(secret.as_bytes()) });
        }
        if let Some(jwks) = jwks {
            // The parser's own message is not passed on: it may quote what stands there, and that may be a secret.
            let set: JwkSet = serde_json::from_str(jwks).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                InvalidKeys(format!("the JWKS can't be read: line {line}, column {column} is not as RFC 7517 has it"))
            })?;
            for jwk in set.keys {
                keys.extend(Key::of(jwk)?);
            }
        }
        if keys.is_empty() {
            return Err(InvalidKeys(
                "there is no key to verify tokens with: RSA or Ed25519, for signatures".to_owned(),
            ));
        }
        Ok(Self { keys, expected: Expected::default() })
    }

    /// Has tokens refused that are by another issuer or for another audience, or do not say so.
    pub fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// Verifies a token and says who holds it.
    fn identity(&self, token: &str) -> Result<Identity, Failure> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(unauthenticated(format!("the token is not valid: it has over {TOKEN_LEN_MAX} bytes")));
        }
        let header = decode_header(token).map_err(|error| refused(&error))?;
        let candidates = self.keys.iter().filter(|key| {
            let named = header.kid.is_none() || key.id.is_none() || header.kid == key.id;
            key.algorithm == header.alg && named
        });
        // No extension of JWS is understood here, and RFC 7515 has such tokens refused.
        if header.crit.is_some() {
            return Err(unauthenticated("the token is not valid: it needs an extension (crit)".to_owned()));
        }
        let mut refusal = unauthenticated("the token is not valid: no key for its algorithm and kid".to_owned());
        for key in candidates {
            match decode::<Map<String, Value>>(token, &key.key, &self.expected.validation(key.algorithm)) {
                Ok(token) => return identity(&token.claims),
                Err(error) => refusal = refused(&error),
            }
        }
        Err(refusal)
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

/// Who holds a verified token. Its `exp` has been checked by then.
fn identity(claims: &Map<String, Value>) -> Result<Identity, Failure> {
    let wrong = |what: &str| unauthenticated(format!("the token is not valid: {what}"));
    let user = claims.get("sub").and_then(Value::as_str).ok_or_else(|| wrong(SUB))?;
    let user = UserId::new(user).map_err(|error| unauthenticated(format!("the token's sub: {error}")))?;
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
    Ok(Identity { caller: Caller { user: Some(user), roles }, expires_at })
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Signs a token with HS256.
pub fn sign(secret: &str, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests;
