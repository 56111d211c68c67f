//! Reads a folder and puts together what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::link::{Judged, judge};
use super::roles::Claims;
use super::{Defect, Diagnosis, Finding, FolderKind, NodeName, Role};
use crate::chain::{Folder, Gate, ParentState, find_files};
use crate::disk::DiskError;
use crate::host_file::{Access, SharedHost};
use crate::hyperv;
use crate::store::{JOURNAL, MANIFEST, MachineStore, StoreError};
use crate::units::ByteCount;

/// Why a folder couldn't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DiagnoseError {
    /// The folder can't be listed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The machine's manifest can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks at every image of a folder and the folders inside it: a machine of this program, a folder of Hyper-V's, or images
/// that nobody names. Nothing is locked or written.
///
/// # Errors
/// Where the folder or a machine's manifest can't be read. An image that can't be is a finding.
pub fn diagnose(host: &SharedHost, path: &Path) -> Result<Diagnosis, DiagnoseError> {
    let root = host.canonical(path).map_err(|error| DiskError::io(path, "find the folder", error))?;
    let mut folder = Folder::scan(host, &root)?;
    // What an earlier repair has kept is no part of the folder.
    let is_kept = |file: &Path| file.strip_prefix(&root).is_ok_and(|file| file.starts_with(KEPT));
    if folder.images.iter().any(|image| is_kept(&image.path)) {
        folder = without(&folder, &is_kept);
    }
    folder.unreadable.retain(|(file, _)| !is_kept(file));
    let (kind, claims, problems) = claims(host, &root, &folder)?;
    let gate = Gate::new([root.clone()]);
    let indexes = 0..folder.images.len();
    let chains = Chains::of(indexes.clone().map(|index| judge(host, &folder, &gate, index)).collect());
    let mut images: Vec<Finding> = indexes.map(|index| finding(host, &folder, &chains, &claims, kind, index)).collect();
    for image in images.iter_mut().filter(|image| image.path.starts_with(root.join(ASIDE))) {
        set_aside(image);
    }
    images.extend(folder.unreadable.iter().map(|(file, problem)| unreadable(host, &claims, kind, file, problem)));
    images.sort_by(|a, b| a.path.cmp(&b.path));
    let in_use = in_use(host, &root, kind, &images)?;
    let merges_pending = claims.merging.into_iter().collect();
    Ok(Diagnosis { folder: root, kind, images, problems, in_use, merges_pending })
}

/// Where a repair puts images that nobody needs: in the folder itself, so that it is always a rename, and what a repair needs
/// to be undone goes with the folder wherever that is taken.
pub const ASIDE: &str = "Set aside";

/// Where repairs keep what they have replaced.
pub const KEPT: &str = ".snaptree-repair";

/// The folder without some of its images.
fn without(folder: &Folder, is_out: &dyn Fn(&Path) -> bool) -> Folder {
    let stays: Vec<usize> = (0..folder.images.len()).filter(|at| !is_out(&folder.images[*at].path)).collect();
    let new: BTreeMap<usize, usize> = stays.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    let mut images: Vec<_> = stays.iter().map(|at| folder.images[*at].clone()).collect();
    for image in &mut images {
        let gone = |name: &Path, linkage| ParentState::Missing { name: name.display().to_string(), linkage };
        image.parent = match &image.parent {
            ParentState::Found { index } => match new.get(index) {
                Some(index) => ParentState::Found { index: *index },
                None => gone(&folder.images[*index].path, folder.images[*index].info.data_write_id),
            },
            ParentState::Changed { index, expected, found } => match new.get(index) {
                Some(index) => ParentState::Changed { index: *index, expected: *expected, found: *found },
                None => gone(&folder.images[*index].path, *expected),
            },
            other => other.clone(),
        };
    }
    Folder { images, unreadable: folder.unreadable.clone() }
}

