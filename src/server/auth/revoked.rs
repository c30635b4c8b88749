//! Tokens that are taken back before they expire: a file that names them, looked at every second.
//!
//! ```json
//! { "jti": ["8d3f0c1e"], "notBefore": { "ann": 1767225600 } }
//! ```
//!
//! `jti` lists single tokens. `notBefore` has, by `sub`, seconds since 1970: what was issued (`iat`) before that is taken back,
//! and what does not say when it was. Invariant: a file that can't be read changes nothing.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

use super::InvalidKeys;

/// How soon a token that is taken back lets nobody in any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells a token from others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenId {
    pub jti: Option<String>,
    pub sub: String,
    /// When it was issued, in seconds since 1970.
    pub iat: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct List {
    jti: HashSet<String>,
    not_before: HashMap<String, f64>,
}

impl List {
    fn has(&self, token: &TokenId) -> bool {
        let is_named = token.jti.as_ref().is_some_and(|jti| self.jti.contains(jti));
        // A comparison with what is not there is false.
        let is_old = self.not_before.get(&token.sub).is_some_and(|from| !token.iat.is_some_and(|iat| iat >= *from));
        is_named || is_old
    }
}

/// The tokens that are taken back at present.
pub struct Revoked {
    file: PathBuf,
    list: watch::Sender<Arc<List>>,
    read: std::sync::Mutex<Option<Stamp>>,
}

/// What changes with a file.
type Stamp = (u64, u64, i64, i64);

impl Revoked {
    pub fn read(file: PathBuf) -> Result<Self, InvalidKeys> {
        let (list, stamp) = read(&file)?;
        Ok(Self { file, list: watch::Sender::new(Arc::new(list)), read: Some(stamp).into() })
    }

    pub fn has(&self, token: &TokenId) -> bool {
        self.list.borrow().has(token)
    }

    /// Comes when a token is taken back.
    pub fn until(&self, token: TokenId) -> impl Future<Output = ()> + Send + use<> {
        let mut list = self.list.subscribe();
        async move {
            // Without whoever changes it, nothing does.
            if list.wait_for(|list| list.has(&token)).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Reads the file again whenever it has changed.
    pub async fn keep_current(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamp = std::fs::metadata(&self.file).ok().map(|metadata| stamp(&metadata));
            let was = std::mem::replace(&mut *self.read.lock().expect("nothing panics while it holds it"), stamp);
            if stamp == was {
                continue;
            }
            match read(&self.file) {
                Ok((list, _)) => drop(self.list.send_replace(Arc::new(list))),
                Err(error) => tracing::error!(%error, "the tokens that are taken back stay as they were"),
            }
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn read(file: &Path) -> Result<(List, Stamp), InvalidKeys> {
    let refused = |why: String| InvalidKeys(format!("--revoked (ACCLAIM_REVOKED) {}: {why}", file.display()));
    let unreadable = |error: std::io::Error| refused(format!("it can't be read: {error}"));
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let list = serde_json::from_str(&text).map_err(|error| refused(format!("it is not as it should be: {error}")))?;
    Ok((list, stamp(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(jti: Option<&str>, iat: Option<f64>) -> TokenId {
        TokenId { jti: jti.map(str::to_owned), sub: "ann".to_owned(), iat }
    }

    #[test]
    fn tokens_are_named_by_their_id_or_by_their_user_and_age() {
        let list: List = serde_json::from_str(r#"{ "jti": ["a"], "notBefore": { "ann": 100 } }"#).unwrap();
        assert!(list.has(&token(Some("a"), Some(200.0))));
        assert!(list.has(&token(Some("b"), Some(99.9))) && list.has(&token(None, None)));
        assert!(!list.has(&token(Some("b"), Some(100.0))));
        assert!(!list.has(&TokenId { sub: "bob".to_owned(), ..token(Some("b"), None) }));
        assert!(!serde_json::from_str::<List>("{}").unwrap().has(&token(None, None)));
        assert!(serde_json::from_str::<List>(r#"{ "jtis": [] }"#).is_err(), "a slip takes nothing back");
    }
}
