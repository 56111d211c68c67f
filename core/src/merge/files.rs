//! The same merge for plain image files that belong to no machine: a journal file stands beside the top.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::switch::{Hands, change_files, io, remove, remove_files};
use super::{MergeError, Merged, Pace, Progress, Result, Rules, RunMerge};
use crate::chain::{Chain, Gate};
use crate::clock::SystemClock;
use crate::cost::BATCHES;
use crate::disk::{self, Image, ImageInfo};
use crate::host_file::{Access, SharedHost, publish_file, read_file};
use crate::snapshot::{FileRef, SwitchFiles};
use crate::units::ByteCount;

/// A journal is never longer.
const MAX_JOURNAL: u64 = 1 << 20;
const JOURNAL_FORMAT: &str = "snaptree-file-merge";

/// What stands beside the top while its merge is under way. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJournal {
    /// Always [`JOURNAL_FORMAT`].
    format: String,
    /// X1..Xk, bottom to top; X1 is the target.
    run: Vec<FileRef>,
    /// The new data-write identifiers of X1..X(k-1).
    new_ids: Vec<Uuid>,
    /// Other files that read through the top.
    children: Vec<FileRef>,
    /// Set once nothing is left to copy.
    switch: Option<SwitchFiles>,
}

/// Merges the chain of files from `top` down to `into` (its parent, if not said otherwise) into `into`: one image remains
/// under that name, and shows what `top` showed. Files in the same folders that read through `top` are linked to it; the
/// merge is refused where one reads through an image in between, or through `into` otherwise. `progress` is asked after
/// each step; `false` ends it with `None`. What was moved stays moved, and the same call continues.
pub fn merge_files(
    host: &SharedHost,
    top: &Path,
    into: Option<&Path>,
    gate: &Gate,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Merged>> {
    let journal_path = journal_path(top);
    let mut journal = match read_journal(host, top, &journal_path, gate)? {
        Some(journal) => journal,
        None => new_journal(host, top, into, gate)?,
    };
    let mut reached = Progress::default();
    if journal.switch.is_none() {
        let images = open_all(host, &journal.run)?;
        let merge = &mut RunMerge::new(images, 0, journal.new_ids.clone(), Rules::default())?;
        let mut pace = Pace::new(check_space(host, merge)?);
        publish(host, &journal_path, &journal)?;
        let clock = SystemClock::shared();
        loop {
            let (began, before) = (clock.elapsed(), reached.moved);
            let more = merge.step(pace.budget())?;
            reached = merge.progress();
            pace.moved(reached.moved.saturating_sub(before), clock.elapsed() - began);
            if !more && merge.look_again()? {
                break;
            }
            if !progress(reached) {
                return Ok(None);
            }
        }
        let data_write_id = merge.images()[merge.images().len() - 1].info().data_write_id;
        let (run, kept) = (journal.run.clone(), journal.run[0].file.clone());
        let children = std::mem::take(&mut journal.children);
        journal.switch = Some(SwitchFiles { run, target: 0, kept, parent: None, data_write_id, children });
        publish(host, &journal_path, &journal)?;
    }
    let mut freed = ByteCount::ZERO;
    if let Some(files) = &journal.switch {
        change_files(&Hands::stopped(host), Path::new(""), files)?;
        freed = remove_files(host, Path::new(""), files)?;
        // It was frozen: a side file that has come back with the power holds nothing.
        for side in disk::side_files(&files.kept).iter().filter(|side| host.exists(side)) {
            host.remove_file(side).map_err(|source| io("remove", side, source))?;
        }
    }
    remove(&**host, &journal_path)?;
    Ok(Some(Merged { progress: reached, freed }))
}

fn journal_path(top: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(top.file_name().unwrap_or_default());
    name.push(".merge.json");
    top.with_file_name(name)
}

fn publish(host: &SharedHost, path: &Path, journal: &FileJournal) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(journal).map_err(|error| io("write", path, error.into()))?;
    publish_file(&**host, path, &bytes).map_err(|source| io("publish", path, source))
}

