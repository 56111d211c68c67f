//! The footer: one sector that says what the file is. It stands at the file's end, and where there are blocks a copy at
//! its head is the fallback. Whoever wants to change several things at once puts them where nobody looks yet, and
//! lets this sector name them.

use zerocopy::{FromBytes, IntoBytes};

use super::format::{DIFFERENCING, DYNAMIC, FIXED, Footer, SECTOR, SECTOR_SIZE, SHORT_FOOTER, VERSION, checksum, round_up};
use crate::disk::pages::RawFile;
use crate::disk::{DiskError, Result};

/// Larger disks than any program makes aren't followed.
const SIZE_MAX: u64 = 1 << 41;

/// The footer that counts, and where it stands.
#[derive(Debug, Clone)]
pub struct Footers {
    /// What it says.
    pub current: Footer,
    /// Where the footer at the file's end stands, or must be put: behind everything else.
    pub place: u64,
    /// The one at the end isn't there, or the copy says something else: to be put right before any change.
    pub is_damaged: bool,
}

/// The bytes of a footer, with its checksum.
pub fn encode(footer: &Footer) -> [u8; SECTOR_SIZE] {
    let mut footer = *footer;
    footer.checksum = 0.into();
    footer.checksum = checksum(footer.as_bytes()).into();
    footer.as_bytes().try_into().expect("one sector")
}

/// A footer, if these bytes are one.
pub fn parse(bytes: &[u8; SECTOR_SIZE]) -> Option<Footer> {
    let footer = Footer::read_from_bytes(bytes).ok()?;
    let mut summed = footer;
    summed.checksum = 0.into();
    (footer.cookie == Footer::COOKIE && checksum(summed.as_bytes()) == footer.checksum.get()).then_some(footer)
}

fn read_at(raw: &RawFile, offset: u64, length: usize) -> Result<Option<Footer>> {
    let mut bytes = [0; SECTOR_SIZE];
    raw.read(&mut bytes[..length], offset, "read the footer")?;
    Ok(parse(&bytes))
}

/// The footer at the file's end, of the usual length or of old programs', and where it stands.
pub fn at_the_end(raw: &RawFile) -> Result<Option<(Footer, u64)>> {
    let Some(place) = raw.len().checked_sub(SECTOR) else { return Ok(None) };
    if let Some(footer) = read_at(raw, place, SECTOR_SIZE)? {
        return Ok(Some((footer, place)));
    }
    Ok(read_at(raw, place + 1, SHORT_FOOTER)?.map(|footer| (footer, place + 1)))
}

/// The copy at the head of a file that has blocks.
pub fn at_the_head(raw: &RawFile) -> Result<Option<Footer>> {
    if raw.len() < SECTOR {
        return Ok(None);
    }
    Ok(read_at(raw, 0, SECTOR_SIZE)?.filter(|footer| [DYNAMIC, DIFFERENCING].contains(&footer.disk_type.get())))
}

impl Footers {
    /// Finds the footer that counts.
    pub fn read(raw: &RawFile) -> Result<Self> {
        let (end, head) = (at_the_end(raw)?, at_the_head(raw)?);
        let footers = match end {
            Some((current, place)) => {
                let has_copy = current.disk_type.get() != FIXED;
                Self { current, place, is_damaged: has_copy && head != Some(current) }
            }
            None => {
                let current = head.ok_or_else(|| {
                    let at = raw.len().saturating_sub(SECTOR);
                    DiskError::invalid(raw.path(), at, "Cookie", "of the footer isn't \"conectix\", or its checksum is wrong")
                })?;
                Self { current, place: round_up(raw.len(), SECTOR), is_damaged: true }
            }
        };
        footers.check(raw)?;
        Ok(footers)
    }

    fn check(&self, raw: &RawFile) -> Result<()> {
        let invalid = |field, problem: String| Err(DiskError::invalid(raw.path(), self.place, field, problem));
        let footer = &self.current;
        if footer.version.get() >> 16 != VERSION >> 16 {
            return invalid("File Format Version", format!("is {:#010x}, must be {VERSION:#010x}", footer.version.get()));
        }
        let (size, kind) = (footer.current_size.get(), footer.disk_type.get());
        if size == 0 || size > SIZE_MAX || !size.is_multiple_of(SECTOR) {
            return invalid("Current Size", format!("is {size}: whole sectors, at most 2 TiB, are possible"));
        }
        if ![FIXED, DYNAMIC, DIFFERENCING].contains(&kind) {
            return invalid("Disk Type", format!("is {kind}, must be 2, 3 or 4"));
        }
        if kind == FIXED && size > self.place {
            return invalid("Current Size", format!("is {size}, but the footer stands at {}", self.place));
        }
        let inside = |offset: u64| offset.is_multiple_of(SECTOR) && offset < size;
        if let Some(offset) = footer.old_footer().filter(|offset| kind != FIXED || !inside(*offset)) {
            return invalid("Reserved", format!("has a note about a sector at {offset}"));
        }
        Ok(())
    }

    /// Puts right what is damaged; durable when it returns.
    pub fn repair(&mut self, raw: &RawFile) -> Result<()> {
        if self.is_damaged {
            self.replace(raw, self.current)?;
        }
        Ok(())
    }

    /// Replaces the footer: the one at the end, whose sector decides, and then its copy; durable when it returns.
    pub fn replace(&mut self, raw: &RawFile, footer: Footer) -> Result<()> {
        let bytes = encode(&footer);
        raw.write(&bytes, self.place, "write the footer")?;
        raw.flush()?;
        if footer.disk_type.get() != FIXED {
            raw.write(&bytes, 0, "write the footer's copy")?;
            raw.flush()?;
        }
        (self.current, self.is_damaged) = (Footer::read_from_bytes(&bytes).expect("one sector"), false);
        Ok(())
    }

    /// Puts the same footer at another place, where nothing else is; durable when it returns. The old one stays.
    pub fn put_at(&mut self, raw: &RawFile, place: u64) -> Result<()> {
        raw.write(&encode(&self.current), place, "write the footer")?;
        raw.flush()?;
        self.place = place;
        Ok(())
    }
}
