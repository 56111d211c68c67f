//! A machine's folder: damaged manifests, journals of operations that were cut short, saved memory, histories, links.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SharedClock;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, Engine, EngineOptions, Mode, Request, RequestId};
use snaptree_core::host_file::{Access, Host, publish_file, read_file};
use snaptree_core::memory::{self, GuestMemory};
use snaptree_core::merge::complete_switch;
use snaptree_core::snapshot::{
    Machine, MachineKind, NodeRef, Settings, SnapshotId, Tree, WorkloadProfile, deletion_outcome, rules, validate,
};
use snaptree_core::store::{Library, MachineStore, NewMachine};
use snaptree_core::testing::{CrashMode, FakeClock, MemHost, Random};
use snaptree_core::units::ByteCount;
use uuid::Uuid;

use super::json;
use super::runner::Target;

const DIR: &str = "/lib/web";
const SECRET: &str = "/outside/secret";
/// What the volume of a case holds at most.
const CAPACITY: ByteCount = ByteCount::mib(256);

pub struct ManifestTarget {
    /// The machine at rest, and as it was left by operations that were cut short.
    hosts: Vec<MemHost>,
}

fn clock() -> SharedClock {
    FakeClock::noon()
}

fn open(host: &MemHost) -> Result<MachineStore, snaptree_core::store::StoreError> {
    MachineStore::open(&host.shared(), &clock(), Path::new(DIR))
}

fn write(store: &MachineStore, random: &mut Random) {
    let gate = Gate::new([store.dir().to_path_buf()]);
    for image in store.machine().now.images.values() {
        let path = store.image_path(*image).expect("an image");
        let chain = Chain::open(store.host(), &path, Access::Write, &gate).expect("a chain");
        chain.write_at(&random.bytes(4096), random.below(512) * 4096).expect("a write");
        chain.flush().expect("a flush");
    }
}

fn take(store: &mut MachineStore, label: &str, random: &mut Random, saved: bool) -> SnapshotId {
    let prepared = store.prepare_take(label, "", &BTreeMap::new(), ByteCount::ZERO).expect("a take");
    let held = saved.then(|| {
        let guest = Arc::new(GuestMemory::new(600));
        for _ in 0..40 {
            guest.write(random.below(600), |page| random.fill(page));
        }
        let file = store.host().create_new(&prepared.memory_path).expect("a file");
        memory::save(&guest, file, Uuid::from_u128(7), clock()).expect("saved");
        ByteCount::kib(200)
    });
    let id = store.publish_take(&prepared, held, false, clock().now()).expect("published");
    drop(prepared);
    write(store, random);
    id
}

impl ManifestTarget {
    pub fn new() -> Self {
        let (host, mut random) = (MemHost::new(), Random::new(3));
        host.create_dir_all(Path::new("/outside")).expect("a folder");
        publish_file(&host, Path::new(SECRET), b"nobody's business").expect("a file");
        let library = Library::open(&host.shared(), &clock(), Path::new("/lib")).expect("a library");
        let new = NewMachine {
            name: "web".into(),
            kind: MachineKind::Workload,
            memory: ByteCount(600 * 4096),
            disks: vec![ByteCount::mib(2); 2],
            format: ImageFormat::Vhdx,
            hardware: None,
            workload: WorkloadProfile::default(),
        };
        let mut store = library.create(&new).expect("a machine");
        write(&store, &mut random);
        let first = take(&mut store, "first", &mut random, true);
        let second = take(&mut store, "second", &mut random, false);
        take(&mut store, "third", &mut random, true);
        let fourth = take(&mut store, "fourth", &mut random, false);
        store.apply(first).expect("applied");
        let side = take(&mut store, "side", &mut random, true);
        store.delete(&[second], false, false).expect("deleted");
        store.delete(&[fourth], false, false).expect("deleted");
        drop(store);
        let mut hosts = vec![host.fork()];
        let operations: [&dyn Fn(&mut MachineStore); 4] = [
            &|store| drop(store.apply(first)),
            &|store| drop(store.delete(&[side], false, false)),
            &|store| drop(store.empty_trash(true)),
            &|store| drop(store.prepare_take("new", "", &BTreeMap::new(), ByteCount::ZERO)),
        ];
        for operation in operations {
            for step in 0..60 {
                let host = host.fork();
                let mut store = open(&host).expect("a machine");
                host.crash_at(host.steps() + step);
                operation(&mut store);
                keep(&mut hosts, host, store);
            }
        }
        // A merge in its last step.
        for step in 0..400 {
            let host = host.fork();
            host.crash_at(host.steps() + step);
            let (mut engine, machine) = (engine(&host), open_id(&host));
            if let (Ok(engine), Some(machine)) = (&mut engine, machine) {
                ask(engine, Command::Merge { machine, disk: None, limit: None, until: None }, 60);
            }
            drop(engine);
            let after = host.crash(CrashMode::Kill, 0);
            let journal = read_file(&after, &Path::new(DIR).join("journal.json"), 1 << 20).unwrap_or_default();
            if String::from_utf8_lossy(&journal).contains("switch") {
                hosts.push(after);
            }
        }
        Self { hosts }
    }
}

