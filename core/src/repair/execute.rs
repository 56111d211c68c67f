//! Carries a plan out, undoes it, and undoes what was cut short.
//!
//! ```text
//! .snaptree-repair/1/state.json   under way, done or being undone; what was done
//!                   /kept         the way back of each change
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keep::Keeper;
use super::kept::Kept;
use super::{Change, Choices, KEPT, Plan, RepairError, Result, merge, plan};
use crate::chain::find_files;
use crate::diagnose::diagnose;
use crate::disk::{self, ParentTarget};
use crate::host_file::{Access, HostLock, SharedHost, publish_file, read_file};
use crate::units::ByteCount;

const FORMAT: &str = "snaptree-repair";
const STATE: &str = "state.json";
const RECORDS: &str = "kept";
const LOCK: &str = "lock";
/// A state is never longer.
const MAX_STATE: u64 = 16 << 20;
/// Bytes read at once.
const CHUNK: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    UnderWay,
    Done,
    Undoing,
}

/// Where a repair stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Always [`FORMAT`].
    format: String,
    version: u32,
    phase: Phase,
    /// What was done, in words.
    done: Vec<String>,
    /// What stands where bytes were overwritten, so that an undo doesn't take back what others wrote since.
    after: Vec<Stretch>,
}

/// A part of a file, its checksum and the file's length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    file: PathBuf,
    offset: u64,
    length: u64,
    checksum: u32,
    file_length: u64,
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was changed, in words.
    pub done: Vec<String>,
}

/// A repair of the past that can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Counts from 1.
    pub number: u32,
    /// Whether it was cut short, so that the next repair or undo takes it back first.
    pub cut_short: bool,
    /// What was changed, in words.
    pub done: Vec<String>,
}

/// The repairs of a folder that can be undone, the oldest first. Changes nothing.
pub fn past(host: &SharedHost, folder: &Path) -> Result<Vec<Past>> {
    let root = root(host, folder)?;
    let mut past = Vec::new();
    for number in numbers(host, &root)? {
        let state = state(host, &root, number)?;
        let cut_short = state.as_ref().is_none_or(|state| state.phase != Phase::Done);
        past.push(Past { number, cut_short, done: state.map(|state| state.done).unwrap_or_default() });
    }
    Ok(past)
}

/// Carries a plan out. The folder is looked at again: where it isn't what was planned for, nothing is done. A failure takes
/// back what was changed.
pub fn execute(host: &SharedHost, planned: &Plan, choices: &Choices) -> Result<Done> {
    let root = root(host, &planned.folder)?;
    refuse_in_use(planned.in_use.as_deref())?;
    if planned.steps.is_empty() {
        return Err(RepairError::Refused("there is nothing that can be repaired".into()));
    }
    check(host, &root, planned, choices)?;
    let _lock = lock(host, &root)?;
    // Another process may have been at it until now.
    if let Err(refused) = check(host, &root, planned, choices) {
        let _ = sweep(host, &root);
        return Err(refused);
    }
    let number = numbers(host, &root)?.last().map_or(1, |last| last + 1);
    let carried_out = carry_out(host, &root, planned, number);
    if carried_out.is_err() {
        // Where this fails too, the next recovery does it.
        let _ = take_back(host, &root, number);
    }
    carried_out
}

/// Refuses where the folder isn't what was planned for.
fn check(host: &SharedHost, root: &Path, planned: &Plan, choices: &Choices) -> Result<()> {
    if let Some(cut_short) = past(host, root)?.iter().find(|past| past.cut_short) {
        return Err(RepairError::Refused(format!("repair {} was cut short: take it back first", cut_short.number)));
    }
    if plan(host, &diagnose(host, root)?, choices) != *planned {
        return Err(RepairError::Refused("the folder has changed since the repair was planned: plan again".into()));
    }
    let needed = planned.needs();
    match host.free_bytes(root) {
        Ok(free) if free < needed => {
            let short = needed - free;
            Err(RepairError::Refused(format!("{needed} are needed for what is merged and {free} are free: free {short} first")))
        }
        // A volume that doesn't tell says so when it is full.
        _ => Ok(()),
    }
}

