//! A Linux whose every count can be checked (`tests/guest/init.c`): its kernel comes from Debian's or Ubuntu's own archive,
//! its only program is compiled here. Nothing is installed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::snapshot::Boot;
use tempfile::TempDir;

use crate::peer::run;
use crate::program::build_folder;
use crate::source::root;
use crate::witness::{skip, tool};

/// Packages that depend on the kernel: Debian's, Ubuntu's.
const KERNELS: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];
/// What the guest needs beside its kernel, if that hasn't got it built in.
const MODULES: [&str; 12] = [
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_blk",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
    "button",
    "evdev",
];
/// Programs that are used.
const TOOLS: [&str; 8] = ["qemu-system-x86_64", "apt-get", "apt-cache", "dpkg", "cc", "mkfs.ext4", "e2fsck", "debugfs"];
/// Makes the kernel quick and quiet under emulation.
const ARGUMENTS: &str = "quiet console=ttyS0 tsc=reliable no_timer_check random.trust_cpu=on mitigations=off nokaslr panic=-1";
/// Bytes of a record in `/records`.
const RECORD: usize = 4096;

/// The guest's kernel and its first file system.
#[derive(Debug)]
pub struct Linux {
    folder: TempDir,
    kernel: PathBuf,
}

impl Linux {
    /// The guest, unless a tool is missing or the archive can't be reached, which is told as skipped.
    pub fn prepare() -> Result<Option<Self>> {
        if let Some(missing) = TOOLS.iter().find(|name| tool_or_admins(name).is_none()) {
            skip(&format!("{missing} is not installed"));
            return Ok(None);
        }
        // Once for all tests of a program.
        static UNPACKED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let unpacked = match UNPACKED.get_or_init(|| unpack().map_err(|error| format!("{error:#}"))) {
            Ok(folder) => folder,
            Err(error) => {
                skip(&format!("no kernel for a guest: {error}"));
                return Ok(None);
            }
        };
        let kernel = files(&unpacked.join("boot"))?.into_iter().find(|path| name(path).starts_with("vmlinuz"));
        let kernel = kernel.context("a kernel in its package")?;
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        // Also for machines of another user.
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let init = folder.path().join("init");
        run(Command::new("cc").args(["-static", "-O2", "-o"]).arg(&init).arg(root().join("tests/guest/init.c")))?;
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, &fs::read(&init)?);
        archive.add("modules", 0o40_755, &[]);
        for module in files(&unpacked.join("lib/modules"))? {
            let file = name(&module);
            if MODULES.iter().any(|wanted| file.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(".ko"))) {
                archive.add(&format!("modules/{file}"), 0o100_644, &fs::read(&module)?);
            }
        }
        fs::write(folder.path().join("initrd"), archive.end())?;
        Ok(Some(Self { folder, kernel }))
    }

    /// How a machine starts it.
    pub fn boot(&self) -> Boot {
        let initrd = Some(self.folder.path().join("initrd"));
        Boot { kernel: self.kernel.clone(), initrd, command_line: ARGUMENTS.into() }
    }

    /// An empty ext4, as the guest wants its first disk.
    pub fn file_system(&self, bytes: u64) -> Result<Vec<u8>> {
        let path = self.folder.path().join("ext4");
        fs::File::create(&path)?.set_len(bytes)?;
        run(command("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,nodiscard"]).arg(&path))?;
        let content = fs::read(&path)?;
        fs::remove_file(&path)?;
        Ok(content)
    }

    /// How many records stand on a disk with this content. Its journal is replayed as a mount would do; nothing may be wrong
    /// then, neither with the file system nor with any record.
    pub fn records(&self, content: &[u8]) -> Result<u64> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let (disk, file) = (folder.path().join("disk"), folder.path().join("records"));
        fs::write(&disk, content)?;
        let replayed = command("e2fsck").args(["-E", "journal_only", "-y"]).arg(&disk).output()?;
        ensure!(matches!(replayed.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&replayed.stdout));
        let checked = command("e2fsck").args(["-f", "-n"]).arg(&disk).output()?;
        ensure!(checked.status.success(), "e2fsck -fn: {}", String::from_utf8_lossy(&checked.stdout));
        run(command("debugfs").arg("-R").arg(format!("dump /records {}", file.display())).arg(&disk))?;
        let bytes = fs::read(&file).unwrap_or_default();
        ensure!(bytes.len() % RECORD == 0, "half a record: {} bytes", bytes.len());
        for (index, found) in bytes.chunks(RECORD).enumerate() {
            ensure!(*found == record(index as u64 + 1), "record {} isn't what was written", index + 1);
        }
        Ok((bytes.len() / RECORD) as u64)
    }
}