/// Keeps what a crash has left, where there is a journal.
fn keep(hosts: &mut Vec<MemHost>, host: MemHost, store: MachineStore) {
    let after = host.crash(CrashMode::Kill, 0);
    drop(store);
    if after.exists(&Path::new(DIR).join("journal.json")) {
        hosts.push(after);
    }
}

fn open_id(host: &MemHost) -> Option<snaptree_core::snapshot::MachineId> {
    MachineStore::look(&host.shared(), Path::new(DIR)).ok().map(|machine| machine.id)
}

fn engine(host: &MemHost) -> Result<Engine, String> {
    let options = EngineOptions { host: host.shared(), clock: clock(), library: "/lib".into(), executable: None };
    Engine::new(options).map_err(|refusal| refusal.reason)
}

fn ask(engine: &mut Engine, command: Command, ticks: u32) {
    let (me, events) = engine.subscribe();
    engine.submit(me, Request { id: RequestId(1), command, mode: Mode::Do, expected_generation: None });
    for _ in 0..ticks {
        engine.tick();
        while events.try_recv().is_ok() {}
    }
}

/// What a snapshot shows, as far as it can be read.
fn contents(host: &MemHost, machine: &Machine) -> BTreeMap<SnapshotId, Vec<Option<u32>>> {
    let gate = Gate::new([PathBuf::from(DIR)]);
    let read = |path: &Path| {
        let chain = Chain::open(&host.shared(), &Path::new(DIR).join(path), Access::Look, &gate).ok()?;
        let mut bytes = vec![0; Some(chain.virtual_size().0).filter(|size| *size <= 8 << 20)? as usize];
        chain.read_at(&mut bytes, 0).ok().map(|()| crc32c::crc32c(&bytes))
    };
    let of = |images: &BTreeMap<_, _>| images.values().map(|id| read(&machine.images.get(id)?.file)).collect();
    machine.snapshots.iter().map(|(id, node)| (*id, of(&node.images))).collect()
}

/// The files that nodes and the trash stand on.
fn needed(machine: &Machine) -> Vec<PathBuf> {
    let memory = machine.snapshots.values().filter_map(|node| Some(node.memory.as_ref()?.file.clone()));
    let images = machine.images.values().map(|record| record.file.clone());
    images.chain(memory).chain(machine.trash.iter().map(|item| item.file.clone())).collect()
}

impl Target for ManifestTarget {
    fn case(&mut self, random: &mut Random) -> Result<(), String> {
        let host = self.hosts[random.below(self.hosts.len() as u64) as usize].fork();
        host.set_capacity(Some(CAPACITY));
        prepare(&host, random).map_err(|error| error.to_string())?;
        let (shared, dir) = (host.shared(), Path::new(DIR));
        let steps = host.steps();
        let before = MachineStore::look(&shared, dir).ok();
        if host.steps() != steps {
            return Err("a look has changed something".into());
        }
        let mut shown = BTreeMap::new();
        let there: Vec<PathBuf> = host.files();
        if let Some(machine) = &before {
            study(machine, random);
            shown = contents(&host, machine);
        }
        for file in host.files().iter().filter(|file| file.ends_with("memory.saved")) {
            if let Ok(file) = host.open(file, Access::Look) {
                let _ = memory::inspect(&*file);
                let _ = memory::restore(&*file);
            }
        }
        if random.chance(1, 4) {
            run_engine(&host, random);
        } else {
            use_store(&host, random)?;
        }
        check(&host, before.as_ref(), &shown, &there)
    }
}

