//! Tokens: who is let in, and every known way in that must stay shut.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use jsonwebtoken::get_current_timestamp;
use jsonwebtoken::jwk::Jwk;
use serde_json::json;

use super::*;

const SECRET: &str = "a secret of thirty-two bytes or more";
/// Made for these tests, and used nowhere else.
const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQC8rL5hLviMFE9C
Ds4bmX1Vtruruz7692EK/+qNUh41s7ltScqZHRW4qKCAWTGPeJP2++F2YcJ4V5L1
6RdWXZkFHlYeAMJVjwjjMTL5nCT3xe2z5oZANIRVgbiq47HQgGvZ2p1aTccDIPZ7
VKL95gjx2AZ0nzqgypz2PGUIB2DSEOA1fT7NN/7YOvanu8/0UGnZbCzAavYoxS7q
6wpSONzRgn4DgQfMa6JN7SAcXrk6VPjO4lAdroBEznlDvizBofxE71MlugZvtR2u
I0xxLldwZD3vdHh5K11AgEOWy7cxU/XD71qC0QbePj3N3erHkKKpW2VkqREEJYdb
dlnSwNyXAgMBAAECggEAIWfGZ2eNGyQnak87v9g7wDbT4JKNEptFI9Du4umkrqZt
EMQNanGjXGgCzua75yaWsBalszOY3nzG6OJFvwVgZ+8YmURSJBronG0kFNzIENSL
AxywLWL/ATKwExWwcHWkYtSZopj9wPiPm4N/PkwBzmwMrI5ar4hgJRrJWpQP2PFV
JQtyK2C1VQlsWLxKqdoQ1jObEo9aVtudS7+keii6KWltC4Ty+KTDF2N67jJ/N02d
CbTzT1xxGXdqagSuWGLYekxnEMliKjJLsA0KtR8jv7PkhBNLwd+5pJ1ktmvQkxLM
tkPiTDcWDsYfh3oUeSCGGdQHVaYAaK2VzXLjkdOvOQKBgQDeGJ0ZPhHCCdcDnO3P
0BW6VKGkCh+e7MEvw2l4rXLs7TdqRPRS+uhA0paESMaxNzjjXtKXh4EV7DeWCl4E
KfVWXdNPWqRdrl2EOwqgRMJ/x0pdtJl22XfNRLqeeHChQKSWsSD0i36WjDohDVhO
oSwHbNDll6qZZtBrsrTg7/Z3zwKBgQDZegrujPqazBnxphZSsg0+f6bi5i6j0a/1
PYaSdAtIaellr1lNJUSCUXZkuNV6C6xzs/KIQJTEZThBAzBA1mSx4SIYkmK2f5B0
36jxfVw20Zq3B3zQpEpvZqbwJUK9c2KLS8IKwiHidnsnYkTySaYMmIyMJAW8SmOr
apzvxmE4uQKBgQDWL8CZzm1LxzeP6XDDIHdD2kiEraqvFr58dKUr14JlEaSGnPdP
a2A+25iC/Lh5wbrgM9s+fVS1Mrisv1TKCTjsUNHvzoeDPRw84L+vroAwwJ5sXjY+
Ex3hXS3olFhyeqgAF9SjYj/zqkqJA5itQ+v1QTD4qlrBVBEePBsKbwEvqwKBgQDG
t8m9aHylbdJXCJhlP+TyMtpfgk0jy7qosGuC7x5QMNbf33YOE/uhyKYSKwKF3pzZ
rJf1AG3vdz4LycoRtNWV5E2vfjNM5wssgCJzZ0UXojdo/yKB011gpb/st19glUp6
VeMcyX8E25Z0ykqNydY8tDfY5iGHh8HDJEv6nJ7BoQKBgBrdbVgIvWlEhTcWQh6h
39FbRKwuZN4iiWCeM5GFs5YA7KtUzufMVswgFKIlJPrULaoTyaZuLdLaeBr2MHMn
txdXHf4PdYRn9jbA02UEgrrFcpQ8wpPBYgbBCMwjfO8JqWPc3inaH1cMq0WDnUm0
OxK7IpOdRnDD7NBvLcasV8oh
-----END PRIVATE KEY-----";
const RSA_KEY_OF_1024_BITS: &str = "\
-----BEGIN PRIVATE KEY-----
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAMETO8dMoY99+FxZ
8cbNrlNurQlgRWalH2n+1f+4uzQCg3dCy4P5f9O+7M9NBxN7x6Sj8mF0npej1+iw
ngEYrFNpzH8Knb4jEyPu+nMX0lVy6tdFRG03h3YsMGKJlDsmar+i2DehyZOZZEQW
bvqgDZcD21sEuKxPHB+2YuwGn/7hAgMBAAECgYAWS7JLgX3mpBVaFMjmvDm1SMKS
opthDxBhnRv5O8viZafozb3Sr60jNpkCF1MJ3PFhAc2rk1v9Bt6X8E1OsxqzE7Fh
2mJAdZ0ulvVx3mpOmJrt7QFJVhEdgbc+L/M95DUtY0CUuXQYKyb2sY/RDoWdaSQt
4+3JbdCJssyXi/sXQQJBAPDpoimTuIp429sN5Bs7speGpbl2Z16/rjCdjaCreZ8N
B74t5Jv/QQcY3t7STKQA9zlNydgBGpC52rBrCppRhoMCQQDNKqiF+WsUn40296As
4wzWvUZisr89GE2R37Bngf76AJLOAKaSwIaN/nqT8QW4K5yWABG2VbJdtV1D/xuV
5EfLAkABSz/zuTdkhwGnS4vOGaP77F03gctMVvs4h6AbHNCqageAnf58WAKhZyDL
UZXXy6mIRUKwRlE+NcFW8Tw9V/LBAkBmhBk/EHkEDhF21NbxduZUarE/4gcS1RD1
getYXSl17FFuo/6Xt6HEU9MWF0n/U7NjdFdlX37HujcHIfK7vBxvAkEAqsFcBifN
SFhjsSxfn/1Ht41F+xsaDm8GC4dNQlvpvBSJbYL/EQEOvAxMdK9gUjAtQzuwsyF1
EIukEsAFd1qoLA==
-----END PRIVATE KEY-----";
const ED_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIOucvCWfRr5VRMfUQITwULIDTMMm95d7UVK24Bh4fd/P
-----END PRIVATE KEY-----";

