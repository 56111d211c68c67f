//! Writes a data store of Hyper-V, for tests of its reader.

use std::collections::VecDeque;

use crate::hyperv::Value;
use crate::hyperv::format::sealed;

const PAGE: usize = 4096;
const TABLE_ENTRIES: usize = 227;

/// The bytes of a `.vmcx` file with this tree: headers, object table, an empty log, key tables, large values.
pub fn vmcx(root: &Value) -> Vec<u8> {
    let mut bytes = vec![0; 4 * PAGE];
    let mut objects: Vec<(u8, usize, usize)> = Vec::new();
    let mut keys = Tables { tables: vec![Vec::new()] };
    let mut files: Vec<(usize, usize, Vec<u8>)> = Vec::new();
    let mut open: VecDeque<((u16, u32), &Value)> = VecDeque::from([((0, 0), root)]);
    while let Some((parent, node)) = open.pop_front() {
        for (order, (name, value)) in node.children().iter().enumerate() {
            let (kind, mut data) = encode(value);
            let large = matches!(kind, 6 | 7) && data.len() >= 4 + 2048;
            if large {
                let content = data.split_off(4);
                data = [&(content.len() as u32).to_le_bytes()[..], &[0; 8]].concat();
                let id = keys.push(parent, kind, 1, order, name, &data);
                files.push((usize::from(id.0), id.1 as usize, content));
            } else {
                let id = keys.push(parent, kind, 0, order, name, &data);
                if let Value::Node(_) = value {
                    open.push_back((id, value));
                }
            }
        }
    }
    for (table, place, content) in files {
        let length = content.len().next_multiple_of(PAGE);
        let offset = bytes.len();
        let entries = &mut keys.tables[table - 1];
        let at = place - 10;
        let size = u32::from_le_bytes(entries[at + 2..at + 6].try_into().unwrap_or_default()) as usize;
        let pointer = at + size - 8;
        entries[pointer..at + size].copy_from_slice(&(offset as u64).to_le_bytes());
        seal(&mut entries[at..at + size], 12);
        objects.push((3, offset, length));
        bytes.extend(content);
        bytes.resize(offset + length, 0);
    }
    for (index, entries) in keys.tables.iter().enumerate() {
        let offset = bytes.len();
        objects.push((2, offset, PAGE));
        let mut head = [&2u16.to_le_bytes()[..], &(index as u16 + 1).to_le_bytes(), &1u16.to_le_bytes(), &[0; 4]].concat();
        seal(&mut head, 6);
        bytes.extend(head);
        bytes.extend(entries);
        let rest = offset + PAGE - bytes.len();
        if rest > 21 {
            let mut free = vec![0; rest];
            free[0] = 1;
            free[2..6].copy_from_slice(&(rest as u32).to_le_bytes());
            bytes.extend(free);
        }
        bytes.resize(offset + PAGE, 0);
    }
    bytes[2 * PAGE..2 * PAGE + 4].copy_from_slice(&0x0111_0001_u32.to_le_bytes());
    bytes[2 * PAGE + 4..2 * PAGE + 8].copy_from_slice(&(TABLE_ENTRIES as u32).to_le_bytes());
    objects.resize(TABLE_ENTRIES, (0, 0, 0));
    for (index, (kind, offset, length)) in objects.into_iter().enumerate() {
        let place = 2 * PAGE + 8 + index * 18;
        let entry = &mut bytes[place..place + 18];
        entry[0] = kind;
        entry[5..13].copy_from_slice(&(offset as u64).to_le_bytes());
        entry[13..17].copy_from_slice(&(length as u32).to_le_bytes());
        entry[17] = u8::from(kind != 0);
        seal(entry, 1);
    }
    log(&mut bytes[3 * PAGE..4 * PAGE]);
    header(&mut bytes[..46], 2);
    header(&mut bytes[PAGE..PAGE + 46], 1);
    bytes
}

struct Tables {
    tables: Vec<Vec<u8>>,
}

impl Tables {
    /// Adds a key and returns its table and its offset in there.
    fn push(&mut self, parent: (u16, u32), kind: u8, flags: u8, order: usize, name: &str, data: &[u8]) -> (u16, u32) {
        let length = 21 + name.len() + 1 + data.len();
        if self.tables.last().is_none_or(|table| table.len() + length > PAGE - 10) {
            self.tables.push(Vec::new());
        }
        let index = self.tables.len() as u16;
        let mut key = vec![kind, flags];
        key.extend((length as u32).to_le_bytes());
        key.extend(parent.0.to_le_bytes());
        key.extend(parent.1.to_le_bytes());
        key.extend([0; 4]);
        key.extend((order as u32 + 1).to_le_bytes());
        key.push(name.len() as u8 + 1);
        key.extend(name.as_bytes());
        key.push(0);
        key.extend(data);
        seal(&mut key, 12);
        let table = &mut self.tables[usize::from(index) - 1];
        let place = table.len() + 10;
        table.extend(key);
        (index, place as u32)
    }
}

fn encode(value: &Value) -> (u8, Vec<u8>) {
    let long = |bytes: Vec<u8>| [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
    match value {
        Value::Int(n) => (3, n.to_le_bytes().to_vec()),
        Value::UInt(n) => (4, n.to_le_bytes().to_vec()),
        Value::Double(n) => (5, n.to_le_bytes().to_vec()),
        Value::Text(text) => (6, long(text.encode_utf16().flat_map(u16::to_le_bytes).collect())),
        Value::Bytes(bytes) => (7, long(bytes.clone())),
        Value::Bool(yes) => (8, u32::from(*yes).to_le_bytes().to_vec()),
        Value::Node(_) => (9, vec![0; 12]),
    }
}

fn seal(bytes: &mut [u8], field: usize) {
    let sum = sealed(bytes, field);
    bytes[field..field + 4].copy_from_slice(&sum.to_le_bytes());
}

fn header(bytes: &mut [u8], sequence: u16) {
    bytes[..4].copy_from_slice(&0x0128_2014_u32.to_le_bytes());
    bytes[8..10].copy_from_slice(&sequence.to_le_bytes());
    bytes[10..14].copy_from_slice(&0x0400_u32.to_le_bytes());
    bytes[22..26].copy_from_slice(&(PAGE as u32).to_le_bytes());
    bytes[26..34].copy_from_slice(&(3 * PAGE as u64).to_le_bytes());
    bytes[34..42].copy_from_slice(&(PAGE as u64).to_le_bytes());
    bytes[42..46].copy_from_slice(&(PAGE as u32).to_le_bytes());
    seal(bytes, 4);
}

fn log(bytes: &mut [u8]) {
    bytes[..4].copy_from_slice(&0x0111_0003_u32.to_le_bytes());
    bytes[13..17].copy_from_slice(&145_u32.to_le_bytes());
    seal(&mut bytes[..34], 4);
}