fn carry_out(host: &SharedHost, root: &Path, planned: &Plan, number: u32) -> Result<Done> {
    let dir = dir(root, number);
    host.create_dir_all(&dir).map_err(|error| RepairError::io("create", &dir, error))?;
    flush(host, &root.join(KEPT))?;
    flush(host, root)?;
    let done: Vec<String> = planned.steps.iter().map(|step| step.words.clone()).collect();
    let state = State { format: FORMAT.into(), version: 1, phase: Phase::UnderWay, done, after: Vec::new() };
    publish(host, root, number, &state)?;
    let records = dir.join(RECORDS);
    let kept = Kept::create(host, &records)?;
    flush(host, &dir)?;
    let keeper = Keeper::shared(host, root, &kept);
    for (at, step) in planned.steps.iter().enumerate() {
        make(&keeper, root, &step.change, &dir.join(format!("files-{at}")))?;
    }
    drop(keeper);
    drop(kept);
    let after = after(host, root, &records)?;
    publish(host, root, number, &State { phase: Phase::Done, after, ..state.clone() })?;
    Ok(Done { done: state.done })
}

/// Makes one change. What it replaces whole goes into the folder `away`.
fn make(host: &SharedHost, root: &Path, change: &Change, away: &Path) -> Result<()> {
    match change {
        Change::Merge { run, into, .. } => {
            host.create_dir_all(away).map_err(|error| RepairError::io("create", away, error))?;
            merge::merge(host, root, run, into, away)
        }
        Change::SetAside { image, to } => {
            let (from, folder) = (image.parent().unwrap_or(root), to.parent().unwrap_or(root));
            if host.exists(to) {
                return Err(RepairError::Refused(format!("{} is there already", to.display())));
            }
            let rename = || {
                host.create_dir_all(folder)?;
                let sides = disk::side_files(image).into_iter().zip(disk::side_files(to));
                for (side, to) in sides.filter(|(side, _)| host.exists(side)) {
                    host.rename(&side, &to)?;
                }
                host.rename(image, to)?;
                host.flush_dir(folder)?;
                host.flush_dir(from)
            };
            rename().map_err(|error| RepairError::io("move", image, error))
        }
        Change::Reconnect { child, parent, id } | Change::Relink { child, parent, id, .. } => {
            let image = disk::open(host, child, disk::probe(host, child)?, Access::Write)?;
            image.set_parent(&ParentTarget { path: parent.clone(), data_write_id: *id })?;
            image.freeze()?;
            Ok(())
        }
    }
}

/// Undoes the last repair: every file is byte for byte what it was before. Refused where somebody has changed a file since.
/// What was cut short is taken back in its place.
pub fn undo(host: &SharedHost, folder: &Path) -> Result<Done> {
    undo_last(host, folder, |_| true)?.ok_or_else(|| RepairError::Refused("there is no repair to undo".into()))
}

/// Takes back what was cut short, if something was.
pub fn recover(host: &SharedHost, folder: &Path) -> Result<Option<Done>> {
    undo_last(host, folder, |last| last.cut_short)
}

/// Undoes the last repair, if it is one that is meant.
fn undo_last(host: &SharedHost, folder: &Path, is_meant: impl Fn(&Past) -> bool) -> Result<Option<Done>> {
    let root = root(host, folder)?;
    if !host.exists(&root.join(KEPT)) {
        return Ok(None);
    }
    // Nobody else is at it: what is under way isn't taken for cut short.
    let _lock = lock(host, &root)?;
    let Some(last) = past(host, &root)?.pop() else { return sweep(host, &root).map(|()| None) };
    if !is_meant(&last) {
        return Ok(None);
    }
    refuse_in_use(diagnose(host, &root)?.in_use.as_deref())?;
    if let Some(state) = state(host, &root, last.number)?.filter(|state| state.phase == Phase::Done) {
        if after(host, &root, &dir(&root, last.number).join(RECORDS))? != state.after {
            let reason = "an image was changed since the repair, so undoing it would damage what was written";
            return Err(RepairError::Refused(reason.into()));
        }
        publish(host, &root, last.number, &State { phase: Phase::Undoing, ..state })?;
    }
    take_back(host, &root, last.number)?;
    Ok(Some(Done { done: last.done }))
}

/// What repairs of a folder have kept takes so many bytes.
pub fn kept_bytes(host: &SharedHost, folder: &Path) -> Result<ByteCount> {
    let kept = root(host, folder)?.join(KEPT);
    if !host.exists(&kept) {
        return Ok(ByteCount::ZERO);
    }
    let held = |file: &PathBuf| host.open(file, Access::Look).and_then(|file| file.held_bytes()).unwrap_or_default();
    Ok(find_files(host, &kept, &|_| true)?.iter().map(held).sum())
}

/// Gives back the space of what repairs have kept: they can't be undone any more. Returns the bytes.
pub fn forget(host: &SharedHost, folder: &Path) -> Result<ByteCount> {
    let root = root(host, folder)?;
    let kept = root.join(KEPT);
    if !host.exists(&kept) {
        return Ok(ByteCount::ZERO);
    }
    let _lock = lock(host, &root)?;
    if let Some(cut_short) = past(host, &root)?.iter().find(|past| past.cut_short) {
        return Err(RepairError::Refused(format!("repair {} was cut short: take it back first", cut_short.number)));
    }
    let freed = kept_bytes(host, &root)?;
    host.remove_dir_all(&kept).map_err(|error| RepairError::io("remove", &kept, error))?;
    flush(host, &root)?;
    Ok(freed)
}

