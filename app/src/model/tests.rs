//! Events go in, figures come out.

use std::rc::Rc;
use std::sync::Arc;

use snaptree_core::engine::{
    Answer, Command, Event, JobKind, JobPhase, LibraryState, MachineState, Power, Refusal, RequestId, WorkloadCounters,
};

use super::{Model, fabricated};

fn model() -> (Model, MachineState) {
    let mut model = Model::new(fabricated::today(), chrono::FixedOffset::east_opt(0).expect("UTC"));
    let state = fabricated::web01(std::path::Path::new("/nowhere"));
    let library = LibraryState { machines: vec![state.machine.id], ..LibraryState::default() };
    model.apply(Event::Library(Arc::new(library)));
    (model, state)
}

#[test]
fn the_library_is_read_once_all_its_machines_are_told() {
    let (mut model, state) = model();
    assert!(!model.is_read() && !model.is_empty());
    let id = state.machine.id;
    model.apply(Event::Machine(Arc::new(state)));
    assert!(model.is_read());
    assert_eq!(model.library_machines(), [id]);
    model.apply(Event::Gone(id));
    assert!(model.machine(Some(id)).is_none());
}

#[test]
fn a_tree_is_laid_out_again_only_when_it_has_changed() {
    let (mut model, state) = model();
    let id = state.machine.id;
    model.apply(Event::Machine(Arc::new(state.clone())));
    let tree = model.machines[&id].tree.clone();
    let mut paused = state.clone();
    paused.power = Power::Paused;
    model.apply(Event::Machine(Arc::new(paused)));
    assert!(Rc::ptr_eq(&tree, &model.machines[&id].tree));
    let mut changed = (*state.machine).clone();
    changed.snapshots.values_mut().for_each(|s| s.label += " once more");
    model.apply(Event::Machine(Arc::new(MachineState { machine: Arc::new(changed), ..state })));
    assert!(!Rc::ptr_eq(&tree, &model.machines[&id].tree));
}

#[test]
fn a_screen_is_shown_only_while_the_machine_runs() {
    let (mut model, state) = model();
    let id = state.machine.id;
    let live = || Event::Live { machine: id, screen: Arc::new(fabricated::screen(1)), counters: WorkloadCounters::default() };
    model.apply(live());
    assert!(model.machine(Some(id)).is_none(), "a screen makes no machine");
    model.apply(Event::Machine(Arc::new(state.clone())));
    model.apply(live());
    assert!(model.machines[&id].live.is_some());
    let off = MachineState { power: Power::Failed("its owner process has ended".into()), ..state };
    model.apply(Event::Machine(Arc::new(off)));
    assert!(model.machines[&id].live.is_none() && !model.machines[&id].is_up());
}

#[test]
fn a_job_is_under_way_until_it_ends() {
    let (mut model, state) = model();
    let id = state.machine.id;
    let mut job = fabricated::job("WEB01", JobKind::Merge, "Merging disk0");
    model.apply(Event::Job(job.clone()));
    assert!(model.jobs.of(id).is_some());
    job.phase = JobPhase::Done("1 merge".into());
    model.apply(Event::Job(job));
    assert!(model.jobs.of(id).is_none());
    assert_eq!(model.jobs.all().len(), 1, "the same job, not another one");
}

#[test]
fn only_so_many_ended_jobs_are_kept() {
    let (mut model, _) = model();
    for i in 0..50 {
        let mut job = fabricated::job("WEB01", JobKind::Take, &format!("Taking {i}"));
        job.phase = JobPhase::Done(String::new());
        model.apply(Event::Job(job));
    }
    assert_eq!(model.jobs.all().len(), 20);
    assert_eq!(model.jobs.all()[0].title, "Taking 30");
}

#[test]
fn an_answer_becomes_a_sentence_and_a_refused_plan_none() {
    let (mut model, state) = model();
    let machine = state.machine.id;
    let snapshot = fabricated::snapshot_id("WEB01", 1);
    let answer = |n, answer| Event::Answer { request: RequestId(n), answer };
    model.jobs.sent(RequestId(1), Command::Apply { machine, snapshot, safety: None }, false);
    model.apply(answer(1, Ok(Answer::Done("it goes on from that instant".into()))));
    let told = model.jobs.take_notices();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].text.as_str(), told[0].undo, told[0].machine), ("It goes on from that instant.", true, Some(machine)));

    model.jobs.sent(RequestId(2), Command::Stop(machine), true);
    model.apply(answer(2, Err(Refusal::rule("It doesn't run."))));
    assert!(model.jobs.take_notices().is_empty());
    assert_eq!(model.jobs.plan(RequestId(2)), Some(&Err("It doesn't run.".into())));

    model.apply(answer(3, Err(Refusal::rule("Somebody else's."))));
    assert!(model.jobs.take_notices().is_empty(), "what others asked isn't told here");
}

#[test]
fn a_job_that_was_cancelled_has_not_failed() {
    let (mut model, state) = model();
    let machine = state.machine.id;
    let mut job = fabricated::job("WEB01", JobKind::Merge, "Merging");
    let mut told = |phase, reason: &str| {
        job.phase = phase;
        model.apply(Event::Job(job.clone()));
        model.jobs.sent(RequestId(1), Command::Merge { machine, disk: None, limit: None, until: None }, false);
        model.apply(Event::Answer { request: RequestId(1), answer: Err(Refusal::failed(reason)) });
        model.jobs.take_notices().into_iter().map(|n| (n.text, n.bad)).collect::<Vec<_>>()
    };
    let cancelled = || JobPhase::Cancelled("half of it is moved".into());
    assert_eq!(told(cancelled(), "cancelled: half of it is moved"), [("Cancelled: half of it is moved.".into(), false)]);
    assert_eq!(told(cancelled(), "the disk is full"), [("That failed: the disk is full.".into(), true)]);
    let failed = JobPhase::Failed("the disk is full".into());
    assert_eq!(told(failed, "the disk is full"), [("That failed: the disk is full.".into(), true)]);
}

#[test]
fn what_deletions_of_a_large_tree_lead_to_is_found_beside_the_frames() {
    let (mut model, _) = model();
    let state = Arc::new(fabricated::large(1200, std::path::Path::new("/nowhere")));
    let id = state.machine.id;
    let wanted = fabricated::snapshot_id("LARGE", 700);
    model.apply(Event::Machine(state.clone()));
    let figures = &model.machines[&id].figures;
    assert!(figures.deletion(wanted).is_none());
    assert!(figures.new_frame(), "another frame is wanted");
    let start = std::time::Instant::now();
    let found = loop {
        if let Some(found) = figures.deletion(wanted) {
            break found;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "no answer came");
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let right = snaptree_core::cost::deletion_cost(&state.facts(), &[wanted], false).expect("it is there");
    assert_eq!(*found, right);
}
