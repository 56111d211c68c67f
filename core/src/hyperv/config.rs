//! From the tree of values to what we know of machines: the same names in both forms.
//!
//! | value | meaning |
//! |---|---|
//! | `properties/name`, `notes`, `creation_time` | as Hyper-V shows them; the time is a FILETIME |
//! | `properties/type_id` | "Virtual Machines" or "Snapshots" |
//! | `properties/global_id` | identifier, as in the file's name |
//! | `settings/global/logical_id` | identifier of the machine, in a snapshot's configuration too |
//! | `settings/memory/bank/size` | memory in MiB |
//! | `settings/processors/count` | processors |
//! | `manifest/vdev*/device`, `instance` | kind and name of each device |
//! | `_<instance>_/controller*/drive*/pathname` | a disk's file on the host, where `type` is "VHD" |
//! | `global_settings/disk_merge_pending` | a deleted snapshot's images are to be merged |
//!
//! The names above stand in a machine's configuration of 2019, and public programs that read such files use the same. How
//! the parent of a snapshot is named isn't described in public, and no sample of a snapshot was at hand (a machine without
//! any has `global_settings/snapshots/list/size`, 0, and no name with "parent" in it), so this is a guess: a value whose name
//! begins with "parent" in `properties`, `settings/global` or `global_settings/snapshots` and that is an identifier is taken
//! for it, if it is a snapshot's that is there. Where there is none, the disks tell: a snapshot hangs from the one whose
//! images its own images read through first.

use chrono::{DateTime, Utc};
use uuid::{Uuid, uuid};

use super::Value;
use crate::units::ByteCount;

/// A device's kind: the IDE controller.
const IDE: Uuid = uuid!("83f8638b-8dca-4152-9eda-2ca8b33039b4");
/// A device's kind: a SCSI controller.
const SCSI: Uuid = uuid!("d422512d-2bf2-4752-809d-7b82b5fcb1b4");
/// FILETIME of 1970-01-01, in units of 100 ns since 1601.
const UNIX_EPOCH: i64 = 116_444_736_000_000_000;

/// What a configuration is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A machine.
    Machine,
    /// A snapshot (Hyper-V: a checkpoint).
    Snapshot,
}

/// Where a disk is attached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// `ide`, `scsi`, or `disk` on a controller of another kind.
    pub bus: &'static str,
    /// The controller's number.
    pub controller: u32,
    /// The place on the controller.
    pub place: u32,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}-{}", self.bus, self.controller, self.place)
    }
}

/// A disk that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Where.
    pub slot: Slot,
    /// Its file's path on the host that wrote the configuration.
    pub path: String,
}

impl Drive {
    /// The file's name, whatever separates the path's parts.
    pub fn file_name(&self) -> &str {
        self.path.rsplit(['\\', '/']).next().unwrap_or_default()
    }
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Of what it is, where it says so.
    pub role: Option<Role>,
    /// Its identifier, where it says one.
    pub id: Option<Uuid>,
    /// The machine that it belongs to, where it says one.
    pub machine: Option<Uuid>,
    /// The snapshot that it continues from, where it says one.
    pub parent: Option<Uuid>,
    /// The name.
    pub name: String,
    /// A person's notes.
    pub notes: String,
    /// When the machine or the snapshot was created, where it says so.
    pub created: Option<DateTime<Utc>>,
    /// The memory at start.
    pub memory: ByteCount,
    /// How many processors.
    pub processors: u32,
    /// The disks, in the order of their slots.
    pub drives: Vec<Drive>,
    /// Whether images of deleted snapshots are to be merged by Hyper-V.
    pub merge_pending: bool,
}