fn claims() -> Value {
    json!({ "sub": "ann", "exp": get_current_timestamp() + 60, "roles": ["admin", "User", "stranger"] })
}

fn signed(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

fn by_secret(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), None, claims)
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA_KEY.as_bytes()).unwrap()
}

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(ED_KEY.as_bytes()).unwrap()
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
    jwk["kid"] = kid.into();
    jwk
}

fn jwks() -> String {
    let elliptic = json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": "AA", "y": "AA" });
    let unknown = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "new" });
    json!({ "keys": [
        jwk(&rsa(), Algorithm::RS256, "r1"), jwk(&ed(), Algorithm::EdDSA, "e1"), elliptic, unknown,
    ] })
    .to_string()
}

fn caller(keys: &Keys, token: &str) -> Result<Caller, String> {
    keys.identity(token)
        .now_or_never()
        .expect("the keys are there")
        .map(|identity| identity.caller)
        .map_err(|failure| failure.to_string())
}

fn secret_keys() -> Keys {
    Keys::new(Some(SECRET), None).unwrap()
}

fn public_keys() -> Keys {
    Keys::new(None, Some(&jwks())).unwrap()
}

#[test]
fn good_tokens_name_their_holder() {
    let ann = Caller {
        user: Some(UserId::new("ann").unwrap()),
        roles: vec![Role::Admin, Role::User],
        producer: Some(Producer::new("ann").unwrap()),
    };
    assert_eq!(caller(&secret_keys(), &by_secret(&claims())), Ok(ann.clone()));
    let own = Claims {
        sub: "ann".into(),
        exp: get_current_timestamp() + 60,
        roles: vec!["ADMIN".into()],
        ..Claims::default()
    };
    let caller_of_own = caller(&secret_keys(), &sign(SECRET, &own).unwrap()).unwrap();
    assert_eq!(caller_of_own.roles, [Role::Admin]);
    let both = Keys::new(Some(SECRET), Some(&jwks())).unwrap();
    for keys in [&public_keys(), &both] {
        for kid in [Some("r1"), None] {
            assert_eq!(caller(keys, &signed(Algorithm::RS256, &rsa(), kid, &claims())), Ok(ann.clone()));
        }
        assert_eq!(caller(keys, &signed(Algorithm::EdDSA, &ed(), Some("e1"), &claims())), Ok(ann.clone()));
    }
}

