//! What a repair would do, as a value. Looks at images, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::exposed::Exposed;
use super::left_over;
use crate::diagnose::{Defect, Diagnosis, Finding, FolderKind};
use crate::disk::ImageInfo;
use crate::host_file::SharedHost;
use crate::units::ByteCount;

/// What a person decides, where the folder alone doesn't tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// The parent that an image shall have, by the image's path.
    pub parents: BTreeMap<PathBuf, PathBuf>,
    /// Whether orphans and left-overs that no node needs are moved into the folder [`ASIDE`](super::ASIDE). Nothing is removed.
    #[serde(default)]
    pub set_aside: bool,
}

/// One change to files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The parent's path is written anew into the child; its identifier is right.
    Reconnect {
        /// The image that is written to.
        child: PathBuf,
        /// Its parent.
        parent: PathBuf,
        /// The parent's identifier.
        id: Uuid,
    },
    /// The parent's path and identifier are written into the child, though the parent isn't what it was.
    Relink {
        /// The image that is written to.
        child: PathBuf,
        /// Its parent from now on.
        parent: PathBuf,
        /// The parent's identifier.
        id: Uuid,
        /// What it reads from the parent: only that may differ from what it was.
        may_differ: Exposed,
    },
    /// The image goes into the folder [`ASIDE`](super::ASIDE).
    SetAside {
        /// Where it is.
        image: PathBuf,
        /// Where it goes.
        to: PathBuf,
    },
    /// Left-over images and the one image that reads through them become one, in that image's place.
    Merge {
        /// The left-over images, the lowest first.
        run: Vec<PathBuf>,
        /// The image that reads through them, and stays.
        into: PathBuf,
        /// What it reads through afterwards.
        parent: PathBuf,
        /// Bytes that are copied, at most.
        bytes: ByteCount,
    },
}

impl Change {
    /// The image that it is about.
    pub fn image(&self) -> &Path {
        match self {
            Self::Reconnect { child, .. } | Self::Relink { child, .. } => child,
            Self::SetAside { image, .. } => image,
            Self::Merge { into, .. } => into,
        }
    }
}

/// A change, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is changed.
    pub change: Change,
    /// The same in words.
    pub words: String,
    /// What a person should know before, in words.
    pub warnings: Vec<String>,
}

/// A defect that isn't repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The image.
    pub image: PathBuf,
    /// Why not, and what would help.
    pub reason: String,
}

/// What a repair would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The folder.
    pub folder: PathBuf,
    /// The changes, in their order.
    pub steps: Vec<Step>,
    /// What stays as it is.
    pub refused: Vec<Refused>,
    /// Why nothing may be done now, if the folder is in use.
    pub in_use: Option<String>,
}

impl Plan {
    /// Free space that it takes at most: what is merged stays beside the new images.
    pub fn needs(&self) -> ByteCount {
        let copied = |step: &Step| if let Change::Merge { bytes, .. } = &step.change { *bytes } else { ByteCount::ZERO };
        self.steps.iter().map(copied).sum()
    }
}

/// Plans the repair of everything that can be repaired. A parent that a person names is taken even where nothing is wrong.
pub fn plan(host: &SharedHost, found: &Diagnosis, choices: &Choices) -> Plan {
    let mut plan = Plan { folder: found.folder.clone(), steps: Vec::new(), refused: Vec::new(), in_use: found.in_use.clone() };
    if found.kind == FolderKind::Machine {
        let reason = "it belongs to a machine of this program, which puts itself right when it is opened";
        let refused = |image: &Finding| Refused { image: image.path.clone(), reason: reason.into() };
        plan.refused = found.defects().map(refused).collect();
        return plan;
    }
    for child in choices.parents.keys().filter(|child| found.of(child).is_none()) {
        plan.refused.push(Refused { image: child.clone(), reason: "it isn't an image of this folder".into() });
    }
    for image in &found.images {
        if choices.set_aside && !choices.parents.contains_key(&image.path) && left_over::is_to_go(found, image) {
            match left_over::is_pending(found, image) {
                Some(reason) => plan.refused.push(Refused { image: image.path.clone(), reason }),
                None => plan.steps.push(left_over::set_aside(found, image)),
            }
            continue;
        }
        let step = match (choices.parents.get(&image.path), &image.defect) {
            (None, None) => continue,
            (Some(parent), _) => chosen(host, found, image, parent),
            (None, Some(defect)) => by_itself(host, found, image, defect),
        };
        match step {
            Ok(step) => plan.steps.push(step),
            Err(reason) => plan.refused.push(Refused { image: image.path.clone(), reason }),
        }
    }
    refuse_loops(found, &mut plan);
    left_over::merges(found, choices, &mut plan);
    plan
}

