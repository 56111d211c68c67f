//! Damages JSON: values that a stranger might choose at any place, and text that isn't JSON any more.

use serde_json::Value;
use snaptree_core::testing::Random;
use uuid::Uuid;

use super::vhdx::edge;

/// The same text with one to three things changed.
pub fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        bytes = match serde_json::from_slice::<Value>(&bytes) {
            Ok(mut value) if random.chance(5, 6) => {
                change(&mut value, random);
                serde_json::to_vec(&value).unwrap_or_default()
            }
            _ => text(bytes, random),
        };
    }
    bytes
}

/// Changes the text without a look at what it means.
fn text(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    let insert = |bytes: &mut Vec<u8>, what: Vec<u8>| drop(bytes.splice(at..at, what));
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => insert(&mut bytes, b"[".repeat(random.below(200_000) as usize)),
        2 => insert(&mut bytes, b"{\"a\":".repeat(random.below(20_000) as usize)),
        3 => insert(&mut bytes, b"1e999999999".to_vec()),
        4 => insert(&mut bytes, random.bytes(4)),
        5 => {
            // A piece twice, such as a key.
            let end = bytes.len().min(at + random.below(200) as usize);
            let piece = bytes[at..end].to_vec();
            insert(&mut bytes, piece);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
    bytes
}

fn change(value: &mut Value, random: &mut Random) {
    let mut count = 0;
    let mut ids = Vec::new();
    visit(value, &mut |value| {
        count += 1;
        if let Value::String(text) = value {
            ids.push(text.clone());
        }
    });
    let (mut chosen, other) = (random.below(count), ids.get(random.below(ids.len() as u64) as usize).cloned());
    visit(value, &mut |value| {
        if chosen == 0 {
            replace(value, other.clone(), random);
        }
        chosen = chosen.wrapping_sub(1);
    });
}

fn visit(value: &mut Value, see: &mut dyn FnMut(&mut Value)) {
    see(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, see)),
        Value::Object(items) => items.values_mut().for_each(|item| visit(item, see)),
        _ => {}
    }
}

fn replace(value: &mut Value, other: Option<String>, random: &mut Random) {
    match value {
        Value::Array(items) if random.chance(3, 4) => {
            let at = random.below(items.len() as u64) as usize;
            match (items.get(at).cloned(), random.below(2)) {
                (Some(item), 0) => items.push(item),
                (Some(_), _) => drop(items.remove(at)),
                (None, _) => items.push(Value::Null),
            }
        }
        Value::Object(items) if random.chance(3, 4) => {
            let key = items.keys().nth(random.below(items.len() as u64) as usize).cloned();
            let Some(key) = key else { return };
            let Some(item) = items.remove(&key) else { return };
            match random.below(3) {
                0 => {}
                1 => drop(items.insert(other.unwrap_or_default(), item)),
                _ => {
                    items.insert(key, item.clone());
                    items.insert(Uuid::from_u64_pair(random.next_u64(), 1).to_string(), item);
                }
            }
        }
        Value::Number(_) if random.chance(3, 4) => {
            *value = match random.below(4) {
                0 => (-1).into(),
                1 => (random.next_u64() as f64 * 1e280).into(),
                _ => edge(random).into(),
            }
        }
        Value::String(text) if random.chance(3, 4) => *text = string(text, other, random),
        _ => {
            let text = other.unwrap_or_default();
            let any = [Value::Null, true.into(), 0.into(), "".into(), text.into(), Value::Array(vec![]), serde_json::json!({})];
            *value = any[random.below(any.len() as u64) as usize].clone();
        }
    }
}

fn string(text: &str, other: Option<String>, random: &mut Random) -> String {
    let fixed = [
        "../outside/secret",
        "/outside/secret",
        "out/secret",
        "Alias/disk0.vhdx",
        "Snapshots",
        "Deleted/x",
        "machine.json",
        ".",
        "a\0b",
        "\u{202e}\u{7f}",
        "-262143-01-01T00:00:00Z",
        "+262142-12-31T23:59:59Z",
        "00000000-0000-0000-0000-000000000000",
    ];
    match random.below(6) {
        0 => other.unwrap_or_default(),
        1 => text.repeat(1 + random.below(50) as usize),
        2 => format!("../{text}"),
        3 => text.chars().rev().collect(),
        _ => fixed[random.below(fixed.len() as u64) as usize].into(),
    }
}
