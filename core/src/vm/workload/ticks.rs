//! What the workers do in a tick.

use std::ops::Range;

use super::layout::{MEMORY_WORKERS, PICTURE_WORKER, UNIT};
use super::picture::{self, Tile};
use super::stamp::{Found, Random, SECTOR, SECTOR_PAYLOAD, UnitWrite, check_page, look_at_sector, write_page};
use super::state::{self, Entry, WorkerState};
use super::{Result, Workload, add, lock};
use crate::memory::PAGE_SIZE;

/// A new patch comes into the picture after so many generations.
const STIR_EVERY: u64 = 48;
/// A tile is stored anew after so many generations.
const TILE_EVERY: u64 = 4;
/// One in so many disk writes zeroes its unit.
const ZERO_ONE_IN: u64 = 16;

/// The checksum of a unit that is zero.
pub(super) fn zero_checksum() -> u32 {
    crc32c::crc32c(&[0; UNIT])
}

/// Whether a unit holds something that the machine didn't write.
fn is_foreign(entry: Entry) -> bool {
    entry.sequence.get() == 0 && entry.checksum.get() != zero_checksum()
}

fn next_sequence(entry: Entry) -> u32 {
    entry.sequence.get().wrapping_add(1).max(1)
}

impl Workload {
    /// One tick of a worker. One that finds the volume full has changed nothing, and is done again as it was.
    pub(super) fn tick(&self, worker: usize) -> Result<()> {
        let mut state = lock(&self.workers[worker]);
        let mut next = *state;
        next.tick += 1;
        if worker < MEMORY_WORKERS {
            self.tick_memory(worker, &mut next);
        } else if worker < PICTURE_WORKER {
            self.tick_disk(worker, &mut next)?;
        } else {
            self.tick_picture(&mut next)?;
        }
        next.store(&self.memory, worker);
        *state = next;
        Ok(())
    }

    /// Something in the hot tenth, or anything.
    fn pick(&self, range: &Range<u64>, random: &mut Random) -> u64 {
        let count = range.end - range.start;
        let hot = random.chance(self.profile.hot_share);
        range.start + random.below(if hot { count.div_ceil(10) } else { count })
    }

    /// Reads one page, writes another: a hot one, or the next on a walk through all.
    fn tick_memory(&self, worker: usize, state: &mut WorkerState) {
        let range = self.layout.of_worker(worker);
        let mut random = state.random();
        let read = self.pick(&range, &mut random);
        let entry = self.page_entry(read);
        let found = self.memory.read(read, |page| check_page(page, read, entry.sequence.get(), entry.checksum.get()));
        self.note(PAGE_SIZE, found);
        state.reads += 1;

        let written = if random.chance(self.profile.hot_share) {
            range.start + random.below((range.end - range.start).div_ceil(10))
        } else {
            state.cursor.set((state.cursor.get() + 1) % (range.end - range.start));
            range.start + state.cursor.get()
        };
        let sequence = next_sequence(self.page_entry(written));
        let checksum = self.memory.write(written, |page| write_page(page, self.seed, written, sequence));
        let index = written - self.layout.data.start;
        state::set_entry(&self.memory, self.layout.page_table, index, Entry::new(sequence, checksum));
        add(&self.tally.page_writes, 1);
        state.writes += 1;
        state.set_random(random);
    }

    fn page_entry(&self, page: u64) -> Entry {
        state::entry(&self.memory, self.layout.page_table, page - self.layout.data.start)
    }

    fn unit_entry(&self, unit: u64) -> Entry {
        state::entry(&self.memory, self.layout.unit_table, unit)
    }

    /// Reads one unit, writes, zeroes or trims another.
    fn tick_disk(&self, worker: usize, state: &mut WorkerState) -> Result<()> {
        let range = self.layout.units.of_worker(worker - MEMORY_WORKERS);
        let mut random = state.random();
        let read = self.pick(&range, &mut random);
        self.read_unit(read, state)?;
        let unit = self.pick(&range, &mut random);
        let zero = random.below(ZERO_ONE_IN) == 0;
        state.set_random(random);
        if is_foreign(self.unit_entry(unit)) {
            return Ok(());
        }
        if zero { self.zero_unit(unit, state) } else { self.write_unit(worker, unit, state, |_, _| {}) }
    }

    /// Reads a unit and compares it with the table.
    fn read_unit(&self, unit: u64, state: &mut WorkerState) -> Result<Box<[u8; UNIT]>> {
        let (disk, offset) = self.layout.units.place(unit);
        let mut content = Box::new([0; UNIT]);
        let started = self.clock.elapsed();
        self.disks[disk].read_at(&mut content[..], offset)?;
        add(&self.tally.read_nanos, self.clock.elapsed().saturating_sub(started).as_nanos() as u64);
        add(&self.tally.disk_reads, 1);
        state.reads += 1;
        let entry = self.unit_entry(unit);
        let right = crc32c::crc32c(&content[..]) == entry.checksum.get();
        let wrong = || format!("disk {disk}, byte {offset}: not what write {} left there", entry.sequence);
        self.note(UNIT, right.then_some(()).ok_or_else(wrong));
        Ok(content)
    }

    pub(super) fn write_unit(
        &self,
        worker: usize,
        unit: u64,
        state: &mut WorkerState,
        draw: impl FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let (disk, offset) = self.layout.units.place(unit);
        let sequence = next_sequence(self.unit_entry(unit));
        let write = UnitWrite {
            seed: self.seed,
            disk,
            offset,
            tick: state.tick.get(),
            boot: self.boot,
            sequence,
            previous: (state.previous_unit.get(), state.previous_sequence.get()),
            worker,
        };
        let content = write.render(draw);
        self.timed_write(|| self.disks[disk].write_at(&content[..], offset))?;
        self.written(unit, Entry::new(sequence, crc32c::crc32c(&content[..])), state);
        (state.previous_unit, state.previous_sequence) = ((unit as u32).into(), sequence.into());
        Ok(())
    }

