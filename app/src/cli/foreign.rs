//! Images of other programs' formats, converted on their way into the library: raw disks here, the others by qemu-img.
//!
//! An image can name other files, and qemu-img would open whatever it names. So that is read from the image's own header
//! before, the format is given and not guessed, and what isn't in one file is refused.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use snaptree_core::chain::{Source, Target, convert};
use snaptree_core::disk::{ImageFormat, ImageType};
use snaptree_core::engine::Refusal;
use snaptree_core::host_file::{Access, Host, HostFile, OsHost};

use super::Failure;

/// A format that a machine's disks can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The disk's bytes.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
}

/// How the names of folders in the library begin in which images are converted.
const FOLDER: &str = ".import-";
/// Who converts has this file of the library open: nobody else takes its folder for a left-over then.
const IN_USE: &str = ".convert.lock";

/// Longest name or description that is read.
const TEXT_MAX: u64 = 1 << 20;

impl Foreign {
    /// What a file's name says. Paths are absolute, so that none can be taken for one of qemu-img's protocols.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "raw" | "img" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "vmdk" => Self::Vmdk,
            "vdi" => Self::Vdi,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }

    /// The other files that the image needs, by its own header.
    fn other_files(self, path: &Path) -> Result<Vec<String>, Failure> {
        let mut file = File::open(path)?;
        let failed = |what: &str| Failure::failed(format!("{}: {what}", path.display()));
        let mut header = [0; 512];
        if self == Self::Raw {
            return Ok(Vec::new());
        }
        file.read_exact(&mut header).map_err(|_| failed("it is too short for its format"))?;
        let le32 = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let be32 = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let le64 = |at: usize| u64::from(le32(at)) | u64::from(le32(at + 4)) << 32;
        let be64 = |at: usize| u64::from(be32(at)) << 32 | u64::from(be32(at + 4));
        match self {
            Self::Raw => Ok(Vec::new()),
            Self::Qcow2 => {
                if &header[..4] != b"QFI\xfb" {
                    return Err(failed("it isn't qcow2 (offset 0: the signature)"));
                }
                let mut names = Vec::new();
                if be64(8) != 0 {
                    let name = text(&mut file, be64(8), be32(16).into())?;
                    names.push(format!("{name} (its backing file)"));
                }
                // Version 3 has incompatible features; bit 2 is a data file apart.
                if be32(4) >= 3 && be64(72) & 4 != 0 {
                    names.push("a data file of its own".into());
                }
                Ok(names)
            }
            Self::Vmdk => {
                let description = if &header[..4] == b"KDMV" {
                    text(&mut file, le64(28).saturating_mul(512), le64(36).saturating_mul(512))?
                } else if header.starts_with(b"# Disk DescriptorFile") {
                    text(&mut file, 0, TEXT_MAX)?
                } else {
                    return Err(failed("it isn't a VMDK that is known here (offset 0: the signature)"));
                };
                let own = path.file_name().unwrap_or_default().to_string_lossy();
                Ok(named(&description).into_iter().filter(|name| *name != own).collect())
            }
            Self::Vdi => match (le32(0x40), le32(0x4c)) {
                (0xbeda_107f, 1 | 2) => Ok(Vec::new()),
                (0xbeda_107f, _) => Ok(vec!["a parent (it is a differencing image)".into()]),
                _ => Err(failed("it isn't a VDI (offset 64: the signature)")),
            },
        }
    }

    /// Whether the image is all of its disk.
    pub fn check(self, path: &Path) -> Result<(), Failure> {
        let others = self.other_files(path)?;
        if !others.is_empty() {
            let text = format!(
                "{} isn't all of the disk: it names {}. Make one file of it with the program that it comes from",
                path.display(),
                others.join(", ")
            );
            return Err(Failure::Refused(Refusal::rule(text)));
        }
        Ok(())
    }

    /// Writes what the image shows to a new VHDX of the same name, in a folder of its own on the library's volume.
    pub fn convert(self, path: &Path, library: &Path) -> Result<Converted, Failure> {
        self.check(path)?;
        std::fs::create_dir_all(library)?;
        sweep(library);
        let in_use = OsHost.open(&library.join(IN_USE), Access::Read)?;
        let folder = library.join(format!("{FOLDER}{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        let image = folder.join(path.file_stem().unwrap_or_default()).with_extension("vhdx");
        let converted = Converted { folder, image, _in_use: in_use };
        self.run(path, &converted.image)?;
        Ok(converted)
    }

    fn run(self, path: &Path, to: &Path) -> Result<(), Failure> {
        if self == Self::Raw {
            let host = OsHost::shared();
            let target = Target::Image { format: ImageFormat::Vhdx, kind: ImageType::Dynamic, block_size: None };
            convert(&host, &Source::raw(&host, path)?, to, target, &mut |_| true)?;
            return Ok(());
        }
        let mut command = Command::new("qemu-img");
        command.args(["convert", "-f", self.name(), "-O", "vhdx", "-o", "subformat=dynamic"]).arg(path).arg(to);
        let output = command.stdin(Stdio::null()).output().map_err(|error| {
            Failure::failed(match error.kind() {
                std::io::ErrorKind::NotFound => "qemu-img isn't installed: the package is qemu-utils".to_owned(),
                _ => format!("qemu-img can't be started: {error}"),
            })
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::failed(format!("{}: {}", path.display(), said.trim())))
    }
}

/// A converted image, which goes with this unless it was moved elsewhere.
#[derive(Debug)]
pub struct Converted {
    folder: PathBuf,
    /// The new image.
    pub image: PathBuf,
    _in_use: Arc<dyn HostFile>,
}

impl Drop for Converted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Removes what conversions that were killed have left, unless somebody is converting.
fn sweep(library: &Path) {
    let Ok(_nobody_converts) = OsHost.lock(&library.join(IN_USE)) else { return };
    for entry in OsHost.list(library).unwrap_or_default() {
        if entry.is_dir && entry.name.starts_with(FOLDER) {
            // What can't be removed now is there the next time.
            let _ = OsHost.remove_dir_all(&library.join(entry.name));
        }
    }
}

fn text(file: &mut File, offset: u64, length: u64) -> Result<String, Failure> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length.min(TEXT_MAX)).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.trim_end_matches('\0').to_owned())
}

