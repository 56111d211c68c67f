//! Measures what a live snapshot costs the built-in machine: 4 disks, every page of memory dirty; at full load, and idle.
//!
//! measure_take [MIB ...]     memory sizes; 64 and 1024 where none is given

use std::time::Duration;

use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{Command, LatencyReport};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::{MachineId, WorkloadProfile};
use snaptree_core::store::MachineStore;
use snaptree_core::units::ByteCount;
use snaptree_tests::driver::Driver;
use snaptree_tests::measure::Spread;

const TAKES: usize = 7;
const DISKS: [ByteCount; 4] = [ByteCount::mib(64); 4];

fn take(driver: &mut Driver, machine: MachineId) -> LatencyReport {
    driver.pass(Duration::from_millis(500));
    let (snapshot, latency) = driver.take(machine, "measured", true);
    driver.done(Command::Delete { machine, snapshots: vec![snapshot], subtree: false, free_now: true });
    latency.expect("the machine ran")
}

fn print(memory: ByteCount, load: &str, reports: &[LatencyReport]) {
    let of = |value: fn(&LatencyReport) -> f64| Spread::of(reports.iter().map(value));
    println!("{} MiB, 4 disks, {load}, {} takes:", memory.0 >> 20, reports.len());
    println!("    pause, ms             {}", of(|report| report.pause.as_secs_f64() * 1e3));
    println!("    save, s               {}", of(|report| report.save.as_secs_f64()));
    println!("    intercepted writes    {}", of(|report| report.intercepted_writes as f64));
    println!("    longest stall, ms     {}", of(|report| report.longest_stall.as_secs_f64() * 1e3));
}

/// The same memory, but a machine that hardly does anything.
fn make_idle(driver: &mut Driver, machine: MachineId) {
    let folder = driver.state(machine).folder.clone();
    let mut store = MachineStore::open(&OsHost::shared(), &SystemClock::shared(), &folder).expect("the machine's folder");
    let mut changed = store.machine().clone();
    let workload = &mut changed.configuration.workload;
    (workload.page_writes_per_second, workload.disk_writes_per_second, workload.frames_per_second) = (1, 1, 1);
    store.publish(changed).expect("a manifest");
}

fn measure(memory: ByteCount) {
    let workload =
        WorkloadProfile { seed: 1, page_writes_per_second: 0, disk_writes_per_second: 0, hot_share: 0.0, frames_per_second: 10 };
    let mut driver = Driver::new();
    let machine = driver.create("m", memory, &DISKS, workload);
    driver.done(Command::Start(machine));
    // Without a hot part, the writers walk through all of memory.
    let pages = memory.0 / 4096;
    driver.pass_until("every page is dirty", |driver| {
        driver.counters.get(&machine).is_some_and(|counters| counters.page_writes > pages + pages / 4)
    });
    let reports: Vec<_> = (0..TAKES).map(|_| take(&mut driver, machine)).collect();
    print(memory, "as fast as it can", &reports);

    let (snapshot, _) = driver.take(machine, "dirty", true);
    driver.done(Command::Stop(machine));
    driver.done(Command::Apply { machine, snapshot, safety: None });
    make_idle(&mut driver, machine);
    let mut driver = driver.reopen();
    driver.done(Command::Start(machine));
    let reports: Vec<_> = (0..TAKES).map(|_| take(&mut driver, machine)).collect();
    print(memory, "idle", &reports);
    driver.done(Command::Stop(machine));
}

fn main() {
    let sizes: Vec<u64> = std::env::args().skip(1).map(|size| size.parse().expect("memory in MiB")).collect();
    for memory in if sizes.is_empty() { vec![64, 1024] } else { sizes } {
        measure(ByteCount::mib(memory));
    }
}
