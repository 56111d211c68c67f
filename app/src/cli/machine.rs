//! `machine`: create, list, show, start, stop, resize, remove, import.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use snaptree_core::cost::{MergeTotal, freeable, merges_due, node_cost};
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine, Import, ImportMode, MachineState, Place, Power};
use snaptree_core::snapshot::{self, Boot, DiskBus, Hardware, MachineKind, NodeRef, Settings, WorkloadProfile};
use snaptree_core::units::ByteCount;

use super::client::Client;
use super::output::{Align, Output, table};
use super::{Common, Done, Failure, json, names, parse, screen};
use crate::text::{self, bytes, count, merge, no_room, power};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Creates a machine.
    Create {
        /// Its name, which is also its folder's.
        name: String,
        /// A disk's size, such as 20G; once for each disk.
        #[arg(long = "disk", value_name = "SIZE", required = true, value_parser = parse::size)]
        disks: Vec<ByteCount>,
        /// Its memory [default: 64M, or 1G with QEMU].
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        memory: Option<ByteCount>,
        /// Format of its disks.
        #[arg(long, default_value = "vhdx")]
        format: Format,
        /// What runs it.
        #[arg(long, default_value = "workload")]
        kind: Kind,
        /// The built-in machine's seed: everything it does follows from this.
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        computer: Computer,
    },
    /// Lists the machines.
    List,
    /// Shows one machine.
    Show {
        /// The machine's name or identifier.
        name: String,
    },
    /// Starts a machine; returns when it runs.
    Start {
        /// The machine's name or identifier.
        name: String,
    },
    /// Stops a running machine. An operating system is asked to shut down.
    Stop {
        /// The machine's name or identifier.
        name: String,
        /// Turns it off at once, as by pulling the plug.
        #[arg(long)]
        hard: bool,
    },
    /// Writes what a running machine's screen shows to a PNG file.
    Screen {
        /// The machine's name or identifier.
        name: String,
        /// The file.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Prints what a QEMU machine's serial port has said since its last start.
    Console {
        /// The machine's name or identifier.
        name: String,
    },
    /// Shows a running QEMU machine's screen in a viewer, with keys and mouse.
    Viewer {
        /// The machine's name or identifier.
        name: String,
    },
    /// Lets a running machine stand still.
    Pause {
        /// The machine's name or identifier.
        name: String,
    },
    /// Lets it go on.
    Resume {
        /// The machine's name or identifier.
        name: String,
    },
    /// Changes what a machine that QEMU runs consists of, or lets QEMU run one that is known by its disks only. What isn't
    /// given stays.
    Hardware {
        /// The machine's name or identifier.
        name: String,
        /// Its memory.
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        memory: Option<ByteCount>,
        #[command(flatten)]
        computer: Computer,
    },
    /// Changes a machine's settings; what isn't given stays.
    Set {
        /// The machine's name or identifier.
        name: String,
        /// The machine is paused while less than this is free on its volume.
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        pause_free: Option<ByteCount>,
        /// The trash is emptied after so many hours.
        #[arg(long, value_name = "N")]
        trash_hours: Option<u32>,
        /// Snapshots are advised against from this depth on.
        #[arg(long, value_name = "N")]
        warn_depth: Option<u32>,
        /// Taking snapshots is refused from this depth on.
        #[arg(long, value_name = "N")]
        max_depth: Option<u32>,
        /// Snapshots older than so many hours are warned about.
        #[arg(long, value_name = "N")]
        warn_age_hours: Option<u32>,
        /// It is warned while less than this is free on the volume.
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        warn_free: Option<ByteCount>,
        /// That is urgent while less than this is free on the volume.
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        urgent_free: Option<ByteCount>,
    },
    /// Makes a disk of a machine that is off larger; snapshots keep the size that they had.
    Resize {
        /// The machine's name or identifier.
        name: String,
        /// The disk, such as disk0.
        disk: String,
        /// Its new size, such as 40G.
        #[arg(value_parser = parse::size)]
        size: ByteCount,
    },
    /// Forgets a machine; its files stay unless --delete-files is given.
    Remove {
        /// The machine's name or identifier.
        name: String,
        /// Deletes its folder with all that is in it.
        #[arg(long)]
        delete_files: bool,
    },
    /// Brings a chain of images in as a machine, copied unless --move is given. Images of other programs (raw, qcow2, VMDK,
    /// VDI) are converted.
    Import {
        /// The leaf of the chain, or a folder with it.
        path: PathBuf,
        /// The machine's name [default: the file's].
        #[arg(long)]
        name: Option<String>,
        /// Moves the files instead of copying them.
        #[arg(long = "move")]
        moves: bool,
        /// What runs the machine [default: nothing, it is known by its disks].
        #[arg(long)]
        kind: Option<Kind>,
        /// Its memory [default: 1G].
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        memory: Option<ByteCount>,
        #[command(flatten)]
        computer: Computer,
    },
}

