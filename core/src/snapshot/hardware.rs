//! What a machine that QEMU runs consists of, beside memory and disks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::ByteCount;

/// What disks are attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// Quick; needs a driver in the guest.
    #[default]
    Virtio,
    /// Known to every guest; six disks at most.
    Sata,
}

impl DiskBus {
    /// Most disks at a time: by bus, and on the one PCI bus.
    pub fn most_disks(self) -> usize {
        match self {
            Self::Virtio => 16,
            Self::Sata => 6,
        }
    }
}

/// A kernel that is started without a boot loader. Its files are read at each start, and belong to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The kernel's file, an absolute path.
    pub kernel: PathBuf,
    /// Its first file system, an absolute path.
    pub initrd: Option<PathBuf>,
    /// Its arguments.
    pub command_line: String,
}

/// What a machine that QEMU runs consists of, beside memory and disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hardware {
    /// Virtual processors.
    pub processors: u32,
    /// What disks are attached to.
    pub bus: DiskBus,
    /// A network card behind the user's own connections.
    pub network: bool,
    /// Instead of what the first disk boots.
    pub boot: Option<Boot>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self { processors: 1, bus: DiskBus::Virtio, network: false, boot: None }
    }
}

/// What a machine that QEMU runs has, beside its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Computer {
    /// Its memory.
    pub memory: ByteCount,
    /// Its parts.
    pub hardware: Hardware,
}

/// More processors than QEMU's machine takes.
const MAX_PROCESSORS: u32 = 255;
/// Longest command line of a kernel that its boot protocol is sure to take.
const MAX_COMMAND_LINE: usize = 2047;

impl Hardware {
    /// Why there can be no such machine with so many disks, if there can't.
    pub fn problem(&self, disks: usize) -> Option<String> {
        let most = self.bus.most_disks();
        if !(1..=MAX_PROCESSORS).contains(&self.processors) {
            return Some(format!("{} processors; 1 to {MAX_PROCESSORS} can be", self.processors));
        }
        if disks > most {
            return Some(format!("{disks} disks; there is room for {most} on this bus"));
        }
        let boot = self.boot.as_ref()?;
        let paths = [Some(&boot.kernel), boot.initrd.as_ref()];
        if let Some(path) = paths.into_iter().flatten().find(|path| !path.is_absolute() || path.to_str().is_none()) {
            return Some(format!("{} must be an absolute path in UTF-8", path.display()));
        }
        let line = &boot.command_line;
        if line.len() > MAX_COMMAND_LINE || line.chars().any(char::is_control) {
            return Some(format!("the kernel's arguments must be one line of at most {MAX_COMMAND_LINE} bytes"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Configuration;

    #[test]
    fn a_manifest_from_before_there_was_hardware_is_read() {
        let before = r#"{"memory": 4096, "disks": [], "workload": {}}"#;
        let configuration: Configuration = serde_json::from_str(before).unwrap();
        assert_eq!(configuration.hardware, None);
        let written = serde_json::to_string(&configuration).unwrap();
        assert!(!written.contains("hardware"), "an older program reads it too: {written}");
        assert!(serde_json::from_str::<Hardware>(r#"{"processors": 2, "wings": 2}"#).is_err());
    }
}