fn claims(host: &SharedHost, root: &Path, folder: &Folder) -> Result<(FolderKind, Claims, Vec<String>), DiagnoseError> {
    if host.exists(&root.join(MANIFEST)) {
        let machine = MachineStore::look(host, root)?;
        let claims = Claims::of_machine(host, root, &machine);
        let lost = machine.images.values().map(|record| &record.file).filter(|file| !host.exists(&root.join(file)));
        let problems = lost.map(|file| format!("{}: the manifest names it, and it isn't there", file.display())).collect();
        return Ok((FolderKind::Machine, claims, problems));
    }
    let found = hyperv::read(host, root, folder)?;
    let claims = Claims::of_hyper_v(&found, &|index| folder.images[index].path.clone());
    let kind = if found.machines.is_empty() { FolderKind::Images } else { FolderKind::HyperV };
    Ok((kind, claims, found.problems))
}

/// How the images of a folder stand to one another, as far as their links lead.
struct Chains {
    links: Vec<Judged>,
    /// Per image: itself and what is below it; the first image that comes again ends it.
    down: Vec<Vec<usize>>,
    /// Per image: those that read through it, directly or not.
    above: Vec<Vec<usize>>,
}

impl Chains {
    fn of(links: Vec<Judged>) -> Self {
        let down: Vec<Vec<usize>> = (0..links.len()).map(|index| down(&links, index)).collect();
        let mut above = vec![Vec::new(); links.len()];
        for (index, chain) in down.iter().enumerate() {
            chain[1..].iter().for_each(|below| above[*below].push(index));
        }
        Self { links, down, above }
    }

    fn is_in_loop(&self, index: usize) -> bool {
        self.down[index].last().is_some_and(|lowest| self.links[*lowest].parent == Some(index))
    }

    fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        self.above[index].iter().copied().filter(move |above| self.links[*above].parent == Some(index))
    }
}

fn down(links: &[Judged], index: usize) -> Vec<usize> {
    let mut chain = vec![index];
    while let Some(parent) = links[chain[chain.len() - 1]].parent.filter(|parent| !chain.contains(parent)) {
        chain.push(parent);
    }
    chain
}

fn finding(host: &SharedHost, folder: &Folder, chains: &Chains, claims: &Claims, kind: FolderKind, index: usize) -> Finding {
    let (image, link) = (&folder.images[index], &chains.links[index]);
    let path = |at: usize| folder.images[at].path.clone();
    let looped = chains.is_in_loop(index);
    let broken = |at: usize| chains.links[at].defect.as_ref().is_some_and(|defect| !is_found(defect)) || chains.is_in_loop(at);
    let broken_below = chains.down[index].iter().skip(1).copied().find(|at| broken(*at)).filter(|_| !looped).map(path);
    let children: Vec<usize> = chains.children(index).collect();
    let above = chains.above[index].iter().copied();
    let readers: BTreeSet<NodeName> = above.filter_map(|at| claims.named.get(&path(at))).flatten().cloned().collect();
    let role = match kind {
        FolderKind::Images => Role::Unclaimed,
        _ => claims.role(&image.path, &readers, image.info.parent.is_none()),
    };
    let defect = if looped { Some(Defect::Loop) } else { link.defect.clone() };
    let wrong = match looped {
        true => Some(format!("its parents lead back to it, through {}", link.parent.map(path).unwrap_or_default().display())),
        false => link.reason.clone(),
    };
    let in_use = host.is_locked(&image.path);
    let mut reason: Vec<String> = wrong.into_iter().collect();
    if let Some(below) = &broken_below {
        reason.push(format!("it reads through {}, which is broken", below.display()));
    }
    reason.push(in_words(&role, children.len()));
    if let Role::LeftOver { nodes } = &role
        && nodes.iter().any(|node| claims.merging.contains(&node.machine))
    {
        reason.push("Hyper-V has a merge before it".into());
    }
    if in_use {
        reason.push("a process has it open".into());
    }
    Finding {
        path: image.path.clone(),
        info: Some(image.info.clone()),
        held: image.held,
        role,
        in_use,
        defect,
        parent: link.parent.map(path),
        expects: image.info.parent.as_ref().map(|link| link.linkage),
        candidates: link.candidates.iter().copied().map(path).collect(),
        children: children.into_iter().map(path).collect(),
        broken_below,
        reason: reason.join("; "),
    }
}

