//! Jobs under way, answers that are waited for, and notices of what ended.

use std::collections::HashMap;
use std::path::PathBuf;

use snaptree_core::chain::Inspection;
use snaptree_core::diagnose::Diagnosis;
use snaptree_core::engine::{Answer, Command, JobPhase, JobState, Plan, Refusal, RefusalKind, RepairView, RequestId};
use snaptree_core::snapshot::MachineId;

/// Something that ended, to be told once.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// About which machine.
    pub machine: Option<MachineId>,
    /// What to say.
    pub text: String,
    /// Whether it went wrong.
    pub bad: bool,
    /// Whether it can be undone with one click.
    pub undo: bool,
}

/// Why a request is under way.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    command: Command,
    /// The plan is shown in the dialog that is open; no notice.
    plan: bool,
}

/// Jobs, newest last, and what was asked.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Vec<JobState>,
    asked: HashMap<RequestId, Asked>,
    plans: HashMap<RequestId, Result<Plan, String>>,
    inspections: HashMap<RequestId, Inspection>,
    diagnoses: HashMap<RequestId, Diagnosis>,
    repairs: HashMap<RequestId, RepairView>,
    notices: Vec<Notice>,
    /// A machine that was just created or imported, to be shown.
    pub created: Option<MachineId>,
    /// A folder that was just opened, whose first machine is to be shown.
    pub opened: Option<PathBuf>,
    /// Files were put right, or put back.
    pub repaired: bool,
}

/// Finished jobs that the drop-down still shows.
const KEPT: usize = 20;

impl Jobs {
    pub(super) fn update(&mut self, job: JobState) {
        match self.jobs.iter_mut().find(|j| j.id == job.id) {
            Some(known) => *known = job,
            None => self.jobs.push(job),
        }
        let ended = self.jobs.iter().filter(|j| is_ended(j)).count();
        if ended > KEPT
            && let Some(oldest) = self.jobs.iter().position(is_ended)
        {
            self.jobs.remove(oldest);
        }
    }

    pub(super) fn answer(&mut self, request: RequestId, answer: Result<Answer, Refusal>) {
        let Some(asked) = self.asked.remove(&request) else { return };
        if asked.plan {
            let plan = match answer {
                Ok(Answer::Plan(plan)) => Ok(*plan),
                Ok(Answer::Inspected(seen)) => {
                    self.inspections.insert(request, *seen);
                    Ok(Plan::Other)
                }
                Ok(Answer::RepairPlanned(view)) => {
                    self.repairs.insert(request, *view);
                    Ok(Plan::Other)
                }
                Ok(Answer::Diagnosed(found)) => {
                    self.diagnoses.insert(request, *found);
                    Ok(Plan::Other)
                }
                Ok(_) => Ok(Plan::Other),
                Err(refusal) => Err(refusal.reason),
            };
            self.plans.insert(request, plan);
            return;
        }
        let machine = asked.command.machine();
        let undo = matches!(asked.command, Command::Delete { .. } | Command::Apply { .. });
        let quiet = matches!(asked.command, Command::Rescan | Command::SetNote { .. } | Command::Job { .. });
        match answer {
            Ok(answer) => {
                if let Command::OpenFolder(folder) = &asked.command {
                    self.opened = Some(folder.clone());
                }
                self.repaired |= matches!(asked.command, Command::Repair(_) | Command::UndoRepair(_) | Command::ForgetRepairs(_));
                let text = match answer {
                    Answer::Done(text) => text,
                    Answer::Taken { latency: Some(l), .. } => {
                        format!("Snapshot taken. The machine stood still for {}.", crate::text::short_duration(l.pause))
                    }
                    Answer::Taken { latency: None, .. } => "Snapshot taken.".into(),
                    Answer::Created(id) => {
                        self.created = Some(id);
                        "The machine is in the library.".into()
                    }
                    Answer::Verified(report) if report.wrong.is_empty() => {
                        format!(
                            "Verified {} of disks and {} of memory.",
                            crate::text::bytes(report.disk),
                            crate::text::bytes(report.memory)
                        )
                    }
                    Answer::Verified(report) => format!("Wrong: {}", report.wrong.join("; ")),
                    Answer::Plan(_) | Answer::Inspected(_) | Answer::Diagnosed(_) | Answer::RepairPlanned(_) => String::new(),
                };
                if !quiet && !text.is_empty() {
                    let text = notice(&text);
                    self.notices.push(Notice { machine, text, bad: false, undo });
                }
            }
            Err(refusal) => {
                let (text, bad) = match refusal.kind {
                    RefusalKind::Rule => (refusal.reason, true),
                    RefusalKind::Failed => match self.cancelled(machine, &refusal.reason) {
                        Some(kept) => (format!("Cancelled: {kept}"), false),
                        None => (format!("That failed: {}", refusal.reason), true),
                    },
                };
                self.notices.push(Notice { machine, text: notice(&text), bad, undo: false });
            }
        }
    }

    /// What the last job says of its cancelling, if that is why the request failed: the job is told before its answer.
    fn cancelled(&self, machine: Option<MachineId>, reason: &str) -> Option<&str> {
        let last = self.jobs.iter().rfind(|job| machine.is_none_or(|machine| job.machine == machine))?;
        match &last.phase {
            JobPhase::Cancelled(kept) if reason.ends_with(kept.as_str()) => Some(kept),
            _ => None,
        }
    }

    /// A request was sent.
    pub fn sent(&mut self, request: RequestId, command: Command, plan: bool) {
        self.asked.insert(request, Asked { command, plan });
    }

    /// The plan that was asked for, once it is there.
    pub fn plan(&self, request: RequestId) -> Option<&Result<Plan, String>> {
        self.plans.get(&request)
    }

    /// What was seen of an image, once it was looked into.
    pub fn inspection(&self, request: RequestId) -> Option<&Inspection> {
        self.inspections.get(&request)
    }

    /// What was found in a folder, once it was looked at.
    pub fn diagnosis(&self, request: RequestId) -> Option<&Diagnosis> {
        self.diagnoses.get(&request)
    }

    /// What a repair would do, once it is planned.
    pub fn repair(&self, request: RequestId) -> Option<&RepairView> {
        self.repairs.get(&request)
    }

    /// A plan is no longer wanted.
    pub fn forget_plan(&mut self, request: RequestId) {
        self.plans.remove(&request);
        self.inspections.remove(&request);
        self.diagnoses.remove(&request);
        self.repairs.remove(&request);
        self.asked.remove(&request);
    }

    /// The notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Says something that didn't come from the engine.
    pub fn tell(&mut self, text: impl Into<String>, bad: bool) {
        self.notices.push(Notice { machine: None, text: text.into(), bad, undo: false });
    }

    /// All jobs, newest last.
    pub fn all(&self) -> &[JobState] {
        &self.jobs
    }

    /// Jobs that haven't ended.
    pub fn under_way(&self) -> impl Iterator<Item = &JobState> {
        self.jobs.iter().filter(|j| !is_ended(j))
    }

    /// The job of a machine that hasn't ended: the one that came in between, where a merge waits for another.
    pub fn of(&self, machine: MachineId) -> Option<&JobState> {
        self.under_way().filter(|j| j.machine == machine).last()
    }
}

/// What is told, as a sentence.
fn notice(text: &str) -> String {
    let end = if text.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{}{end}", crate::text::sentence(text))
}

/// Whether nothing more will come of it.
pub fn is_ended(job: &JobState) -> bool {
    matches!(job.phase, JobPhase::Done(_) | JobPhase::Cancelled(_) | JobPhase::Failed(_))
}