/// The parent that a person has named.
fn chosen(host: &SharedHost, found: &Diagnosis, image: &Finding, parent: &Path) -> Result<Step, String> {
    let Some((info, other)) = image.info.as_ref().zip(found.of(parent).and_then(|parent| parent.info.as_ref())) else {
        return Err(match image.info {
            None => image.reason.clone(),
            Some(_) => format!("{} isn't an image of this folder", parent.display()),
        });
    };
    let Some(link) = &info.parent else { return Err("it is a base: it has no parent".into()) };
    if info.format != other.format {
        return Err(format!("{} has another format", parent.display()));
    }
    if info.logical_sector_size != other.logical_sector_size {
        return Err(format!("{} has sectors of another size", parent.display()));
    }
    match link.accepts(other) {
        true => Ok(reconnect(image, parent, other)),
        false => relink(host, image, info, parent, other),
    }
}

/// What the defect itself asks for.
fn by_itself(host: &SharedHost, found: &Diagnosis, image: &Finding, defect: &Defect) -> Result<Step, String> {
    let info_of = |path: &PathBuf| found.of(path).and_then(|finding| finding.info.as_ref());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match defect {
        Defect::Moved { parent } | Defect::Renamed { parent } => match (info_of(parent), image.candidates.first()) {
            (Some(_), Some(copy)) => Err(format!(
                "{} and {} have the identifier that it expects: say which one is its parent",
                parent.display(),
                copy.display()
            )),
            (Some(other), None) => Ok(reconnect(image, parent, other)),
            (None, _) => Err(image.reason.clone()),
        },
        Defect::WrittenUnder { parent } | Defect::Resized { parent } => match (&image.info, info_of(parent)) {
            (Some(info), Some(other)) => relink(host, image, info, parent, other),
            _ => Err(image.reason.clone()),
        },
        Defect::Replaced { parent } => Err(format!(
            "{} is another disk: bring the right one back, or say that it shall be the parent all the same",
            parent.display()
        )),
        Defect::Orphaned => Err(match &image.candidates[..] {
            [] => "bring its parent back: nothing in this folder can be it".into(),
            some => {
                let names: Vec<String> = some.iter().map(|path| name(path)).collect();
                format!("bring its parent back, or say which one it is: {} have the same disk", names.join(", "))
            }
        }),
        Defect::Loop => Err("say which image is its parent: nothing tells where the circle was closed".into()),
        Defect::Unreadable => Err(image.reason.clone()),
    }
}

fn reconnect(image: &Finding, parent: &Path, other: &ImageInfo) -> Step {
    let change = Change::Reconnect { child: image.path.clone(), parent: parent.into(), id: other.data_write_id };
    let words = format!("{}: the path of its parent becomes {}", image.path.display(), parent.display());
    Step { change, words, warnings: Vec::new() }
}

fn relink(host: &SharedHost, image: &Finding, info: &ImageInfo, parent: &Path, other: &ImageInfo) -> Result<Step, String> {
    let (child, shown) = (image.path.clone(), parent.display());
    let may_differ = Exposed::of(host, &child, parent).map_err(|error| format!("what they hold can't be read: {error}"))?;
    let mut words = format!("{}: its parent becomes {shown} as it is now ({})", child.display(), other.data_write_id);
    let mut warnings = Vec::new();
    if may_differ.blocks == 0 {
        words.push_str("; it holds itself all that its parent holds, so nothing differs");
    } else {
        let Exposed { bytes, blocks, .. } = &may_differ;
        let blocks = if *blocks == 1 { "1 block".into() } else { format!("{blocks} blocks") };
        warnings.push(format!("{bytes} in {blocks} may differ: they are read from {shown}, which has changed since"));
    }
    let change = Change::Relink { child, parent: parent.into(), id: other.data_write_id, may_differ };
    if info.disk_id != other.disk_id || info.disk_id.is_nil() {
        warnings.push(format!("nothing tells that {shown} is an image of the same disk"));
    }
    if info.virtual_size != other.virtual_size {
        let (ours, theirs) = (info.virtual_size, other.virtual_size);
        warnings.push(format!("it has a disk of {ours}, {shown} one of {theirs}"));
    }
    Ok(Step { change, words, warnings })
}

/// With all changes made, no image may lead back to itself.
fn refuse_loops(found: &Diagnosis, plan: &mut Plan) {
    let mut parents: BTreeMap<&Path, &Path> =
        found.images.iter().filter_map(|image| Some((&*image.path, image.parent.as_deref()?))).collect();
    for step in &plan.steps {
        if let Change::Reconnect { child, parent, .. } | Change::Relink { child, parent, .. } = &step.change {
            parents.insert(child, parent);
        }
    }
    let leads_back = |image: &Path| {
        let mut seen = BTreeSet::from([image]);
        let mut at = image;
        while let Some(parent) = parents.get(at) {
            if *parent == image {
                return true;
            }
            if !seen.insert(parent) {
                return false;
            }
            at = parent;
        }
        false
    };
    let is_right = |step: &Step| matches!(step.change, Change::SetAside { .. }) || !leads_back(step.change.image());
    let (stay, go): (Vec<Step>, Vec<Step>) = plan.steps.iter().cloned().partition(is_right);
    for step in go {
        let reason = "its parents would lead back to it".to_owned();
        plan.refused.push(Refused { image: step.change.image().into(), reason });
    }
    plan.steps = stay;
}
