//! What the tree promises about itself: imports go one way, no file is dead, outer crates stay behind their seams.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module may name only those to its left. `client` talks to a server from outside and knows the words alone.
const ORDER: [&str; 8] = ["domain", "engine", "ledger", "pipeline", "live", "graphql", "server", "main"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The sources of the crate, without files that hold tests alone.
fn sources() -> Vec<PathBuf> {
    let all = files(&root().join("src"), "rs");
    all.into_iter().filter(|path| path.file_name().is_none_or(|name| name != "tests.rs")).collect()
}

/// The code of a file: without comments, and without what its tests say.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_go_from_left_to_right() {
    let mut wrong = Vec::new();
    for path in sources() {
        let own = module(&path);
        let allowed: &[&str] = match own.as_str() {
            "lib" => continue,
            "client" => &["domain", "client"],
            // The binary's own modules: they see the library from outside.
            "main" | "config" | "doctor" | "log" | "welcome" => &["config", "doctor", "welcome"],
            own => {
                let place = ORDER.iter().position(|name| *name == own);
                &ORDER[..=place.unwrap_or_else(|| panic!("{own} has no place in the order of layers"))]
            }
        };
        for named in code(&path).split("crate::").skip(1) {
            let named: String = named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !named.is_empty() && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{} names crate::{named}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the arrow:\n{}", wrong.join("\n"));
}

#[test]
fn outer_crates_stay_behind_their_seams() {
    let seams: [(&str, &[&str]); 5] = [
        ("redis::", &["src/engine/redis/"]),
        ("diesel", &["src/ledger/"]),
        ("async_graphql", &["src/graphql/", "src/server/"]),
        ("axum", &["src/server/"]),
        ("env::var", &["src/config/"]),
    ];
    let mut wrong = Vec::new();
    for path in sources() {
        let inside = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for line in code(&path).lines() {
            // Our own modules may bear a crate's name.
            let line =
                line.replace("crate::engine::redis::", "").replace("engine::redis::", "").replace("pub mod redis", "");
            for (name, homes) in &seams {
                if line.contains(name) && !homes.iter().any(|home| inside.starts_with(home)) {
                    wrong.push(format!("{inside} names {name}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "outside its seam:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_dead() {
    let src = root().join("src");
    let sources = files(&src, "rs");
    let named: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut dead = Vec::new();
    for path in &sources {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (parent, name) = match stem {
            "lib" | "main" if path.parent() == Some(&src) => continue,
            "mod" => (path.parent().unwrap().parent().unwrap(), path.parent().unwrap().file_name().unwrap()),
            _ => (path.parent().unwrap(), path.file_stem().unwrap()),
        };
        let name = name.to_str().unwrap();
        let declares = |file: &str| {
            fs::read_to_string(parent.join(file)).is_ok_and(|text| {
                text.lines().any(|line| {
                    line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ") == format!("mod {name};")
                })
            })
        };
        if !["mod.rs", "lib.rs", "main.rs"].into_iter().any(declares) {
            dead.push(path.clone());
        }
    }
    for ending in ["lua", "sql", "html"] {
        for path in files(&src, ending) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            // Scripts may be listed by their stems in a macro that makes the path.
            let listed = named.contains(&format!("/{name}\""))
                || named.contains(&format!("\"{name}\""))
                || named.contains(&format!("\"{stem}\""));
            if !listed {
                dead.push(path);
            }
        }
    }
    assert!(dead.is_empty(), "files that nothing names: {dead:?}");
}

#[test]
fn files_are_of_a_size_to_read_and_open_with_a_purpose() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        if text.lines().count() > 500 {
            wrong.push(format!("{} has {} lines; 500 at most", path.display(), text.lines().count()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not say what lives there", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lua_scripts_list_their_keys() {
    let silent: BTreeSet<_> = files(&root().join("src/engine/redis/lua"), "lua")
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            // Redis reads a script's flags from its first line.
            let head = text.strip_prefix("#!lua flags=allow-oom\n").unwrap_or(&text);
            !head.starts_with("--")
        })
        .collect();
    assert!(silent.is_empty(), "scripts without a head: {silent:?}");
}
