//! What a server says when it is ready: addresses to click, and a line to paste.

use std::net::SocketAddr;

use acclaim::ledger::LedgerKind;
use acclaim::server::auth::Auth;

/// The addresses that this machine's browser and shell reach the server at.
pub fn text(address: SocketAddr, engine: &str, ledger: LedgerKind, auth: &Auth, has_page: bool) -> String {
    let host = match address.ip() {
        // Listening everywhere is reached here at the loopback address.
        ip if ip.is_unspecified() => format!("127.0.0.1:{}", address.port()),
        _ => address.to_string(),
    };
    let ledger = match ledger {
        LedgerKind::Sqlite => "SQLite",
        LedgerKind::Postgres => "Postgres",
    };
    let (who, credentials) = match auth {
        Auth::Open => ("everyone on this machine, with every role (no auth settings)", "-H 'x-acclaim-user: ann'"),
        Auth::Tokens(_) => {
            ("whoever brings a token (acclaim token makes one)", "-H \"Authorization: Bearer $ACCLAIM_TOKEN\"")
        }
    };
    let page = if has_page { format!("  GraphiQL  http://{host}/graphiql\n") } else { String::new() };
    format!(
        "\
Acclaim is ready, with engine {engine} and ledger {ledger}; open to {who}.

{page}  GraphQL   http://{host}/graphql
  live      ws://{host}/graphql/ws
  health    http://{host}/readyz

  curl -s http://{host}/graphql {credentials} -H 'content-type: application/json' \\
    -d '{{\"query\":\"{{ ranking(first: 5) {{ nodes {{ rank score product {{ name }} }} }} }}\"}}'

"
    )
}