fn take_back(host: &SharedHost, root: &Path, number: u32) -> Result<()> {
    let dir = dir(root, number);
    Kept::take_all_back(host, root, &dir.join(RECORDS))?;
    if host.exists(&dir) {
        host.remove_dir_all(&dir).map_err(|error| RepairError::io("remove", &dir, error))?;
        flush(host, &root.join(KEPT))?;
    }
    sweep(host, root)
}

/// Where nothing is kept, its folder goes too.
fn sweep(host: &SharedHost, root: &Path) -> Result<()> {
    let all = root.join(KEPT);
    if host.exists(&all) && numbers(host, root)?.is_empty() {
        host.remove_dir_all(&all).map_err(|error| RepairError::io("remove", &all, error))?;
        flush(host, root)?;
    }
    Ok(())
}

/// What stands now where the records say that something was overwritten.
fn after(host: &SharedHost, root: &Path, records: &Path) -> Result<Vec<Stretch>> {
    let mut after = Vec::new();
    let mut buf = vec![0; CHUNK as usize];
    for (file, offset, length) in Kept::touched(host, root, records)? {
        let path = root.join(&file);
        let io = |error| RepairError::io("read", &path, error);
        let open = host.open(&path, Access::Look).map_err(io)?;
        let file_length = open.len().map_err(io)?;
        let end = offset.saturating_add(length).min(file_length);
        let (mut at, mut checksum) = (offset, 0);
        while at < end {
            let part = &mut buf[..(end - at).min(CHUNK) as usize];
            open.read_exact_at(part, at).map_err(io)?;
            checksum = crc32c::crc32c_append(checksum, part);
            at += part.len() as u64;
        }
        after.push(Stretch { file, offset, length, checksum, file_length });
    }
    Ok(after)
}

fn refuse_in_use(in_use: Option<&str>) -> Result<()> {
    in_use.map_or(Ok(()), |why| Err(RepairError::Refused(format!("the folder is in use: {why}"))))
}

fn root(host: &SharedHost, folder: &Path) -> Result<PathBuf> {
    host.canonical(folder).map_err(|error| RepairError::io("find", folder, error))
}

fn dir(root: &Path, number: u32) -> PathBuf {
    root.join(KEPT).join(number.to_string())
}

/// One repair at a time. The lock's file is among what is kept, so that it goes with it.
fn lock(host: &SharedHost, root: &Path) -> Result<Box<dyn HostLock>> {
    let kept = root.join(KEPT);
    let there = host.exists(&kept);
    host.create_dir_all(&kept).map_err(|error| RepairError::io("create", &kept, error))?;
    host.lock(&kept.join(LOCK)).map_err(|error| {
        if !there {
            let _ = host.remove_dir_all(&kept);
        }
        RepairError::io("lock", &kept.join(LOCK), error)
    })
}

/// The repairs that something was kept of.
fn numbers(host: &SharedHost, root: &Path) -> Result<Vec<u32>> {
    let kept = root.join(KEPT);
    if !host.exists(&kept) {
        return Ok(Vec::new());
    }
    let entries = host.list(&kept).map_err(|error| RepairError::io("list", &kept, error))?;
    let mut numbers: Vec<u32> = entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn state(host: &SharedHost, root: &Path, number: u32) -> Result<Option<State>> {
    let path = dir(root, number).join(STATE);
    if !host.exists(&path) {
        return Ok(None);
    }
    let bytes = read_file(&**host, &path, MAX_STATE).map_err(|error| RepairError::io("read", &path, error))?;
    let invalid = |problem: String| RepairError::Invalid { path: path.clone(), offset: 0, problem };
    let state: State = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if state.format != FORMAT || state.version != 1 {
        return Err(invalid(format!("format {:?}, version {} is unknown", state.format, state.version)));
    }
    Ok(Some(state))
}

fn publish(host: &SharedHost, root: &Path, number: u32, state: &State) -> Result<()> {
    let path = dir(root, number).join(STATE);
    let bytes = serde_json::to_vec_pretty(state).map_err(|error| RepairError::io("write", &path, error.into()))?;
    publish_file(&**host, &path, &bytes).map_err(|error| RepairError::io("publish", &path, error))
}

fn flush(host: &SharedHost, path: &Path) -> Result<()> {
    host.flush_dir(path).map_err(|error| RepairError::io("flush", path, error))
}
