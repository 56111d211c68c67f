//! Samples of other programs' images, and other programs that read ours.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use snaptree_core::chain::Chain;
use snaptree_core::disk::{self, ImageFormat, ParentTarget};
use snaptree_core::host_file::{Access, OsHost};
use tempfile::TempDir;

use crate::source::root;

/// The folder of sample images: named by `SNAPTREE_SAMPLES`, or beside the repository.
pub fn samples() -> Option<PathBuf> {
    let folder = std::env::var_os("SNAPTREE_SAMPLES").map_or_else(|| root().join("../shared/samples"), PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// A program, if it is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A Python that has the module: the one named by `SNAPTREE_PYTHON`, or the system's.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let python = std::env::var_os("SNAPTREE_PYTHON").map(PathBuf::from).or_else(|| tool("python3"))?;
    let found = Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status().ok()?;
    found.success().then_some(python)
}

/// Says that a test, or a part of it, is skipped and why; counted in the file named by `SNAPTREE_SKIPS`.
///
/// # Panics
/// With `CI=true` and the samples there, where nothing may be skipped.
pub fn skip(reason: &str) {
    let line = format!("SKIPPED: {}: {reason}", test_name());
    assert!(std::env::var("CI").as_deref() != Ok("true") || samples().is_none(), "{line}");
    tell(&line);
}

/// Says that a test can't be where this computer's kernel, or who rules over it, doesn't allow what it needs. Told at the end
/// of `tests/run`, and no failure: no package would bring it.
pub fn not_allowed_here(reason: &str) {
    tell(&format!("NOT ALLOWED HERE: {}: {reason}", test_name()));
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

fn tell(line: &str) {
    println!("{line}");
    if let Some(file) = std::env::var_os("SNAPTREE_SKIPS") {
        let written = OpenOptions::new().append(true).create(true).open(&file).and_then(|mut file| writeln!(file, "{line}"));
        assert!(written.is_ok(), "{}: {written:?}", Path::new(&file).display());
    }
}

/// Unpacks a sample into a folder, under its own name, and returns its path.
pub fn unpack(samples: &Path, name: &str, folder: &Path) -> Result<PathBuf> {
    let packed = samples.join(format!("{name}.gz"));
    let file_name = Path::new(name).file_name().context("a sample has a name")?;
    let path = folder.join(file_name);
    let source = File::open(&packed).with_context(|| packed.display().to_string())?;
    io::copy(&mut flate2::read::GzDecoder::new(source), &mut File::create(&path)?)?;
    Ok(path)
}

/// SHA-256 of a chain's whole content, as hex digits.
pub fn sha256_of_chain(chain: &Chain) -> Result<String> {
    let (size, mut offset) = (chain.virtual_size().0, 0);
    let mut digest = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    while offset < size {
        let part = &mut buf[..(size - offset).min(1 << 20) as usize];
        chain.read_at(part, offset)?;
        digest.update(&*part);
        offset += part.len() as u64;
    }
    Ok(hex(&digest.finalize()))
}

/// SHA-256 of everything that a reader gives, as hex digits.
pub fn sha256_of(mut reader: impl Read) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buf)? {
            0 => return Ok(hex(&digest.finalize())),
            length => digest.update(&buf[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another program that reads images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// 7-Zip.
    SevenZip,
    /// qemu-img; only for images without a parent and with sectors of 512 bytes.
    QemuImg,
    /// libvhdi, through Python.
    Libvhdi,
    /// dissect.hypervisor, in Python.
    Dissect,
}

impl Witness {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SevenZip, Self::QemuImg, Self::Libvhdi, Self::Dissect];

    /// Whether it can be asked; a missing one is skipped with a word.
    pub fn is_there(self) -> bool {
        let (there, name) = match self {
            Self::SevenZip => (tool("7zz").is_some(), "7zz"),
            Self::QemuImg => (tool("qemu-img").is_some(), "qemu-img"),
            Self::Libvhdi => (python_with("pyvhdi").is_some(), "pyvhdi (libvhdi for Python)"),
            Self::Dissect => (python_with("dissect.hypervisor").is_some(), "dissect.hypervisor for Python"),
        };
        if !there {
            skip(&format!("{name} is not installed"));
        }
        there
    }

    /// SHA-256 of the content, as this program reads it. The images are named from the leaf to the base.
    pub fn sha256(self, images: &[PathBuf]) -> Result<String> {
        let leaf = images.first().context("an image")?;
        match self {
            Self::SevenZip => {
                let seven = tool("7zz").context("7zz")?;
                let flat = Flat::of(images)?;
                let leaf = flat.files.first().context("an image")?;
                let kind = seven_zip_type(format_of(leaf)?);
                piped(Command::new(seven).args([OsStr::new("x"), OsStr::new("-so"), kind, leaf.as_os_str()]))
            }
            Self::QemuImg => {
                let format = format_of(leaf)?;
                let info = disk::open(&OsHost::shared(), leaf, format, Access::Look)?.info();
                ensure!(images.len() == 1 && info.parent.is_none(), "qemu-img ignores parents");
                let raw = leaf.with_extension("raw");
                let qemu = tool("qemu-img").context("qemu-img")?;
                let format = if format == ImageFormat::Vhd { "vpc" } else { "vhdx" };
                run(Command::new(qemu).args(["convert", "-f", format, "-O", "raw"]).args([leaf, &raw]))?;
                let hash = sha256_of(File::open(&raw)?);
                fs::remove_file(&raw)?;
                hash
            }
            Self::Libvhdi => python("pyvhdi", "libvhdi", images),
            Self::Dissect => python("dissect.hypervisor", "dissect", &Flat::of(images)?.files[..1]),
        }
    }
}

fn format_of(image: &Path) -> Result<ImageFormat> {
    Ok(disk::probe(&OsHost::shared(), image)?)
}

/// Of an image that may be in the middle of a change.
fn format_named(image: &Path) -> ImageFormat {
    ImageFormat::of_name(image).unwrap_or(ImageFormat::Vhdx)
}

fn seven_zip_type(format: ImageFormat) -> &'static OsStr {
    OsStr::new(if format == ImageFormat::Vhd { "-tVHD" } else { "-tVHDX" })
}

/// What 7-Zip makes of an image and those that it reads through, as the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// How it ended: 0, or 2 where it complains.
    pub status: Option<i32>,
    /// How many bytes came.
    pub bytes: usize,
    /// SHA-256 of them, as hex digits.
    pub sha256: String,
    /// What it complains of.
    pub complaints: String,
}

