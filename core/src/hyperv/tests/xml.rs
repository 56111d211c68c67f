//! The XML of 2008 to 2012 R2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stores::node;
use crate::hyperv::{Value, parse_xml};
use crate::testing::Random;

/// A tree as such a host writes it: UTF-16 with a byte order mark.
pub fn xml(tree: &Value) -> Vec<u8> {
    fn escaped(text: &str) -> String {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    }
    fn put(out: &mut String, name: &str, value: &Value) {
        let (kind, text) = match value {
            Value::Node(children) => {
                *out += &format!("<{name}>\r\n");
                children.iter().for_each(|(name, value)| put(out, name, value));
                *out += &format!("</{name}>\r\n");
                return;
            }
            Value::Int(n) => ("integer", n.to_string()),
            Value::UInt(n) => ("integer", n.to_string()),
            Value::Bool(yes) => ("bool", if *yes { "True".into() } else { "False".into() }),
            Value::Text(text) => ("string", escaped(text)),
            Value::Bytes(bytes) => ("bytes", STANDARD.encode(bytes)),
            Value::Double(n) => ("double", n.to_string()),
        };
        *out += &format!("<{name} type=\"{kind}\">{text}</{name}>\r\n");
    }
    let mut text = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\" standalone=\"yes\"?>\r\n".to_owned();
    tree.children().iter().for_each(|(name, value)| put(&mut text, name, value));
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn sample() -> Value {
    node([(
        "configuration",
        node([
            ("name", Value::Text("Größe <&> \u{1f600}".into())),
            ("number", Value::Int(-5)),
            ("yes", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("bytes", Value::Bytes(vec![0xa7, 0x6e, 0x45, 1])),
            ("empty", Value::Text(String::new())),
            ("below", node([("twice", Value::Int(1)), ("twice", Value::Int(2))])),
        ]),
    )])
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(parse_xml(&xml(&sample())).unwrap(), sample());
    let utf8 = "<configuration><a type=\"string\">x&#65;<![CDATA[<y>]]></a><b type=\"integer\"/></configuration>";
    assert!(parse_xml(utf8.as_bytes()).unwrap_err().problem.contains("must be a number"));
    let utf8 = utf8.replace("<b type=\"integer\"/>", "<b/>");
    let read = parse_xml(utf8.as_bytes()).unwrap();
    assert_eq!((read.text("configuration/a"), read.get("configuration/b")), (Some("xA<y>"), Some(&node([]))));
    let big_endian: Vec<u8> = xml(&sample()).chunks(2).flat_map(|unit| [unit[1], unit[0]]).collect();
    assert_eq!(parse_xml(&big_endian).unwrap(), sample());
}

#[test]
fn what_a_stranger_declares_is_not_followed() {
    for (text, problem) in [
        ("<!DOCTYPE c [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><configuration><a>&e;</a></configuration>", "entity"),
        ("<other/>", "configuration"),
        ("<configuration><a type=\"bool\">maybe</a></configuration>", "True or False"),
        ("<configuration><a type=\"bytes\">?</a></configuration>", "Base64"),
        ("<configuration><a></b></configuration>", "well-formed"),
        (&format!("{}{}", "<configuration>", "<a>".repeat(10_000)), "nested"),
    ] {
        let flaw = parse_xml(text.as_bytes()).unwrap_err();
        assert!(flaw.problem.contains(problem), "{flaw:?}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = xml(&sample());
    let text_end = whole.len() - 2 * "\r\n".len();
    for length in 0..text_end {
        assert!(parse_xml(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn ten_thousand_mutations_end_in_an_error_or_a_value() {
    let whole = xml(&sample());
    let (mut errors, mut values) = (0, 0);
    for seed in 0..10_000 {
        let mut random = Random::new(seed);
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64 / 2) as usize * 2;
            match random.below(3) {
                0 => bytes[at] = b"<>&;/\"' a0"[random.below(10) as usize],
                1 => drop(bytes.drain(at..(at + 2 * random.below(20) as usize).min(bytes.len()))),
                _ => bytes[at + random.below(2) as usize] ^= 1 << random.below(8),
            }
        }
        match parse_xml(&bytes) {
            Ok(_) => values += 1,
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 3000 && values > 500, "{errors} errors, {values} values");
}