#[test]
fn somebody_known_is_at_least_a_user() {
    let with = |roles: Value| {
        let mut claims = claims();
        claims["roles"] = roles;
        caller(&secret_keys(), &by_secret(&claims)).unwrap().roles
    };
    assert_eq!(with(json!([])), [Role::User]);
    assert_eq!(with(json!(["offline_access"])), [Role::User]);
    assert_eq!(with(json!(["INGEST", "USER", "ingest"])), [Role::Ingest, Role::User]);
    assert_eq!(with(json!(["INGEST"])), [Role::Ingest]);
    let bare = json!({ "sub": "ann", "exp": get_current_timestamp() + 60 });
    assert_eq!(caller(&secret_keys(), &by_secret(&bare)).unwrap().roles, [Role::User]);
}

#[test]
fn a_claim_of_another_form_is_named_with_what_it_must_be() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        caller(&secret_keys(), &by_secret(&claims)).unwrap_err()
    };
    for roles in [
        Value::Null,
        json!("ADMIN"),
        json!("USER ADMIN"),
        json!(1),
        json!(true),
        json!({ "acclaim": ["ADMIN"] }),
        json!(["ADMIN", 7]),
        json!([["ADMIN"]]),
        json!([null]),
        json!([{ "name": "ADMIN" }]),
    ] {
        let refused = with("roles", roles.clone());
        assert_eq!(refused, "the token is not valid: its roles must be a list of strings, as [\"USER\"]", "{roles}");
    }
    assert!(with("sub", json!(7)).ends_with("its sub must be there, and a string"));
    assert!(with("iss", json!(["a"])).ends_with("its iss must be a string"));
    assert!(with("exp", json!("soon")).ends_with("its exp must be there, and a number, in seconds since 1970"));
    assert!(with("nbf", json!("soon")).ends_with("its nbf must be a number, in seconds since 1970"));
}

#[test]
fn the_key_decides_the_algorithm() {
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    assert!(caller(&secret_keys(), &none).is_err());
    assert!(caller(&public_keys(), &none).is_err());
    // The public key, which everybody knows, taken for a secret.
    let public = serde_json::from_str::<Value>(&jwks()).unwrap()["keys"][0]["n"].as_str().unwrap().to_owned();
    for confused in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&public).unwrap(), jwks().into_bytes()] {
        let token = signed(Algorithm::HS256, &EncodingKey::from_secret(&confused), Some("r1"), &claims());
        assert!(caller(&public_keys(), &token).is_err());
        assert!(caller(&Keys::new(Some(SECRET), Some(&jwks())).unwrap(), &token).is_err());
    }
    for other in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed(other, &EncodingKey::from_secret(SECRET.as_bytes()), None, &claims());
        assert!(caller(&secret_keys(), &token).is_err());
    }
    assert!(caller(&public_keys(), &signed(Algorithm::RS512, &rsa(), Some("r1"), &claims())).is_err());
    assert!(caller(&public_keys(), &signed(Algorithm::PS256, &rsa(), Some("r1"), &claims())).is_err());
}

