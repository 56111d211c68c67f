//! Configurations that Hyper-V wrote: read as dissect.hypervisor reads them, and safe to read when damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value as Json, json};
use snaptree_core::hyperv::{Value, parse_store};
use snaptree_core::testing::Random;
use snaptree_tests::source::root;
use snaptree_tests::witness::{python_with, samples, skip};

const FILES: [&str; 2] = ["hyperv2019/test.vmcx", "hyperv2019/test.VMRS"];

fn sample(name: &str) -> Option<(PathBuf, Vec<u8>)> {
    let Some(samples) = samples() else {
        skip("there are no sample images");
        return None;
    };
    let path = samples.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some((path, bytes))
}

/// Every value on a line, as `tests/witness/hyperv.py` prints them.
fn lines(path: &str, value: &Value, out: &mut BTreeSet<String>) {
    let (kind, shown) = match value {
        Value::Int(n) => ("int", json!(n)),
        Value::UInt(n) => ("int", json!(n)),
        Value::Double(n) => ("float", json!(n)),
        Value::Text(text) => ("str", json!(text)),
        Value::Bytes(bytes) => ("bytes", json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())),
        Value::Bool(yes) => ("bool", json!(yes)),
        Value::Node(_) => ("node", Json::Null),
    };
    out.insert(json!([path, kind, shown]).to_string());
    // Of several with one name its reader keeps the last.
    let children: BTreeMap<&String, &Value> = value.children().iter().map(|(name, child)| (name, child)).collect();
    for (name, child) in children {
        lines(&format!("{path}/{name}"), child, out);
    }
}

#[test]
fn the_values_that_count_are_read() {
    let Some((_, bytes)) = sample(FILES[0]) else { return };
    let tree = parse_store(&bytes).unwrap();
    let properties = tree.get("configuration/properties").unwrap();
    assert_eq!(properties.text("name"), Some("Other Location"));
    assert_eq!(properties.text("global_id"), Some("282874FC-59D6-4F30-BC04-5FDD909C82E0"));
    assert_eq!(properties.text("type_id"), Some("Virtual Machines"));
    assert_eq!(properties.number("version"), Some(2304));
    let created = [0xa7, 0x6e, 0x45, 0x66, 0x9e, 0x97, 0xd7, 0x01];
    assert_eq!(properties.get("creation_time"), Some(&Value::Bytes(created.to_vec())));
    let drive = tree.get("configuration/_83f8638b-8dca-4152-9eda-2ca8b33039b4_/controller0/drive0").unwrap();
    assert_eq!(drive.text("pathname"), Some("C:\\Users\\Public\\Documents\\Hyper-V\\Virtual Hard Disks\\Other Location.vhdx"));
    assert_eq!(tree.number("configuration/settings/memory/bank/size"), Some(1024));
    assert_eq!(tree.number("configuration/settings/processors/count"), Some(1));
    assert_eq!(tree.get("configuration/manifest").unwrap().children().len(), 39);

    let Some((_, bytes)) = sample(FILES[1]) else { return };
    let tree = parse_store(&bytes).unwrap();
    let metric = tree.get("configuration/global_settings/metrics/devicetype/deviceinstance/metric").unwrap();
    assert_eq!(metric.text("resourcetypeid"), Some("70BB60D2-A9D3-46AA-B654-3DE53004B4F8"));
    assert_eq!(metric.get("enabled"), Some(&Value::Bool(false)));
    let devices = tree.get("configuration/global_settings/metrics").unwrap().children();
    assert!(devices.len() > 1 && devices.iter().all(|(name, _)| name == "devicetype"), "all of one name are kept");
}

#[test]
fn everything_that_dissect_reads_is_read_alike() {
    let Some(python) = python_with("dissect.hypervisor") else {
        skip("dissect.hypervisor for Python is not installed");
        return;
    };
    for name in FILES {
        let Some((path, bytes)) = sample(name) else { return };
        let output = Command::new(&python).arg(root().join("tests/witness/hyperv.py")).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let theirs: BTreeSet<String> =
            printed.lines().map(|line| serde_json::from_str::<Json>(line).unwrap().to_string()).collect();
        let mut ours = BTreeSet::new();
        lines("", &parse_store(&bytes).unwrap(), &mut ours);
        assert!(theirs.len() > 20, "{name}: {} values", theirs.len());
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn truncated_files_end_in_an_error_or_all_of_it() {
    for name in FILES {
        let Some((_, bytes)) = sample(name) else { return };
        let whole = parse_store(&bytes).unwrap();
        let mut values = 0;
        for length in 0..bytes.len() {
            match parse_store(&bytes[..length]) {
                // What lies behind everything that counts may be missing.
                Ok(tree) => {
                    assert_eq!(tree, whole, "{name} cut to {length}");
                    values += 1;
                }
                Err(flaw) => assert!(flaw.offset <= length as u64, "{name} cut to {length}: {flaw:?}"),
            }
        }
        assert!(values < bytes.len() / 3, "{name}: {values}");
    }
}

#[test]
fn mutated_files_end_in_an_error_or_a_value() {
    for name in FILES {
        let Some((_, whole)) = sample(name) else { return };
        let mut errors = 0;
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                let end = (at + 1 + random.below(16) as usize).min(bytes.len());
                if random.chance(1, 2) { bytes[at] ^= 1 << random.below(8) } else { random.fill(&mut bytes[at..end]) }
            }
            if random.chance(1, 8) {
                bytes.truncate(random.below(bytes.len() as u64) as usize);
            }
            if let Err(flaw) = parse_store(&bytes) {
                assert!(flaw.offset <= bytes.len() as u64, "{name}, seed {seed}: {flaw:?}");
                errors += 1;
            }
        }
        assert!(errors > 3000, "{name}: {errors} errors");
    }
}
