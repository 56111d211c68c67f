//! Images of other programs' formats, one file each, on their way to an image of ours: raw disks are converted here, the
//! others by qemu-img.
//!
//! An image can name other files, and qemu-img would open whatever it names. So that is read from the image's own header
//! first, the format is given and not guessed, and what isn't in one file is refused.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::process;
use crate::chain::{Source, Target, convert};
use crate::disk::{DiskError, ImageFormat, ImageType, Result};
use crate::host_file::{Access, HostFile, SharedHost};
use crate::units::ByteCount;

/// The program, and the package of Debian and Ubuntu that has it.
const PROGRAM: &str = "qemu-img";
const PACKAGE: &str = "qemu-utils";
/// Longest name or description that is read.
const TEXT_MAX: u64 = 1 << 20;
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A format that a machine's disks can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherFormat {
    /// The disk's bytes.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
}

impl OtherFormat {
    /// How the names of such files end.
    pub const EXTENSIONS: [&str; 5] = ["raw", "img", "qcow2", "vmdk", "vdi"];

    /// What a file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "raw" | "img" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "vmdk" => Self::Vmdk,
            "vdi" => Self::Vdi,
            _ => return None,
        })
    }

    /// As qemu-img calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }
}

/// An image that is all of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherImage {
    path: PathBuf,
    format: OtherFormat,
    size: ByteCount,
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    size: u64,
    /// Files that the image needs beside itself.
    others: Vec<String>,
}

impl OtherImage {
    /// Reads its header.
    ///
    /// # Errors
    /// Where it isn't of that format, or isn't all of the disk.
    pub fn look(host: &SharedHost, path: &Path, format: OtherFormat) -> Result<Self> {
        let path = host.canonical(path).map_err(|error| DiskError::io(path, "find it", error))?;
        let file = host.open(&path, Access::Read).map_err(|error| DiskError::io(&path, "open it", error))?;
        let Header { size, others } = header(&*file, format)?;
        if !others.is_empty() {
            let reason = format!(
                "it isn't all of the disk: it names {}. Make one file of it with the program that it comes from",
                others.join(", ")
            );
            return Err(DiskError::refused(&path, reason));
        }
        if size == 0 || !size.is_multiple_of(512) {
            return Err(DiskError::refused(&path, format!("a disk of {size} bytes isn't one of whole sectors of 512")));
        }
        Ok(Self { path, format, size: ByteCount(size) })
    }

    /// The size of its disk.
    pub fn size(&self) -> ByteCount {
        self.size
    }

    /// Writes what it shows to a new dynamic VHDX. `go_on` is told how far it is; `false` ends it, and so does this.
    ///
    /// # Errors
    /// Where it can't be read, or there is no room.
    pub fn convert(&self, host: &SharedHost, to: &Path, go_on: &mut dyn FnMut(ByteCount, ByteCount) -> bool) -> Result<bool> {
        if self.format != OtherFormat::Raw {
            return self.convert_outside(to, go_on);
        }
        let target = Target::Image { format: ImageFormat::Vhdx, kind: ImageType::Dynamic, block_size: None };
        let source = Source::raw(host, &self.path)?;
        Ok(convert(host, &source, to, target, &mut |stands| go_on(stands.done, stands.total))?.is_some())
    }

    fn convert_outside(&self, to: &Path, go_on: &mut dyn FnMut(ByteCount, ByteCount) -> bool) -> Result<bool> {
        let mut command = Command::new(PROGRAM);
        command.args(["convert", "-p", "-f", self.format.name(), "-O", "vhdx", "-o", "subformat=dynamic"]);
        // Both paths are absolute: neither can be taken for an option, or one of its protocols.
        command.arg(&self.path).arg(to).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                DiskError::refused(&self.path, format!("{PROGRAM}, which converts it, isn't installed: the package is {PACKAGE}"))
            }
            _ => DiskError::io(&self.path, "start qemu-img", error),
        })?;
        let done = self.watch(&mut child, go_on);
        if !matches!(done, Ok(true)) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        done
    }

    /// Follows qemu-img to its end, or until it shall end.
    fn watch(&self, child: &mut Child, go_on: &mut dyn FnMut(ByteCount, ByteCount) -> bool) -> Result<bool> {
        let failed = |error| DiskError::io(&self.path, "convert it with qemu-img", error);
        let part = Arc::new(AtomicU64::new(0));
        let telling = child.stdout.take().map(|out| {
            let part = part.clone();
            thread::spawn(move || parts(out, &part))
        });
        let said = child.stderr.take().map(|errors| {
            thread::spawn(move || {
                let mut said = String::new();
                // What can't be read can't be told.
                let _ = errors.take(4096).read_to_string(&mut said);
                said
            })
        });
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            let done = u128::from(self.size.0) * u128::from(part.load(Ordering::Relaxed)) / u128::from(WHOLE);
            // It stands still for as long as whoever is told waits.
            process::stand_still(child, true);
            let goes_on = go_on(ByteCount(done as u64), self.size);
            process::stand_still(child, false);
            if !goes_on {
                return Ok(false);
            }
            thread::sleep(TELL_EVERY);
        };
        drop(telling.map(thread::JoinHandle::join));
        let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
        if !status.success() {
            return Err(DiskError::refused(&self.path, format!("qemu-img can't convert it: {}", said.trim())));
        }
        Ok(go_on(self.size, self.size))
    }
}