#[test]
fn wrong_keys_and_kids_are_refused() {
    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes!!");
    assert!(caller(&secret_keys(), &signed(Algorithm::HS256, &other, None, &claims())).is_err());
    assert!(caller(&secret_keys(), &signed(Algorithm::RS256, &rsa(), Some("r1"), &claims())).is_err());
    assert!(caller(&public_keys(), &signed(Algorithm::RS256, &rsa(), Some("e1"), &claims())).is_err());
    assert!(caller(&public_keys(), &signed(Algorithm::RS256, &rsa(), Some("unknown"), &claims())).is_err());
    let mut forged = by_secret(&claims()).split('.').map(str::to_owned).collect::<Vec<_>>();
    forged[1] = URL_SAFE_NO_PAD.encode(json!({ "sub": "root", "exp": get_current_timestamp() + 60 }).to_string());
    assert!(caller(&secret_keys(), &forged.join(".")).is_err());
    for garbage in ["", ".", "..", "a.b.c", "a.b.c.d"] {
        assert!(caller(&secret_keys(), garbage).is_err());
    }
}

#[test]
fn times_are_kept() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        caller(&secret_keys(), &by_secret(&claims))
    };
    let now = get_current_timestamp();
    assert!(with("exp", json!(now - 20)).is_ok(), "clocks may differ by 30 s");
    assert!(with("exp", json!(now - 40)).unwrap_err().contains("expired"));
    assert!(with("exp", Value::Null).is_err());
    assert!(with("exp", json!((now + 60).to_string())).is_err(), "a textual exp is none");
    assert!(with("exp", json!(-1)).is_err());
    assert!(with("nbf", json!(now + 60)).is_err());
    assert!(with("nbf", json!("soon")).is_err(), "a textual nbf is no permission");
    let without = json!({ "sub": "ann" });
    assert!(caller(&secret_keys(), &by_secret(&without)).is_err());
}

#[test]
fn who_is_expected_is_asked_for() {
    let expected = Expected { issuer: Some("https://id.example".into()), audience: Some("acclaim".into()) };
    let keys = secret_keys().expecting(expected);
    let with = |issuer: Value, audience: Value| {
        let mut claims = claims();
        (claims["iss"], claims["aud"]) = (issuer, audience);
        caller(&keys, &by_secret(&claims)).map(drop)
    };
    let (own, other) = (json!("https://id.example"), json!("https://evil.example"));
    assert_eq!(with(own.clone(), json!("acclaim")), Ok(()));
    assert_eq!(with(own.clone(), json!(["shop", "acclaim"])), Ok(()));
    for (issuer, audience, said) in [
        (other.clone(), json!("acclaim"), "iss"),
        (Value::Null, json!("acclaim"), "iss"),
        (json!([own, other]), json!("acclaim"), "not valid"),
        (json!(7), json!("acclaim"), "not valid"),
        (own.clone(), json!("shop"), "aud"),
        (own.clone(), json!(["shop"]), "aud"),
        (own.clone(), json!([]), "aud"),
        (own.clone(), Value::Null, "aud"),
    ] {
        let refused = with(issuer.clone(), audience.clone()).unwrap_err();
        assert!(refused.contains(said), "{issuer} {audience}: {refused}");
    }
    assert!(caller(&keys, &by_secret(&claims())).is_err());
}

#[test]
fn a_token_is_not_read_beyond_its_length() {
    let mut long = claims();
    long["groups"] = "x".repeat(TOKEN_LEN_MAX).into();
    assert!(caller(&secret_keys(), &by_secret(&long)).unwrap_err().contains("8192 bytes"));
    long["groups"] = "x".repeat(TOKEN_LEN_MAX / 2).into();
    assert!(caller(&secret_keys(), &by_secret(&long)).is_ok());
}

