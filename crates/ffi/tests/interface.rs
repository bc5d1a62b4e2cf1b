//! The header is the one that the code makes, and a C++ program that is built with it is served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `UPDATE_HEADER=1` writes it anew.
#[test]
fn the_header_is_what_the_code_makes() {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    let made = cbindgen::generate_with_config(here(), config).unwrap();
    let mut text = Vec::new();
    made.write(&mut text);
    let text = String::from_utf8(text).unwrap();
    let path = here().join("include/network_system.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

/// Messages both ways in order, double starts, stops of what is stopped, a fork.
#[test]
fn a_program_in_cpp() {
    build_and_run("program.cpp");
}

#[test]
fn a_client_in_the_old_style() {
    build_and_run("old_client.cpp");
}

fn build_and_run(source: &str) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    // cargo does not build it for a test that links nothing of it
    let exe = std::env::current_exe().unwrap();
    let libraries = exe.parent().and_then(Path::parent).unwrap();
    let build = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "network-system-ffi"])
        .status();
    assert!(build.unwrap().success());
    for standard in ["-std=c++17", "-std=c++20"] {
        let built = Command::new("g++")
            .args([standard, "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(here().join("tests").join(source))
            .arg("-I")
            .arg(here().join("include"))
            .arg(libraries.join("libnetwork_system_c.a"))
            .args(["-lpthread", "-ldl", "-lm"])
            .output()
            .expect("g++ is installed");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{standard}: {errors}");
        let ran = Command::new(&program).output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success(),
            "{standard}: {:?} {errors}",
            ran.status
        );
    }
}
