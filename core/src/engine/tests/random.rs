//! Long random sequences against a plain model: label -> content.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Bench, quick};
use crate::engine::{Command, RefusalKind};
use crate::snapshot::{DiskId, MachineId, SnapshotId};
use crate::testing::Random;
use crate::units::ByteCount;

type Content = BTreeMap<DiskId, Vec<u8>>;

/// What must be true of the machine.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<SnapshotId, Content>,
    deleted: BTreeMap<SnapshotId, Content>,
    now: Content,
    before_apply: Option<Content>,
}

fn check(bench: &mut Bench, machine: MachineId, model: &Model, seed: u64, step: usize) {
    let state = bench.state(machine);
    assert_eq!(
        state.machine.snapshots.keys().collect::<Vec<_>>(),
        model.nodes.keys().collect::<Vec<_>>(),
        "seed {seed}, step {step}"
    );
    for (id, content) in &model.nodes {
        assert!(bench.content(machine, Some(*id)) == *content, "seed {seed}, step {step}: {id} has changed");
    }
    assert!(bench.content(machine, None) == model.now, "seed {seed}, step {step}: Now has changed");
}

/// Does it, unless a rule says that there is nothing to do.
fn done_or_idle(bench: &mut Bench, command: Command) {
    if let Err(refusal) = bench.ask(command) {
        assert_eq!(refusal.kind, RefusalKind::Rule, "{refusal}");
    }
}

fn sequence(seed: u64, until: Instant) -> usize {
    let mut random = Random::new(seed);
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &[ByteCount::mib(6), ByteCount::mib(4)], quick());
    let mut model = Model { now: bench.content(machine, None), ..Model::default() };
    for step in 0..60 {
        if Instant::now() > until {
            return step;
        }
        let nodes: Vec<_> = model.nodes.keys().copied().collect();
        let picked = (!nodes.is_empty()).then(|| nodes[random.below(nodes.len() as u64) as usize]);
        match (random.below(9), picked) {
            (0 | 1, _) => {
                bench.work(machine, 60);
                model.now = bench.content(machine, None);
            }
            (2 | 3, _) if nodes.len() < 9 => {
                let id = bench.take(machine, &format!("s{step}"), false);
                model.nodes.insert(id, model.now.clone());
            }
            (4, Some(snapshot)) => {
                bench.done(Command::Apply { machine, snapshot, safety: None });
                let applied = model.nodes[&snapshot].clone();
                model.before_apply = Some(std::mem::replace(&mut model.now, applied));
            }
            (5, _) => {
                let undone = bench.ask(Command::UndoApply(machine));
                if undone.is_ok() {
                    // Undoing can itself be undone.
                    let before = model.before_apply.as_mut().expect("there was an apply to undo");
                    std::mem::swap(&mut model.now, before);
                }
            }
            (6, Some(snapshot)) => {
                bench.done(Command::Delete {
                    machine,
                    snapshots: vec![snapshot],
                    subtree: false,
                    free_now: random.below(4) == 0,
                });
                if let Some(content) = model.nodes.remove(&snapshot) {
                    model.deleted.insert(snapshot, content);
                }
            }
            (7, _) => {
                let deleted: Vec<_> = model.deleted.keys().copied().collect();
                for snapshot in deleted {
                    if bench.ask(Command::Undelete { machine, snapshot }).is_ok()
                        && let Some(content) = model.deleted.remove(&snapshot)
                    {
                        model.nodes.insert(snapshot, content);
                        break;
                    }
                }
            }
            (8, _) => match random.below(3) {
                0 => done_or_idle(&mut bench, Command::Merge { machine, disk: None, limit: None, until: None }),
                1 => done_or_idle(&mut bench, Command::EmptyTrash { machine, all: true }),
                _ => {
                    bench = bench.reopen();
                    bench.pass(Duration::from_millis(5));
                }
            },
            _ => {}
        }
        check(&mut bench, machine, &model, seed, step);
    }
    done_or_idle(&mut bench, Command::Merge { machine, disk: None, limit: None, until: None });
    check(&mut bench, machine, &model, seed, 60);
    60
}

/// `SNAPTREE_SEED` reproduces one sequence; `SNAPTREE_SECONDS` sets the time.
#[test]
fn random_sequences_agree_with_a_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let until = Instant::now() + Duration::from_secs(number("SNAPTREE_SECONDS").unwrap_or(15));
    let whole = Instant::now() + Duration::from_secs(600);
    if let Some(seed) = number("SNAPTREE_SEED") {
        sequence(seed, whole);
        return;
    }
    // The first one is done to its end, however slow the machine is.
    let (mut seed, mut steps) = (2, sequence(1, whole));
    while Instant::now() < until {
        steps += sequence(seed, until);
        seed += 1;
    }
    println!("{} sequences, {steps} steps", seed - 1);
}
