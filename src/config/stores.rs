//! Where the ledger and the engine are.

use std::path::PathBuf;

use clap::Args;

use super::Secret;

#[derive(Debug, Args)]
#[command(next_help_heading = "Ledger and engine")]
pub struct Database {
    /// The ledger: sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE. Everything that counts is kept there
    #[arg(
        long,
        env = "DATABASE_URL",
        default_value = "sqlite://acclaim.db",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Secret,

    /// File with the certificates (PEM) of the authorities whose signature on Postgres's certificate is trusted, as sslrootcert
    /// in the URL. With it, or with sslmode=verify-full in the URL, TLS is spoken, and certificate and host name are
    /// checked. The authorities that browsers trust where it is not set
    #[arg(long, env = "ACCLAIM_DATABASE_CA_FILE", value_name = "FILE")]
    pub database_ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Ledger and engine")]
pub struct Redis {
    /// The engine: redis://HOST:PORT, or rediss:// for TLS; 7.0 or newer, with `maxmemory-policy noeviction`. In the server's
    /// own memory where it is not set, which one server alone can do
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<Secret>,

    /// File with the certificates (PEM) of the authorities whose signature on Redis's certificate is trusted, for rediss://.
    /// Those that browsers trust where it is not set
    #[arg(long, env = "ACCLAIM_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,

    /// What the names of all keys in Redis begin with, so that several installations can share one Redis
    #[arg(long, env = "ACCLAIM_REDIS_PREFIX", default_value = Self::PREFIX, value_name = "PREFIX")]
    pub redis_prefix: String,
}

impl Redis {
    pub(super) const PREFIX: &str = "acc";
}

impl Default for Redis {
    fn default() -> Self {
        Self { redis_url: None, redis_ca_file: None, redis_prefix: Self::PREFIX.to_owned() }
    }
}
