//! Merging while a machine writes, on images in memory: random runs and targets, a guest that works between the steps
//! and in the middle of them (while something is read, and while something is flushed), kills and losses of power.
//! And each rule left out in turn, which must be caught.

use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::crash_image::{CrashImage, Fuse, Point};
use crate::chain::{Chain, Flaw, LiveRun};
use crate::disk::{self, CreateOptions, Image, ImageFormat, Presence};
use crate::merge::{Rule, Rules, RunMerge};
use crate::testing::{MemHost, Random};
use crate::units::ByteCount;

/// Grains have 256 KiB, so a sector here is large: a disk of few sectors and many grains.
const SECTOR: u64 = 4096;
const GRAIN_SECTORS: u64 = crate::chain::GRAIN / SECTOR;

/// What the guest knows of its disk. A sector's content follows from its number.
#[derive(Debug, Clone, Default)]
struct Model {
    /// What was written last, and acknowledged.
    now: Vec<u64>,
    /// Per sector: what may be there after a loss of power.
    possible: Vec<Vec<u64>>,
    last: u64,
    /// Since the last crash, a change has failed: what it was about is open.
    failed: Vec<(usize, u64)>,
}

impl Model {
    fn wrote(&mut self, first: u64, count: u64, number: u64, done: bool) {
        for sector in first as usize..(first + count) as usize {
            self.possible[sector].push(number);
            if done {
                self.now[sector] = number;
            } else {
                self.failed.push((sector, number));
            }
        }
    }