/// Has 7-Zip read an image whose parents lie in its folder.
pub fn seven_zip_looks(image: &Path) -> Result<Look> {
    let seven = tool("7zz").context("7zz")?;
    let mut command = Command::new(seven);
    command.args([OsStr::new("x"), OsStr::new("-so"), seven_zip_type(format_named(image)), image.as_os_str()]);
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Look { status: output.status.code(), bytes: output.stdout.len(), sha256: sha256_of(&*output.stdout)?, complaints })
}

/// A chain whose images lie in one folder: 7-Zip doesn't follow a parent's path that begins with `..`.
struct Flat {
    files: Vec<PathBuf>,
    _folder: Option<TempDir>,
}

impl Flat {
    /// The images themselves where they lie together; otherwise copies whose parents are linked anew, with the same
    /// identifiers.
    fn of(images: &[PathBuf]) -> Result<Self> {
        if images.iter().all(|image| image.parent() == images[0].parent()) {
            return Ok(Self { files: images.to_vec(), _folder: None });
        }
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let mut files: Vec<PathBuf> = Vec::new();
        for (index, image) in images.iter().enumerate().rev() {
            let format = format_of(image)?;
            let copy = folder.path().join(format!("{index}.{}", format.extension()));
            run(Command::new("cp").arg("--sparse=always").args([image, &copy]))?;
            if let Some(parent) = files.last() {
                let host = OsHost::shared();
                let data_write_id = disk::open(&host, parent, format, Access::Look)?.info().data_write_id;
                let child = disk::open(&host, &copy, format, Access::Write)?;
                ensure!(child.info().parent.context("a parent")?.linkage == data_write_id, "{}: its link", image.display());
                child.set_parent(&ParentTarget { path: parent.clone(), data_write_id })?;
                child.freeze()?;
            }
            files.push(copy);
        }
        files.reverse();
        Ok(Self { files, _folder: Some(folder) })
    }
}

fn python(module: &str, reader: &str, images: &[PathBuf]) -> Result<String> {
    let script = root().join("tests/witness/read.py");
    let python = python_with(module).with_context(|| module.to_owned())?;
    Ok(run(Command::new(python).arg(script).arg(reader).args(images))?.trim().to_owned())
}

/// Runs to the end and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Hashes what a program writes to its standard output.
fn piped(command: &mut Command) -> Result<String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
    let hash = sha256_of(child.stdout.take().context("its output")?)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(hash)
}
