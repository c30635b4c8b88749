//! A short run of the fuzzing, with a seed of its own, against the server as it was built for the tests.

use std::process::Command;

/// Of documents and of frames each; the README says how to send a million.
const COUNT: &str = "20000";

#[test]
fn whatever_is_sent_is_answered_in_kind() {
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz"))
        .args(["--acclaim", env!("CARGO_BIN_EXE_acclaim"), "--seed", "7", "--documents", COUNT, "--frames", COUNT])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{why}");
    assert!(said.contains("verdict: nothing wrong"), "{said}");
}
