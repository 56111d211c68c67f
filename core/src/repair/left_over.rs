//! Images that no configuration names: those that a node reads through are merged into the image above them, those that
//! nothing needs can be set aside. Pure.

use std::path::{Path, PathBuf};

use super::ASIDE;
use super::plan::{Change, Choices, Plan, Refused, Step};
use crate::diagnose::{Defect, Diagnosis, Finding, FolderKind, Role};
use crate::units::ByteCount;

/// Whether an image is one that no node needs: an orphan, what reads through one, or a left-over beside the others.
pub(super) fn is_to_go(found: &Diagnosis, image: &Finding) -> bool {
    let needed = match &image.role {
        Role::Owned { .. } | Role::Shared { .. } | Role::Pending { .. } => true,
        Role::LeftOver { nodes } => !nodes.is_empty(),
        // Nobody says which images are needed: what can't be read as it is can't be needed.
        Role::Unclaimed => !is_orphan(found, image),
    };
    !needed && !image.in_use && !is_aside(found, &image.path)
}

/// Why a left-over image is Hyper-V's to deal with, if it is: of which machine it is can't always be told.
pub(super) fn is_pending(found: &Diagnosis, image: &Finding) -> Option<String> {
    let Role::LeftOver { nodes } = &image.role else { return None };
    let of = |machine: &&String| nodes.is_empty() || nodes.iter().any(|node| node.machine == **machine);
    let machine = found.merges_pending.iter().find(of)?;
    Some(format!("Hyper-V has a merge of {machine:?} before it: let it do that, on its host with the machine off"))
}

/// Whether its parent is gone, or that of an image below it.
fn is_orphan(found: &Diagnosis, image: &Finding) -> bool {
    let is = |image: &Finding| image.defect == Some(Defect::Orphaned);
    is(image) || image.broken_below.as_ref().and_then(|below| found.of(below)).is_some_and(is)
}

fn is_aside(found: &Diagnosis, path: &Path) -> bool {
    path.starts_with(found.folder.join(ASIDE))
}

/// With the folders that it is in, so that paths from one such image to another stay right.
pub(super) fn set_aside(found: &Diagnosis, image: &Finding) -> Step {
    let to = found.folder.join(ASIDE).join(image.path.strip_prefix(&found.folder).unwrap_or(&image.path));
    let words = format!("{}: moved to {}, inside the same folder; nothing is removed", image.path.display(), to.display());
    Step { change: Change::SetAside { image: image.path.clone(), to }, words, warnings: Vec::new() }
}

/// Plans a merge for each run of left-over images that one image reads through. Nothing is merged into an image that others
/// read through: everything moves up, and the name that configurations know stays.
pub(super) fn merges(found: &Diagnosis, choices: &Choices, plan: &mut Plan) {
    if found.kind != FolderKind::HyperV {
        return;
    }
    let is_left = |image: &Finding| {
        let read = matches!(&image.role, Role::LeftOver { nodes } if !nodes.is_empty());
        read && is_whole(image) && !choices.parents.contains_key(&image.path)
    };
    for top in found.images.iter().filter(|image| is_left(image)) {
        if let Some(reason) = is_pending(found, top) {
            plan.refused.push(Refused { image: top.path.clone(), reason });
            continue;
        }
        let [reader] = &top.children[..] else {
            let reason = format!("{} images read through it, so it stays", top.children.len());
            plan.refused.push(Refused { image: top.path.clone(), reason });
            continue;
        };
        let Some(reader) = found.of(reader) else { continue };
        if is_left(reader) && reader.children.len() == 1 {
            continue;
        }
        let mut run = vec![top];
        let mut below = top.parent.as_ref().and_then(|parent| found.of(parent));
        while let Some(image) = below.filter(|image| is_left(image) && image.children.len() == 1) {
            run.push(image);
            below = image.parent.as_ref().and_then(|parent| found.of(parent));
        }
        run.reverse();
        match (below, check(&run, reader, below)) {
            (Some(below), None) => plan.steps.push(merge(&run, reader, below)),
            (_, Some(reason)) => plan.refused.push(Refused { image: top.path.clone(), reason }),
            (None, None) => {}
        }
    }
}

fn is_whole(image: &Finding) -> bool {
    image.defect.is_none() && image.broken_below.is_none() && image.info.is_some()
}

/// Why the run can't be merged.
fn check(run: &[&Finding], reader: &Finding, below: Option<&Finding>) -> Option<String> {
    let shown = reader.path.display();
    if !is_whole(reader) || below.is_none_or(|below| !is_whole(below)) {
        return Some(format!("{shown}, which reads through it, or what it reads through itself, is to be repaired first"));
    }
    let size = |image: &Finding| image.info.as_ref().map(|info| info.virtual_size);
    let larger = run.iter().copied().chain(below).any(|image| size(image) > size(reader));
    larger.then(|| format!("{shown}, which reads through it, has a smaller disk"))
}

fn merge(run: &[&Finding], reader: &Finding, below: &Finding) -> Step {
    let files: Vec<PathBuf> = run.iter().map(|image| image.path.clone()).collect();
    let bytes = ByteCount(run.iter().copied().chain([reader]).map(|image| image.held.0).sum());
    let (count, shown) = (files.len(), reader.path.display());
    let words = match count {
        1 => format!("{shown}: merged with the left-over {}, which it reads through", files[0].display()),
        _ => format!("{shown}: merged with the {count} left-over images that it reads through, from {}", files[0].display()),
    };
    let warning = format!("up to {bytes} are copied; what was merged is kept until the repair can't be undone any more");
    let change = Change::Merge { run: files, into: reader.path.clone(), parent: below.path.clone(), bytes };
    Step { change, words, warnings: vec![warning] }
}
