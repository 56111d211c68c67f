//! Made-up machines, for tests and for looking at the window while it is being drawn. Never in a release.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, TimeDelta, TimeZone, Utc};
use snaptree_core::cost::{Calibration, CensusImage, FileFacts, Layout, MergeMode, MergeSample, VolumeState, census_of};
use snaptree_core::disk::{Extent, ImageFormat, ImageType, Presence};
use snaptree_core::engine::{
    Event, JobId, JobKind, JobPhase, JobState, LibraryState, MachineState, Place, Power, Screen, WorkloadCounters,
};
use snaptree_core::snapshot::{
    Configuration, DiskConfig, DiskId, Ghost, ImageId, ImageRecord, Machine, MachineId, MachineKind, Now, SavedMemory, Settings,
    Snapshot, SnapshotId, WorkloadProfile,
};
use snaptree_core::units::{ByteCount, ByteRate};
use uuid::Uuid;

pub mod plan;

/// The day on which all of it is.
pub fn today() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 23, 12, 0, 0).single().unwrap_or_default()
}

/// A snapshot to be made up.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub label: &'static str,
    /// By number; `None` is the base.
    pub parent: Option<usize>,
    pub days_ago: u64,
    pub held_mib: u64,
    pub memory_mib: u64,
    pub protected: bool,
    pub ghost: bool,
}

const fn made(label: &'static str, parent: Option<usize>, days_ago: u64, held_mib: u64) -> Made {
    Made { label, parent, days_ago, held_mib, memory_mib: 0, protected: false, ghost: false }
}

/// An identifier that is the same at each start.
fn uuid(of: &str) -> Uuid {
    let mut bytes = [0_u8; 16];
    for (i, b) in of.bytes().enumerate() {
        let at = i % 16;
        bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(b).rotate_left(3);
        bytes[(i * 7 + 3) % 16] ^= b.wrapping_mul((i as u8) | 1);
    }
    Uuid::from_bytes(bytes)
}

/// A machine's identifier, by name.
pub fn machine_id(name: &str) -> MachineId {
    MachineId(uuid(name))
}

/// A snapshot's identifier, by the machine's name and its own number.
pub fn snapshot_id(machine: &str, number: usize) -> SnapshotId {
    SnapshotId(uuid(&format!("{machine}-s{number}")))
}

fn image_id(machine: &str, number: usize) -> ImageId {
    ImageId(uuid(&format!("{machine}-i{number}")))
}

const SIZE: u64 = 128 << 30;
const BLOCK: u64 = 16 << 20;

/// Some blocks of the disk, as many as the image holds; mostly in the same fifth.
fn layout(seed: u64, held_mib: u64) -> Layout {
    let blocks = SIZE / BLOCK;
    let wanted = (held_mib << 20).div_ceil(BLOCK).min(blocks) as usize;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut held = BTreeSet::new();
    for _ in 0..wanted * 6 {
        if held.len() >= wanted {
            break;
        }
        let hot = next() % 10 < 7;
        held.insert(next() % if hot { blocks / 5 } else { blocks });
    }
    let mut extents = Vec::new();
    let mut at = 0;
    for block in held {
        let start = block * BLOCK;
        if start > at {
            extents.push(Extent { offset: at, length: start - at, presence: Presence::Absent });
        }
        extents.push(Extent { offset: start, length: BLOCK, presence: Presence::Data { host_offset: start } });
        at = start + BLOCK;
    }
    Layout::new(SIZE, extents)
}

