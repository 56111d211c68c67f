//! What a volume can do is found out before the first merge.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Bench, quick};
use crate::clock::{Clock, SharedClock};
use crate::cost::Basis;
use crate::engine::Command;
use crate::snapshot::MachineId;
use crate::store::{History, HistoryRecord};
use crate::testing::{FakeClock, MemHost};
use crate::units::ByteCount;

/// A computer on which everything takes longer than a slice of looking at files.
#[derive(Debug)]
struct Slow(Mutex<Duration>);

impl Clock for Slow {
    fn now(&self) -> DateTime<Utc> {
        FakeClock::noon().now() + *self.0.lock().unwrap()
    }
    fn elapsed(&self) -> Duration {
        let mut elapsed = self.0.lock().unwrap();
        *elapsed += Duration::from_millis(100);
        *elapsed
    }
}

fn open(host: &MemHost) -> Bench {
    let clock: SharedClock = std::sync::Arc::new(Slow(Mutex::default()));
    Bench::at(tempfile::tempdir().unwrap(), host.shared(), "/library".into(), clock)
}

/// A library with a machine whose merge is due, on a volume of which nothing is known.
fn due() -> (MemHost, MachineId) {
    let host = MemHost::new();
    let mut bench = Bench::in_memory(&host);
    let machine = bench.create("WEB01", ByteCount::mib(1), &[ByteCount::mib(64)], quick());
    bench.take(machine, "a", false);
    let b = bench.take(machine, "b", false);
    bench.done(Command::Delete { machine, snapshots: vec![b], subtree: false, free_now: false });
    drop(bench);
    History::of(&host.shared(), "/library/WEB01".as_ref()).clear().unwrap();
    (host, machine)
}

fn look(bench: &mut Bench) {
    for _ in 0..60 {
        bench.engine.tick();
    }
    bench.done(Command::MakePlan);
    bench.hear();
}

fn written(host: &MemHost) -> usize {
    let history = History::of(&host.shared(), "/library/WEB01".as_ref()).read().unwrap();
    history.iter().filter(|record| matches!(record, HistoryRecord::Merge { probe: true, .. })).count()
}

#[test]
fn a_machine_is_probed_though_counting_it_took_more_than_a_slice() {
    let (host, _) = due();
    let mut bench = open(&host);
    look(&mut bench);
    let time = bench.plan.clone().unwrap().plan.merges[0].time.expect("a time");
    assert_eq!((time.basis, written(&host)), (Basis::Probe, 1));
}

#[test]
fn a_probe_counts_though_somebody_else_has_the_machine() {
    let (host, machine) = due();
    let mut elsewhere = Bench::in_memory(&host);
    elsewhere.engine.own(machine).expect("nobody has it");
    History::of(&host.shared(), "/library/WEB01".as_ref()).clear().unwrap();
    let mut bench = open(&host);
    look(&mut bench);
    let time = bench.plan.clone().unwrap().plan.merges[0].time.expect("a time");
    assert_eq!((time.basis, written(&host)), (Basis::Probe, 0));
}