/// All, in what qemu-img counts in: hundredths of a hundredth.
const WHOLE: u64 = 10_000;

/// Reads how far it is, until it ends: "    (12.34/100%)\r".
fn parts(mut out: ChildStdout, part: &AtomicU64) {
    let (mut line, mut byte) = (String::new(), [0]);
    while let Ok(1) = out.read(&mut byte) {
        match byte[0] {
            b'\r' | b'\n' => {
                let number = line.trim().trim_start_matches('(').split('/').next().and_then(|part| part.parse::<f64>().ok());
                if let Some(number) = number {
                    part.store(((number * 100.0) as u64).min(WHOLE), Ordering::Relaxed);
                }
                line.clear();
            }
            byte => line.push(byte.into()),
        }
    }
}

/// What the header says of an image of this format: of qcow2 docs/interop/qcow2.txt, of VMDK the Virtual Disk Format's
/// sections "Hosted Sparse Extents" and "The Descriptor", of VDI VirtualBox's VDICore.h.
fn header(file: &dyn HostFile, format: OtherFormat) -> Result<Header> {
    let path = file.path();
    let read = |error| DiskError::io(path, "read its header", error);
    let length = file.len().map_err(read)?;
    if format == OtherFormat::Raw {
        return Ok(Header { size: length, others: Vec::new() });
    }
    let mut header = [0; 512];
    if length < header.len() as u64 {
        return Err(DiskError::invalid(path, 0, "header", "the file is too short for its format"));
    }
    file.read_exact_at(&mut header, 0).map_err(read)?;
    let le32 = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let be32 = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let le64 = |at: usize| u64::from(le32(at)) | u64::from(le32(at + 4)) << 32;
    let be64 = |at: usize| u64::from(be32(at)) << 32 | u64::from(be32(at + 4));
    let wrong = |offset, problem: &str| Err(DiskError::invalid(path, offset, "signature", problem));
    match format {
        OtherFormat::Raw => Ok(Header { size: length, others: Vec::new() }),
        OtherFormat::Qcow2 => {
            if &header[..4] != b"QFI\xfb" {
                return wrong(0, "it isn't qcow2");
            }
            let mut others = Vec::new();
            if be64(8) != 0 {
                let name = text(file, be64(8), be32(16).into())?;
                others.push(format!("{name} (its backing file)"));
            }
            // Version 3 has incompatible features; bit 2 is a data file apart.
            if be32(4) >= 3 && be64(72) & 4 != 0 {
                others.push("a data file of its own".into());
            }
            Ok(Header { size: be64(24), others })
        }
        OtherFormat::Vmdk => {
            let (description, capacity) = if &header[..4] == b"KDMV" {
                let description = text(file, le64(28).saturating_mul(512), le64(36).saturating_mul(512))?;
                (description, Some(le64(12).saturating_mul(512)))
            } else if header.starts_with(b"# Disk DescriptorFile") {
                (text(file, 0, TEXT_MAX)?, None)
            } else {
                return wrong(0, "it isn't a VMDK that is known here");
            };
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            let (names, extents) = described(&description);
            let others = names.into_iter().filter(|name| *name != own).collect();
            Ok(Header { size: capacity.unwrap_or(extents), others })
        }
        OtherFormat::Vdi => match (le32(0x40), le32(0x4c)) {
            (0xbeda_107f, 1 | 2) => Ok(Header { size: le64(0x170), others: Vec::new() }),
            (0xbeda_107f, _) => Ok(Header { size: le64(0x170), others: vec!["a parent (it is a differencing image)".into()] }),
            _ => wrong(0x40, "it isn't a VDI"),
        },
    }
}

