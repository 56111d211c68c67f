//! What a diagnosis says: plain data.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::ImageInfo;
use crate::units::ByteCount;

/// Who says which images of a folder are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderKind {
    /// The manifest of a machine of this program.
    Machine,
    /// Configurations of Hyper-V.
    HyperV,
    /// Nobody.
    Images,
}

/// A machine's current state, or a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeName {
    /// The machine's name.
    pub machine: String,
    /// The snapshot's; `None` is the current state.
    pub snapshot: Option<String>,
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}, {snapshot}", self.machine),
            None => write!(f, "{}, now", self.machine),
        }
    }
}

/// Whose an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// One node names it.
    Owned {
        /// The node.
        node: NodeName,
    },
    /// Several nodes need it: they name it, or read through it.
    Shared {
        /// The nodes.
        nodes: Vec<NodeName>,
    },
    /// No configuration names it, though others of the folder are named: what a backup's or a lost checkpoint has left.
    LeftOver {
        /// The nodes that read through it all the same.
        nodes: Vec<NodeName>,
    },
    /// It goes by itself: a merge is due, or it lies in the trash.
    Pending {
        /// Why.
        reason: String,
    },
    /// Nothing in the folder says which images are needed.
    Unclaimed,
}

/// What is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "defect", rename_all = "snake_case")]
pub enum Defect {
    /// It can't be read as an image.
    Unreadable,
    /// Its parent is not in the folder.
    Orphaned,
    /// Its parent has its name still, and is in another place of the folder.
    Moved {
        /// Where the parent is.
        parent: PathBuf,
    },
    /// Its parent has another name.
    Renamed {
        /// Where the parent is.
        parent: PathBuf,
    },
    /// The parent's disk got another size, and with it another identifier.
    Resized {
        /// The parent.
        parent: PathBuf,
    },
    /// The parent was written to (DataWriteGuid) since the child was made.
    WrittenUnder {
        /// The parent.
        parent: PathBuf,
    },
    /// Another disk stands in the parent's place (VHDX: Virtual Disk ID, VHD: Unique Id).
    Replaced {
        /// What stands there.
        parent: PathBuf,
    },
    /// Its parents lead back to it.
    Loop,
}

/// One word for an image: what is wrong, else that it is held, else whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// See [`Role::Owned`].
    Owned,
    /// See [`Role::Shared`].
    Shared,
    /// Somebody has it open.
    Held,
    /// See [`Role::LeftOver`].
    LeftOver,
    /// See [`Role::Pending`].
    Pending,
    /// See [`Role::Unclaimed`].
    Unclaimed,
    /// Its parent is gone.
    Orphaned,
    /// Identifier, size or path doesn't match, or it can't be read.
    Broken,
}

impl Standing {
    /// As a table shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Shared => "shared",
            Self::Held => "held",
            Self::LeftOver => "left over",
            Self::Pending => "pending",
            Self::Unclaimed => "unclaimed",
            Self::Orphaned => "orphaned",
            Self::Broken => "broken",
        }
    }
}

/// What was found about one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its file, links resolved.
    pub path: PathBuf,
    /// What it is; `None` where it can't be read.
    pub info: Option<ImageInfo>,
    /// Bytes that it takes on the volume.
    pub held: ByteCount,
    /// Whose it is.
    pub role: Role,
    /// Whether a process has a lock on it.
    pub in_use: bool,
    /// What is wrong with it.
    pub defect: Option<Defect>,
    /// The file that its parent is taken to be, right or not.
    pub parent: Option<PathBuf>,
    /// The identifier that it expects of its parent.
    pub expects: Option<Uuid>,
    /// Other images of the folder that may be its parent: copies with the same identifier, or the same disk.
    pub candidates: Vec<PathBuf>,
    /// The images that read through it directly.
    pub children: Vec<PathBuf>,
    /// The nearest image below it that is broken, which makes this one unusable too.
    pub broken_below: Option<PathBuf>,
    /// All of it in words, for a person.
    pub reason: String,
}

impl Finding {
    /// In one word.
    pub fn standing(&self) -> Standing {
        match (&self.defect, &self.role) {
            (Some(Defect::Orphaned), _) => Standing::Orphaned,
            (Some(_), _) => Standing::Broken,
            (None, _) if self.in_use => Standing::Held,
            (None, Role::Owned { .. }) => Standing::Owned,
            (None, Role::Shared { .. }) => Standing::Shared,
            (None, Role::LeftOver { .. }) => Standing::LeftOver,
            (None, Role::Pending { .. }) => Standing::Pending,
            (None, Role::Unclaimed) => Standing::Unclaimed,
        }
    }
}

/// What was found in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The folder, links resolved.
    pub folder: PathBuf,
    /// Who says which images are needed.
    pub kind: FolderKind,
    /// The images and what is named like one, sorted by path.
    pub images: Vec<Finding>,
    /// What else doesn't fit together, in words.
    pub problems: Vec<String>,
    /// Why the folder may not be changed now, if it is in use.
    pub in_use: Option<String>,
    /// Machines of Hyper-V's that have a merge before them: it merges what is left over of them when they are next off.
    #[serde(default)]
    pub merges_pending: Vec<String>,
}

impl Diagnosis {
    /// What was found about a file.
    pub fn of(&self, path: &Path) -> Option<&Finding> {
        self.images.iter().find(|finding| finding.path == path)
    }

    /// The images with something wrong.
    pub fn defects(&self) -> impl Iterator<Item = &Finding> {
        self.images.iter().filter(|finding| finding.defect.is_some())
    }
}
