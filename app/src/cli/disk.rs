//! `disk`: images on their own, through the same rooms and locks as machines' disks.

mod change;
mod convert;
mod folder;
mod inspect;
mod look;
mod repair;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use snaptree_core::chain::{Chain, Folder, Gate, ParentState};
use snaptree_core::disk::{DiskError, DiskErrorKind, ImageType};
use snaptree_core::engine::Refusal;
use snaptree_core::host_file::{Access, OsHost, SharedHost};
use snaptree_core::units::ByteCount;

#[cfg(unix)]
use super::nbd;
use super::output::Output;
use super::{Common, Done, Failure, parse};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Says what an image is, and its parents down to the base.
    Info(Image),
    /// Looks into an image and its parents: the parts of each file, how its blocks are used, and where the disk's data is.
    Inspect(Image),
    /// Lists which file holds what.
    Map {
        #[command(flatten)]
        image: Image,
        /// Of this file alone, without its parents.
        #[arg(long)]
        alone: bool,
    },
    /// Checks the structure of an image and of its parents; or says of each image of a folder whose it is, and what is
    /// wrong with its link to its parent. Changes nothing.
    Check {
        /// The image's file.
        #[arg(required_unless_present = "folder", conflicts_with = "folder")]
        file: Option<PathBuf>,
        /// A folder in which parents may be, beside the file's own.
        #[arg(long, value_name = "DIR", conflicts_with = "folder")]
        parents_in: Vec<PathBuf>,
        /// A machine's folder, a folder of Hyper-V's, or one of images.
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Puts the links of a folder's images right: parents that were moved, renamed or changed. What is overwritten is kept,
    /// so that it can be undone.
    Repair(repair::Repair),
    /// Prints the SHA-256 of the disk that the image shows.
    Hash(Image),
    /// Creates an image: a VHD where its name ends in .vhd or .avhd, a VHDX otherwise.
    Create {
        /// The new file.
        file: PathBuf,
        /// The disk's size; a child has its parent's.
        #[arg(long, value_parser = parse::size, required_unless_present = "parent", conflicts_with = "parent")]
        size: Option<ByteCount>,
        /// How blocks are kept.
        #[arg(long = "type", default_value = "dynamic", conflicts_with = "parent")]
        kind: NewType,
        /// Makes a differencing child of this image. From then on the parent must not be changed.
        #[arg(long)]
        parent: Option<PathBuf>,
        /// The unit of allocation, 1M to 256M.
        #[arg(long, value_parser = parse::size)]
        block_size: Option<ByteCount>,
        /// Bytes in a logical sector.
        #[arg(long, default_value = "512", value_parser = ["512", "4096"], conflicts_with = "parent")]
        sector_size: String,
    },
    /// Writes bytes of the disk to the standard output.
    Read {
        #[command(flatten)]
        image: Image,
        /// The first byte.
        #[arg(long, default_value = "0", value_parser = parse::size)]
        offset: ByteCount,
        /// How many [default: to the end].
        #[arg(long, value_parser = parse::size)]
        length: Option<ByteCount>,
    },
    /// Writes the standard input to the disk. Refused while another image reads through the file.
    Write {
        #[command(flatten)]
        image: Image,
        /// The first byte.
        #[arg(long, default_value = "0", value_parser = parse::size)]
        offset: ByteCount,
    },
    /// Writes the disk that an image shows, with all that it reads through, to a new file of any format: .vhdx, .vhd,
    /// or .raw for the disk's bytes alone. What is zero takes no space.
    Convert {
        #[command(flatten)]
        image: Image,
        /// The new file.
        to: PathBuf,
        /// The first file is a raw disk, whatever its bytes say.
        #[arg(long)]
        raw: bool,
        /// How blocks of the new image are kept.
        #[arg(long = "type", default_value = "dynamic")]
        kind: NewType,
    },
    /// The same in the image's own format: one file in place of a chain. The chain stays.
    Flatten {
        #[command(flatten)]
        image: Image,
        /// The new file.
        to: PathBuf,
    },
    /// Merges an image and those below it into one.
    Merge {
        #[command(flatten)]
        image: Image,
        /// The image below it that all moves into [default: its parent]. This file remains.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Serves the disk that the image shows over NBD until Ctrl+C.
    #[cfg(unix)]
    Serve {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        at: nbd::At,
    },
}

/// An image, and where its parents may be.
#[derive(Debug, Args)]
pub struct Image {
    /// The image's file.
    file: PathBuf,
    /// A folder in which parents may be, beside the file's own.
    #[arg(long, value_name = "DIR")]
    parents_in: Vec<PathBuf>,
}

/// How a new image keeps its blocks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NewType {
    /// Every block has its place from the start.
    Fixed,
    /// Blocks get a place when they are first written.
    Dynamic,
}

