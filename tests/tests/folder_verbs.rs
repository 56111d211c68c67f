//! A folder's images checked and repaired by the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use snaptree_core::hyperv;
use snaptree_core::testing::vmcx;
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

/// The document that a call prints, and no more.
fn document(home: &Home, status: i32, args: &[&str]) -> Value {
    serde_json::from_str(&ends(home, status, args)).expect("JSON")
}

#[test]
fn what_may_differ_after_a_relink_is_listed() {
    let home = Home::new();
    let [vms, away] = ["vms", "away"].map(|name| home.path().join(name));
    for folder in [&vms, &away] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let [base, leaf] = ["base.vhdx", "leaf.avhdx"].map(|name| vms.join(name));
    let [base, leaf] = [&base, &leaf].map(|path| path.to_str().expect("text"));
    ends(&home, 0, &["disk", "create", base, "--size", "8M", "--block-size", "1M"]);
    let write = |image: &str, offset: &str, bytes: &[u8]| {
        let input = home.path().join("input");
        fs::write(&input, bytes).expect("written");
        let mut command = home.command(&program());
        command.args(["disk", "write", image, "--offset", offset]).stdin(fs::File::open(&input).expect("it"));
        assert!(command.status().expect("the program starts").success());
    };
    write(base, "1M", &[1; 4096]);
    ends(&home, 0, &["disk", "create", leaf, "--parent", base]);
    write(leaf, "1M", &[2; 1 << 19]);
    // Another program writes to the parent where nobody sees the child.
    fs::rename(leaf, away.join("leaf.avhdx")).expect("moved");
    write(base, "1M", &[3; 512]);
    fs::rename(away.join("leaf.avhdx"), leaf).expect("moved");

    let repair = ["disk", "repair", "--folder", "vms"];
    let planned = ends(&home, 0, &[&repair[..], &["--what-if"]].concat());
    assert!(planned.contains("512 KiB in 1 block may differ") && planned.contains("512 KiB from offset 1572864"), "{planned}");
    let planned = document(&home, 0, &[&repair[..], &["--what-if", "--json"]].concat());
    let differ = json!({"bytes": 524_288, "blocks": 1, "ranges": [{"offset": 1_572_864, "length": 524_288}], "more": 0});
    assert_eq!(planned["steps"][0]["change"]["may_differ"], differ, "{planned:#}");
    ends(&home, 0, &repair);
    ends(&home, 0, &["disk", "check", "--folder", "vms"]);
}

fn node<const N: usize>(children: [(&str, hyperv::Value); N]) -> hyperv::Value {
    hyperv::Value::Node(children.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A configuration of a machine or a snapshot with one disk.
fn configuration(role: &str, id: &str, name: &str, disk: &str, merge_pending: bool) -> Vec<u8> {
    let text = |text: &str| hyperv::Value::Text(text.into());
    let drive = node([("pathname", text(&format!("D:\\VMs\\{disk}"))), ("type", text("VHD"))]);
    let created = hyperv::Value::Bytes(132_223_104_000_000_000_i64.to_le_bytes().to_vec());
    vmcx(&node([(
        "configuration",
        node([
            ("_83f8638b-8dca-4152-9eda-2ca8b33039b4_", node([("controller0", node([("drive0", drive)]))])),
            ("global_settings", node([("disk_merge_pending", hyperv::Value::Bool(merge_pending))])),
            (
                "properties",
                node([("creation_time", created), ("name", text(name)), ("type_id", text(role)), ("global_id", text(id))]),
            ),
            (
                "settings",
                node([
                    ("global", node([("logical_id", text("10000000-0000-4000-8000-000000000001"))])),
                    ("memory", node([("bank", node([("size", hyperv::Value::Int(512))]))])),
                    ("processors", node([("count", hyperv::Value::Int(4))])),
                ]),
            ),
        ]),
    )]))
}

#[test]
fn a_folder_of_hyper_v_is_shown_as_trees_and_its_images_are_looked_into() {
    let home = Home::new();
    let vms = home.path().join("vms");
    let [base, leaf] = ["base.vhdx", "now.avhdx"].map(|name| vms.join(name).display().to_string());
    for (folder, role, id, name, disk) in [
        ("Virtual Machines", "Virtual Machines", "10000000-0000-4000-8000-000000000001", "WEB01", "now.avhdx"),
        ("Snapshots", "Snapshots", "20000000-0000-4000-8000-000000000001", "Before SP1", "base.vhdx"),
    ] {
        fs::create_dir_all(vms.join(folder)).expect("a folder");
        fs::write(vms.join(folder).join(format!("{id}.vmcx")), configuration(role, id, name, disk, false)).expect("written");
    }
    ends(&home, 0, &["disk", "create", &base, "--size", "8M"]);
    ends(&home, 0, &["disk", "create", &leaf, "--parent", &base]);
    let before = content(&vms);

    let shown = ends(&home, 0, &["tree", "--folder", "vms"]);
    for part in ["WEB01: 4 processors, 512 MiB of memory", "Before SP1", "2020-01-01 00:00", "WEB01 is looked at in place"] {
        assert!(shown.contains(part), "{part:?} in:\n{shown}");
    }
    let data = document(&home, 0, &["tree", "--folder", "vms", "--json"]);
    let machine = &data["machines"][0];
    assert_eq!(
        (&machine["machine"], &machine["processors"], &machine["memory"]),
        (&json!("WEB01"), &json!(4), &json!(512 << 20))
    );
    let labels: Vec<&str> = machine["rows"].as_array().expect("rows").iter().filter_map(|row| row["label"].as_str()).collect();
    assert_eq!((labels, &data["problems"]), (vec!["Before SP1", "Now"], &json!([])));
    fs::create_dir(home.path().join("empty")).expect("a folder");
    ends(&home, 3, &["tree", "--folder", "empty"]);

    let seen = ends(&home, 0, &["disk", "inspect", &leaf]);
    for part in ["Block Allocation Table", "parent_linkage", "differencing, a disk of 8.0 MiB", "Blocks: 0 of data"] {
        assert!(seen.contains(part), "{part:?} in:\n{seen}");
    }
    let data = document(&home, 0, &["disk", "inspect", &leaf, "--json"]);
    let parts = data["images"][1]["parts"].as_array().expect("parts");
    assert!(parts.iter().any(|part| part["name"] == "Block Allocation Table"), "{parts:?}");
    assert_eq!((data["images"].as_array().map(Vec::len), &data["broken"]), (Some(2), &Value::Null));
    assert!(content(&vms) == before, "nothing is changed");

    let id = "10000000-0000-4000-8000-000000000001";
    let pending = configuration("Virtual Machines", id, "WEB01", "now.avhdx", true);
    fs::write(vms.join("Virtual Machines").join(format!("{id}.vmcx")), pending).expect("written");
    let checked = ends(&home, 0, &["disk", "check", "--folder", "vms"]);
    assert!(checked.contains("Hyper-V has a merge of WEB01 before it"), "{checked}");
    let checked = document(&home, 0, &["disk", "check", "--folder", "vms", "--json"]);
    assert_eq!(checked["merges_pending"], json!(["WEB01"]));
    fs::rename(&base, home.path().join("base.vhdx")).expect("moved");
    assert!(ends(&home, 1, &["disk", "inspect", &leaf]).contains("The chain is broken"));
}
