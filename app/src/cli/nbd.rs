//! `nbd` and `disk serve`: disks for other programs, over NBD on a unix socket, until this one is told to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use clap::Args;
use serde::Serialize;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{MachineState, Place, Refusal};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::merge::complete_switch;
use snaptree_core::nbd::{Export, Server};
use snaptree_core::snapshot::DiskId;
use snaptree_core::store::MachineStore;
use snaptree_core::units::ByteCount;

use super::client::Client;
use super::output::Output;
use super::{Common, Done, Failure, names};
use crate::text::bytes;

/// Serves a stopped machine's disks over NBD until Ctrl+C.
///
/// Each disk is an export with its own name; the first one answers to the empty name too. Snapshots, of running machines
/// as well, are read-only.
#[derive(Debug, Args)]
pub struct Nbd {
    /// The machine's name or identifier.
    name: String,
    /// Only this disk [default: all].
    #[arg(long)]
    disk: Option<String>,
    /// As they were at this snapshot, instead of Now.
    #[arg(long, value_name = "LABEL")]
    snapshot: Option<String>,
    #[command(flatten)]
    at: At,
}

/// Where disks are served, and how.
#[derive(Debug, Args)]
pub struct At {
    /// The socket to make; only you can connect to it.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Refuses every change.
    #[arg(long)]
    pub read_only: bool,
}

/// What is served where, as `--json` says it.
#[derive(Debug, Serialize)]
struct Serving {
    socket: PathBuf,
    exports: Vec<Exported>,
}

#[derive(Debug, Serialize)]
struct Exported {
    name: String,
    size: ByteCount,
    read_only: bool,
    uri: String,
}

pub fn run(verb: &Nbd, common: &Common, output: &Output) -> Done {
    let state = Client::open(common)?.machine(&verb.name)?;
    let machine = &state.machine;
    let leaves = match &verb.snapshot {
        Some(label) => machine.snapshots[&names::snapshot(machine, label)?].images.clone(),
        None => machine.now.images.clone(),
    };
    let disks: Vec<DiskId> = match &verb.disk {
        Some(name) => vec![names::disk(machine, name)?],
        None => machine.configuration.disks.iter().map(|disk| disk.id.clone()).collect(),
    };
    let read_only = verb.at.read_only || verb.snapshot.is_some();
    refuse_changes(&state, read_only)?;
    // What Now is must stay as it is while it is served.
    let held = match (&verb.snapshot, &state.place) {
        (None, Place::Library) if !common.what_if => {
            let mut store =
                MachineStore::open(&OsHost::shared(), &SystemClock::shared(), &state.folder).map_err(Refusal::from)?;
            complete_switch(&mut store).map_err(Refusal::from)?;
            Some(store)
        }
        _ => None,
    };
    let gate = Gate::new([state.folder.clone()]);
    let access = if common.what_if { Access::Look } else { access(read_only) };
    let mut served = Vec::new();
    for disk in disks {
        let record = leaves.get(&disk).and_then(|image| machine.images.get(image));
        let record = record.ok_or_else(|| Failure::Refused(Refusal::rule(format!("{disk} isn't part of that snapshot"))))?;
        let chain = Chain::open(&OsHost::shared(), &state.folder.join(&record.file), access, &gate)?;
        let node = verb.snapshot.as_deref().unwrap_or("Now");
        served.push((disk.0.clone(), format!("{}, {disk}, {node}", machine.name), chain));
    }
    verb.at.serve(served, read_only, common, output)?;
    drop(held);
    Ok(())
}

/// Why a machine's disks mustn't be written by others.
fn refuse_changes(state: &MachineState, read_only: bool) -> Done {
    if read_only {
        return Ok(());
    }
    let rule = |text: &str| Err(Failure::Refused(Refusal::rule(format!("{}: {text}", state.machine.name))));
    if state.power.is_up() {
        return rule("it runs, so its disks belong to it; stop it, or serve a snapshot");
    }
    if state.place != Place::Library {
        return rule("it is only looked at, not adopted; serve it with --read-only");
    }
    if state.machine.now.memory.is_some() {
        return rule("it goes on from saved memory, which wouldn't fit a changed disk; serve it with --read-only");
    }
    Ok(())
}

/// How a chain is opened to be served.
pub fn access(read_only: bool) -> Access {
    if read_only { Access::Read } else { Access::Write }
}

/// A disk's name, what it is for people, and the disk.
pub type Disk<C = Chain> = (String, String, C);

impl At {
    /// Serves disks until this process is told to end.
    pub fn serve(&self, disks: Vec<Disk>, read_only: bool, common: &Common, output: &Output) -> Done {
        let socket = std::path::absolute(&self.socket)?;
        let disks: Vec<Disk<Arc<Chain>>> = disks.into_iter().map(|(name, what, chain)| (name, what, chain.into())).collect();
        let exported = |(name, _, chain): &Disk<Arc<Chain>>| Exported {
            name: name.clone(),
            size: chain.virtual_size(),
            read_only,
            uri: uri(name, &socket),
        };
        let serving = Serving { socket: socket.clone(), exports: disks.iter().map(exported).collect() };
        let how = if read_only { "read-only" } else { "for changes too" };
        let line = |e: &Exported| format!("{}, {}, {how}: {}", e.name, bytes(e.size), e.uri);
        let lines = |heading: &str| std::iter::once(heading.to_owned()).chain(serving.exports.iter().map(line)).collect();
        if common.what_if {
            output.say(&serving, || lines("These would be served:"));
            return Ok(());
        }
        let (end, ended) = mpsc::channel();
        ctrlc::set_handler(move || end.send(()).unwrap_or_default()).map_err(|error| Failure::failed(error.to_string()))?;
        let export = |(name, description, chain): &Disk<Arc<Chain>>| Export {
            name: name.clone(),
            description: description.clone(),
            device: chain.clone(),
            read_only,
        };
        let failed = |error| Failure::failed(format!("{}: {error}", socket.display()));
        let server = Server::start(&socket, disks.iter().map(export).collect()).map_err(failed)?;
        output.say(&serving, || lines("Served until Ctrl+C:"));
        // Nobody else has the other end: an error is an end, too.
        let _ = ended.recv();
        drop(server);
        for (_, _, chain) in disks.iter().filter(|_| !read_only) {
            chain.flush()?;
        }
        Ok(())
    }
}

/// What clients take as an address.
fn uri(export: &str, socket: &Path) -> String {
    let encoded = |text: &[u8]| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        text.iter().map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
    };
    format!("nbd+unix:///{}?socket={}", encoded(export.as_bytes()), encoded(socket.as_os_str().as_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(uri("disk 0", Path::new("/run/a b/ü&s")), "nbd+unix:///disk%200?socket=/run/a%20b/%C3%BC%26s");
    }
}
