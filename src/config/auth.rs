//! Who may call, and how they prove it.

use std::net::IpAddr;
use std::path::PathBuf;

use acclaim::server::IpNet;
use clap::Args;

use super::Secret;

/// Who may call. With neither set, the header `x-acclaim-user` names the caller, who has every role.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Auth")]
pub struct Auth {
    #[command(flatten)]
    pub jwt: Jwt,

    /// File with the public keys (JWKS: RS256 or EdDSA) of the identity provider that signs the tokens. Read at start, every
    /// 10 minutes, and when a token names an unknown key, every 10 s at most. With a secret as well, tokens of both kinds are
    /// accepted
    #[arg(long, env = "ACCLAIM_JWKS_FILE", value_name = "FILE", conflicts_with = "jwks_url")]
    pub jwks_file: Option<PathBuf>,

    /// The same from the provider itself: an https address, such as https://id.example.com/.well-known/jwks.json
    #[arg(long, env = "ACCLAIM_JWKS_URL", value_name = "URL")]
    pub jwks_url: Option<String>,

    /// Certificates (PEM) of authorities to trust for --jwks-url, besides those that browsers do
    #[arg(long, env = "ACCLAIM_JWKS_CA_FILE", value_name = "FILE")]
    pub jwks_ca_file: Option<PathBuf>,

    /// File that takes tokens back before they expire: JSON such as {"jti": ["8d3f"], "notBefore": {"ann": 1767225600}}, the
    /// second for tokens of a user that were issued before a time, in seconds since 1970. Looked at every second
    #[arg(long, env = "ACCLAIM_REVOKED", value_name = "FILE")]
    pub revoked: Option<PathBuf>,

    /// Web pages that may call from a browser, as origins such as https://shop.example.com; several with commas.
    /// With none, only pages that this server serves itself can
    #[arg(long, env = "ACCLAIM_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,

    /// Names of hosts by which a server without auth settings may be called, besides localhost, 127.x.x.x and [::1]; several
    /// with commas. By any other name it might be somebody's page, who has given the name this machine's address
    #[arg(long, env = "ACCLAIM_ALLOW_HOST", value_delimiter = ',', value_name = "HOST")]
    pub allow_host: Vec<String>,

    /// Networks of the proxies in front of this server, such as 10.0.0.0/8, or single addresses; several with commas. What
    /// they say in Forwarded (RFC 7239) or X-Forwarded-For is believed: the rightmost address there that is none of theirs is
    /// the caller's
    #[arg(long, env = "ACCLAIM_TRUSTED_PROXY", value_delimiter = ',', value_name = "CIDR", value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,
}

impl Auth {
    pub fn is_set(&self) -> bool {
        self.jwt.jwt_secret.is_some() || self.jwks_file.is_some() || self.jwks_url.is_some()
    }
}

#[derive(Debug, Default, Args)]
pub struct Jwt {
    /// Secret that tokens are signed with (HS256), at least 32 bytes, since a shorter one can be guessed from a token.
    /// Better set as the variable: flags can be seen by everyone on the machine
    #[arg(long, env = "ACCLAIM_JWT_SECRET", hide_env_values = true, value_name = "SECRET", help_heading = "Auth")]
    pub jwt_secret: Option<Secret>,

    /// Who must have made a token: its claim `iss`. Not looked at where it is not set
    #[arg(long, env = "ACCLAIM_JWT_ISSUER", value_name = "ISSUER", help_heading = "Auth")]
    pub jwt_issuer: Option<String>,

    /// For whom a token must be made: its claim `aud`, or one of a list there. Set it where the identity provider also
    /// signs tokens for others, which would be taken as well. Not looked at where it is not set
    #[arg(long, env = "ACCLAIM_JWT_AUDIENCE", value_name = "AUDIENCE", help_heading = "Auth")]
    pub jwt_audience: Option<String>,
}

fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| one()).map_err(|_| "set a network such as 10.0.0.0/8, or an address".to_owned())
}
