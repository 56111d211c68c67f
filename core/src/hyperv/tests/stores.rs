//! Data stores that are whole.

use super::super::format::{LogEntry, sealed};
use crate::hyperv::{Value, parse_store};
use crate::testing::vmcx;

pub fn node(children: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Node(children.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Every kind of value, several tables, two large values.
pub fn sample() -> Value {
    let many = (0..200).map(|n| (format!("key {n}"), Value::Int(n))).collect();
    node([(
        "configuration",
        node([
            ("int", Value::Int(-5)),
            ("uint", Value::UInt(u64::MAX)),
            ("double", Value::Double(1.5)),
            ("text", Value::Text("Größe \u{1f600}".into())),
            ("empty", Value::Text(String::new())),
            ("bytes", Value::Bytes(vec![1, 2, 3])),
            ("yes", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("many", Value::Node(many)),
            ("long text", Value::Text("x".repeat(3000))),
            ("long bytes", Value::Bytes(vec![7; 5000])),
            ("nothing", node([])),
            ("twice", Value::Int(1)),
            ("twice", Value::Int(2)),
        ]),
    )])
}

#[test]
fn what_is_written_is_read() {
    let read = parse_store(&vmcx(&sample())).unwrap();
    assert_eq!(read, sample());
    assert_eq!(read.get("configuration/twice"), Some(&Value::Int(2)));
    assert_eq!(read.number("configuration/many/key 7"), Some(7));
    assert_eq!(read.number("configuration/int"), None, "is negative");
    assert_eq!(read.text("configuration/text"), Some("Größe \u{1f600}"));
    assert!(read.is_set("configuration/yes") && !read.is_set("configuration/no") && !read.is_set("configuration/gone"));
}

#[test]
fn a_torn_header_leaves_its_copy_and_the_later_one_counts() {
    let whole = vmcx(&sample());
    for at in [0, 4096] {
        let mut torn = whole.clone();
        torn[at + 20..at + 60].fill(0xff);
        assert_eq!(parse_store(&torn).unwrap(), sample(), "{at}");
    }
    // The first header has number 2, the second 1. One that is newer and of another version is believed.
    let mut newer = whole;
    newer[4096 + 8..4096 + 10].copy_from_slice(&3u16.to_le_bytes());
    newer[4096 + 10] = 1;
    let sum = sealed(&newer[4096..4096 + 46], 4);
    newer[4100..4104].copy_from_slice(&sum.to_le_bytes());
    let flaw = parse_store(&newer).unwrap_err();
    assert_eq!((flaw.offset, &*flaw.field), (4096 + 10, "version"), "{flaw:?}");
    // The number goes round.
    newer[8..10].copy_from_slice(&1u16.to_le_bytes());
    newer[4096 + 8..4096 + 10].copy_from_slice(&u16::MAX.to_le_bytes());
    for at in [0, 4096] {
        let sum = sealed(&newer[at..at + 46], 4);
        newer[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    assert_eq!(parse_store(&newer).unwrap(), sample());
}

/// Puts a change into the log, whose header and entries are in page 3.
fn log_change(bytes: &mut [u8], offset: usize, data: &[u8]) {
    let log = 3 * 4096;
    let place = log + 34;
    bytes[log + 8..log + 12].copy_from_slice(&1u32.to_le_bytes());
    let sum = sealed(&bytes[log..log + 34], 4);
    bytes[log + 4..log + 8].copy_from_slice(&sum.to_le_bytes());
    let entry = &mut bytes[place..place + size_of::<LogEntry>()];
    entry[..8].copy_from_slice(&(offset as u64).to_le_bytes());
    entry[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
    entry[12..20].copy_from_slice(&1024u64.to_le_bytes());
    entry[24..28].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
    let sum = sealed(entry, 20);
    entry[20..24].copy_from_slice(&sum.to_le_bytes());
    bytes[log + 1024..log + 1024 + data.len()].copy_from_slice(data);
}

#[test]
fn what_the_log_holds_counts() {
    let whole = vmcx(&sample());
    let mut bytes = whole.clone();
    let table = 2 * 4096;
    let right = bytes[table..table + 200].to_vec();
    bytes[table..table + 200].fill(0);
    assert!(parse_store(&bytes).is_err());
    log_change(&mut bytes, table, &right);
    assert_eq!(parse_store(&bytes).unwrap(), sample());
    // A change that is damaged isn't made.
    bytes[3 * 4096 + 1024] ^= 1;
    let flaw = parse_store(&bytes).unwrap_err();
    assert_eq!((flaw.offset, &*flaw.field), (3 * 4096 + 34, "entry 0 of the replay log"), "{flaw:?}");
    // Nor one past the end.
    let mut bytes = whole.clone();
    log_change(&mut bytes, whole.len() - 10, &right);
    assert!(parse_store(&bytes).unwrap_err().problem.contains("past the end"));
}
