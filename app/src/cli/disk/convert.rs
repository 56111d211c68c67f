//! One file of another format, or in place of a chain.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use snaptree_core::chain::{Source, Target, convert as write};
use snaptree_core::disk::{self, ImageFormat, ImageType};
use snaptree_core::host_file::Access;

use super::change::say;
use super::{Image, NewType};
use crate::cli::output::Output;
use crate::cli::{Common, Done, Failure};
use crate::text::bytes;

/// Set by Ctrl+C: nothing is left then.
static STOP: AtomicBool = AtomicBool::new(false);

pub fn convert(image: &Image, to: &Path, raw: bool, kind: NewType, common: &Common, output: &Output) -> Done {
    let source = match raw {
        true => Source::raw(&Image::host(), &image.file)?,
        false => Source::Chain(Box::new(image.open(Access::Read)?)),
    };
    let target = match ImageFormat::of_name(to) {
        Some(format) => Target::Image { format, kind: kind.into(), block_size: None },
        None if to.extension().is_some_and(|end| end.eq_ignore_ascii_case("raw") || end.eq_ignore_ascii_case("img")) => {
            Target::Raw
        }
        None => return Err(Failure::usage("the new file's name ends in .vhdx, .vhd, .raw or .img: that says its format")),
    };
    run(&source, to, target, common, output)
}

pub fn flatten(image: &Image, to: &Path, common: &Common, output: &Output) -> Done {
    let format = disk::probe(&Image::host(), &image.file)?;
    if ImageFormat::of_name(to).is_some_and(|named| named != format) {
        return Err(Failure::usage(format!("name it .{}, or use disk convert", format.extension())));
    }
    let source = Source::Chain(Box::new(image.open(Access::Read)?));
    run(&source, to, Target::Image { format, kind: ImageType::Dynamic, block_size: None }, common, output)
}

fn run(source: &Source, to: &Path, target: Target, common: &Common, output: &Output) -> Done {
    if common.what_if {
        let needed = source.check(&Image::host(), to, target)?;
        say(output, common, format!("up to {} are written to {}", bytes(needed), to.display()));
        return Ok(());
    }
    // Without a handler Ctrl+C ends the program at once; the unfinished file has another name then.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    let done = write(&Image::host(), source, to, target, &mut |_| !STOP.load(Ordering::SeqCst))?;
    let data = serde_json::json!({ "written": done.map(|done| done.written), "finished": done.is_some() });
    output.say(&data, || match done {
        Some(done) => vec![format!("{} of data were written to {}.", bytes(done.written), to.display())],
        None => vec!["Stopped: nothing was left of it.".into()],
    });
    Ok(())
}