/// Damages some of the folder's files, and lays links.
fn prepare(host: &MemHost, random: &mut Random) -> std::io::Result<()> {
    let dir = Path::new(DIR);
    if random.chance(1, 3) {
        host.link(&dir.join("out"), Path::new("/outside"))?;
        host.link(&dir.join("Alias"), Path::new("Virtual Hard Disks"))?;
    }
    if random.chance(1, 12) {
        host.link(&dir.join("history.jsonl"), Path::new(SECRET))?;
    }
    for _ in 0..=random.below(2) {
        let name = ["machine.json", "machine.json", "journal.json", "journal.json", "../library.json", "memory", "history.jsonl"]
            [random.below(7) as usize];
        let path = match name {
            "memory" => {
                let saved: Vec<_> = host.files().into_iter().filter(|file| file.ends_with("memory.saved")).collect();
                let Some(path) = saved.get(random.below(saved.len() as u64) as usize) else { continue };
                damage_memory(host, path, random)?;
                continue;
            }
            name => dir.join(name),
        };
        let old = read_file(host, &path, 64 << 20).unwrap_or_default();
        let new = match name {
            "../library.json" => json::damage(
                br#"{"format":"snaptree-library","version":1,"folders":["/lib/web","/outside"],"forgotten":["web"]}"#,
                random,
            ),
            "journal.json" if old.is_empty() || random.chance(1, 3) => made_up(host, random),
            _ => json::damage(&old, random),
        };
        if path.parent().is_some() && !path.ends_with("history.jsonl") {
            publish_file(host, &path, &new)?;
        }
    }
    Ok(())
}

/// A journal that nobody wrote, about files that are there.
fn made_up(host: &MemHost, random: &mut Random) -> Vec<u8> {
    let machine = MachineStore::look(&host.shared(), Path::new(DIR)).ok();
    let Some(machine) = machine else { return b"{}".to_vec() };
    let files = host.files();
    let inside: Vec<_> = files.iter().filter_map(|file| file.strip_prefix(DIR).ok()).collect();
    let any = |random: &mut Random| match random.below(8) {
        0 => PathBuf::from("out/secret"),
        1 => PathBuf::from("Alias/disk0.vhdx"),
        _ => inside.get(random.below(inside.len() as u64) as usize).map_or_else(PathBuf::new, |file| file.to_path_buf()),
    };
    let generation = machine.generation.wrapping_sub(random.below(2));
    let folder = |file: &Path| file.parent().unwrap_or(Path::new("Snapshots/x")).to_path_buf();
    let ids: Vec<_> = machine.images.keys().collect();
    let id = |random: &mut Random| ids.get(random.below(ids.len() as u64) as usize).map(ToString::to_string);
    let (a, b, c) = (any(random), any(random), any(random));
    let record = machine.images.values().next().cloned();
    let leaf = serde_json::json!({ "image": Uuid::nil(), "record": record });
    let entry = match random.below(4) {
        0 => serde_json::json!({ "create": { "files": [a, b] } }),
        1 => serde_json::json!({ "change": { "generation": generation, "operation": "x", "created": [a], "removes": [b],
            "moves": [{ "from": c, "to": "Snapshots/elsewhere" }], "restored": [id(random)] } }),
        2 => serde_json::json!({ "take": { "generation": generation, "snapshot": Uuid::nil(), "leaves": { "disk0": leaf },
            "folder": folder(&a), "complete": random.chance(1, 2) } }),
        _ => {
            let run = [serde_json::json!({ "file": a, "format": "vhdx" }), serde_json::json!({ "file": b, "format": "vhdx" })];
            serde_json::json!({ "switch": { "disk": "disk0", "run": [id(random), id(random)], "files": { "run": run,
                "target": random.below(3), "kept": c, "parent": null, "data_write_id": Uuid::nil(), "children": [] } } })
        }
    };
    serde_json::json!({ "format": "snaptree-journal", "version": 1, "machine": machine.id, "entry": entry }).to_string().into()
}