/// Formats of new disks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// Microsoft's VHDX.
    Vhdx,
    /// Its forerunner, for disks of at most 2040 GiB.
    Vhd,
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Vhdx => Self::Vhdx,
            Format::Vhd => Self::Vhd,
        }
    }
}

/// What runs a machine.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// The built-in machine.
    Workload,
    /// QEMU: a computer that boots an operating system.
    Qemu,
}

/// What a machine that QEMU runs consists of.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --kind qemu")]
pub struct Computer {
    /// Virtual processors [default: 1].
    #[arg(long, value_name = "N")]
    processors: Option<u32>,
    /// What the disks are attached to [default: virtio].
    #[arg(long)]
    bus: Option<Bus>,
    /// A network card behind your own connections.
    #[arg(long)]
    network: bool,
    /// A kernel to start, instead of what the first disk boots.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's first file system.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's arguments.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    append: Option<String>,
}

/// What disks are attached to.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Bus {
    /// Quick; needs a driver in the guest.
    Virtio,
    /// Known to every guest; six disks at most.
    Sata,
}

impl Computer {
    fn is_given(&self) -> bool {
        self.processors.is_some() || self.bus.is_some() || self.network || self.kernel.is_some()
    }

    fn hardware(self) -> Result<Hardware, Failure> {
        self.changing(Hardware::default())
    }

    /// What isn't given stays.
    fn changing(self, mut hardware: Hardware) -> Result<Hardware, Failure> {
        if let Some(kernel) = self.kernel {
            let kernel = std::path::absolute(kernel)?;
            let initrd = self.initrd.map(std::path::absolute).transpose()?;
            hardware.boot = Some(Boot { kernel, initrd, command_line: self.append.unwrap_or_default() });
        }
        hardware.bus = match self.bus {
            None => hardware.bus,
            Some(Bus::Virtio) => DiskBus::Virtio,
            Some(Bus::Sata) => DiskBus::Sata,
        };
        hardware.processors = self.processors.unwrap_or(hardware.processors);
        hardware.network |= self.network;
        Ok(hardware)
    }
}

