//! Random operations on several machines, with faults, and every invariant checked after each of them.
//!
//! ```text
//! memory     the engine in this process on a volume in memory that kills, loses power, fills up and fails: a seed
//!            is a round, exactly the same each time
//! processes  the built program on real files, its processes killed with -9 at random instants
//! model      what each machine's nodes must show
//! ```

mod desk;
pub mod memory;
pub mod model;
#[cfg(unix)]
pub mod processes;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use snaptree_core::units::ByteCount;

/// What a campaign has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rounds, each with machines of its own.
    pub rounds: u64,
    /// Operations by kind that were carried out.
    pub done: BTreeMap<&'static str, u64>,
    /// Operations by kind that a rule refused, with nothing touched.
    pub refused: BTreeMap<&'static str, u64>,
    /// Operations by kind that a fault has cut off or made fail.
    pub failed: BTreeMap<&'static str, u64>,
    /// Faults by kind that were met.
    pub faults: BTreeMap<&'static str, u64>,
    /// Bytes of nodes that were read and compared.
    pub verified: u64,
    /// What was wrong, each with what reproduces it.
    pub violations: Vec<String>,
}

impl Report {
    /// One more.
    pub fn count(counts: &mut BTreeMap<&'static str, u64>, kind: &'static str) {
        *counts.entry(kind).or_default() += 1;
    }

    /// All operations.
    pub fn operations(&self) -> u64 {
        [&self.done, &self.refused, &self.failed].into_iter().flat_map(BTreeMap::values).sum()
    }

    /// Faults of one kind.
    pub fn faults_of(&self, kind: &str) -> u64 {
        self.faults.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&str, u64>| {
            let each: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            if each.is_empty() { "none".to_owned() } else { each.join(", ") }
        };
        writeln!(f, "rounds:     {}", self.rounds)?;
        writeln!(f, "operations: {}", self.operations())?;
        writeln!(f, "  done:     {}", list(&self.done))?;
        writeln!(f, "  refused:  {}", list(&self.refused))?;
        writeln!(f, "  cut off:  {}", list(&self.failed))?;
        writeln!(f, "faults:     {}", list(&self.faults))?;
        writeln!(f, "verified:   {}", ByteCount(self.verified))?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// How long a campaign goes on, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The first round's seed; each further round's is one more.
    pub seed: u64,
    /// No new round, and no new operation, begins after this time, if `least_rounds` are done.
    pub time: Duration,
    /// At most so many rounds.
    pub rounds: u64,
    /// So many are done however long that takes.
    pub least_rounds: u64,
    /// Whether each operation is told.
    pub traces: bool,
}