    /// A flush that began when everything was as in `then` has succeeded.
    fn flushed(&mut self, then: &[u64]) {
        for (possible, then) in self.possible.iter_mut().zip(then) {
            let from = possible.iter().rposition(|number| number == then).unwrap_or(0);
            possible.drain(..from);
        }
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn sectors(number: u64, count: u64) -> Vec<u8> {
    number.to_le_bytes().repeat((count * SECTOR / 8) as usize)
}

/// The guest: its chain, what it knows, and its dice.
struct Guest {
    chain: Arc<Chain>,
    model: Model,
    random: Random,
}

impl Guest {
    fn flush(&mut self) {
        let then = self.model.now.clone();
        if self.chain.flush().is_ok() {
            self.model.flushed(&then);
        }
    }

    fn write(&mut self, first: u64, count: u64) {
        self.model.last += 1;
        let number = self.model.last;
        let done = self.chain.write_at(&sectors(number, count), first * SECTOR).is_ok();
        self.model.wrote(first, count, number, done);
    }

    fn act(&mut self) {
        let total = self.model.now.len() as u64;
        // Some places are hot.
        let first = if self.random.chance(1, 2) { self.random.below(total.min(40)) } else { self.random.below(total) };
        let most = if self.random.chance(1, 6) { 2 * GRAIN_SECTORS } else { 6 };
        let count = (1 + self.random.below(most)).min(total - first);
        match self.random.below(8) {
            0 => self.flush(),
            1 | 2 => {
                let (offset, length) = (first * SECTOR, count * SECTOR);
                let trims = self.random.chance(1, 2);
                let zeroed = if trims { self.chain.trim(offset, length) } else { self.chain.write_zeroes(offset, length) };
                let done = zeroed.is_ok();
                self.model.wrote(first, count, 0, done);
            }
            _ => self.write(first, count),
        }
    }

    /// What it reads through its chain is what it wrote.
    fn check(&self, when: &str) -> Result<(), String> {
        let mut bytes = vec![0; self.model.now.len() * SECTOR as usize];
        self.chain.read_at(&mut bytes, 0).map_err(|error| error.to_string())?;
        for (sector, bytes) in bytes.chunks(SECTOR as usize).enumerate() {
            let (found, expected) = (number_of(bytes), self.model.now[sector]);
            if found != expected && !self.model.failed.contains(&(sector, found)) {
                return Err(format!("{when}: sector {sector} holds {found}, written was {expected}"));
            }
        }
        Ok(())
    }
}

struct World {
    images: Vec<Arc<CrashImage>>,
    run: std::ops::Range<usize>,
    target: usize,
    fuse: Fuse,
    new_ids: Vec<Uuid>,
    guest: Arc<Mutex<Guest>>,
}

fn chain_of(images: &[Arc<CrashImage>]) -> Arc<Chain> {
    Arc::new(Chain::from_images(images.iter().map(|image| image.clone() as Arc<dyn Image>).collect()).unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let fuse = Fuse::default();
        fuse.set(i64::MAX / 2);
        let k = 2 + random.below(4) as usize;
        let below = random.below(2) as usize;
        let above = usize::from(random.chance(1, 4));
        let mut size = (1 + random.below(5)) * GRAIN_SECTORS / 2 * SECTOR;
        let mut images: Vec<Arc<CrashImage>> = Vec::new();
        let mut last = 0;
        for place in 0..below + k + above {
            let block_size = ByteCount(SECTOR << random.below(8));
            let name = format!("/X{place}");
            let image = match images.last() {
                None => {
                    let options = CreateOptions { block_size: Some(block_size), ..CreateOptions::dynamic(ByteCount(size)) };
                    CrashImage::base(&name, &options, &fuse)
                }
                Some(parent) => CrashImage::child(&name, parent, block_size, &fuse),
            };
            if place > 0 && random.chance(1, 4) {
                size += (1 + random.below(40)) * SECTOR;
                image.grow(ByteCount(size)).unwrap();
            }
            let total = size / SECTOR;
            for _ in 0..random.below(12) {
                let first = random.below(total);
                let count = (1 + random.below(20)).min(total - first);
                last += 1;
                if random.chance(1, 3) {
                    image.write_zeroes(first * SECTOR, count * SECTOR).unwrap();
                } else {
                    image.write_at(&sectors(last, count), first * SECTOR).unwrap();
                }
            }
            image.settle();
            images.push(image);
        }
        let target = random.below(k as u64) as usize;
        Self::of(images, below..below + k, target, fuse, seed)
    }

    /// Three images with one sector each, and the grain at which they are merged.
    fn small(target: usize) -> Self {
        let fuse = Fuse::default();
        fuse.set(i64::MAX / 2);
        let block_size = ByteCount(SECTOR);
        let options = CreateOptions { block_size: Some(block_size), ..CreateOptions::dynamic(ByteCount(4 * SECTOR)) };
        let mut images = vec![CrashImage::base("/X0", &options, &fuse)];
        for place in 1..3 {
            let below = &images[place - 1];
            images.push(CrashImage::child(&format!("/X{place}"), below, block_size, &fuse));
        }
        for (place, image) in (0..).zip(&images) {
            image.write_at(&sectors(place + 1, 1), place * SECTOR).unwrap();
            image.settle();
        }
        Self::of(images, 0..3, target, fuse, 0)
    }

    fn of(images: Vec<Arc<CrashImage>>, run: std::ops::Range<usize>, target: usize, fuse: Fuse, seed: u64) -> Self {
        let last = 1000;
        let chain = chain_of(&images);
        let mut bytes = vec![0; images[images.len() - 1].info().virtual_size.0 as usize];
        chain.read_at(&mut bytes, 0).unwrap();
        let now: Vec<u64> = bytes.chunks(SECTOR as usize).map(number_of).collect();
        let possible = now.iter().map(|number| vec![*number]).collect();
        let model = Model { now, possible, last, failed: Vec::new() };
        let guest = Arc::new(Mutex::new(Guest { chain, model, random: Random::new(seed ^ 77) }));
        let new_ids = (1..run.len()).map(|_| Uuid::new_v4()).collect();
        Self { images, run, target, fuse, new_ids, guest }
    }

    fn guest(&self) -> std::sync::MutexGuard<'_, Guest> {
        self.guest.lock().unwrap()
    }

    fn merge(&self, rules: Rules, flaw: Flaw) -> Result<RunMerge, String> {
        let chain = self.guest().chain.clone();
        let run = LiveRun::begin(&chain, self.run.clone(), self.target, false).map_err(|error| error.to_string())?;
        RunMerge::live(run.without(flaw), self.target, self.new_ids.clone(), rules).map_err(|error| error.to_string())
    }

    /// The guest works in the middle of steps too. A grain is held between two writes of the merge, and then its guest
    /// would wait for itself: so it acts once after each write, at the first read or at flushes.
    fn meddle(&self, often: u64) {
        let (guest, mut may_act) = (self.guest.clone(), true);
        let mut random = Random::new(often);
        self.images[0].hook.set(Some(Box::new(move |point| {
            let acts = match point {
                Point::Written => {
                    may_act = true;
                    return;
                }
                Point::Read => std::mem::take(&mut may_act),
                Point::Flush => true,
                Point::Reading => false,
            };
            if acts {
                for _ in 0..random.below(4) {
                    guest.lock().unwrap().act();
                }
            }
        })));
    }

    fn still(&self) {
        self.images[0].hook.set(None);
    }

    /// What is found after a crash is what the guest may expect, and what it goes on with.
    fn crash(&mut self, random: &mut Random) -> Result<(), String> {
        let power = random.chance(2, 3);
        for image in &mut self.images {
            *image = image.after_crash(power.then_some(&mut *random));
        }
        self.fuse.set(i64::MAX / 2);
        let chain = chain_of(&self.images);
        let mut guest = self.guest();
        let mut bytes = vec![0; guest.model.now.len() * SECTOR as usize];
        chain.read_at(&mut bytes, 0).map_err(|error| error.to_string())?;
        let failed = std::mem::take(&mut guest.model.failed);
        for (sector, bytes) in bytes.chunks(SECTOR as usize).enumerate() {
            let found = number_of(bytes);
            let (now, possible) = (guest.model.now[sector], &guest.model.possible[sector]);
            let fits = if power { possible.contains(&found) } else { found == now || failed.contains(&(sector, found)) };
            if !fits {
                let what = if power { "a loss of power" } else { "a kill" };
                return Err(format!("after {what} sector {sector} holds {found}; acknowledged {now}, possible {possible:?}"));
            }
            guest.model.now[sector] = found;
            guest.model.possible[sector] = vec![found];
        }
        guest.chain = chain;
        Ok(())
    }

    /// Nothing that the target lacks, and nothing above it.
    fn is_merged(&self) -> bool {
        let size = self.images[self.run.end - 1].info().virtual_size.0;
        (0..size / SECTOR).all(|sector| {
            let held = |image: &Arc<CrashImage>| image.extents(sector * SECTOR, SECTOR).unwrap()[0].presence != Presence::Absent;
            let run = &self.images[self.run.clone()];
            !run[self.target + 1..].iter().any(held) && (held(&run[self.target]) || !run[..self.target].iter().any(held))
        })
    }
}

/// One random case; the error says what was lost.
fn case(seed: u64, rules: Rules, flaw: Flaw) -> Result<u64, String> {
    let mut random = Random::new(seed ^ 0x11fe);
    let mut world = World::new(seed);
    let mut crashes = 0;
    'again: loop {
        if crashes < 3 && random.chance(2, 3) {
            // Often soon: much happens once, at the beginning.
            let most = if random.chance(1, 2) { 40 } else { 120 };
            world.fuse.set(random.below(most) as i64);
        }
        let merge = world.merge(rules, flaw);
        let mut merge = match merge {
            Ok(merge) => merge,
            Err(_) if world.fuse.left() < 0 => {
                crashes += 1;
                world.crash(&mut random)?;
                continue 'again;
            }
            Err(error) => return Err(error),
        };
        let mut steps = 0;
        let ended = loop {
            for _ in 0..random.below(3) {
                world.guest().act();
            }
            world.meddle(random.next_u64());
            let budget = ByteCount(SECTOR * (1 + random.below(100)));
            let step = merge.step(budget).and_then(|more| if more { Ok(false) } else { merge.look_again() });
            world.still();
            steps += 1;
            match step {
                Err(_) if world.fuse.left() < 0 => break false,
                Err(error) => return Err(error.to_string()),
                Ok(done) => {
                    if world.fuse.left() < 0 {
                        break false;
                    }
                    world.guest().check("after a step")?;
                    if done {
                        break true;
                    }
                }
            }
            if steps > 500 {
                return Err("it doesn't end".into());
            }
        };
        if !ended {
            drop(merge);
            crashes += 1;
            world.crash(&mut random)?;
            if random.chance(1, 4) {
                world.target = random.below(world.run.len() as u64) as usize;
            }
            continue;
        }
        world.fuse.set(i64::MAX / 2);
        // Until the switch, the guest adds nothing that would have to be moved again.
        for _ in 0..5 {
            world.guest().act();
        }
        world.guest().check("at the end")?;
        if !world.is_merged() {
            return Err("something is left outside the target".into());
        }
        // What was flushed is found though power is lost now.
        drop(merge);
        let then = world.guest().model.now.clone();
        world.guest().chain.flush().map_err(|error| error.to_string())?;
        world.guest().model.flushed(&then);
        world.crash(&mut random)?;
        return Ok(crashes);
    }
}