impl Config {
    /// Reads a configuration's tree; `None` where it isn't one of a machine or snapshot.
    pub fn of(tree: &Value) -> Option<Self> {
        let config = tree.get("configuration")?;
        let properties = config.get("properties")?;
        let text = |path: &str| config.text(path).unwrap_or_default().to_owned();
        let name = properties.text("name")?.to_owned();
        let mut drives = drives(config);
        drives.sort_by(|a, b| a.slot.cmp(&b.slot));
        Some(Self {
            role: properties.text("type_id").and_then(role),
            id: config.text("properties/global_id").and_then(identifier),
            machine: config.text("settings/global/logical_id").and_then(identifier),
            parent: ["properties", "settings/global", "global_settings/snapshots"]
                .into_iter()
                .find_map(|path| parent(config.get(path)?)),
            name,
            notes: text("properties/notes"),
            created: properties.get("creation_time").and_then(created),
            memory: ByteCount::mib(config.number("settings/memory/bank/size").unwrap_or(0).min(1 << 30)),
            processors: config.number("settings/processors/count").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            drives,
            merge_pending: config.is_set("global_settings/disk_merge_pending"),
        })
    }
}

fn role(type_id: &str) -> Option<Role> {
    match type_id {
        "Virtual Machines" => Some(Role::Machine),
        "Snapshots" => Some(Role::Snapshot),
        _ => None,
    }
}

/// An identifier, with or without braces; zero is none.
pub(super) fn identifier(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.trim().trim_matches(['{', '}'])).ok().filter(|id| !id.is_nil())
}

fn parent(node: &Value) -> Option<Uuid> {
    node.children().iter().find_map(|(name, value)| match value {
        Value::Text(text) if name.starts_with("parent") => identifier(text),
        _ => None,
    })
}

fn created(value: &Value) -> Option<DateTime<Utc>> {
    let ticks = match value {
        Value::Bytes(bytes) => i64::from_le_bytes(bytes.as_slice().try_into().ok()?),
        Value::Int(ticks) => *ticks,
        _ => return None,
    };
    let since = ticks.checked_sub(UNIX_EPOCH).filter(|_| ticks > 0)?;
    DateTime::from_timestamp(since.div_euclid(10_000_000), since.rem_euclid(10_000_000) as u32 * 100)
}

/// The number behind a word, as in `drive1`.
fn numbered(name: &str, word: &str) -> Option<u32> {
    name.strip_prefix(word)?.parse().ok()
}

fn drives(config: &Value) -> Vec<Drive> {
    // SCSI controllers are numbered in the order of the manifest.
    let devices: Vec<(Uuid, Uuid)> = config
        .get("manifest")
        .map_or(&[][..], Value::children)
        .iter()
        .filter_map(|(_, device)| Some((identifier(device.text("device")?)?, identifier(device.text("instance")?)?)))
        .collect();
    let scsi: Vec<Uuid> = devices.iter().filter(|(kind, _)| *kind == SCSI).map(|(_, instance)| *instance).collect();
    let mut drives = Vec::new();
    let mut others = 0;
    for (name, device) in config.children() {
        let Some(instance) = name.strip_prefix('_').and_then(|name| identifier(name.strip_suffix('_')?)) else { continue };
        let found: Vec<(u32, u32, &str)> = controllers(device).collect();
        if found.is_empty() {
            continue;
        }
        let is_ide = instance == IDE || devices.contains(&(IDE, instance));
        let (bus, first) = match scsi.iter().position(|other| *other == instance) {
            _ if is_ide => ("ide", 0),
            Some(at) => ("scsi", at as u32),
            None => {
                others += 1;
                ("disk", others - 1)
            }
        };
        for (controller, place, path) in found {
            let slot = Slot { bus, controller: first.saturating_add(controller), place };
            drives.push(Drive { slot, path: path.to_owned() });
        }
    }
    drives
}

/// Controller, place and path of each disk of a device.
fn controllers(device: &Value) -> impl Iterator<Item = (u32, u32, &str)> {
    device.children().iter().filter_map(|(name, controller)| Some((numbered(name, "controller")?, controller))).flat_map(
        |(number, controller)| {
            controller.children().iter().filter_map(move |(name, drive)| {
                let path = drive.text("pathname").filter(|path| !path.is_empty())?;
                (drive.text("type") == Some("VHD")).then_some((number, numbered(name, "drive")?, path))
            })
        },
    )
}
