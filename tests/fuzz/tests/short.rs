//! A short run of each target. More, and longer: see the program itself.

#![cfg(unix)]

use std::process::Command;

const SEED: &str = "20261126";
/// Of each target; two run at a time on two cores.
const SECONDS: &str = "30";
/// So few would be no run at all.
const CASES_MIN: u64 = 50;

fn run(target: &str) {
    let arguments = ["--target", target, "--seed", SEED, "--seconds", SECONDS];
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz")).args(arguments).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "fuzz {}: {said}", arguments.join(" "));
    let cases =
        said.split(" cases in ").next().and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok());
    assert!(cases.is_some_and(|cases: u64| cases >= CASES_MIN), "hardly anything was tried: {said}");
}

#[test]
fn images() {
    run("image");
}

#[test]
fn images_of_vhd() {
    run("vhd");
}

#[test]
fn chains() {
    run("chain");
}

#[test]
fn manifests_journals_and_memory() {
    run("manifest");
}

#[test]
fn clients_of_nbd() {
    run("nbd");
}

#[test]
fn sockets() {
    run("socket");
}