/// What the guest said on its serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It has found so many records.
    Ready(u64),
    /// It is about to write this one.
    Begin(u64),
    /// This one is flushed; so many microseconds it took.
    Done(u64, u64),
    /// It shuts down.
    Bye,
}

/// Whole lines of the guest, the kernel's left out.
///
/// # Errors
/// Where the guest has found something wrong.
pub fn said(text: &str) -> Result<Vec<Said>> {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    let mut all = Vec::new();
    for line in text[..end].lines() {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (kind, &*numbers) {
            (Some("READY"), &[found]) => all.push(Said::Ready(found)),
            (Some("begin"), &[number]) => all.push(Said::Begin(number)),
            (Some("done"), &[number, took]) => all.push(Said::Done(number, took)),
            (Some("BYE"), &[]) => all.push(Said::Bye),
            (Some("WRONG"), _) => bail!("the guest says: {line}"),
            _ if line.contains("Kernel panic") || line.contains("I/O error") => bail!("the guest's kernel says: {line}"),
            _ => {}
        }
    }
    Ok(all)
}

fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn record(number: u64) -> Vec<u8> {
    let words = (RECORD / 8) as u64;
    (0..words).flat_map(|word| if word == 0 { number } else { mixed(number * words + word) }.to_le_bytes()).collect()
}

/// Unpacks the kernel's package below the build's folder, where it stays.
fn unpack() -> Result<PathBuf> {
    let target = build_folder().parent().context("the build's folder")?.join("guest");
    let depends = |package: &&str| {
        let said = run(Command::new("apt-cache").args(["depends", package])).ok()?;
        said.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-")).map(|rest| format!("linux-image-{rest}"))
    };
    let package = KERNELS.iter().find_map(depends).context("the archive has no kernel for clouds")?;
    let mut packages = vec![package.clone()];
    packages.extend(package.strip_prefix("linux-image-").map(|rest| format!("linux-modules-{rest}")));
    let unpacked = target.join(&package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    fs::create_dir_all(&target)?;
    let folder = tempfile::Builder::new().prefix("new-").tempdir_in(&target)?;
    run(Command::new("apt-get").args(["download", &package]).current_dir(folder.path()))?;
    // Ubuntu has the modules apart.
    if run(Command::new("apt-cache").args(["show", &packages[1]])).is_ok_and(|said| !said.trim().is_empty()) {
        run(Command::new("apt-get").args(["download", &packages[1]]).current_dir(folder.path()))?;
    }
    let tree = folder.path().join("tree");
    for archive in files(folder.path())?.into_iter().filter(|path| name(path).ends_with(".deb")) {
        run(Command::new("dpkg").arg("-x").arg(archive).arg(&tree))?;
    }
    match fs::rename(&tree, &unpacked) {
        // Another test program was quicker.
        Err(_) if unpacked.exists() => Ok(unpacked),
        renamed => Ok(renamed.map(|()| unpacked)?),
    }
}

/// A program, also where only administrators look for it.
fn tool_or_admins(name: &str) -> Option<PathBuf> {
    let admins = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    tool(name).or_else(|| admins.into_iter().find(|path| path.is_file()))
}

fn command(name: &str) -> Command {
    Command::new(tool_or_admins(name).unwrap_or_else(|| name.into()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All files below a folder; links aren't followed.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A kernel's first file system: a cpio archive in the format "newc".
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (length, name_length) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08X}").expect("a vector takes everything");
        }
        for part in [&[name.as_bytes(), &[0]].concat(), content] {
            self.bytes.extend(part);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
