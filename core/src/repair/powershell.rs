//! What makes Hyper-V agree with a repair, on its own host.

use std::path::Path;

use super::{Change, Plan};
use crate::hyperv::quoted;

/// The commands by which Hyper-V takes over what a repair has changed: it writes the links with its own paths, and checks
/// each chain. The first line says where the folder is on the host. None where nothing that has a parent was changed.
pub fn powershell(plan: &Plan) -> Vec<String> {
    let at = |path: &Path| {
        let inside = path.strip_prefix(&plan.folder).unwrap_or(path);
        let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        format!("(Join-Path $folder {})", quoted(&parts.join("\\")))
    };
    let set = |child: &Path, parent: &Path, more: &str| format!("Set-VHD -Path {} -ParentPath {}{more}", at(child), at(parent));
    let mut links = Vec::new();
    let mut tests = Vec::new();
    for step in &plan.steps {
        links.push(match &step.change {
            Change::Reconnect { child, parent, .. } => set(child, parent, ""),
            Change::Relink { child, parent, .. } => set(child, parent, " -IgnoreIdMismatch"),
            Change::Merge { into, parent, .. } => set(into, parent, ""),
            Change::SetAside { .. } => continue,
        });
        tests.push(format!("Test-VHD -Path {}", at(step.change.image())));
    }
    if links.is_empty() {
        return links;
    }
    let folder = format!("$folder = {} # where the folder is on the host", quoted(&plan.folder.to_string_lossy()));
    [folder].into_iter().chain(links).chain(tests).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use uuid::Uuid;

    use super::*;
    use crate::repair::{Exposed, Step};

    #[test]
    fn a_repair_is_taken_over_by_the_host() {
        let step = |change| Step { change, words: String::new(), warnings: Vec::new() };
        let path = |name: &str| PathBuf::from("/mnt/vms").join(name);
        let id = Uuid::nil();
        let mut plan = Plan {
            folder: PathBuf::from("/mnt/vms"),
            steps: vec![
                step(Change::Reconnect { child: path("one.avhdx"), parent: path("old/base's.vhdx"), id }),
                step(Change::Relink { child: path("two.avhdx"), parent: path("one.avhdx"), id, may_differ: Exposed::default() }),
                step(Change::SetAside { image: path("x.avhdx"), to: path("Set aside/x.avhdx") }),
            ],
            refused: Vec::new(),
            in_use: None,
        };
        assert_eq!(
            powershell(&plan),
            [
                "$folder = '/mnt/vms' # where the folder is on the host",
                r"Set-VHD -Path (Join-Path $folder 'one.avhdx') -ParentPath (Join-Path $folder 'old\base''s.vhdx')",
                r"Set-VHD -Path (Join-Path $folder 'two.avhdx') -ParentPath (Join-Path $folder 'one.avhdx') -IgnoreIdMismatch",
                r"Test-VHD -Path (Join-Path $folder 'one.avhdx')",
                r"Test-VHD -Path (Join-Path $folder 'two.avhdx')",
            ]
        );
        plan.steps.drain(..2);
        assert_eq!(powershell(&plan), Vec::<String>::new());
    }
}
