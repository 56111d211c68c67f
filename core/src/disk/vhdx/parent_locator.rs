//! The parent locator (2.6.2.6): keys and values in UTF-16LE, without terminators.

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{LOCATOR_TYPE_VHDX, LocatorEntry, LocatorHeader};
use crate::disk::ParentLink;

const LINKAGE: &str = "parent_linkage";
const LINKAGE2: &str = "parent_linkage2";
const RELATIVE: &str = "relative_path";
const VOLUME: &str = "volume_path";
const ABSOLUTE: &str = "absolute_win32_path";

/// More pairs than any program writes.
const PAIRS_MAX: usize = 256;

/// The pairs, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLocator(Vec<(String, String)>);

/// The text of an identifier as Windows writes it.
fn guid_text(id: Uuid) -> String {
    id.braced().to_string()
}

impl ParentLocator {
    /// The pairs that Windows writes, but for the volume's path, which only Windows knows.
    pub fn new(linkage: Uuid, absolute: String, relative: String) -> Self {
        Self(vec![
            (LINKAGE.into(), guid_text(linkage)),
            (ABSOLUTE.into(), absolute),
            (RELATIVE.into(), relative),
            (LINKAGE2.into(), guid_text(Uuid::nil())),
        ])
    }

    /// Keys and values, as they stand.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Parses an item; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (header, rest) = LocatorHeader::read_from_prefix(bytes).map_err(|_| "is too short".to_owned())?;
        if Uuid::from(header.locator_type) != LOCATOR_TYPE_VHDX {
            return Err(format!("has the unknown type {}", Uuid::from(header.locator_type)));
        }
        let count = usize::from(header.key_value_count.get());
        if count > PAIRS_MAX || rest.len() < count * size_of::<LocatorEntry>() {
            return Err(format!("has KeyValueCount {count}, which doesn't fit"));
        }
        let text = |offset: u32, length: u16| {
            let from = offset as usize;
            let part = from.checked_add(length.into()).and_then(|to| bytes.get(from..to));
            let part = part.filter(|part| part.len() % 2 == 0).ok_or("has a key or value outside the item")?;
            let units: Vec<u16> = part.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
            String::from_utf16(&units).map_err(|_| "has a key or value that isn't UTF-16".to_owned())
        };
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(count);
        let mut taken = 0;
        for entry in rest.chunks_exact(size_of::<LocatorEntry>()).take(count) {
            let entry = LocatorEntry::read_from_bytes(entry).map_err(|_| "is too short".to_owned())?;
            taken += usize::from(entry.key_length.get()) + usize::from(entry.value_length.get());
            if taken > bytes.len() {
                return Err("has keys and values that share their bytes".into());
            }
            let key = text(entry.key_offset.get(), entry.key_length.get())?;
            let value = text(entry.value_offset.get(), entry.value_length.get())?;
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(format!("has the key {key} twice"));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// The item's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let header = LocatorHeader {
            locator_type: LOCATOR_TYPE_VHDX.into(),
            reserved: 0.into(),
            key_value_count: (self.0.len() as u16).into(),
        };
        let mut entries = Vec::new();
        let mut texts: Vec<u8> = Vec::new();
        let start = size_of::<LocatorHeader>() + self.0.len() * size_of::<LocatorEntry>();
        for (key, value) in &self.0 {
            let mut place = |text: &str| {
                let offset = (start + texts.len()) as u32;
                texts.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                (offset, (start + texts.len()) as u32 - offset)
            };
            let ((key_offset, key_length), (value_offset, value_length)) = (place(key), place(value));
            entries.push(LocatorEntry {
                key_offset: key_offset.into(),
                value_offset: value_offset.into(),
                key_length: (key_length as u16).into(),
                value_length: (value_length as u16).into(),
            });
        }
        [header.as_bytes(), entries.as_bytes(), &texts].concat()
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: String) {
        match self.0.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.into(), value)),
        }
    }

    /// Changes the identifiers; no second one is written as zeros, as Windows does.
    pub fn set_linkage(&mut self, linkage: Uuid, linkage2: Option<Uuid>) {
        self.set(LINKAGE, guid_text(linkage));
        self.set(LINKAGE2, guid_text(linkage2.unwrap_or_default()));
    }

    /// What it says, or what is wrong with it.
    pub fn link(&self) -> Result<ParentLink, String> {
        let id = |key| match self.get(key) {
            None => Ok(None),
            Some(text) => Uuid::parse_str(text).map(Some).map_err(|_| format!("has {key} {text:?}, which isn't an identifier")),
        };
        let owned = |key| self.get(key).map(str::to_owned);
        Ok(ParentLink {
            linkage: id(LINKAGE)?.ok_or("has no parent_linkage")?,
            linkage2: id(LINKAGE2)?.filter(|id| !id.is_nil()),
            relative_path: owned(RELATIVE),
            volume_path: owned(VOLUME),
            absolute_path: owned(ABSOLUTE),
            parent_modified: None,
        })
    }
}