pub fn run(verb: Verb, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    let command = match verb {
        Verb::List => return list(&mut client, output),
        Verb::Show { name } => return show(&mut client, &name, output),
        Verb::Screen { name, output: to } => return screen::screen(&mut client, &name, &to, output),
        Verb::Console { name } => return screen::console(&mut client, &name),
        Verb::Viewer { name } => return screen::viewer(&mut client, &name, output),
        Verb::Create { name, disks, memory, format, kind, seed, computer } => {
            let workload = WorkloadProfile::default();
            let workload = WorkloadProfile { seed: seed.unwrap_or(workload.seed), ..workload };
            let (kind, usual, hardware) = match kind {
                Kind::Workload if computer.is_given() => {
                    return Err(Failure::usage("the built-in machine has no such parts; give --kind qemu"));
                }
                Kind::Workload => (MachineKind::Workload, ByteCount::mib(64), None),
                Kind::Qemu => (MachineKind::Qemu, ByteCount::gib(1), Some(computer.hardware()?)),
            };
            let (memory, format) = (memory.unwrap_or(usual), format.into());
            Command::Create(CreateMachine { name, kind, memory, disks, format, workload, hardware })
        }
        Verb::Start { name } => Command::Start(client.machine(&name)?.machine.id),
        Verb::Stop { name, hard: false } => Command::Stop(client.machine(&name)?.machine.id),
        Verb::Stop { name, hard: true } => Command::TurnOff(client.machine(&name)?.machine.id),
        Verb::Pause { name } => Command::Pause(client.machine(&name)?.machine.id),
        Verb::Resume { name } => Command::Resume(client.machine(&name)?.machine.id),
        Verb::Hardware { name, memory, computer } => {
            let state = client.machine(&name)?;
            let old = &state.machine.configuration;
            let usual = if old.hardware.is_some() { old.memory } else { ByteCount::gib(1) };
            let hardware = computer.changing(old.hardware.clone().unwrap_or_default())?;
            Command::SetHardware { machine: state.machine.id, memory: memory.unwrap_or(usual), hardware }
        }
        Verb::Set { name, pause_free, trash_hours, warn_depth, max_depth, warn_age_hours, warn_free, urgent_free } => {
            let state = client.machine(&name)?;
            let old = state.machine.settings.clone();
            let settings = Settings {
                pause_free: pause_free.unwrap_or(old.pause_free),
                trash_hours: trash_hours.unwrap_or(old.trash_hours),
                warn_depth: warn_depth.unwrap_or(old.warn_depth),
                max_depth: max_depth.unwrap_or(old.max_depth),
                warn_age_hours: warn_age_hours.unwrap_or(old.warn_age_hours),
                urgent_free: urgent_free.unwrap_or(old.urgent_free),
                warn_free: warn_free.unwrap_or(old.warn_free),
            };
            Command::SetSettings { machine: state.machine.id, settings }
        }
        Verb::Resize { name, disk, size } => {
            let state = client.machine(&name)?;
            let disk = names::disk(&state.machine, &disk)?;
            Command::Resize { machine: state.machine.id, disk, size }
        }
        Verb::Remove { name, delete_files } => {
            let state = if client.is_what_if() { client.counted(&name)? } else { client.machine(&name)? };
            Command::Remove { machine: state.machine.id, delete_files }
        }
        Verb::Import { path, name, moves, kind, memory, computer } => {
            let path = std::path::absolute(&path)?;
            let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let name = name.or_else(stem).ok_or_else(|| Failure::usage("give the machine's name with --name"))?;
            let computer = match kind {
                Some(Kind::Qemu) => {
                    Some(snapshot::Computer { memory: memory.unwrap_or(ByteCount::gib(1)), hardware: computer.hardware()? })
                }
                Some(Kind::Workload) => return Err(Failure::usage("the built-in machine makes its own disks")),
                None if memory.is_some() || computer.is_given() => return Err(Failure::usage("give --kind qemu, which runs it")),
                None => None,
            };
            let mode = if moves { ImportMode::Move } else { ImportMode::Copy };
            Command::Import(Import { path, name, mode, computer })
        }
    };
    client.carry_out(command, output)
}