/// A journal is input: it must be that of a merge of `top`, of files inside the gate that belong together.
fn read_journal(host: &SharedHost, top: &Path, path: &Path, gate: &Gate) -> Result<Option<FileJournal>> {
    if !host.exists(path) {
        return Ok(None);
    }
    let bytes = read_file(&**host, path, MAX_JOURNAL).map_err(|source| io("read", path, source))?;
    let invalid = |problem: String| MergeError::Refused(format!("{}: {problem}", path.display()));
    let journal: FileJournal = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    let switch = journal.switch.as_ref();
    if journal.format != JOURNAL_FORMAT || journal.run.len() < 2 || journal.new_ids.len() + 1 != journal.run.len() {
        return Err(invalid("it isn't the journal of a merge".into()));
    }
    if switch.is_some_and(|files| {
        files.run != journal.run || files.target != 0 || files.kept != journal.run[0].file || files.parent.is_some()
    }) {
        return Err(invalid("its switch isn't that of its run".into()));
    }
    let children = switch.map_or(&journal.children, |files| &files.children);
    let mut named = journal.run.iter().chain(children).map(|file| &file.file).filter(|file| host.exists(file));
    if let Some(outside) = named.find(|file| !gate.admits(&**host, file)) {
        return Err(invalid(format!("it names {}, which lies outside the folders that were opened", outside.display())));
    }
    let place = |file: &Path| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let in_folder = || Some(host.canonical(folder).ok()?.join(file.file_name()?));
        host.canonical(file).ok().or_else(in_folder)
    };
    let top_file = &journal.run[journal.run.len() - 1].file;
    if place(top_file).is_none_or(|own| Some(own) != place(top)) {
        return Err(invalid(format!("it is about {}, not about {}", top_file.display(), top.display())));
    }
    let top = check_files(host, &journal).map_err(|error| match error {
        MergeError::Refused(problem) => invalid(problem),
        other => other,
    })?;
    // What reads through the top and isn't listed would lose it.
    let mut journal = journal;
    let found = readers(host, &[top], &journal.run)?;
    let listed = journal.switch.as_mut().map_or(&mut journal.children, |files| &mut files.children);
    listed.extend(found.into_iter().filter(|file| !listed.contains(file)).collect::<Vec<_>>());
    Ok(Some(journal))
}

/// The files that are there are those that the journal was written about: nothing else is merged, removed or linked.
/// Returns what the top's children read through.
fn check_files(host: &SharedHost, journal: &FileJournal) -> Result<ImageInfo> {
    let refused = |file: &FileRef, what: &str| Err(MergeError::Refused(format!("{} {what}", file.file.display())));
    let look = |file: &FileRef| Ok::<_, MergeError>(disk::open(host, &file.file, file.format, Access::Look)?.info());
    // The top is removed first, and what it was lives on in the target; then the others are, in any order.
    let there: Vec<bool> = journal.run.iter().map(|file| host.exists(&file.file)).collect();
    let top = journal.run.last().filter(|top| host.exists(&top.file));
    if let Some(missing) = there.iter().position(|there| !there).filter(|missing| *missing == 0 || top.is_some()) {
        return refused(&journal.run[missing], "isn't there");
    }
    let top_info = look(top.unwrap_or(&journal.run[0]))?;
    if top.is_none() && journal.switch.as_ref().is_some_and(|files| files.data_write_id != top_info.data_write_id) {
        return refused(&journal.run[0], "isn't what stands for the top, and that is gone");
    }
    let mut below: Option<ImageInfo> = None;
    for (place, file) in journal.run.iter().enumerate().filter(|(place, _)| there[*place]) {
        let info = look(file)?;
        let accepts = |below: &ImageInfo| info.parent.as_ref().is_some_and(|link| link.accepts(below));
        match &below {
            Some(below) if top.is_some() && !accepts(below) => {
                return refused(file, "doesn't read through the image below it in the run");
            }
            // Without the top, the target has its identity, and nothing reads through the others any more.
            Some(_) if top.is_none() && info.data_write_id != journal.new_ids[place] => {
                return refused(file, "isn't the image that the run had there");
            }
            _ => {}
        }
        below = Some(info);
    }
    for child in
        journal.switch.as_ref().map_or(&journal.children, |files| &files.children).iter().filter(|c| host.exists(&c.file))
    {
        let link = look(child)?.parent;
        if !link.is_some_and(|link| link.accepts(&top_info)) {
            return refused(child, "doesn't read through the top of the run");
        }
    }
    Ok(top_info)
}

