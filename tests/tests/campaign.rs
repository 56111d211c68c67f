//! A minute of the campaign; `cargo run -p snaptree-tests --bin campaign` goes on as long as it is told to.

use std::time::Duration;

use snaptree_tests::campaign::{Extent, Report, memory};

/// Half a minute each, if the least is done by then.
const TIME: Duration = Duration::from_secs(30);

fn passed(report: &Report, extent: Extent) {
    println!("from seed {}\n{report}", extent.seed);
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.operations() > 20 && report.verified > 20 << 20, "too little was done: {report}");
}

#[test]
fn on_a_volume_that_fails() {
    let extent = Extent { seed: 1000, time: TIME, rounds: u64::MAX, least_rounds: 12, traces: false };
    let mut report = Report::default();
    memory::campaign(extent, &mut report);
    passed(&report, extent);
    for kind in ["kill", "power loss", "no space", "failed writes"] {
        assert!(report.faults_of(kind) > 0, "no {kind}: {report}");
    }
}

#[test]
fn a_seed_is_always_the_same_round() {
    let once = || {
        let mut report = Report::default();
        memory::campaign(Extent { seed: 7, time: TIME, rounds: 1, least_rounds: 1, traces: false }, &mut report);
        report
    };
    let first = once();
    assert_eq!(first, once());
    assert!(first.operations() > 20, "{first}");
}

#[cfg(unix)]
#[test]
fn with_processes_that_are_killed() {
    use snaptree_tests::campaign::processes;
    let extent = Extent { seed: 1000, time: TIME, rounds: u64::MAX, least_rounds: 1, traces: false };
    let mut report = Report::default();
    processes::campaign(&snaptree_tests::program::program(), extent, &mut report);
    passed(&report, extent);
    assert!(report.faults_of("client killed") > 0 && report.faults_of("owner killed") > 0, "nothing was killed: {report}");
}
