//! A machine that runs in this process: its guest and its disks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::room::Room;
use super::sight::OpenImages;
use super::{EngineOptions, Refusal, wire};
use crate::chain::{BlockDevice, Chain, Gate};
use crate::disk::Image;
use crate::host_file::Access;
use crate::snapshot::{DiskId, ImageId, Machine, MachineKind};
use crate::store::{CONSOLE, MachineStore};
use crate::units::{ByteCount, ByteRate};
use crate::vm::{self, Guest, Places, Setup};

/// A machine whose lock this process holds.
pub(super) struct Owned {
    pub store: MachineStore,
    /// The library's folder.
    pub library: PathBuf,
    pub running: Option<Running>,
}

/// Its guest, and what the guest stands on.
pub(super) struct Running {
    pub guest: Arc<dyn Guest>,
    pub disks: BTreeMap<DiskId, Arc<Chain>>,
    /// A person has paused it.
    pub paused: bool,
    pub room: Room,
    /// When the guest's writes were counted last, and bytes by then.
    measured: Option<(Duration, ByteCount)>,
    /// What the guest writes in a second, once that is known.
    pub rate: Option<ByteRate>,
}

/// Over this time what the guest writes is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

impl Running {
    /// Bytes that the guest wrote to its disks since it was started.
    pub fn written(&self) -> ByteCount {
        self.disks.values().map(|chain| chain.written()).sum()
    }

    /// To be called again and again: how much the guest writes in a second, lately.
    pub fn measure(&mut self, now: Duration) {
        let (then, before) = *self.measured.get_or_insert((now, self.written()));
        if now >= then + MEASURE_EVERY {
            let written = self.written();
            self.rate = Some(ByteRate(written.saturating_sub(before).0 as f64 / (now - then).as_secs_f64()));
            self.measured = Some((now, written));
        }
    }
}

impl Owned {
    /// Starts the machine, from saved memory where Now has some.
    pub fn start(&mut self, options: &EngineOptions) -> Result<(), Refusal> {
        let disks = self.open_disks(Access::Write)?;
        let machine = self.store.machine();
        let saved_memory = match &machine.now.memory {
            None => None,
            Some(memory) => {
                let path = self.store.path(&memory.file);
                let file = options.host.open(&path, Access::Read);
                Some(file.map_err(|error| Refusal::failed(format!("{}: {error}", path.display())))?)
            }
        };
        let had_memory = saved_memory.is_some();
        let setup = Setup {
            configuration: machine.configuration.clone(),
            disks: in_order(machine, &disks),
            saved_memory,
            clock: options.clock.clone(),
        };
        let started = self.places(options).and_then(|places| Ok(vm::start(machine.kind, setup, &places)?));
        let guest = match started {
            Ok(guest) => guest,
            Err(refusal) => {
                self.leave_places();
                return Err(refusal);
            }
        };
        self.store.note_end(None);
        let paused = guest.was_paused();
        self.running = Some(Running { guest, disks, paused, room: Room::default(), measured: None, rate: None });
        if had_memory {
            self.store.clear_memory()?;
        }
        Ok(())
    }

    /// Stops the machine: its disks are flushed, its images closed.
    pub fn stop(&mut self) -> Result<(), Refusal> {
        match self.running.take() {
            None => Ok(()),
            Some(running) => {
                let stopped = running.guest.stop();
                drop(running);
                self.leave_places();
                Ok(stopped?)
            }
        }
    }

    /// Where its guest has what isn't in the library.
    fn places(&self, options: &EngineOptions) -> Result<Places, Refusal> {
        let machine = self.store.machine();
        if machine.kind != MachineKind::Qemu {
            return Ok(Places::default());
        }
        let failed = |error| Refusal::failed(format!("the folder of its sockets: {error}"));
        let sockets = wire::guest_folder(&self.library, machine.id).map_err(failed)?;
        wire::make_guest_folder(&sockets).map_err(failed)?;
        let console = self.store.dir().join(CONSOLE);
        // QEMU would write wherever a link leads.
        let is_own =
            || Some(options.host.canonical(&console).ok()? == options.host.canonical(self.store.dir()).ok()?.join(CONSOLE));
        if options.host.exists(&console) && is_own() != Some(true) {
            return Err(Refusal::failed(format!("{} is a link: remove it", console.display())));
        }
        Ok(Places { sockets, console: Some(console) })
    }