fn first_failure(rules: Rules, flaw: Flaw, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| case(seed, rules, flaw).err().map(|problem| (seed, problem)))
}

#[test]
fn nothing_is_lost_while_the_machine_writes() {
    let mut crashes = 0;
    for seed in 0..600 {
        match case(seed, Rules::default(), Flaw::None) {
            Ok(count) => crashes += count,
            Err(problem) => panic!("seed {seed}: {problem}"),
        }
    }
    assert!(crashes > 300, "only {crashes} crashes");
}

#[test]
fn each_rule_of_live_merging_is_needed() {
    for flaw in [Flaw::Mirror, Flaw::Notice, Flaw::FlushAll] {
        let (seed, problem) = first_failure(Rules::default(), flaw, 0..2000).unwrap_or_else(|| panic!("{flaw:?} isn't missed"));
        println!("without {flaw:?}: seed {seed}: {problem}");
    }
    for rule in [Rule::Zeros, Rule::Absent, Rule::TargetFlush, Rule::ShadowFirst, Rule::Sizes] {
        let (seed, problem) =
            first_failure(Rules::without(rule), Flaw::None, 0..2000).unwrap_or_else(|| panic!("{rule:?} isn't missed"));
        println!("without {rule:?}, live: seed {seed}: {problem}");
    }
}

