//! What the screen shows.

use std::path::Path;

use serde_json::json;

use super::process::Process;
use crate::host_file::{Host, OsHost, read_file};
use crate::vm::{Frame, Result, VmError};

/// Largest picture of a screen.
const PICTURE_MAX: u64 = 128 << 20;

/// What the screen shows now, by way of a file in the machine's folder.
pub(super) fn picture(process: &Process, folder: &Path, generation: u64) -> Result<Frame> {
    let path = folder.join("screen.ppm");
    process.ask("screendump", json!({"filename": path, "format": "ppm"}))?;
    let failed = |error| VmError::Refused(format!("{}: {error}", path.display()));
    let bytes = read_file(&OsHost, &path, PICTURE_MAX).map_err(failed)?;
    OsHost.remove_file(&path).map_err(failed)?;
    ppm(&bytes, generation).ok_or_else(|| VmError::Refused(format!("{} isn't a picture", path.display())))
}

/// A picture of three bytes a pixel in the simplest format.
fn ppm(bytes: &[u8], generation: u64) -> Option<Frame> {
    let mut rest = bytes;
    let mut word = || -> Option<String> {
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        let word = String::from_utf8(rest[..end].to_vec()).ok()?;
        rest = &rest[end + 1..];
        Some(word)
    };
    let (magic, width, height, most): (_, u32, u32, _) = (word()?, word()?.parse().ok()?, word()?.parse().ok()?, word()?);
    let length = u64::from(width).checked_mul(u64::from(height)).and_then(|pixels| pixels.checked_mul(3));
    let right = magic == "P6" && most == "255" && length == Some(rest.len() as u64);
    let checksum = crc32c::crc32c(rest);
    right.then(|| Frame { width, height, rgb: rest.to_vec(), generation, checksum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read() {
        let frame = ppm(b"P6\n2 1\n255\nabcdef", 7).unwrap();
        assert_eq!((frame.width, frame.height, &*frame.rgb, frame.generation), (2, 1, &b"abcdef"[..], 7));
        for wrong in
            [&b"P6\n2 1\n255\nabcde"[..], b"P5\n2 1\n255\nabcdef", b"P6\n2 1\n255", b"", b"P6\n4294967295 4294967295\n255\n"]
        {
            assert_eq!(ppm(wrong, 0), None);
        }
    }
}