#[test]
fn a_token_names_a_person_that_can_be_stored() {
    let with = |sub: Value| {
        let mut claims = claims();
        claims["sub"] = sub;
        caller(&secret_keys(), &by_secret(&claims))
    };
    for bad in [Value::Null, json!(""), json!(7), json!("x".repeat(129)), json!("a\nb")] {
        assert!(with(bad).is_err());
    }
}

#[test]
fn unknown_extensions_are_refused() {
    let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
    let token = encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    assert!(caller(&secret_keys(), &token).unwrap_err().contains("crit"));
}

#[test]
fn weak_and_useless_keys_are_refused_at_start() {
    let refused = |secret: Option<&str>, jwks: Option<Value>| {
        Keys::new(secret, jwks.map(|jwks| jwks.to_string()).as_deref()).err().map(|error| error.to_string()).unwrap()
    };
    assert!(refused(Some("short"), None).contains("32"));
    assert!(refused(None, None).contains("no key"));
    let small = EncodingKey::from_rsa_pem(RSA_KEY_OF_1024_BITS.as_bytes()).unwrap();
    let weak = json!({ "keys": [jwk(&small, Algorithm::RS256, "weak")] });
    assert!(refused(None, Some(weak)).contains("2,048"));
    let mut short = jwk(&ed(), Algorithm::EdDSA, "short");
    short["x"] = "AAAA".into();
    assert!(refused(None, Some(json!({ "keys": [short] }))).contains("32 bytes"));
    let mut for_secrecy = jwk(&rsa(), Algorithm::RS256, "enc");
    for_secrecy["use"] = "enc".into();
    assert!(refused(None, Some(json!({ "keys": [for_secrecy] }))).contains("no key"));
    assert!(refused(None, Some(json!({ "keys": "none" }))).contains("can't be read"));
}

#[tokio::test]
async fn credentials_come_from_one_place_by_mode() {
    let mut headers = HeaderMap::new();
    headers.insert(USER_HEADER, "bob".parse().unwrap());
    let open = Auth::Open.of_headers(&headers).await.unwrap();
    assert_eq!((open.caller.user.unwrap().as_str(), open.caller.roles.len()), ("bob", 4));
    let tokens = Auth::Tokens(secret_keys());
    assert_eq!(
        tokens.of_headers(&headers).await,
        Ok(Identity::lasting(Caller::default())),
        "the header means nothing to a server with keys"
    );
    headers.insert(header::AUTHORIZATION, format!("bearer {}", by_secret(&claims())).parse().unwrap());
    assert_eq!(tokens.of_headers(&headers).await.unwrap().caller.user.unwrap().as_str(), "ann");
    headers.insert(header::AUTHORIZATION, "Basic YTpi".parse().unwrap());
    assert!(tokens.of_headers(&headers).await.is_err());
    headers.insert(USER_HEADER, "x".repeat(129).parse().unwrap());
    assert!(Auth::Open.of_headers(&headers).await.is_err());
}

#[tokio::test]
async fn connection_init_names_the_caller_too() {
    let tokens = Auth::Tokens(secret_keys());
    let bearer = format!("Bearer {}", by_secret(&claims()));
    for name in ["Authorization", "authorization"] {
        let caller = tokens.of_connection_init(&json!({ name: bearer })).await.unwrap().unwrap();
        assert_eq!(caller.caller.user.unwrap().as_str(), "ann");
        let left = caller.expires_at.unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(3600 + LEEWAY_S), "{left:?}");
    }
    assert_eq!(tokens.of_connection_init(&json!({})).await, Ok(None));
    assert_eq!(tokens.of_connection_init(&Value::Null).await, Ok(None));
    assert!(tokens.of_connection_init(&json!({ "Authorization": 7 })).await.is_err());
    assert!(tokens.of_connection_init(&json!({ "Authorization": "Bearer nonsense" })).await.is_err());
    let open = Auth::Open.of_connection_init(&json!({ "x-acclaim-user": "ann" })).await.unwrap().unwrap();
    assert_eq!((open.caller.user.unwrap().as_str(), open.expires_at), ("ann", None));
}