fn text(file: &dyn HostFile, offset: u64, length: u64) -> Result<String> {
    let read = |error| DiskError::io(file.path(), "read a name in its header", error);
    let there = file.len().map_err(read)?.saturating_sub(offset);
    let mut bytes = vec![0; length.min(TEXT_MAX).min(there) as usize];
    file.read_exact_at(&mut bytes, offset).map_err(read)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}

/// The files that a VMDK's description names, its extents and its parent, and the bytes of all extents.
fn described(description: &str) -> (Vec<String>, u64) {
    let (mut names, mut sectors) = (Vec::new(), 0u64);
    for line in description.lines() {
        let mut words = line.split_whitespace();
        let extent = ["RW", "RDONLY", "NOACCESS"].contains(&words.next().unwrap_or_default());
        let parent = line.trim_start().to_ascii_lowercase().starts_with("parentfilenamehint");
        if extent {
            sectors = sectors.saturating_add(words.next().and_then(|word| word.parse().ok()).unwrap_or(0));
        }
        // An extent of zeros has no name.
        if extent || parent {
            names.extend(line.split('"').nth(1).map(str::to_owned));
        }
    }
    (names, sectors.saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_file::OsHost;

    fn others(name: &str, bytes: &[u8]) -> Result<(u64, Vec<String>), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let file = OsHost::shared().open(&path, Access::Read).expect("the file");
        let header = header(&*file, OtherFormat::of(&path).expect("a format")).map_err(|error| error.to_string())?;
        Ok((header.size, header.others))
    }

    fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn what_an_image_names_is_found_in_its_header() {
        let qcow2 = |parts: &[(usize, &[u8])]| {
            with(&[&[(0, &b"QFI\xfb\0\0\0\x03"[..]), (24, &(7u64 << 20).to_be_bytes())], parts].concat())
        };
        assert_eq!(others("a.qcow2", &qcow2(&[])), Ok((7 << 20, vec![])));
        let backed = qcow2(&[(8, &1024_u64.to_be_bytes()), (16, &9_u32.to_be_bytes()), (1024, b"/etc/pass and more")]);
        assert_eq!(others("a.qcow2", &backed), Ok((7 << 20, vec!["/etc/pass (its backing file)".into()])));
        let apart = qcow2(&[(72, &4_u64.to_be_bytes())]);
        assert_eq!(others("a.qcow2", &apart), Ok((7 << 20, vec!["a data file of its own".into()])));
        assert!(others("a.qcow2", &with(&[])).unwrap_err().contains("isn't qcow2"));

        let description = b"# Disk DescriptorFile\nRW 8 FLAT \"a-flat.vmdk\" 0\nRW 8 ZERO\nparentFileNameHint=\"/p.vmdk\"\n";
        let named = Ok((8192, vec!["a-flat.vmdk".into(), "/p.vmdk".into()]));
        assert_eq!(others("a.vmdk", &with(&[(0, description)])), named);
        let sparse = [(0, &b"KDMV"[..]), (12, &9_u64.to_le_bytes()), (28, &1_u64.to_le_bytes()), (36, &1_u64.to_le_bytes())];
        let own = with(&[&sparse[..], &[(512, b"# Disk DescriptorFile\nRW 8 SPARSE \"a.vmdk\"\n")]].concat());
        assert_eq!(others("a.vmdk", &own), Ok((9 * 512, vec![])), "only itself");

        let vdi = |kind: u32| {
            let size = (5u64 << 20).to_le_bytes();
            with(&[(0x40, &0xbeda_107f_u32.to_le_bytes()), (0x4c, &kind.to_le_bytes()), (0x170, &size)])
        };
        assert_eq!((others("a.vdi", &vdi(1)), others("a.vdi", &vdi(2))), (Ok((5 << 20, vec![])), Ok((5 << 20, vec![]))));
        assert_eq!(others("a.vdi", &vdi(4)).map(|(_, names)| names.len()), Ok(1));
        assert_eq!(others("a.img", b"x"), Ok((1, vec![])));
        assert!(others("a.vdi", b"short").unwrap_err().contains("too short"));
    }

    #[test]
    fn what_has_no_whole_sectors_is_no_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.img");
        for length in [0, 100, 1023] {
            std::fs::write(&path, vec![0; length]).expect("a file");
            let error = OtherImage::look(&OsHost::shared(), &path, OtherFormat::Raw).unwrap_err().to_string();
            assert!(error.contains("whole sectors"), "{error}");
        }
    }
}
