//! Long random sequences against the model.

use super::*;
use crate::testing::Random;

#[test]
fn random_sequences_keep_every_node() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut world = World::new(1 + (seed % 2) as usize);
        let step = std::panic::AssertUnwindSafe(|| {
            for n in 0..90 {
                random_step(&mut world, &mut random, n);
            }
        });
        if let Err(panic) = std::panic::catch_unwind(step) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> Option<T> {
    if from.is_empty() { None } else { Some(from[random.below(from.len() as u64) as usize]) }
}

fn random_step(world: &mut World, random: &mut Random, n: u32) {
    let snapshots: Vec<SnapshotId> = world.machine.snapshots.keys().copied().collect();
    let ghosts: Vec<SnapshotId> = world.machine.ghosts.keys().copied().collect();
    let context = Context::default();
    for _ in 0..random.below(4) {
        let disk = random.below(world.disks.len() as u64) as usize;
        world.write(disk, random.below(20) as u8);
    }
    match random.below(12) {
        0..=3 => drop(world.take(&format!("s{n}"), random.chance(1, 2))),
        4 => {
            if let Some(id) = pick(random, &snapshots) {
                world.apply(id);
            }
        }
        5 => {
            if rules::undo_apply(&world.machine, &context).is_ok() {
                world.undo_apply();
            }
        }
        6 | 7 => {
            if let Some(id) = pick(random, &snapshots) {
                let runs = world.tree().runs();
                let outcome = world.delete(&[id], random.chance(1, 5));
                let after = world.tree().runs();
                let new: Vec<Run> = after.into_iter().filter(|run| !runs.contains(run)).collect();
                assert_eq!(outcome.runs, new);
                for image in &outcome.images {
                    let readers = world.machine.images.values().filter(|record| record.parent == Some(image.image)).count();
                    match &image.fate {
                        Fate::FreesNow => assert!(!world.machine.images.contains_key(&image.image)),
                        Fate::Merges(_) => assert_eq!(readers, 1),
                        Fate::FreesNothing(_) => assert!(readers >= 2),
                    }
                }
            }
        }
        8 | 9 => {
            if let Some(id) = pick(random, &ghosts).filter(|id| rules::undelete(&world.machine, &context, *id).is_ok()) {
                world.undelete(id);
                assert!(world.machine.snapshots.contains_key(&id));
            }
        }
        10 => {
            let runs = world.tree().runs();
            if let Some(run) = (!runs.is_empty()).then(|| runs[random.below(runs.len() as u64) as usize].clone()) {
                world.merge(&run);
            }
        }
        _ => {
            if random.chance(1, 3) {
                world.follow(empty_trash(&world.machine, TrashSelection::All));
            } else {
                let before = world.machine.clone();
                if let Some(id) = pick(random, &snapshots) {
                    world.delete(&[id], random.chance(1, 2));
                    world.undelete(id);
                    assert_eq!(world.machine, before, "taking a deletion back at once changes nothing");
                }
            }
        }
    }
}