fn new_journal(host: &SharedHost, top: &Path, into: Option<&Path>, gate: &Gate) -> Result<FileJournal> {
    let canonical = |path: &Path| host.canonical(path).map_err(|source| io("find", path, source));
    let chain = Chain::open(host, top, Access::Look, gate)?.images();
    let refused = |text: String| MergeError::Refused(text);
    let first = match into {
        None => chain.len().checked_sub(2),
        Some(into) => {
            let into = canonical(into)?;
            let mut places = chain.iter().map(|image| canonical(&image.path()));
            let place = places.position(|path| path.is_ok_and(|path| path == into));
            place.filter(|place| place + 1 < chain.len())
        }
    };
    let Some(first) = first else {
        let what = into.map_or("a parent".into(), |into| into.display().to_string());
        return Err(refused(format!("{} doesn't read through {what}", top.display())));
    };
    let images = &chain[first..];
    let run = images.iter().map(|image| Ok(FileRef { file: canonical(&image.path())?, format: image.info().format }));
    let run: Vec<FileRef> = run.collect::<Result<_>>()?;
    let infos: Vec<ImageInfo> = images.iter().map(|image| image.info()).collect();
    let children = readers(host, &infos, &run)?;
    let new_ids = images[1..].iter().map(|_| crate::fresh::uuid()).collect();
    Ok(FileJournal { format: JOURNAL_FORMAT.into(), run, new_ids, children, switch: None })
}

/// The other files in the run's folders that read through the top, the last of these images. Refused where one
/// reads through another one of them.
fn readers(host: &SharedHost, images: &[ImageInfo], run: &[FileRef]) -> Result<Vec<FileRef>> {
    let mut folders: Vec<PathBuf> = run.iter().filter_map(|file| file.file.parent().map(Path::to_path_buf)).collect();
    folders.sort();
    folders.dedup();
    let mut children = Vec::new();
    for folder in folders {
        for entry in host.list(&folder).map_err(|source| io("list", &folder, source))? {
            let file = folder.join(&entry.name);
            if entry.is_dir || run.iter().any(|image| image.file == file) {
                continue;
            }
            // What isn't an image, or can't be read, isn't known to read through anything.
            let Ok(format) = disk::probe(host, &file) else { continue };
            let Some(link) = disk::open(host, &file, format, Access::Look).ok().and_then(|image| image.info().parent) else {
                continue;
            };
            match images.iter().position(|image| link.accepts(image)) {
                Some(place) if place + 1 == images.len() => children.push(FileRef { file, format }),
                Some(place) => {
                    let (file, through) = (file.display(), run[place].file.display());
                    return Err(MergeError::Refused(format!("{file} reads through {through}: merge or remove it first")));
                }
                None => {}
            }
        }
    }
    Ok(children)
}

fn open_all(host: &SharedHost, run: &[FileRef]) -> Result<Vec<Arc<dyn Image>>> {
    let open = |file: &FileRef| Ok(disk::open(host, &file.file, file.format, Access::Write)?);
    run.iter().map(open).collect()
}

/// The largest batch that fits; the smallest must, or all that moves if that is less. Where no holes can be punched
/// more may be needed; running out of space then ends the merge with an error, and nothing is lost.
fn check_space(host: &SharedHost, merge: &RunMerge) -> Result<ByteCount> {
    let path = merge.images()[0].path();
    let free = host.free_bytes(&path).map_err(|source| io("ask for the free space of", &path, source))?;
    let total = merge.progress().total;
    let smallest = BATCHES[BATCHES.len() - 1];
    let fitting = BATCHES.into_iter().find(|batch| free >= total.min(*batch));
    fitting.ok_or_else(|| MergeError::NoSpace { needed: total.min(smallest), free })
}
