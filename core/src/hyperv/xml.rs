//! Reads the XML of 2008 to 2012 R2: the same tree as in a data store, in text.
//!
//! Every element has a name and either a `type` and a text, or elements below it:
//! ```text
//! <configuration>
//!   <properties>
//!     <creation_time type="bytes">p25FZp6X1wE=</creation_time>     Base64; a FILETIME, little-endian
//!     <name type="string">web</name>
//!     <highly_available type="bool">False</highly_available>
//!     <version type="integer">1280</version>
//! ```
//! Hyper-V writes UTF-16 with a byte order mark; what people saved again may be UTF-8. The shape is taken from public
//! files: Red Hat's imagefactory, which writes such a configuration (Apache-2.0), the article "Hyper-V's relationship with
//! virtual machine XML files" (Altaro), and scripts that read `configuration/settings/memory/bank/size` and the like. No
//! sample written by such a host was at hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::Value;
use super::error::Flaw;

/// The deepest nesting of elements.
const DEPTH_MAX: usize = 64;

type Outcome<T> = Result<T, Flaw>;

/// Reads an `.xml` file's bytes.
///
/// # Errors
/// Where the bytes aren't well-formed XML, or a value isn't of its type. Entities that the file declares aren't followed.
pub fn parse_xml(bytes: &[u8]) -> Outcome<Value> {
    let text = decode(bytes)?;
    let mut reader = Reader::from_str(&text);
    let mut open = vec![Element::default()];
    loop {
        let at = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|error| {
            let at = usize::try_from(reader.error_position()).unwrap_or(at).min(text.len());
            Flaw::new(at, "XML", format!("isn't well-formed: {error}"))
        })?;
        match event {
            Event::Start(start) => {
                if open.len() > DEPTH_MAX {
                    return Err(Flaw::new(at, "XML", format!("is nested more than {DEPTH_MAX} deep")));
                }
                open.push(Element::of(&start, at)?);
            }
            Event::Empty(start) => {
                let element = Element::of(&start, at)?;
                close(&mut open, element)?;
            }
            Event::End(_) => {
                // The reader has checked that it ends what was begun.
                let element = open.pop().unwrap_or_default();
                close(&mut open, element)?;
            }
            Event::Text(part) => {
                let part = part.decode().map_err(|error| Flaw::new(at, "XML", error.to_string()))?;
                innermost(&mut open).text.push_str(&part);
            }
            Event::CData(part) => {
                let part = part.decode().map_err(|error| Flaw::new(at, "XML", error.to_string()))?;
                innermost(&mut open).text.push_str(&part);
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| Flaw::new(at, "XML", error.to_string()))?;
                let wrong = || Flaw::new(at, "XML", format!("has the unknown entity {name:?}"));
                match reference.resolve_char_ref().map_err(|_| wrong())? {
                    Some(character) => innermost(&mut open).text.push(character),
                    None => {
                        let known = quick_xml::escape::resolve_predefined_entity(&name).ok_or_else(wrong)?;
                        innermost(&mut open).text.push_str(known);
                    }
                }
            }
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
        }
    }
    let root = match open.len() {
        1 => open.pop().unwrap_or_default(),
        _ => return Err(Flaw::new(text.len(), "XML", "ends inside an element")),
    };
    if !root.children.iter().any(|(name, _)| name == "configuration") {
        return Err(Flaw::new(0, "XML", "has no element \"configuration\""));
    }
    Ok(Value::Node(root.children))
}

/// UTF-16 by its byte order mark, otherwise UTF-8.
fn decode(bytes: &[u8]) -> Outcome<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.map_err(|_| Flaw::new(0, "XML", "isn't UTF-16, as its first two bytes say"))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            let text = std::str::from_utf8(rest);
            text.map(str::to_owned).map_err(|error| Flaw::new(error.valid_up_to(), "XML", "isn't UTF-8"))
        }
    }
}

/// An element that has begun. The outermost one stands for the file.
#[derive(Default)]
struct Element {
    offset: usize,
    name: String,
    kind: Option<String>,
    text: String,
    children: Vec<(String, Value)>,
}

impl Element {
    fn of(start: &BytesStart<'_>, offset: usize) -> Outcome<Self> {
        let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
        let wrong = |problem: String| Flaw::new(offset, &*name, problem);
        let kind = start.try_get_attribute("type").map_err(|error| wrong(error.to_string()))?;
        let kind = kind.map(|kind| String::from_utf8_lossy(&kind.value).into_owned());
        Ok(Self { offset, name, kind, ..Self::default() })
    }

    fn value(self) -> Outcome<(String, Value)> {
        let Self { offset, name, kind, text, children } = self;
        let trimmed = text.trim();
        let wrong = |what: &str| Flaw::new(offset, &*name, format!("is {trimmed:.40?}, must be {what}"));
        let value = match kind.as_deref() {
            None => Value::Node(children),
            Some("string") => Value::Text(text),
            Some("integer") => Value::Int(trimmed.parse().map_err(|_| wrong("a number"))?),
            Some("bool") if trimmed.eq_ignore_ascii_case("true") => Value::Bool(true),
            Some("bool") if trimmed.eq_ignore_ascii_case("false") => Value::Bool(false),
            Some("bool") => return Err(wrong("True or False")),
            Some("bytes") => {
                let compact: String = trimmed.chars().filter(|c| !c.is_whitespace()).collect();
                Value::Bytes(STANDARD.decode(compact).map_err(|_| wrong("Base64"))?)
            }
            // A type that nobody has described: its text as it is.
            Some(_) => Value::Text(text),
        };
        Ok((name, value))
    }
}

fn innermost(open: &mut [Element]) -> &mut Element {
    let last = open.len() - 1;
    &mut open[last]
}

fn close(open: &mut [Element], element: Element) -> Outcome<()> {
    let Some(parent) = open.last_mut() else {
        return Err(Flaw::new(element.offset, "XML", "ends more than was begun"));
    };
    parent.children.push(element.value()?);
    Ok(())
}
