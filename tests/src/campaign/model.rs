//! What a machine's nodes must show, and whether they do.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::Content;

/// Sectors are written whole, or not.
const SECTOR: u64 = 512;

/// What the disks of a node show, in the configuration's order.
pub type Disks = Vec<Content>;

/// One write, or zeroing, of Now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Which disk.
    pub disk: usize,
    /// Where.
    pub offset: u64,
    /// How much.
    pub length: u64,
    /// What; `None` is zeros.
    pub bytes: Option<Vec<u8>>,
    /// Whether it was acknowledged; otherwise it may have happened, or a part of it.
    pub acknowledged: bool,
}

impl Written {
    fn apply(&self, disks: &mut Disks) {
        match &self.bytes {
            Some(bytes) => disks[self.disk].write(bytes, self.offset),
            None => disks[self.disk].zero(self.offset, self.length),
        }
    }

    fn sectors(&self) -> impl Iterator<Item = u64> + use<> {
        (self.offset..self.offset + self.length).step_by(SECTOR as usize)
    }

    fn sector(&self, at: u64) -> Vec<u8> {
        match &self.bytes {
            Some(bytes) => bytes[(at - self.offset) as usize..][..SECTOR as usize].to_vec(),
            None => vec![0; SECTOR as usize],
        }
    }
}

/// What Now must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    durable: Disks,
    since: Vec<Written>,
}

impl Now {
    /// Exactly this, durably.
    pub fn exactly(disks: Disks) -> Self {
        Self { durable: disks, since: Vec::new() }
    }

    /// Something was written.
    pub fn write(&mut self, written: Written) {
        self.since.push(written);
    }

    /// What was written so far is durable.
    pub fn flushed(&mut self) {
        self.durable = self.acknowledged();
        self.since.clear();
    }

    /// What the machine sees.
    pub fn acknowledged(&self) -> Disks {
        let mut disks = self.durable.clone();
        self.since.iter().filter(|written| written.acknowledged).for_each(|written| written.apply(&mut disks));
        disks
    }

    /// Whether `found` is right: everything acknowledged is there (what was flushed, where power was lost), and
    /// what was not is there or not, sector by sector. What isn't so, in words.
    pub fn difference(&self, found: &Disks, power_lost: bool) -> Option<String> {
        let acknowledged = self.acknowledged();
        if *found == acknowledged {
            return None;
        }
        let base = if power_lost { &self.durable } else { &acknowledged };
        let mut allowed: BTreeMap<(usize, u64), Vec<Vec<u8>>> = BTreeMap::new();
        for written in self.since.iter().filter(|written| power_lost || !written.acknowledged) {
            for at in written.sectors() {
                allowed.entry((written.disk, at)).or_default().push(written.sector(at));
            }
        }
        let mut rest = found.clone();
        for ((disk, at), contents) in allowed {
            let (here, before) = (found[disk].read(at, SECTOR), base[disk].read(at, SECTOR));
            if here != before && !contents.contains(&here) {
                return Some(format!("disk {disk}, byte {at} is neither what it was nor what was written"));
            }
            rest[disk].write(&before, at);
        }
        first_difference(&rest, base)
    }
}

/// The first place at which disks differ, in words.
pub fn first_difference(found: &Disks, expected: &Disks) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("there are {} disks, not {}", found.len(), expected.len()));
    }
    found.iter().zip(expected).enumerate().find_map(|(disk, (found, expected))| {
        if found == expected {
            return None;
        }
        if found.size() != expected.size() {
            return Some(format!("disk {disk} has {} bytes, not {}", found.size(), expected.size()));
        }
        let mut offsets = (0..found.size()).step_by(SECTOR as usize);
        let at = offsets.find(|at| {
            let length = SECTOR.min(found.size() - at);
            found.read(*at, length) != expected.read(*at, length)
        });
        Some(format!("disk {disk} differs at byte {}", at.unwrap_or(0)))
    })
}

/// A machine as it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its snapshots, by label.
    pub labels: BTreeSet<String>,
    /// Now.
    pub now: Now,
}

/// What was read of a machine.
#[derive(Debug)]
pub struct Seen {
    /// Each snapshot, by label.
    pub nodes: BTreeMap<String, Disks>,
    /// Now.
    pub now: Disks,
}

impl Seen {
    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.nodes.values().chain([&self.now]).flatten().map(Content::size).sum()
    }
}

/// Which of the states it is in; `known` is what the snapshots show, whether they are there or not. What is wrong, in words.
pub fn which<'a>(
    seen: &Seen,
    known: &BTreeMap<String, Disks>,
    states: &'a [State],
    power_lost: bool,
) -> Result<&'a State, String> {
    for (label, disks) in &seen.nodes {
        let Some(expected) = known.get(label) else { return Err(format!("nobody has taken {label}")) };
        if let Some(differs) = first_difference(disks, expected) {
            return Err(format!("{label}: {differs}"));
        }
    }
    let labels: BTreeSet<String> = seen.nodes.keys().cloned().collect();
    let mut wrong = format!("its snapshots are {labels:?}");
    for state in states {
        if state.labels != labels {
            continue;
        }
        match state.now.difference(&seen.now, power_lost) {
            None => return Ok(state),
            Some(differs) => wrong = format!("Now: {differs}"),
        }
    }
    let may_be: Vec<_> = states.iter().map(|state| &state.labels).collect();
    Err(format!("{wrong}; it may have {may_be:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now::exactly(vec![Content::zeros(4096)])
    }

    fn write(offset: u64, byte: u8, acknowledged: bool) -> Written {
        Written { disk: 0, offset, length: 1024, bytes: Some(vec![byte; 1024]), acknowledged }
    }

    #[test]
    fn what_may_be_lost_depends_on_how_it_ended() {
        let mut model = now();
        model.write(write(0, 1, true));
        model.flushed();
        model.write(write(0, 2, true));
        model.write(write(1024, 3, false));
        let seen = |a: u8, b: u8, c: u8| {
            let mut disk = Content::zeros(4096);
            disk.write(&[a; 512], 0);
            disk.write(&[b; 512], 512);
            disk.write(&[c; 512], 1024);
            vec![disk]
        };
        for (a, b, c, after_kill, after_power) in [
            (2, 2, 0, true, true),
            (2, 2, 3, true, true),
            (1, 2, 3, false, true),
            (1, 1, 0, false, true),
            (0, 2, 0, false, false),
            (2, 2, 9, false, false),
        ] {
            assert_eq!(model.difference(&seen(a, b, c), false).is_none(), after_kill, "{a} {b} {c}");
            assert_eq!(model.difference(&seen(a, b, c), true).is_none(), after_power, "{a} {b} {c}");
        }
        let mut elsewhere = seen(2, 2, 0);
        elsewhere[0].write(&[5; 512], 3584);
        assert!(model.difference(&elsewhere, true).is_some());
    }
}
