//! Commands in, events out. One worker owns the state; a job runs in bounded steps.
//!
//! ```text
//! click / verb ─> Request ─> admission (or: why not) ─> job, step by step ─> Event ─> model ─> frame
//!                    │                                        │
//!                    └── in process, or over a socket to the owner of a running machine: same values
//! ```

mod admission;
mod agent;
mod around;
mod command;
mod entry;
mod event;
mod folder;
mod hand_over;
mod handle;
mod jobs;
mod owner;
mod planning;
mod powershell;
mod probe;
mod refusal;
mod room;
mod running;
mod serve;
mod sight;
mod state;
mod steps;
mod wire;
mod worker;

pub use agent::Agent;
pub use command::{Command, ConvertImage, CreateMachine, Import, ImportMode, JobAction, Mode, RepairFolder, Request, RequestId};
pub use event::{Answer, Event, JobId, JobKind, JobPhase, JobState, LatencyReport, Plan, Refusal, RefusalKind, RepairView};
pub use folder::{FolderLook, look_into};
pub use handle::EngineHandle;
pub use planning::{AgentState, Expected, Pin, PlanState, VolumeHistory};
pub use powershell::{has_powershell, powershell};
pub use serve::{guest_is_left, serve};
pub use state::{LibraryState, MachineState, Place, Power};
pub use worker::{Engine, EngineOptions, SubscriberId};

pub use crate::cost::{FileFacts, VolumeState};
pub use crate::vm::{Outside, Screen, VerifyReport, WorkloadCounters};

#[cfg(test)]
mod tests;
