//! A running machine's socket: messages that are malformed, cut, huge or mixed, and connections that end or stall at any
//! point. A client that behaves is served all the time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine, EngineOptions, JobAction, Mode, Request, RequestId, serve};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::{DiskId, MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::store::{Library, NewMachine};
use snaptree_core::testing::Random;
use snaptree_core::units::{ByteCount, ByteRate};
use uuid::Uuid;

use super::json;
use super::runner::Target;

/// How long a client that behaves waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct SocketTarget {
    _folder: tempfile::TempDir,
    machine: MachineId,
    socket: PathBuf,
    /// Connections that stay, and never listen.
    stalled: Vec<UnixStream>,
}

impl SocketTarget {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let library_folder = folder.path().join("library");
        let library = Library::open(&OsHost::shared(), &SystemClock::shared(), &library_folder).expect("a library");
        let new = NewMachine {
            name: "web".into(),
            kind: MachineKind::Workload,
            memory: ByteCount::mib(1),
            disks: vec![ByteCount::mib(4)],
            format: ImageFormat::Vhdx,
            hardware: None,
            workload: WorkloadProfile { page_writes_per_second: 100, disk_writes_per_second: 5, ..WorkloadProfile::default() },
        };
        let machine = library.create(&new).expect("a machine").machine().id;
        let options =
            EngineOptions { host: OsHost::shared(), clock: SystemClock::shared(), library: library_folder, executable: None };
        thread::spawn(move || serve(options, machine).expect("served until the end"));
        let runtime = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").expect("a runtime folder")).join("snaptree");
        let until = Instant::now() + PATIENCE;
        let socket = loop {
            let entries = std::fs::read_dir(&runtime).into_iter().flatten().flatten().map(|entry| entry.path());
            if let Some(socket) = entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "sock")) {
                break socket;
            }
            assert!(Instant::now() < until, "no socket");
            thread::sleep(Duration::from_millis(5));
        };
        Self { _folder: folder, machine, socket, stalled: Vec::new() }
    }

    /// A command that leaves the machine running.
    fn command(&self, random: &mut Random) -> Command {
        let machine = if random.chance(1, 2) { self.machine } else { MachineId(Uuid::from_u128(random.next_u64().into())) };
        let snapshot = SnapshotId(Uuid::nil());
        let label: String = (0..random.below(40)).map(|_| char::from(random.below(128) as u8)).collect();
        match random.below(16) {
            0 => Command::Rescan,
            1 => Command::OpenFolder(label.into()),
            2 => Command::CloseFolder("/".into()),
            3 => Command::Create(CreateMachine {
                name: label,
                kind: MachineKind::Workload,
                memory: ByteCount(super::vhdx::edge(random)),
                disks: vec![ByteCount(super::vhdx::edge(random) | 1); random.below(5) as usize],
                format: ImageFormat::Vhdx,
                hardware: None,
                workload: WorkloadProfile::default(),
            }),
            4 => Command::Pause(machine),
            5 => Command::Resume(machine),
            6 => Command::Rename { machine, snapshot, label },
            7 => Command::SetNote { machine, snapshot, note: label },
            8 => Command::Apply { machine, snapshot, safety: Some(label) },
            9 => Command::Delete { machine, snapshots: vec![snapshot; random.below(9) as usize], subtree: true, free_now: true },
            10 => Command::Merge { machine, disk: Some(DiskId(label)), limit: Some(ByteRate(-1e300)), until: None },
            11 => Command::Job { machine, action: JobAction::Cancel },
            12 => Command::Diagnose(label.into()),
            13 => Command::Inspect { image: label.clone().into(), folders: vec![label.into()] },
            14 => Command::Verify { machine, at: Some(snapshot) },
            _ => Command::Undelete { machine, snapshot },
        }
    }

    /// The bytes of a request, mostly not quite.
    fn message(&self, random: &mut Random) -> Vec<u8> {
        let command = self.command(random);
        // Machines that are really made would fill the volume.
        let only_asked = matches!(command, Command::Create(_)) || random.chance(1, 2);
        let mode = if only_asked { Mode::WhatIf } else { Mode::Do };
        let request = Request {
            id: RequestId(random.next_u64()),
            command,
            mode,
            expected_generation: random.chance(1, 4).then(|| random.next_u64()),
        };
        let mut body = serde_json::to_vec(&request).unwrap_or_default();
        if random.chance(1, 2) && !has_stop(&body) {
            body = json::damage(&body, random);
        }
        // A request that would end the machine rightly is no case.
        if has_stop(&body) {
            body = b"{}".to_vec();
        }
        let mut length = body.len() as u32;
        match random.below(8) {
            0 => length = super::vhdx::edge(random) as u32,
            1 => length = length.wrapping_add(1),
            2 => length = length.saturating_sub(1),
            3 => body.truncate(random.below(body.len() as u64 + 1) as usize),
            4 => {
                let most = if random.chance(1, 20) { 8 << 20 } else { 1 << 12 };
                let count = random.below(most);
                body = random.bytes(count as usize);
                length = body.len() as u32;
            }
            _ => {}
        }
        [length.to_le_bytes().to_vec(), body].concat()
    }
}

fn has_stop(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    ["stop", "remove", "run_workload", "import"].iter().any(|word| text.contains(word))
}

impl Target for SocketTarget {
    fn case(&mut self, random: &mut Random) -> Result<(), String> {
        let connect = || UnixStream::connect(&self.socket).map_err(|error| format!("no connection: {error}"));
        let mut streams = Vec::new();
        for _ in 0..=random.below(3) {
            let stream = connect()?;
            stream.set_write_timeout(Some(Duration::from_millis(200))).map_err(|error| error.to_string())?;
            streams.push(stream);
        }
        for _ in 0..random.below(8) {
            let message = self.message(random);
            let which = random.below(streams.len() as u64) as usize;
            let stream = &mut streams[which];
            let cut = if random.chance(1, 3) { random.below(message.len() as u64 + 1) as usize } else { message.len() };
            // A connection that was hung up on is as good as any other end.
            let _ = stream.write_all(&message[..cut]);
            if random.chance(1, 4) {
                let _ = stream.read(&mut [0; 100]);
            }
            if random.chance(1, 8) {
                let how = [std::net::Shutdown::Read, std::net::Shutdown::Write, std::net::Shutdown::Both];
                let _ = stream.shutdown(how[random.below(3) as usize]);
            }
        }
        if random.chance(1, 16) && self.stalled.len() < 8 {
            self.stalled.extend(streams.pop());
        }
        if random.chance(1, 64) {
            self.stalled.clear();
        }
        drop(streams);
        behave(connect()?, random.next_u64())
    }
}

/// Asks something, and waits for the answer.
fn behave(mut stream: UnixStream, id: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a client that behaves isn't served: {error}");
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = Request { id: RequestId(id), command: Command::Rescan, mode: Mode::Do, expected_generation: None };
    let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    stream.write_all(&[(body.len() as u32).to_le_bytes().to_vec(), body].concat()).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(failed)?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut frame).map_err(failed)?;
        let event: Value = serde_json::from_slice(&frame).map_err(|error| error.to_string())?;
        if event["answer"]["request"].as_u64() == Some(id) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("a client that behaves gets no answer".into());
        }
    }
}
