//! `disk inspect`: what is inside an image, and below it.

use snaptree_core::chain::{BlockMap, Blocks, Inspected, Square, inspect as look};
use snaptree_core::host_file::Access;
use snaptree_core::units::ByteCount;

use super::Image;
use super::look::kind;
use crate::cli::output::{Align, Output, table};
use crate::cli::{Done, Failure};
use crate::text::bytes;

/// Squares of the map on a line.
const LINE: usize = 64;

pub fn inspect(image: &Image, output: &Output) -> Done {
    let seen = look(&Image::host(), &image.file, &image.gate())?;
    output.say(&seen, || {
        let mut lines: Vec<String> = seen.images.iter().rev().flat_map(of_image).collect();
        lines.extend(map(&seen.map));
        lines.extend(seen.broken.iter().map(|why| format!("The chain is broken: {why}")));
        lines
    });
    // As the other verbs say it, with what can be done.
    seen.broken.map_or(Ok(()), |why| Err(image.open(Access::Look).err().unwrap_or_else(|| Failure::failed(why))))
}

fn of_image(image: &Inspected) -> Vec<String> {
    let Blocks { data, partial, zero, absent } = image.blocks;
    let info = &image.info;
    let mut lines = vec![
        image.path.display().to_string(),
        format!("  {}, a disk of {} in blocks of {}", kind(info.kind), bytes(info.virtual_size), bytes(info.block_size)),
        format!("  {} long, {} on the volume", bytes(image.length), bytes(image.held)),
        format!("  Blocks: {data} of data, {partial} in part, {zero} of zeros, {absent} absent"),
    ];
    let columns = [("PART", Align::Left), ("OFFSET", Align::Right), ("LENGTH", Align::Right), ("SAYS", Align::Left)];
    let mut rows = Vec::new();
    for part in &image.parts {
        let mut says = part.says.iter().map(|(name, value)| format!("{name}: {value}"));
        rows.push(vec![part.name.clone(), part.offset.to_string(), part.length.to_string(), says.next().unwrap_or_default()]);
        rows.extend(says.map(|more| vec![String::new(), String::new(), String::new(), more]));
    }
    lines.extend(table(&columns, &rows).iter().map(|line| format!("  {line}")));
    lines.extend(image.problems.iter().map(|problem| format!("  Problem: {problem}")));
    lines.push(String::new());
    lines
}

/// The disk from its start, a sign for each square.
fn map(map: &BlockMap) -> Vec<String> {
    let sign = |square: &Square| match (square.owner, square.data) {
        (None, _) => '.',
        (Some(_), 0) => '0',
        (Some(_), 255) => '#',
        (Some(_), _) => '+',
    };
    let said = format!("The disk, {} a sign (# data, + data in part, 0 zeros, . nothing):", bytes(map.square));
    let at = |line: usize| bytes(ByteCount(map.square.0.saturating_mul((line * LINE) as u64)));
    let line = |(line, squares): (usize, &[Square])| format!("{:>9}  {}", at(line), squares.iter().map(sign).collect::<String>());
    [said].into_iter().chain(map.squares.chunks(LINE).enumerate().map(line)).collect()
}