    fn zero_unit(&self, unit: u64, state: &mut WorkerState) -> Result<()> {
        let (disk, offset) = self.layout.units.place(unit);
        let sequence = next_sequence(self.unit_entry(unit));
        let disk = &self.disks[disk];
        let trims = sequence.is_multiple_of(2);
        self.timed_write(|| if trims { disk.trim(offset, UNIT as u64) } else { disk.write_zeroes(offset, UNIT as u64) })?;
        self.written(unit, Entry::new(sequence, zero_checksum()), state);
        Ok(())
    }

    fn timed_write(&self, write: impl FnOnce() -> crate::disk::Result<()>) -> Result<()> {
        let started = self.clock.elapsed();
        write()?;
        add(&self.tally.write_nanos, self.clock.elapsed().saturating_sub(started).as_nanos() as u64);
        Ok(())
    }

    fn written(&self, unit: u64, entry: Entry, state: &mut WorkerState) {
        state::set_entry(&self.memory, self.layout.unit_table, unit, entry);
        add(&self.tally.disk_writes, 1);
        state.writes += 1;
    }

    /// The next generation; one tile of the gallery is read back, now and then one is stored anew.
    fn tick_picture(&self, state: &mut WorkerState) -> Result<()> {
        let generation = state.tick.get();
        let mut random = state.random();
        let mut cells = picture::step(&picture::load_cells(&self.memory));
        if generation.is_multiple_of(STIR_EVERY) {
            picture::stir(&mut cells, &mut random);
        }
        let gallery = self.layout.units.gallery();
        if let Some(tile) = generation.checked_rem(gallery.end) {
            if generation.is_multiple_of(TILE_EVERY) {
                let stored = generation / TILE_EVERY % gallery.end;
                self.store_tile(stored, &picture::figure(&mut random, self.seed), state)?;
            }
            self.show_tile(tile, state)?;
        }
        picture::store_cells(&self.memory, &cells);
        state.set_random(random);
        Ok(())
    }

    /// Writes a tile to the disk, unless something of others is there.
    fn store_tile(&self, tile: u64, pixels: &Tile, state: &mut WorkerState) -> Result<()> {
        if is_foreign(self.unit_entry(tile)) {
            return Ok(());
        }
        self.write_unit(PICTURE_WORKER, tile, state, |sector, payload| picture::draw_sector(pixels, sector, payload))
    }

    /// Draws a tile from what the disk holds.
    fn show_tile(&self, tile: u64, state: &mut WorkerState) -> Result<()> {
        let (disk, offset) = self.layout.units.place(tile);
        let content = self.read_unit(tile, state)?;
        let mut pixels: Tile = [picture::UNREADABLE; _];
        for (index, sector) in content.chunks_exact(SECTOR).enumerate() {
            let found = look_at_sector(sector, disk, offset + (index * SECTOR) as u64);
            let payload = matches!(found, Found::Whole(_)).then(|| &sector[SECTOR - SECTOR_PAYLOAD..]);
            picture::read_sector(&mut pixels, index, payload);
        }
        picture::store_tile(&self.memory, tile, &pixels);
        Ok(())
    }

    /// At boot: writes units anew whose last write was torn by a kill, as a file system's journal would.
    pub(super) fn mend(&self, torn: &[u64]) -> Result<()> {
        for unit in torn {
            let owns = |worker: &usize| self.layout.units.of_worker(worker - MEMORY_WORKERS).contains(unit);
            let worker = (MEMORY_WORKERS..PICTURE_WORKER).find(owns).unwrap_or(PICTURE_WORKER);
            let mut state = lock(&self.workers[worker]);
            if worker == PICTURE_WORKER {
                let mut random = state.random();
                self.store_tile(*unit, &picture::figure(&mut random, self.seed), &mut state)?;
                state.set_random(random);
            } else {
                self.write_unit(worker, *unit, &mut state, |_, _| {})?;
            }
            state.store(&self.memory, worker);
        }
        Ok(())
    }

    /// At boot: stores a first figure where a tile is blank, and draws all tiles.
    pub(super) fn hang_gallery(&self, blank: &[u64]) -> Result<()> {
        let mut state = lock(&self.workers[PICTURE_WORKER]);
        let mut random = state.random();
        for tile in self.layout.units.gallery() {
            if blank.contains(&tile) {
                self.store_tile(tile, &picture::figure(&mut random, self.seed), &mut state)?;
            }
            self.show_tile(tile, &mut state)?;
        }
        state.set_random(random);
        state.store(&self.memory, PICTURE_WORKER);
        Ok(())
    }

    /// Scrambles the picture, its colours and half of the gallery on the disk, as a bad update would. All of it is
    /// stamped: the machine did it itself, the engine has lost nothing.
    pub fn bad_update(&self) -> Result<()> {
        let mut state = lock(&self.workers[PICTURE_WORKER]);
        let mut random = state.random();
        picture::store_cells(&self.memory, &picture::noise(&mut random));
        picture::store_palette(&self.memory, &picture::garish(&mut random));
        for tile in self.layout.units.gallery() {
            if random.below(2) == 0 {
                self.store_tile(tile, &picture::dots(&mut random), &mut state)?;
            }
            self.show_tile(tile, &mut state)?;
        }
        state.set_random(random);
        state.store(&self.memory, PICTURE_WORKER);
        Ok(())
    }
}