/// The files that a VMDK's description names: its extents, and its parent.
fn named(description: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let extent = ["RW", "RDONLY", "NOACCESS"].contains(&first);
        let parent = line.trim_start().to_ascii_lowercase().starts_with("parentfilenamehint");
        // An extent of zeros has no name.
        if extent || parent { line.split('"').nth(1).map(str::to_owned) } else { None }
    };
    description.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        Foreign::of(&path).expect("a format").other_files(&path).map_err(|failure| failure.to_string())
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
        let qcow2 = |parts: &[(usize, &[u8])]| with(&[&[(0, &b"QFI\xfb\0\0\0\x03"[..])], parts].concat());
        assert_eq!(others("a.qcow2", &qcow2(&[])), Ok(vec![]));
        let backed = qcow2(&[(8, &1024_u64.to_be_bytes()), (16, &9_u32.to_be_bytes()), (1024, b"/etc/pass and more")]);
        assert_eq!(others("a.qcow2", &backed), Ok(vec!["/etc/pass (its backing file)".into()]));
        assert_eq!(others("a.qcow2", &qcow2(&[(72, &4_u64.to_be_bytes())])), Ok(vec!["a data file of its own".into()]));
        assert!(others("a.qcow2", &with(&[])).unwrap_err().contains("isn't qcow2"));

        let description = b"# Disk DescriptorFile\nRW 8 FLAT \"a-flat.vmdk\" 0\nRW 8 ZERO\nparentFileNameHint=\"/p.vmdk\"\n";
        assert_eq!(others("a.vmdk", &with(&[(0, description)])), Ok(vec!["a-flat.vmdk".into(), "/p.vmdk".into()]));
        let sparse = [(0, &b"KDMV"[..]), (28, &1_u64.to_le_bytes()), (36, &1_u64.to_le_bytes())];
        let own = with(&[&sparse[..], &[(512, b"# Disk DescriptorFile\nRW 8 SPARSE \"a.vmdk\"\n")]].concat());
        assert_eq!(others("a.vmdk", &own), Ok(vec![]), "only itself");

        let vdi = |kind: u32| with(&[(0x40, &0xbeda_107f_u32.to_le_bytes()), (0x4c, &kind.to_le_bytes())]);
        assert_eq!((others("a.vdi", &vdi(1)), others("a.vdi", &vdi(2))), (Ok(vec![]), Ok(vec![])));
        assert_eq!(others("a.vdi", &vdi(4)).map(|names| names.len()), Ok(1));
        assert_eq!(others("a.img", b"x"), Ok(vec![]));
        assert!(others("a.vdi", b"short").unwrap_err().contains("too short"));
    }
}
