//! The shape of the code: which room may import which, the packages, the length of files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use snaptree_tests::source::{self, SourceFile};

/// The rooms of `core/src`, bottom up: each imports only those before it.
const ROOMS: [&str; 19] = [
    "units",
    "clock",
    "fresh",
    "locks",
    "host_file",
    "disk",
    "chain",
    "snapshot",
    "hyperv",
    "store",
    "diagnose",
    "repair",
    "memory",
    "cost",
    "merge",
    "window",
    "nbd",
    "vm",
    "engine",
];

/// Files, failing disks and models for tests: imported by tests only.
const TESTING: &str = "testing";

/// The members of the workspace. What feeds the engine wrong input is built without the window's libraries.
const PACKAGES: [(&str, &str); 4] =
    [("core", "snaptree-core"), ("app", "snaptree"), ("tests", "snaptree-tests"), ("tests/fuzz", "snaptree-fuzz")];

/// The most lines that a file may have.
const LONGEST: usize = 800;

fn root() -> PathBuf {
    source::root()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is wrong with the imports of one file of `core/src`.
fn wrong_imports(file: &SourceFile) -> Vec<String> {
    let room = file.modules.first().map(String::as_str);
    // lib.rs names them all, and what is for tests may use them all.
    let Some(room) = room.filter(|&room| room != TESTING) else { return Vec::new() };
    let Some(own) = ROOMS.iter().position(|&r| r == room) else {
        return vec![format!("{}: the room {room} is not in the list", file.path.display())];
    };
    let mut wrong = Vec::new();
    for import in file.crate_paths() {
        let allowed = ROOMS.iter().position(|&r| r == import.room).is_some_and(|at| at <= own);
        if !allowed {
            wrong.push(format!("{}:{}: {room} imports {}", file.path.display(), import.line, import.room));
        }
    }
    wrong
}

#[test]
fn a_room_imports_only_rooms_above_it() {
    let files = source::files(&root().join("core/src"));
    assert!(files.len() > 20, "only {} files found in core/src", files.len());
    let wrong: Vec<String> = files.iter().filter(|file| !file.for_tests).flat_map(wrong_imports).collect();
    assert!(wrong.is_empty(), "imports that point upward:\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_import_is_found() {
    let text = "use crate::units::ByteCount;\nfn f() { crate::engine::run(); }\n// crate::vm in a comment\n\
                use crate::{chain::Chain, merge};\nconst T: &str = \"crate::store\";\nuse super::super::cost::Census;\n\
                #[cfg(test)]\nmod tests { use crate::engine::Event; }\n";
    let file = SourceFile::parse(Path::new("disk/image.rs"), text);
    let wrong: Vec<String> = file.crate_paths().into_iter().map(|import| format!("{} {}", import.line, import.room)).collect();
    assert_eq!(wrong, ["1 units", "2 engine", "4 chain", "4 merge", "6 cost"]);
    assert_eq!(wrong_imports(&file).len(), 4);
}

#[test]
fn the_list_of_rooms_is_the_one_in_lib_rs() {
    let text = read(&root().join("core/src/lib.rs"));
    let declared: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let listed: BTreeSet<&str> = ROOMS.into_iter().chain([TESTING]).collect();
    assert_eq!(declared, listed, "`pub mod` lines of core/src/lib.rs");
    let map = text.split("```").nth(1).and_then(|map| map.strip_prefix("text\n")).expect("the map in core/src/lib.rs");
    let places: Vec<Option<usize>> = ROOMS
        .iter()
        .map(|room| {
            let names = [format!("{room}/"), format!("{room},"), format!("{room} ")];
            names.iter().filter_map(|name| map.find(name.as_str())).min()
        })
        .collect();
    assert!(places.iter().all(Option::is_some), "a room is missing in the map: {ROOMS:?} at {places:?}");
    assert!(places.is_sorted(), "the map's order: {ROOMS:?} at {places:?}");
}

#[test]
fn the_app_uses_only_the_rooms() {
    let files = source::files(&root().join("app/src"));
    assert!(!files.is_empty());
    for file in files.iter().filter(|file| !file.for_tests) {
        for import in file.paths_of("snaptree_core") {
            let room = import.room;
            assert!(ROOMS.contains(&room.as_str()), "{}:{}: uses {room}", file.path.display(), import.line);
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for member in ["core", "app", "tests"] {
        for file in source::files(&root().join(member)) {
            assert!(file.lines <= LONGEST, "{} has {} lines, at most {LONGEST} are read", file.path.display(), file.lines);
        }
    }
}

#[test]
fn the_workspace_has_its_packages() {
    let top = read(&root().join("Cargo.toml"));
    let members = top.lines().find(|line| line.starts_with("members")).expect("members in Cargo.toml");
    for (member, package) in PACKAGES {
        assert!(members.contains(&format!("\"{member}\"")), "{member} is no member: {members}");
        let manifest = read(&root().join(member).join("Cargo.toml"));
        assert!(manifest.contains(&format!("\nname = \"{package}\"\n")), "{member}/Cargo.toml doesn't name {package}");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member} doesn't take the workspace's lints");
    }
}

#[test]
fn nothing_else_lies_at_the_top() {
    let known = ["Cargo.toml", "Cargo.lock", "app", "core", "assets", "tests", "README.md", "LICENSE-MIT", "LICENSE-APACHE"];
    for entry in fs::read_dir(root()).expect("the repository") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        // What a build leaves isn't part of it.
        assert!(name.starts_with('.') || name == "target" || known.contains(&name.as_str()), "{name} at the top");
    }
}
