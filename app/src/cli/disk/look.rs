//! Looking at images. Changes nothing.

use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use snaptree_core::chain::{Chain, trace};
use snaptree_core::disk::ImageType;
use snaptree_core::host_file::Access;
use snaptree_core::units::ByteCount;

use super::Image;
use crate::cli::output::{Align, Output, table};
use crate::cli::{Done, Failure, json};
use crate::text::{bytes, count};

/// Bytes read at once.
const CHUNK: u64 = 4 << 20;

pub fn info(image: &Image, output: &Output) -> Done {
    let trace = trace(&Image::host(), &image.file, Access::Look, &image.gate())?;
    let chain = trace.images.iter().map(|i| json::ChainImage { file: i.path(), image: i.info() }).collect();
    let problem = trace.stopped.as_ref().map(ToString::to_string);
    let data = json::DiskInfo { file: image.file.clone(), chain, problem };
    output.say(&data, || {
        let columns = [
            ("FILE", Align::Left),
            ("TYPE", Align::Left),
            ("DISK", Align::Right),
            ("BLOCK", Align::Right),
            ("SECTOR", Align::Right),
            ("IDENTIFIER", Align::Left),
        ];
        let row = |i: &json::ChainImage| {
            vec![
                i.file.display().to_string(),
                kind(i.image.kind).to_owned(),
                bytes(i.image.virtual_size),
                bytes(i.image.block_size),
                format!("{}/{}", i.image.logical_sector_size, i.image.physical_sector_size),
                i.image.data_write_id.to_string(),
            ]
        };
        let mut lines = table(&columns, &data.chain.iter().map(row).collect::<Vec<_>>());
        lines.extend(data.problem.iter().map(|problem| format!("The chain is broken: {problem}")));
        lines
    });
    match trace.stopped {
        None => Ok(()),
        Some(error) => Err(Image::failure(error)),
    }
}

pub fn kind(kind: ImageType) -> &'static str {
    match kind {
        ImageType::Fixed => "fixed",
        ImageType::Dynamic => "dynamic",
        ImageType::Differencing => "differencing",
    }
}

pub fn map(image: &Image, alone: bool, output: &Output) -> Done {
    let (size, stretches) = if alone { map_alone(image)? } else { map_chain(&image.open(Access::Look)?)? };
    let data = json::DiskMap { file: image.file.clone(), size, stretches };
    output.say(&data, || {
        let columns = [("OFFSET", Align::Right), ("LENGTH", Align::Right), ("KIND", Align::Left), ("HELD BY", Align::Left)];
        let row = |s: &json::Stretch| {
            let owner = s.owner.as_ref().map_or_else(String::new, |owner| owner.display().to_string());
            vec![s.offset.to_string(), s.length.to_string(), s.kind.to_owned(), owner]
        };
        table(&columns, &data.stretches.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}

fn map_alone(image: &Image) -> Result<(ByteCount, Vec<json::Stretch>), Failure> {
    let host = Image::host();
    let format = snaptree_core::disk::probe(&host, &image.file)?;
    let one = snaptree_core::disk::open(&host, &image.file, format, Access::Look)?;
    let size = one.info().virtual_size;
    let extents = one.extents(0, size.0)?;
    Ok((size, extents.iter().map(|extent| json::Stretch::of(extent, &image.file)).collect()))
}

fn map_chain(chain: &Chain) -> Result<(ByteCount, Vec<json::Stretch>), Failure> {
    let files: Vec<PathBuf> = chain.images().iter().map(|image| image.path()).collect();
    let size = chain.virtual_size();
    let stretch = |s: &snaptree_core::chain::Stretch| json::Stretch {
        offset: s.offset,
        length: s.length,
        owner: s.owner.and_then(|owner| files.get(usize::from(owner)).cloned()),
        kind: match (s.owner, s.zero) {
            (None, _) => "absent",
            (Some(_), true) => "zero",
            (Some(_), false) => "data",
        },
    };
    Ok((size, chain.stretches(0, size.0)?.iter().map(stretch).collect()))
}

pub fn check(image: &Image, output: &Output) -> Done {
    let trace = trace(&Image::host(), &image.file, Access::Look, &image.gate())?;
    let mut problems = Vec::new();
    for one in &trace.images {
        let found = one.check()?;
        problems.extend(found.into_iter().map(|problem| json::FileProblem { file: one.path(), problem }));
    }
    if let Some(error) = &trace.stopped {
        problems.push(json::FileProblem { file: error.path.clone(), problem: error.kind.to_string() });
    }
    let checked = trace.images.len();
    let data = json::DiskCheck { file: image.file.clone(), problems };
    output.say(&data, || match data.problems.is_empty() {
        true => vec![format!("{} checked, nothing wrong.", count(checked, "image"))],
        false => data.problems.iter().map(|p| format!("{}: {}", p.file.display(), p.problem)).collect(),
    });
    match data.problems.len() {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{} found", count(n, "problem")))),
    }
}

pub fn hash(image: &Image, output: &Output) -> Done {
    let chain = image.open(Access::Read)?;
    let mut hash = Sha256::new();
    each_chunk(&chain, 0, chain.virtual_size().0, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let data = json::DiskHash { file: image.file.clone(), size: chain.virtual_size(), sha256 };
    output.say(&data, || vec![format!("{}  {}", data.sha256, data.file.display())]);
    Ok(())
}

pub fn read(image: &Image, offset: ByteCount, length: Option<ByteCount>) -> Done {
    let chain = image.open(Access::Read)?;
    let size = chain.virtual_size();
    let length = length.unwrap_or(size.saturating_sub(offset));
    let end = end_of(&image.file, size, offset, length)?;
    let mut out = stdout().lock();
    each_chunk(&chain, offset.0, end, |chunk| Ok(out.write_all(chunk)?))?;
    Ok(out.flush()?)
}

/// The range's end; a range that leaves the disk is wrong usage.
pub fn end_of(file: &Path, size: ByteCount, offset: ByteCount, length: ByteCount) -> Result<u64, Failure> {
    offset.0.checked_add(length.0).filter(|end| *end <= size.0).ok_or_else(|| {
        let shown = file.display();
        Failure::usage(format!("{shown} ends at {} bytes; {} from {} on go beyond", size.0, length.0, offset.0))
    })
}

/// Reads a range in pieces; the disk is read by whole sectors, whatever the range.
fn each_chunk(chain: &Chain, offset: u64, end: u64, mut take: impl FnMut(&[u8]) -> Done) -> Done {
    let sector = u64::from(chain.logical_sector_size());
    let mut buf = Vec::new();
    let mut at = offset;
    while at < end {
        let from = at / sector * sector;
        let to = (from + CHUNK).min(end).next_multiple_of(sector);
        buf.resize((to - from) as usize, 0);
        chain.read_at(&mut buf, from)?;
        take(&buf[(at - from) as usize..(to.min(end) - from) as usize])?;
        at = to;
    }
    Ok(())
}
