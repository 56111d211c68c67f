//! What the README tells a person to type is there.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use snaptree_tests::program::{Home, program};
use snaptree_tests::source::root;

/// The lines of the README's `sh` blocks, without comments.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => found.push(line.split('#').next().unwrap_or_default().trim().to_owned()),
            _ => {}
        }
    }
    found.retain(|line| !line.is_empty());
    found
}

#[test]
fn scripts_are_there_and_can_be_run() {
    let scripts: Vec<String> = commands().into_iter().filter_map(|line| line.strip_prefix("./").map(str::to_owned)).collect();
    assert_eq!(scripts, ["app/run", "tests/run"]);
    for script in scripts.iter().map(String::as_str).chain([".ci/run"]) {
        let metadata = fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(metadata.permissions().mode() & 0o111 == 0o111, "{script} can't be run");
    }
}

#[test]
fn verbs_and_options_are_in_the_help() {
    let home = Home::new();
    let lines: Vec<String> = commands().into_iter().filter(|line| line.starts_with("snaptree ")).collect();
    assert!(lines.len() >= 10, "only {} lines of the command line", lines.len());
    for line in lines {
        // A verb is one or two plain words; what follows is the person's own.
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let groups = ["machine", "snapshot", "window", "workload", "disk", "trash"];
        let verb = &words[..if groups.contains(&words[0]) { 2 } else { 1 }];
        let output = home.command(&program()).args(verb).arg("--help").output().expect("the program runs");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "`{line}`: {option} isn't in the help:\n{help}");
        }
    }
}

#[test]
fn files_that_it_shows_are_there() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links.into_iter().filter(|link| !link.contains("://")) {
        assert!(Path::new(&root().join(link)).exists(), "{link} is missing");
    }
}