/// The guest writes a sector at the `acts`th moment (before and after flushes, and between steps). After a loss of power
/// at a later moment, that is there, or what it had flushed there before.
fn small_case(target: usize, sector: u64, acts: usize, flushes: bool, dies: usize, flaw: Flaw) -> Result<bool, String> {
    let mut world = World::small(target);
    let mut merge = world.merge(Rules::default(), flaw)?;
    let (guest, fuse, mut flushed) = (world.guest.clone(), world.fuse.clone(), 0);
    world.images[0].hook.set(Some(Box::new(move |point| {
        if point != Point::Flush {
            return;
        }
        let mut guest = guest.lock().unwrap();
        if flushed == 0 {
            guest.flush();
        }
        if flushed == acts {
            guest.write(sector, 1);
            if flushes {
                guest.flush();
            }
        }
        if flushed == dies {
            fuse.set(-1);
        }
        flushed += 1;
    })));
    let died = loop {
        // Between steps is such a moment too.
        world.images[0].hook.at(Point::Flush);
        match merge.step(ByteCount::mib(1)).and_then(|more| if more { Ok(false) } else { merge.look_again() }) {
            Ok(false) => {}
            Ok(true) => break false,
            Err(_) => break true,
        }
    };
    world.still();
    drop(merge);
    let losses = if died { 4 } else { 0 };
    for seed in 0..losses {
        world.fuse.set(0);
        let before = (world.images.clone(), world.guest().model.clone());
        world.crash(&mut Random::new(seed)).map_err(|problem| {
            format!("target {target}, sector {sector}, written at moment {acts}, power lost at {dies}: {problem}")
        })?;
        (world.images, world.guest().model) = before;
    }
    Ok(died)
}

fn small_cases(flaw: Flaw) -> Result<usize, String> {
    let mut cases = 0;
    for (target, sector, flushes) in (0..18).map(|n| (n % 3, n as u64 / 3 % 3, n / 9 == 1)) {
        let mut acts = 0;
        // Until it is complete before that flush.
        while small_case(target, sector, acts, flushes, acts, flaw)? {
            let mut dies = acts + 1;
            cases += 1;
            while small_case(target, sector, acts, flushes, dies, flaw)? {
                (dies, cases) = (dies + 1, cases + 1);
            }
            acts += 1;
        }
    }
    Ok(cases)
}

#[test]
fn power_is_lost_at_each_moment_after_each_write() {
    let cases = small_cases(Flaw::None).unwrap();
    println!("{cases} cases");
    for flaw in [Flaw::TopFlush, Flaw::Marks, Flaw::FlushAll] {
        println!("without {flaw:?}: {}", small_cases(flaw).expect_err(&format!("{flaw:?} isn't missed")));
    }
}

/// A read has looked up its place, and before it reads there, the merge goes on until it is complete.
fn slow_reader(target: usize, flaw: Flaw) -> Result<(), String> {
    let mut world = World::small(target);
    let merge = Mutex::new(world.merge(Rules::default(), flaw)?);
    world.images[0].hook.set(Some(Box::new(move |point| {
        if point == Point::Reading {
            while merge.lock().unwrap().step(ByteCount::mib(1)).unwrap() {}
        }
    })));
    let checked = world.guest().check("by a slow reader");
    world.still();
    world.images.clear();
    checked
}

#[test]
fn a_slow_reader_reads_no_place_that_was_given_up() {
    for target in 0..3 {
        slow_reader(target, Flaw::None).unwrap();
    }
    println!("{}", slow_reader(0, Flaw::Readers).expect_err("readers aren't waited for"));
}

#[test]
fn what_the_machine_has_not_flushed_is_known() {
    let host = MemHost::new().shared();
    let base = disk::create(&host, "/base.vhdx".as_ref(), ImageFormat::Vhdx, &CreateOptions::dynamic(ByteCount::mib(4))).unwrap();
    let leaf = disk::create_child(&host, "/leaf.avhdx".as_ref(), &*base, None).unwrap();
    let chain = Arc::new(Chain::from_images(vec![base, leaf]).unwrap());
    let mut run = LiveRun::begin(&chain, 0..2, 0, false).unwrap();
    let write = || chain.write_at(&[1; 8192], 4096).unwrap();
    write();
    assert_eq!(run.unflushed(), ByteCount::ZERO, "nothing is routed yet");
    run.route();
    write();
    write();
    assert_eq!(run.unflushed(), ByteCount(16384));
    chain.flush().unwrap();
    assert_eq!(run.unflushed(), ByteCount::ZERO);
    write();
    run.begin_batch();
    assert_eq!(run.unflushed(), ByteCount::ZERO, "the batch's end flushes it");
    run.end().unwrap();
}