fn list(client: &mut Client, output: &Output) -> Done {
    client.settle();
    let machines: Vec<json::Machine> = client.all()?.iter().map(|state| machine(state)).collect();
    let library = client.library();
    for problem in &library.problems {
        eprintln!("snaptree: {problem}");
    }
    let columns = [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("SNAPSHOTS", Align::Right),
        ("DEPTH", Align::Right),
        ("IMAGES/READ", Align::Right),
        ("HELD", Align::Right),
        ("DUE", Align::Left),
    ];
    output.say(&machines, || {
        if machines.is_empty() {
            return vec![format!("No machines in {}.", library.folder.display())];
        }
        let row = |m: &json::Machine| {
            let state = match &m.no_room {
                _ if m.place == "folder" => "looked at".to_owned(),
                Some(_) => format!("{}, {}", m.power, power(&Power::NoRoom)),
                None => m.power.to_owned(),
            };
            vec![
                m.name.clone(),
                state,
                m.snapshots.to_string(),
                m.depth.to_string(),
                m.read_mean.map_or_else(|| "-".into(), |mean| format!("{mean:.1}")),
                bytes(m.held),
                due(&m.merges_due),
            ]
        };
        table(&columns, &machines.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}

fn due(total: &MergeTotal) -> String {
    if total.merges == 0 {
        return String::new();
    }
    format!("{}, {}", count(total.merges as usize, "merge"), merge(total))
}

fn show(client: &mut Client, name: &str, output: &Output) -> Done {
    let state = client.counted(name)?;
    let m = machine(&state);
    output.say(&m, || {
        let mut lines = vec![format!("Name       {}", m.name), format!("Identifier {}", m.id), format!("State      {}", m.power)];
        if let Some(short) = &m.no_room {
            lines.push(format!("No room    {}.", no_room(short.free, short.go_on_free)));
            lines.push(format!("           {}.", text::freeable(&short.freeable)));
        }
        lines.extend([format!("Folder     {}", m.folder.display()), format!("Memory     {}", text::memory(m.memory))]);
        lines.extend(m.hardware.iter().map(|hardware| format!("Hardware   {}", text::hardware(hardware))));
        if let Some(outside) = &m.outside {
            let by = if outside.accelerated { "the processor itself (KVM)" } else { "emulation, which is many times slower" };
            lines.push(format!("Runs by    {by}"));
            lines.push(format!("Screen     {} (VNC)", outside.viewer.display()));
            lines.extend(outside.console.iter().map(|file| format!("Console    {}", file.display())));
            lines.extend(outside.stands_still_to_save.iter().map(|why| format!("Memory is saved while it stands still: {why}")));
            lines.extend(outside.remedy.iter().map(|command| text::remedy(command)));
        }
        lines.extend(m.disks.iter().map(|d| format!("Disk       {}, {}", d.disk, bytes(d.size))));
        let reads = m.read_mean.map_or_else(String::new, |mean| format!(", {mean:.1} images a read"));
        lines.push(format!("Snapshots  {}, depth {}{reads}", m.snapshots, m.depth));
        lines.push(format!("Holds      {}, and {} in the trash", bytes(m.held), bytes(m.trash)));
        if m.merges_due.merges > 0 {
            lines.push(format!("Due        {}", due(&m.merges_due)));
        }
        lines.extend(m.problems.iter().map(|problem| format!("Problem    {problem}")));
        lines
    });
    Ok(())
}

/// A machine's figures.
fn machine(state: &MachineState) -> json::Machine {
    let m = &state.machine;
    let facts = state.facts();
    let now = node_cost(&facts, NodeRef::Now, &[]).unwrap_or_default();
    let failure = if let Power::Failed(why) = &state.power { Some(why) } else { None };
    let memory: ByteCount = m.snapshots.values().filter_map(|s| s.memory.as_ref()).map(|m| m.held).sum();
    json::Machine {
        name: m.name.clone(),
        id: m.id,
        power: json::power(&state.power),
        no_room: (state.power == Power::NoRoom).then(|| json::NoRoom {
            free: state.volume.free,
            go_on_free: m.settings.go_on_free(),
            freeable: freeable(&facts),
        }),
        kind: m.kind,
        place: match state.place {
            Place::Library => "library",
            Place::Folder(_) => "folder",
        },
        folder: state.folder.clone(),
        disks: m.configuration.disks.iter().map(|d| json::DiskSize { disk: d.id.0.clone(), size: d.size }).collect(),
        memory: m.configuration.memory,
        outside: state.outside.clone(),
        hardware: m.configuration.hardware.clone(),
        snapshots: m.snapshots.len(),
        depth: now.depth,
        read_mean: now.read_mean,
        held: state.files.values().map(|f| f.held).sum::<ByteCount>() + memory,
        merges_due: MergeTotal::of(&facts, &merges_due(&facts)),
        trash: m.trash.iter().map(|t| t.held).sum(),
        problems: failure.into_iter().chain(&state.problems).cloned().collect(),
    }
}
