//! Creating, writing and merging images.

use std::io::{Read as _, stdin};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use snaptree_core::chain::Chain;
use snaptree_core::cost::{CensusImage, Layout, census_of};
use snaptree_core::disk::{self, CreateOptions, ImageFormat, ImageType};
use snaptree_core::host_file::Access;
use snaptree_core::merge::merge_files;
use snaptree_core::snapshot::ImageId;
use snaptree_core::units::ByteCount;

use super::look::end_of;
use super::{Image, NewType};
use crate::cli::output::Output;
use crate::cli::{Common, Done, Failure, json};
use crate::text::{bytes, count};

/// Bytes written at once.
const CHUNK: usize = 4 << 20;

/// What a new image shall be.
pub struct New {
    pub size: Option<ByteCount>,
    pub kind: NewType,
    pub block_size: Option<ByteCount>,
    pub sector_size: u32,
}

pub fn create(file: &Path, parent: Option<&Path>, new: &New, common: &Common, output: &Output) -> Done {
    let host = Image::host();
    if host.exists(file) {
        return Err(Failure::Refused(snaptree_core::engine::Refusal::rule(format!(
            "{} is there already; it isn't overwritten",
            file.display()
        ))));
    }
    let done = if let Some(parent) = parent {
        let below = disk::open(&host, parent, disk::probe(&host, parent)?, Access::Read)?;
        let format = below.info().format;
        if ImageFormat::of_name(file).is_some_and(|named| named != format) {
            let end = format.child_extension();
            return Err(Failure::usage(format!("a child has its parent's format: name it .{end}")));
        }
        if !common.what_if {
            disk::create_child(&host, file, &*below, new.block_size)?;
        }
        format!("{} reads through {}", file.display(), parent.display())
    } else {
        let size = new.size.ok_or_else(|| Failure::usage("give the disk's size with --size"))?;
        let format = ImageFormat::of_name(file)
            .ok_or_else(|| Failure::usage("the new file's name ends in .vhdx or .vhd: that says its format"))?;
        let options = CreateOptions {
            kind: ImageType::from(new.kind),
            block_size: new.block_size,
            logical_sector_size: new.sector_size,
            ..CreateOptions::dynamic(size)
        };
        if !common.what_if {
            disk::create(&host, file, format, &options)?;
        }
        format!("{} shows a disk of {}", file.display(), bytes(size))
    };
    say(output, common, done);
    Ok(())
}

pub(super) fn say(output: &Output, common: &Common, done: String) {
    let done = if common.what_if { format!("nothing was changed; it would be so: {done}") } else { done };
    output.say(&json::Done { done: done.clone() }, || vec![done]);
}

pub fn write(image: &Image, offset: ByteCount, common: &Common, output: &Output) -> Done {
    image.refuse_if_read()?;
    if common.what_if {
        let chain = image.open(Access::Look)?;
        let most = chain.virtual_size().saturating_sub(offset);
        say(output, common, format!("up to {} are written to {}", bytes(most), image.file.display()));
        return Ok(());
    }
    let chain = image.open(Access::Write)?;
    let mut at = offset;
    let mut input = stdin().lock();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if read == 0 {
            break;
        }
        let end = end_of(&image.file, chain.virtual_size(), at, ByteCount(read as u64))?;
        write_bytes(&chain, &chunk, at.0)?;
        at = ByteCount(end);
    }
    chain.flush()?;
    say(output, common, format!("{} bytes were written to {}", (at - offset).0, image.file.display()));
    Ok(())
}

/// Writes any range; sectors that it covers in part keep the rest.
fn write_bytes(chain: &Chain, data: &[u8], offset: u64) -> Done {
    let sector = u64::from(chain.logical_sector_size());
    let from = offset / sector * sector;
    let to = (offset + data.len() as u64).next_multiple_of(sector);
    if from == offset && to == offset + data.len() as u64 {
        return Ok(chain.write_at(data, offset)?);
    }
    let mut whole = vec![0; (to - from) as usize];
    chain.read_at(&mut whole, from)?;
    let start = (offset - from) as usize;
    whole[start..start + data.len()].copy_from_slice(data);
    Ok(chain.write_at(&whole, from)?)
}

/// Set by Ctrl+C: the merge ends after its step, and the same call continues it.
static STOP: AtomicBool = AtomicBool::new(false);

pub fn merge(image: &Image, into: Option<&Path>, common: &Common, output: &Output) -> Done {
    if common.what_if {
        return what_if(image, into, output);
    }
    // Without a handler Ctrl+C ends the program at once; nothing is lost by that either.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    let mut moved = ByteCount::ZERO;
    // The journal beside the top names files for whoever continues, wherever that is called from.
    let top = std::path::absolute(&image.file)?;
    let into = into.map(std::path::absolute).transpose()?;
    let merged = merge_files(&Image::host(), &top, into.as_deref(), &image.gate(), &mut |progress| {
        moved = progress.moved;
        !STOP.load(Ordering::SeqCst)
    });
    let merged = merged.map_err(|error| Failure::Refused(error.into()))?;
    let finished = merged.is_some();
    let freed = merged.map_or(ByteCount::ZERO, |merged| merged.freed + merged.progress.given_back);
    let data = serde_json::json!({ "moved": moved, "freed": freed, "finished": finished });
    output.say(&data, || match finished {
        true => vec![format!("Merged: {} moved, {} came back.", bytes(moved), bytes(freed))],
        false => vec![format!("Stopped: {} moved, which stays so; the same command continues.", bytes(moved))],
    });
    Ok(())
}

/// What the merge would move.
fn what_if(image: &Image, into: Option<&Path>, output: &Output) -> Done {
    let images = image.open(Access::Look)?.images();
    let into = match into {
        Some(into) => Some(std::fs::canonicalize(into)?),
        None => None,
    };
    let is_target = |path: &Path| into.as_ref().is_none_or(|into| std::fs::canonicalize(path).is_ok_and(|p| p == *into));
    let below = images.len().saturating_sub(1);
    let target = images[..below].iter().rposition(|i| is_target(&i.path()));
    let target = target.ok_or_else(|| Failure::usage(format!("{} has no such image below it", image.file.display())))?;
    let run = &images[target..];
    let ids: Vec<ImageId> = run.iter().map(|_| ImageId::new()).collect();
    let layouts = run.iter().map(|i| {
        let size = i.info().virtual_size.0;
        Ok(Layout::new(size, i.extents(0, size)?))
    });
    let layouts = layouts.collect::<Result<Vec<_>, Failure>>()?;
    let counted: Vec<CensusImage<'_>> = (0..run.len())
        .map(|i| CensusImage { id: ids[i], parent: i.checked_sub(1).map(|p| ids[p]), layout: &layouts[i] })
        .collect();
    let figures = census_of(&counted).merge_bytes(&ids, ids[0]);
    let figures = figures.ok_or_else(|| Failure::failed("the chain could not be counted"))?;
    let kept = run[0].path();
    let data = serde_json::json!({ "plan": { "merge": { "kept": kept, "bytes": figures } } });
    output.say(&data, || {
        vec![format!(
            "{} become {}: {} to move, {} of zeros to write.",
            count(run.len(), "image"),
            kept.display(),
            bytes(figures.data),
            bytes(figures.zero)
        )]
    });
    Ok(())
}