impl From<NewType> for ImageType {
    fn from(kind: NewType) -> Self {
        match kind {
            NewType::Fixed => Self::Fixed,
            NewType::Dynamic => Self::Dynamic,
        }
    }
}

impl Verb {
    /// Whether there is something to type for it on a Hyper-V host.
    pub fn has_powershell(&self) -> bool {
        matches!(self, Self::Repair(_))
    }
}

pub fn run(verb: &Verb, common: &Common, output: &Output) -> Done {
    match verb {
        Verb::Info(image) => look::info(image, output),
        Verb::Inspect(image) => inspect::inspect(image, output),
        Verb::Map { image, alone } => look::map(image, *alone, output),
        Verb::Check { file, parents_in, folder } => match (file, folder) {
            (_, Some(folder)) => folder::check(folder, output),
            (Some(file), None) => look::check(&Image { file: file.clone(), parents_in: parents_in.clone() }, output),
            (None, None) => Err(Failure::usage("give a file or --folder DIR")),
        },
        Verb::Repair(verb) => repair::run(verb, common, output),
        Verb::Hash(image) => look::hash(image, output),
        Verb::Read { image, offset, length } => look::read(image, *offset, *length),
        Verb::Create { file, size, kind, parent, block_size, sector_size } => {
            let sector_size = sector_size.parse().map_err(|_| Failure::usage("--sector-size is 512 or 4096"))?;
            let new = change::New { size: *size, kind: *kind, block_size: *block_size, sector_size };
            change::create(file, parent.as_deref(), &new, common, output)
        }
        Verb::Write { image, offset } => change::write(image, *offset, common, output),
        Verb::Convert { image, to, raw, kind } => convert::convert(image, to, *raw, *kind, common, output),
        Verb::Flatten { image, to } => convert::flatten(image, to, common, output),
        #[cfg(unix)]
        Verb::Serve { image, at } => {
            if !at.read_only {
                image.refuse_if_read()?;
            }
            let access = if common.what_if { Access::Look } else { nbd::access(at.read_only) };
            let name = image.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            at.serve(vec![(name, image.file.display().to_string(), image.open(access)?)], at.read_only, common, output)
        }
        Verb::Merge { image, into } => change::merge(image, into.as_deref(), common, output),
    }
}

impl Image {
    fn host() -> SharedHost {
        OsHost::shared()
    }

    /// Parents may be in the file's own folder, and where it was said.
    fn gate(&self) -> Gate {
        let own = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Gate::new(self.parents_in.iter().cloned().chain([own.to_path_buf()]))
    }

    fn open(&self, access: Access) -> Result<Chain, Failure> {
        Chain::open(&Self::host(), &self.file, access, &self.gate()).map_err(Self::failure)
    }

    /// Names the option that opens what lies outside.
    fn failure(error: DiskError) -> Failure {
        let outside = matches!(*error.kind, DiskErrorKind::OutsideGate(_));
        let mut refusal = Refusal::from(error);
        if outside {
            refusal.reason += " (--parents-in DIR)";
        }
        refusal.into()
    }

    /// Refuses to change a file that another image in its folder reads through.
    fn refuse_if_read(&self) -> Done {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = Folder::scan(&Self::host(), folder)?;
        let this = std::fs::canonicalize(&self.file)?;
        let is_this = |path: &Path| std::fs::canonicalize(path).is_ok_and(|path| path == this);
        let Some(index) = folder.images.iter().position(|image| is_this(&image.path)) else { return Ok(()) };
        let reads = |parent: &ParentState| matches!(parent, ParentState::Found { index: i } | ParentState::Changed { index: i, .. } if *i == index);
        match folder.images.iter().find(|image| reads(&image.parent)) {
            None => Ok(()),
            Some(child) => Err(Failure::Refused(Refusal::rule(format!(
                "{} reads through {}: a write would change what it shows; write to the child, or merge it first",
                child.path.display(),
                self.file.display()
            )))),
        }
    }
}