    fn sockets(&self) -> Option<PathBuf> {
        let machine = self.store.machine();
        let has = machine.kind == MachineKind::Qemu;
        has.then(|| wire::guest_folder(&self.library, machine.id).ok()).flatten()
    }

    /// Ends a guest that an owner which was killed has left.
    pub fn end_left_guest(&self) -> Result<(), Refusal> {
        if let Some(sockets) = self.sockets() {
            vm::end_left(&sockets)?;
            self.leave_places();
        }
        Ok(())
    }

    /// Nothing is left of them once the guest is gone.
    fn leave_places(&self) {
        if let Some(sockets) = self.sockets().filter(|sockets| !vm::is_left(sockets)) {
            wire::remove_guest_folder(&sockets);
        }
    }

    /// Opens the disks of Now.
    pub fn open_disks(&self, access: Access) -> Result<BTreeMap<DiskId, Arc<Chain>>, Refusal> {
        self.open_images(&self.store.machine().now.images, access)
    }

    /// Opens chains of these leaves.
    pub fn open_images(
        &self,
        leaves: &BTreeMap<DiskId, ImageId>,
        access: Access,
    ) -> Result<BTreeMap<DiskId, Arc<Chain>>, Refusal> {
        let gate = Gate::new([self.store.dir().to_path_buf()]);
        let open = |(disk, image): (&DiskId, &ImageId)| {
            let path = self.store.image_path(*image).ok_or_else(|| Refusal::failed(format!("{disk} has no image")))?;
            let chain = Chain::open(self.store.host(), &path, access, &gate)?;
            Ok((disk.clone(), Arc::new(chain)))
        };
        leaves.iter().map(open).collect()
    }

    /// The images that a running machine has open.
    pub fn images(&self) -> OpenImages {
        let Some(running) = &self.running else { return OpenImages::new() };
        let machine = self.store.machine();
        let mut open = OpenImages::new();
        for (disk, chain) in &running.disks {
            let mut image = machine.now.images.get(disk).copied();
            for opened in chain.images().into_iter().rev() {
                let Some(id) = image else { break };
                open.insert(id, opened);
                image = machine.images.get(&id).and_then(|record| record.parent);
            }
        }
        open
    }
}

impl Running {
    /// Whether it is to stand still.
    pub fn stands_still(&self) -> bool {
        self.paused || self.room.short
    }

    /// Everything acknowledged becomes durable; refused where there is no room for that, and nothing is lost then.
    pub fn flush(&self) -> Result<(), Refusal> {
        for chain in self.disks.values() {
            chain.flush().map_err(|error| match error.is_full() {
                true => Refusal::rule(format!("its volume is too full to flush its disks; free space first ({error})")),
                false => error.into(),
            })?;
        }
        Ok(())
    }

    /// The leaves that the guest writes to.
    pub fn leaves(&self) -> BTreeMap<DiskId, Arc<dyn Image>> {
        let leaf = |(disk, chain): (&DiskId, &Arc<Chain>)| Some((disk.clone(), chain.images().pop()?));
        self.disks.iter().filter_map(leaf).collect()
    }
}

/// The disks in the configuration's order, as a guest wants them.
pub(super) fn in_order(machine: &Machine, disks: &BTreeMap<DiskId, Arc<Chain>>) -> Vec<Arc<dyn BlockDevice>> {
    let of = |id| disks.get(id).map(|chain| chain.clone() as Arc<dyn BlockDevice>);
    machine.configuration.disks.iter().filter_map(|disk| of(&disk.id)).collect()
}