/// A machine of these snapshots; Now hangs from the one with this number.
pub fn machine(name: &str, made: &[Made], now_on: Option<usize>, now_mib: u64, folder: &Path) -> MachineState {
    let disk = DiskId("disk0".into());
    let configuration = Configuration {
        memory: ByteCount::gib(4),
        disks: vec![DiskConfig { id: disk.clone(), size: ByteCount(SIZE), format: ImageFormat::Vhdx }],
        hardware: None,
        workload: WorkloadProfile::default(),
    };
    let mut images = BTreeMap::new();
    let mut files = BTreeMap::new();
    let mut layouts = Vec::new();
    let mut add = |number: usize, parent: Option<usize>, held_mib: u64| {
        let id = image_id(name, number);
        let file = match parent {
            None => PathBuf::from(format!("Virtual Hard Disks/{}.vhdx", name.to_lowercase())),
            Some(_) => PathBuf::from(format!("Snapshots/disk0_{}.avhdx", id.0)),
        };
        let parent = parent.map(|p| image_id(name, p));
        images.insert(id, ImageRecord { disk: disk.clone(), file, parent, format: ImageFormat::Vhdx, created: today() });
        let held = ByteCount::mib(held_mib);
        let kind = if parent.is_some() { ImageType::Differencing } else { ImageType::Dynamic };
        let facts = FileFacts {
            kind,
            virtual_size: ByteCount(SIZE),
            block_size: ByteCount::mib(2),
            file_size: held + ByteCount::mib(4),
            held: held + ByteCount::mib(4),
            problem: None,
        };
        files.insert(id, facts);
        layouts.push((id, parent, layout(number as u64 + 1, held_mib)));
    };
    for (i, m) in made.iter().enumerate() {
        add(i, m.parent, m.held_mib);
    }
    add(made.len(), now_on, now_mib);
    let counted: Vec<_> = layouts.iter().map(|(id, parent, layout)| CensusImage { id: *id, parent: *parent, layout }).collect();
    let census = BTreeMap::from([(disk.clone(), Arc::new(census_of(&counted)))]);

    // What a snapshot hangs from in the manifest: the nearest that is alive.
    let alive = |mut at: Option<usize>| {
        while let Some(i) = at.filter(|i| made[*i].ghost) {
            at = made[i].parent;
        }
        at.map(|i| snapshot_id(name, i))
    };
    let mut snapshots = BTreeMap::new();
    let mut ghosts = BTreeMap::new();
    for (i, m) in made.iter().enumerate() {
        let id = snapshot_id(name, i);
        let screen = folder.join(format!("screen-{}.png", i % 6));
        let memory = (m.memory_mib > 0)
            .then(|| SavedMemory { file: format!("Snapshots/{}/memory.bin", id.0).into(), held: ByteCount::mib(m.memory_mib) });
        let taken = today() - Days::new(m.days_ago) - TimeDelta::minutes(17 * i as i64 % 600);
        let full_parent = m.parent.map(|p| snapshot_id(name, p));
        let snapshot = Snapshot {
            label: m.label.into(),
            note: if m.protected { "Keep until the vendor has confirmed the licence.".into() } else { String::new() },
            taken,
            parent: if m.ghost { full_parent } else { alive(m.parent) },
            images: BTreeMap::from([(disk.clone(), image_id(name, i))]),
            configuration: configuration.clone(),
            memory,
            screen: Some(screen.strip_prefix(folder).unwrap_or(&screen).to_path_buf()),
            protected: m.protected,
        };
        if m.ghost {
            let children = (0..made.len()).filter(|c| made[*c].parent == Some(i)).map(|c| snapshot_id(name, c)).collect();
            let ghost = Ghost {
                snapshot,
                deleted: today() - TimeDelta::hours(30),
                children,
                was_parent_of_now: now_on == Some(i),
                action: uuid("deleted together"),
                sealed: false,
            };
            ghosts.insert(id, ghost);
        } else {
            snapshots.insert(id, snapshot);
        }
    }
    let machine = Machine {
        format: "snaptree-machine".into(),
        version: 1,
        id: machine_id(name),
        name: name.into(),
        kind: MachineKind::Workload,
        created: today() - Days::new(400),
        generation: 1,
        configuration,
        images,
        snapshots,
        now: Now { parent: alive(now_on), images: BTreeMap::from([(disk, image_id(name, made.len()))]), memory: None },
        ghosts,
        trash: Vec::new(),
        merges: Vec::new(),
        applied: None,
        settings: Settings::default(),
    };
    let sample = |bytes: u64, seconds: f64| MergeSample {
        bytes,
        stretches: bytes >> 24,
        seconds,
        estimated_seconds: None,
        probe: false,
        mode: MergeMode::Stopped,
        guest_bytes: None,
    };
    MachineState {
        machine: Arc::new(machine),
        folder: folder.to_path_buf(),
        place: Place::Library,
        power: Power::Off,
        files,
        census,
        calibration: Calibration { samples: vec![sample(2 << 30, 6.1), sample(9 << 30, 25.0), sample(4 << 30, 12.4)] },
        volume: VolumeState { id: "data".into(), free: ByteCount::gib(148), punches_holes: true },
        guest: None,
        outside: None,
        probing: false,
        processors: None,
        problems: Vec::new(),
    }
}

/// SQL02: deep, with deleted snapshots still held.
pub fn sql02(folder: &Path) -> MachineState {
    let mut all = vec![
        made("Installed", None, 129, 62_464),
        Made { protected: true, memory_mib: 3174, ..made("Before SP1", Some(0), 109, 2150) },
        made("SP1 tried", Some(1), 109, 922),
        made("SP1 + fix", Some(2), 107, 410),
    ];
    let names = ["9 Mar", "12 Mar", "15 Mar", "18 Mar", "21 Mar", "25 Mar", "28 Mar", "1 Apr"];
    for (i, name) in names.into_iter().enumerate() {
        let parent = if i == 0 { 1 } else { all.len() - 1 };
        all.push(Made { ghost: true, ..made(name, Some(parent), 75 - 3 * i as u64, 3900 + 350 * i as u64) });
    }
    all.push(Made { memory_mib: 3174, ..made("After migration", Some(11), 51, 11_264) });
    all.push(made("Test branch", Some(12), 45, 205));
    let mut state = machine("SQL02", &all, Some(12), 4403, folder);
    state.power = Power::Running;
    state
}

