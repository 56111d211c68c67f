//! Everything of a plan, in words: each merge one sentence with its figures.

mod dates;
mod finding;
mod verdict;
mod window;

use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::MachineId;
use snaptree_core::window::{MaintenanceWindow, PlannedMerge, WindowId};

use crate::text::list;

pub use dates::{about, growth, minute, span, spare};
pub use finding::{agent, finding, missed, volume};
pub use verdict::{live, machine_verdict, reason, short_verdict, tone, verdict};
pub use window::window;

/// The names of machines.
pub type Names<'a> = &'a dyn Fn(MachineId) -> String;

/// A merge as people know it: the machine's name; with the disk's, where several of its disks are due.
pub fn merge_name(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>) -> String {
    let name = names(merge.machine);
    let others = plan.plan.merges.iter().filter(|other| other.machine == merge.machine).count();
    if others > 1 { format!("{name} ({})", merge.disk) } else { name }
}

/// A volume as people know it: by the machines whose merges are on it; its own name says nothing to anybody.
pub fn volume_name(id: &str, plan: &PlanState, names: Names<'_>) -> String {
    if plan.plan.volumes.len() == 1 {
        return "the library's volume".into();
    }
    let here = plan.plan.merges.iter().filter(|merge| merge.volume == id);
    let mut machines: Vec<String> = here.map(|merge| names(merge.machine)).collect();
    machines.sort();
    machines.dedup();
    if machines.is_empty() { format!("the volume {id}") } else { format!("the volume of {}", list(&machines)) }
}

/// A window of the plan.
pub fn window_of(plan: &PlanState, id: WindowId) -> Option<&MaintenanceWindow> {
    plan.windows.iter().find(|window| window.id == id)
}

/// A window's name.
pub fn window_name(plan: &PlanState, id: WindowId) -> &str {
    window_of(plan, id).map_or("a window that is gone", |window| &window.name)
}

/// Every one of them: "a, b and c".
fn all(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
pub mod fabricated;
#[cfg(test)]
mod tests;
