//! A folder's images checked and repaired by the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use snaptree_tests::program::{Home, program};

/// What it prints, ending with this status.
fn ends(home: &Home, status: i32, args: &[&str]) -> String {
    let output = home.command(&program()).args(args).stdin(Stdio::null()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Every file of a folder and the folders inside it, with its bytes.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("the file"));
        }
    }
    found
}

#[test]
fn a_moved_parent_is_found_reconnected_and_all_of_it_undone() {
    for [base, leaf] in [["base.vhdx", "leaf.avhdx"], ["base.vhd", "leaf.avhd"]] {
        let home = Home::new();
        let folder = home.path().join("vms");
        fs::create_dir_all(folder.join("old")).expect("a folder");
        let name = |file: &str| folder.join(file).display().to_string();
        ends(&home, 0, &["disk", "create", &name(base), "--size", "8M"]);
        ends(&home, 0, &["disk", "create", &name(leaf), "--parent", &name(base)]);
        let hash = ends(&home, 0, &["disk", "hash", &name(leaf)]);
        let whole = ends(&home, 0, &["disk", "check", "--folder", "vms"]);
        assert!(whole.contains("nothing reads through it"), "{whole}");
        fs::rename(name(base), folder.join("old").join(base)).expect("moved");

        let before = content(&folder);
        let broken = ends(&home, 1, &["disk", "check", "--folder", "vms", "--json"]);
        // The failure follows as a document of its own.
        let broken: Value = serde_json::Deserializer::from_str(&broken).into_iter().next().expect("a document").expect("JSON");
        let images = broken["images"].as_array().expect("images");
        assert!(images.iter().any(|image| image["defect"]["defect"] == "moved"), "{broken:#}");
        let planned = ends(&home, 0, &["disk", "repair", "--folder", "vms", "--what-if"]);
        assert!(planned.contains("the path of its parent becomes"), "{planned}");
        let commands = ends(&home, 0, &["disk", "repair", "--folder", "vms", "--powershell"]);
        let command = format!(r"Set-VHD -Path (Join-Path $folder '{leaf}') -ParentPath (Join-Path $folder 'old\{base}')");
        assert!(commands.contains(&command), "{commands}");
        ends(&home, 3, &["disk", "repair", "--folder", "vms", "--undo"]);
        assert!(content(&folder) == before, "nothing is changed by looks and plans");

        ends(&home, 0, &["disk", "repair", "--folder", "vms"]);
        ends(&home, 0, &["disk", "check", "--folder", "vms"]);
        assert_eq!(ends(&home, 0, &["disk", "hash", &name(leaf)]), hash);
        ends(&home, 3, &["disk", "repair", "--folder", "vms"]);
        let undone = ends(&home, 0, &["disk", "repair", "--folder", "vms", "--undo"]);
        assert!(undone.contains("Undone: "), "{undone}");
        assert!(content(&folder) == before, "byte for byte what it was");
    }
}