/// WEB01: runs, shallow.
pub fn web01(folder: &Path) -> MachineState {
    let all = [
        made("Fresh install", None, 2, 8192),
        Made { memory_mib: 4096, ..made("Before the update", Some(0), 1, 640) },
        Made { memory_mib: 4096, ..made("Configured", Some(1), 0, 210) },
    ];
    let mut state = machine("WEB01", &all, Some(2), 96, folder);
    state.power = Power::Running;
    state
}

/// Everything that is said at the start.
pub fn events(folder: &Path) -> Vec<Event> {
    let web = web01(folder);
    let mut db = machine(
        "DB01",
        &[made("Base", None, 40, 90_000), made("Before reindex", Some(0), 12, 4100), made("Nightly", Some(1), 1, 1200)],
        Some(2),
        900,
        folder,
    );
    db.power = Power::Running;
    db.volume = VolumeState { id: "fast".into(), free: ByteCount::mib(1700), punches_holes: true };
    let files = machine("FILES01", &[made("Base", None, 380, 16_000), made("January", Some(0), 128, 900)], Some(1), 1400, folder);
    let mut old = machine("OLDHOST", &[made("Before patch", None, 300, 30_000)], Some(0), 12_000, folder);
    let opened = PathBuf::from("/media/usb/OLDHOST (Hyper-V)");
    old.place = Place::Folder(opened.clone());
    let library = LibraryState {
        folder: "/home/ana/.local/share/snaptree".into(),
        machines: ["DB01", "FILES01", "SQL02", "WEB01"].map(machine_id).to_vec(),
        folders: vec![opened],
        problems: Vec::new(),
    };
    let mut events = vec![Event::Library(Arc::new(library))];
    events.extend([web, sql02(folder), db, files, old].map(|m| Event::Machine(Arc::new(m))));
    events.push(Event::Live { machine: machine_id("SQL02"), screen: Arc::new(screen(5)), counters: counters() });
    events.push(Event::Job(job("WEB01", JobKind::Take, "Saving memory of “Configured”")));
    events
}

fn counters() -> WorkloadCounters {
    WorkloadCounters {
        page_writes: 128_411,
        disk_reads: 4402,
        disk_writes: 3187,
        disk_flushes: 97,
        verified: ByteCount::mib(913),
        read_latency: Duration::from_micros(212),
        write_latency: Duration::from_micros(148),
        ..WorkloadCounters::default()
    }
}

/// A job half done.
pub fn job(machine: &str, kind: JobKind, title: &str) -> JobState {
    JobState {
        id: JobId(uuid(title)),
        machine: machine_id(machine),
        kind,
        title: title.into(),
        phase: JobPhase::Running,
        done: ByteCount::mib(2560),
        total: ByteCount::gib(4),
        rate: ByteRate(1.2e8),
        elapsed: Duration::from_secs(21),
        left: Some(Duration::from_secs(13)),
        pausable: true,
        latency: None,
    }
}

/// A picture to stand for a screen.
pub fn screen(number: u32) -> Screen {
    let (width, height) = (160_u32, 100_u32);
    let hue = [(30, 80, 120), (60, 90, 110), (120, 60, 40), (110, 90, 40), (20, 90, 130), (30, 110, 80)][number as usize % 6];
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        let cell = (x / 4).wrapping_mul(2_654_435_761 + number).wrapping_add((y / 4).wrapping_mul(40_503)) >> 3 & 7;
        let light = if cell == 0 { 70 } else { 0 };
        let fade = |v: u32| u8::try_from((v * (height - y / 2) / height + light).min(255)).unwrap_or(255);
        image::Rgb([fade(hue.0), fade(hue.1), fade(hue.2)])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("a picture of 160 x 100 can be written");
    Screen { width, height, png: png.into_inner(), generation: 48_211 + u64::from(number), checksum: 0x51ab_03e7 }
}

/// Puts the pictures of the screens where the snapshots say that they are.
pub fn write_screens(folder: &Path) {
    for i in 0..6 {
        std::fs::write(folder.join(format!("screen-{i}.png")), screen(i).png).expect("the folder of a test can be written");
    }
}

/// A tree of this many snapshots: a long chain with branches of five.
pub fn large(count: usize, folder: &Path) -> MachineState {
    let mut all: Vec<Made> = Vec::with_capacity(count);
    let mut main = None;
    for i in 0..count {
        let branch = i % 10 >= 5 && i > 10;
        let parent = if branch && i % 10 > 5 { Some(i - 1) } else { main };
        all.push(made("Nightly", parent, ((count - i) / 24) as u64, 4));
        if !branch {
            main = Some(i);
        }
    }
    machine("LARGE", &all, main, 16, folder)
}