/// Damages saved memory, its checksums made right again where they are at hand.
fn damage_memory(host: &MemHost, path: &Path, random: &mut Random) -> std::io::Result<()> {
    // One that was made long before stays as it is.
    let Ok(mut bytes) = read_file(host, path, 64 << 20) else { return Ok(()) };
    let length = bytes.len();
    if length < 64 {
        return Ok(());
    }
    if random.chance(1, 6) {
        let file = host.open(path, Access::Write)?;
        return file.set_len(super::vhdx::edge(random) % (1 << 42));
    }
    for _ in 0..=random.below(3) {
        let at = match random.below(3) {
            0 => random.below(64),
            1 => (length - 64) as u64 + random.below(64),
            _ => random.below(length as u64),
        } as usize;
        let edge = super::vhdx::edge(random).to_le_bytes();
        let width = [1, 4, 8][random.below(3) as usize].min(length - at);
        bytes[at..at + width].copy_from_slice(&edge[..width]);
    }
    if random.chance(3, 4) {
        for (start, sum) in [(0, 60), (length - 64, length - 4)] {
            bytes[sum..sum + 4].fill(0);
            let crc = crc32c::crc32c(&bytes[start..start + 64]);
            bytes[sum..sum + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    publish_file(host, path, &bytes)
}

/// What the window shows of a manifest.
fn study(machine: &Machine, random: &mut Random) {
    let tree = Tree::of(machine);
    let rows = tree.rows();
    for row in rows.iter().take(64) {
        let _ = tree.chain_depth(row.node);
    }
    let _ = (tree.runs(), tree.retained(), tree.visible_ghosts(), tree.trashed_snapshots());
    let ids: Vec<_> = machine.snapshots.keys().copied().collect();
    if let Some(id) = ids.get(random.below(ids.len() as u64) as usize) {
        let context = rules::Context::default();
        let _ = (rules::apply(machine, &context, *id), rules::delete(machine, &context, &[*id], true));
        let _ = (deletion_outcome(machine, &[*id], true), tree.images_of(NodeRef::Snapshot(*id)));
    }
}

fn use_store(host: &MemHost, random: &mut Random) -> Result<(), String> {
    if let Ok(library) = Library::open(&host.shared(), &clock(), Path::new("/lib")) {
        let _ = (library.scan(), library.find("web"), library.opened_folders());
    }
    let mut store = match open(host) {
        Ok(store) => store,
        Err(error) if error.to_string().contains(DIR) => return Ok(()),
        Err(error) => return Err(format!("an error that doesn't name its file: {error}")),
    };
    let _ = complete_switch(&mut store);
    let _ = (store.orphans(), store.history().read());
    let snapshots: Vec<_> = store.machine().snapshots.keys().chain(store.machine().ghosts.keys()).copied().collect();
    for _ in 0..random.below(4) {
        let any = snapshots.get(random.below(snapshots.len() as u64) as usize).copied().unwrap_or(SnapshotId(Uuid::nil()));
        let _ = match random.below(7) {
            0 => store.apply(any),
            1 => store.undo_apply(),
            2 => store.undelete(any).map(drop),
            3 => store.set_settings(Settings { warn_depth: 1, ..store.machine().settings.clone() }),
            4 => store.empty_trash(random.chance(1, 2)).map(drop),
            5 => store.set_note(any, "noted"),
            _ => store.rename(any, "renamed"),
        };
    }
    Ok(())
}

fn run_engine(host: &MemHost, random: &mut Random) {
    let Ok(mut engine) = engine(host) else { return };
    for _ in 0..8 {
        engine.tick();
    }
    let Some(machine) = open_id(host) else { return };
    let commands = [
        Command::Rescan,
        Command::UndoApply(machine),
        Command::EmptyTrash { machine, all: false },
        Command::Merge { machine, disk: None, limit: None, until: None },
        Command::Verify { machine, at: None },
        Command::OpenFolder("/lib/web".into()),
        Command::Take { machine, label: "taken".into(), note: String::new(), memory: false },
    ];
    ask(&mut engine, commands[random.below(commands.len() as u64) as usize].clone(), 30);
}

/// Nothing outside was touched, and what the manifest names and was there is there.
fn check(
    host: &MemHost,
    before: Option<&Machine>,
    shown: &BTreeMap<SnapshotId, Vec<Option<u32>>>,
    there: &[PathBuf],
) -> Result<(), String> {
    if read_file(host, Path::new(SECRET), 1 << 10).ok().as_deref() != Some(b"nobody's business") {
        return Err("a file outside was changed".into());
    }
    if host.files().iter().any(|file| file.starts_with("/outside") && file != Path::new(SECRET)) {
        return Err("a file was made outside".into());
    }
    let (Some(before), Ok(after)) = (before, MachineStore::look(&host.shared(), Path::new(DIR))) else { return Ok(()) };
    validate(&after).map_err(|problems| problems.join("; "))?;
    for file in needed(&after) {
        let path = Path::new(DIR).join(&file);
        if there.contains(&path) && !host.exists(&path) {
            return Err(format!("{} is gone, which the manifest names", file.display()));
        }
    }
    for (id, found) in contents(host, &after) {
        let same_images = before.snapshots.contains_key(&id);
        for (was, is) in shown.get(&id).into_iter().flatten().zip(&found) {
            if same_images && was.is_some() && was != is {
                return Err(format!("snapshot {id} shows something else"));
            }
        }
    }
    Ok(())
}