/// What is wrong with an image that was put aside for it bothers nobody any more.
fn set_aside(image: &mut Finding) {
    if matches!(&image.role, Role::Unclaimed) || matches!(&image.role, Role::LeftOver { nodes } if nodes.is_empty()) {
        let reason = image.reason.clone();
        image.role = Role::Pending { reason: "it was set aside".into() };
        image.defect = None;
        image.reason = format!("it was set aside; {reason}");
    }
}

/// Whether the parent is known for certain all the same: only its path is wrong.
fn is_found(defect: &Defect) -> bool {
    matches!(defect, Defect::Moved { .. } | Defect::Renamed { .. })
}

fn in_words(role: &Role, children: usize) -> String {
    let list = |nodes: &[NodeName]| nodes.iter().map(|node| format!("“{node}”")).collect::<Vec<_>>().join(", ");
    match role {
        Role::Owned { node } => format!("the image of “{node}”"),
        Role::Shared { nodes } if nodes.len() == 1 => format!("read through by {}", list(nodes)),
        Role::Shared { nodes } => format!("needed by {}", list(nodes)),
        Role::LeftOver { nodes } if nodes.is_empty() => "no configuration names it, and nothing that one names needs it".into(),
        Role::LeftOver { nodes } => format!("no configuration names it; read through by {}", list(nodes)),
        Role::Pending { reason } => reason.clone(),
        Role::Unclaimed => match children {
            0 => "nothing reads through it".into(),
            1 => "1 image reads through it".into(),
            n => format!("{n} images read through it"),
        },
    }
}

fn unreadable(host: &SharedHost, claims: &Claims, kind: FolderKind, file: &Path, problem: &str) -> Finding {
    let held = host.open(file, Access::Look).and_then(|file| file.held_bytes()).unwrap_or(ByteCount::ZERO);
    let role = match kind {
        FolderKind::Images => Role::Unclaimed,
        _ => claims.role(file, &BTreeSet::new(), false),
    };
    Finding {
        path: file.to_owned(),
        info: None,
        held,
        role,
        in_use: host.is_locked(file),
        defect: Some(Defect::Unreadable),
        parent: None,
        expects: None,
        candidates: Vec::new(),
        children: Vec::new(),
        broken_below: None,
        reason: format!("it can't be read as an image: {problem}"),
    }
}

/// Why the folder may not be changed, as far as can be told: a lock on a file, or a machine that somebody has open.
fn in_use(host: &SharedHost, root: &Path, kind: FolderKind, images: &[Finding]) -> Result<Option<String>, DiagnoseError> {
    if kind == FolderKind::Machine && MachineStore::is_in_use(host, root) {
        return Ok(Some("the machine is open in another process".into()));
    }
    if kind == FolderKind::Machine && host.exists(&root.join(JOURNAL)) {
        return Ok(Some("an operation of the machine was cut short: open the machine first".into()));
    }
    let ours = find_files(host, root, &|file| file.ends_with(MANIFEST) && file.parent() != Some(root))?;
    if let Some(manifest) = ours.first() {
        let of = manifest.parent().unwrap_or(root).display();
        return Ok(Some(format!("{of} belongs to a machine of this program: look at that folder by itself")));
    }
    let of_machine = |path: &Path| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        ["vmcx", "vmrs", "vsv", "bin"].contains(&&*extension)
    };
    let states: Vec<PathBuf> = find_files(host, root, &of_machine)?;
    let held = images.iter().filter(|image| image.in_use).map(|image| &image.path);
    let held = held.chain(states.iter().filter(|file| host.is_locked(file))).next();
    Ok(held.map(|file| format!("a process has {} open", file.display())))
}
