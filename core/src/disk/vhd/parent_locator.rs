//! How a differencing image names its parent: an identifier, a name, and up to eight paths.

use std::path::Path;

use uuid::Uuid;

use super::create::EPOCH;
use super::format::{DynamicHeader, LocatorEntry, SECTOR, round_up};
use crate::disk::pages::RawFile;
use crate::disk::parent_paths::ParentPaths;
use crate::disk::{ParentLink, Structure};

/// No path is longer.
const LENGTH_MAX: u64 = 128 << 10;

/// Absolute, UTF-16LE.
const W2KU: [u8; 4] = *b"W2ku";
/// Relative, UTF-16LE.
const W2RU: [u8; 4] = *b"W2ru";
/// Absolute; deprecated.
const WI2K: [u8; 4] = *b"Wi2k";
/// Relative; deprecated.
const WI2R: [u8; 4] = *b"Wi2r";
/// A URL in UTF-8.
const MACX: [u8; 4] = *b"MacX";

/// What the header and the paths that it names say. A path that can't be read is one that isn't there: the parent is
/// found by the others, and matched by its identifier.
pub fn read(raw: &RawFile, header: &DynamicHeader) -> ParentLink {
    let stamp = i64::from(header.parent_time_stamp.get());
    let parent_modified = (stamp != 0).then_some(EPOCH + stamp);
    let mut link = ParentLink { linkage: Uuid::from_bytes(header.parent_unique_id), parent_modified, ..ParentLink::default() };
    // The first of them that a kind of path is found in counts.
    for code in [W2RU, W2KU, WI2R, WI2K, MACX] {
        for entry in header.locators.iter().filter(|entry| entry.platform_code == code) {
            let Some(text) = data(raw, entry).and_then(|bytes| text(code, &bytes)) else { continue };
            put(&mut link, code == W2RU || code == WI2R || is_relative(&text), text);
        }
    }
    if let Some(name) = name(header) {
        let relative = is_relative(&name);
        let text = if relative && !name.contains(['\\', '/']) { format!(".\\{name}") } else { name };
        put(&mut link, relative, text);
    }
    link
}

/// The parent's name in the header.
pub fn name(header: &DynamicHeader) -> Option<String> {
    utf16(&header.parent_unicode_name, u16::from_be_bytes)
}

/// Each path, where it stands.
pub fn each(raw: &RawFile, header: &DynamicHeader) -> Vec<Structure> {
    let used = header.locators.iter().filter(|entry| entry.platform_code != [0; 4]);
    let part = |entry: &LocatorEntry| {
        let code = entry.platform_code;
        let name = format!("Parent Locator {}", String::from_utf8_lossy(&code));
        let path = data(raw, entry).and_then(|bytes| text(code, &bytes));
        let part = Structure::new(name, entry.data_offset.get(), entry.data_length.get().into());
        part.say("Path", path.unwrap_or_else(|| "can't be read".into()))
    };
    used.map(part).collect()
}

fn put(link: &mut ParentLink, is_relative: bool, text: String) {
    let place = match is_relative {
        true => &mut link.relative_path,
        false if text.starts_with(r"\\?\Volume{") => &mut link.volume_path,
        false => &mut link.absolute_path,
    };
    place.get_or_insert(text);
}

/// Neither a drive's, nor a server's, nor one from the root.
fn is_relative(path: &str) -> bool {
    !path.starts_with(['\\', '/']) && path.as_bytes().get(1) != Some(&b':')
}

fn data(raw: &RawFile, entry: &LocatorEntry) -> Option<Vec<u8>> {
    let (offset, length) = (entry.data_offset.get(), u64::from(entry.data_length.get()));
    if length == 0 || length > LENGTH_MAX || offset.checked_add(length)? > raw.len() {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    raw.read(&mut bytes, offset, "read a parent locator").ok()?;
    Some(bytes)
}

fn text(code: [u8; 4], bytes: &[u8]) -> Option<String> {
    match code {
        MACX => url_path(bytes),
        WI2K | WI2R if bytes.get(1) != Some(&0) => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).ok().filter(|text| !text.is_empty())
        }
        _ => utf16(bytes, u16::from_le_bytes),
    }
}

/// Text up to its end or a terminator; none where it is empty or wrong.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).take_while(|unit| *unit != 0);
    String::from_utf16(&units.collect::<Vec<_>>()).ok().filter(|text| !text.is_empty())
}

/// The path of `file://localhost/path`, `file:///path` or, as blktap writes it, `file://./path`.
fn url_path(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let path = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix("file://")?;
    let path = path.strip_prefix("localhost").unwrap_or(path).as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let code = (path[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        plain.push(byte.unwrap_or(path[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).ok().filter(|path| path.starts_with(['/', '.']))
}

/// What stands in the file for a parent: its paths' bytes, to be put at an offset, and what the header says of them.
pub fn encode(header: &mut DynamicHeader, parent: &Path, paths: &ParentPaths, offset: u64) -> Vec<u8> {
    let mut data = Vec::new();
    header.locators = [LocatorEntry::NONE; 8];
    for (place, (code, path)) in [(W2KU, &paths.absolute), (W2RU, &paths.relative)].into_iter().enumerate() {
        let text: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let space = round_up(text.len() as u64, SECTOR);
        header.locators[place] = LocatorEntry {
            platform_code: code,
            data_space: (space as u32).into(),
            data_length: (text.len() as u32).into(),
            reserved: 0.into(),
            data_offset: (offset + data.len() as u64).into(),
        };
        data.extend(&text);
        data.resize(round_up(data.len() as u64, SECTOR) as usize, 0);
    }
    header.parent_unicode_name = [0; 512];
    let whole: Vec<u16> = paths.absolute.encode_utf16().collect();
    // With a terminator; a longer path is left to the locators.
    let name =
        if whole.len() < 256 { whole } else { parent.file_name().unwrap_or_default().to_string_lossy().encode_utf16().collect() };
    for (place, unit) in header.parent_unicode_name.chunks_exact_mut(2).zip(name.into_iter().take(255)) {
        place.copy_from_slice(&unit.to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_paths() {
        let path = |url: &str| url_path(url.as_bytes());
        assert_eq!(path("file://./l0.vhd").as_deref(), Some("./l0.vhd"));
        assert_eq!(path("file://localhost/a%20b/c.vhd\0\0").as_deref(), Some("/a b/c.vhd"));
        assert_eq!(path("file:///a%2").as_deref(), Some("/a%2"));
        assert_eq!(path("file://server/a"), None);
        assert_eq!(path("http://a"), None);
    }
}
