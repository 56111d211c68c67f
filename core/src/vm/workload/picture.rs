//! The picture: Conway's Life on a torus, its cells in memory pages, tinted by age; below it a strip with counters,
//! and the gallery, whose tiles are drawn from sectors of the first disk.
//!
//! A cell is one byte: 128 and more is alive, and grows older; less is dead, and fades to 0.

use super::super::Frame;
use super::layout::{CELL_PAGES, GALLERY_PAGES, PALETTE_PAGE, TILES};
use super::stamp::{Random, SECTORS};
use super::state::{self, CONTENT};
use crate::memory::GuestMemory;

pub(super) const WIDTH: usize = 160;
pub(super) const HEIGHT: usize = 100;
const CELLS: usize = WIDTH * HEIGHT;
/// Height of the strip with the counters.
const STRIP: usize = 9;
/// A tile's pixels on each side.
pub(super) const TILE: usize = 18;
/// A tile's place on each side; eight of them fill the width.
const TILE_PLACE: usize = 20;
const TILES_PER_ROW: usize = WIDTH / TILE_PLACE;
const FRAME_HEIGHT: usize = HEIGHT + STRIP + 1 + TILE_PLACE * (TILES as usize / TILES_PER_ROW);

const ALIVE: u8 = 128;
const NEWBORN: u8 = 129;
const JUST_DEAD: u8 = 24;
/// The strip's background, and what lies between the tiles.
const DARK: [u8; 3] = [10, 12, 18];
const TEXT: [u8; 3] = [170, 180, 195];
/// A piece of a tile whose sector isn't one that the machine wrote.
pub(super) const UNREADABLE: [u8; 3] = [255, 0, 255];

const _: () = assert!(CELLS <= CONTENT * 4 && CELL_PAGES.end - CELL_PAGES.start == 4);

/// A colour for each value of a cell.
pub(super) type Palette = [[u8; 3]; 256];

/// The picture's cells, row by row.
pub(super) fn load_cells(memory: &GuestMemory) -> Vec<u8> {
    let mut cells = Vec::with_capacity(CELLS);
    for page in CELL_PAGES {
        let left = CELLS - cells.len();
        state::look(memory, page, |content| cells.extend_from_slice(&content[..left.min(CONTENT)]));
    }
    cells
}

pub(super) fn store_cells(memory: &GuestMemory, cells: &[u8]) {
    for (page, part) in CELL_PAGES.zip(cells.chunks(CONTENT)) {
        state::change(memory, page, |content| content[..part.len()].copy_from_slice(part));
    }
}

/// Cells to begin with: a third of them alive.
pub(super) fn soup(random: &mut Random) -> Vec<u8> {
    (0..CELLS).map(|_| if random.chance(0.3) { NEWBORN + random.below(60) as u8 } else { 0 }).collect()
}

/// Cells that no rule leads to.
pub(super) fn noise(random: &mut Random) -> Vec<u8> {
    (0..CELLS).map(|_| random.next() as u8).collect()
}

/// The next generation.
pub(super) fn step(cells: &[u8]) -> Vec<u8> {
    let row = |y: usize| &cells[y * WIDTH..(y + 1) * WIDTH];
    let mut next = Vec::with_capacity(CELLS);
    let mut sums = [0u8; WIDTH];
    for y in 0..HEIGHT {
        let rows = [row((y + HEIGHT - 1) % HEIGHT), row(y), row((y + 1) % HEIGHT)];
        for (x, sum) in sums.iter_mut().enumerate() {
            *sum = rows.iter().map(|row| row[x] >> 7).sum();
        }
        for (x, cell) in rows[1].iter().enumerate() {
            let three = sums[(x + WIDTH - 1) % WIDTH] + sums[x] + sums[(x + 1) % WIDTH];
            let neighbours = three - (cell >> 7);
            next.push(match (*cell >= ALIVE, neighbours) {
                (true, 2 | 3) => cell.saturating_add(1),
                (true, _) => JUST_DEAD,
                (false, 3) => NEWBORN,
                (false, _) => cell.min(&JUST_DEAD).saturating_sub(1),
            });
        }
    }
    next
}

/// Puts a small random patch somewhere, so that the picture never comes to rest.
pub(super) fn stir(cells: &mut [u8], random: &mut Random) {
    let (left, top) = (random.below(WIDTH as u64) as usize, random.below(HEIGHT as u64) as usize);
    for (dx, dy) in (0..8).flat_map(|dy| (0..8).map(move |dx| (dx, dy))) {
        if random.chance(0.4) {
            cells[(top + dy) % HEIGHT * WIDTH + (left + dx) % WIDTH] = NEWBORN;
        }
    }
}

fn hsv(hue: f32, saturation: f32, value: f32) -> [u8; 3] {
    let channel = |offset: f32| {
        let k = (offset + hue.rem_euclid(1.0) * 6.0) % 6.0;
        let level = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        (level * 255.0) as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// The colours of a machine, which follow from its seed: dark ground, young cells bright, old ones deep.
pub(super) fn palette(seed: u64) -> Palette {
    let mut random = Random::from_parts([seed, 0, 0xc010]);
    let hue = random.below(1000) as f32 / 1000.0;
    std::array::from_fn(|value| {
        if value < usize::from(ALIVE) {
            let glow = value.min(usize::from(JUST_DEAD)) as f32 / f32::from(JUST_DEAD);
            return hsv(hue + 0.62, 0.75, 0.07 + 0.33 * glow);
        }
        let age = (value - usize::from(ALIVE)) as f32 / 127.0;
        hsv(hue + 0.35 * age.sqrt(), 0.35 + 0.5 * age.sqrt(), 1.0 - 0.45 * age)
    })
}

/// Colours that hurt, as after a bad update.
pub(super) fn garish(random: &mut Random) -> Palette {
    std::array::from_fn(|_| hsv(random.below(1000) as f32 / 1000.0, 1.0, 1.0))
}

pub(super) fn store_palette(memory: &GuestMemory, palette: &Palette) {
    state::change(memory, PALETTE_PAGE, |content| content[..768].copy_from_slice(palette.as_flattened()));
}

/// The part of a tile that one sector holds: these pixels, row by row, three bytes each.
fn tile_part(sector: usize) -> std::ops::Range<usize> {
    TILE * TILE * sector / SECTORS..TILE * TILE * (sector + 1) / SECTORS
}

/// A tile's pixels.
pub(super) type Tile = [[u8; 3]; TILE * TILE];

/// A tile to be stored: a small mirrored figure in the machine's colours.
pub(super) fn figure(random: &mut Random, seed: u64) -> Tile {
    let base = Random::from_parts([seed, 0, 0xc010]).below(1000) as f32 / 1000.0;
    let hue = base + 0.1 * random.below(6) as f32;
    let (ground, light) = (hsv(hue + 0.5, 0.6, 0.16), hsv(hue, 0.55, 0.95));
    let shade = hsv(hue + 0.08, 0.75, 0.65);
    let mut figure = [[ground; TILE]; TILE];
    for (row, column) in (0..7).flat_map(|row| (0..4).map(move |column| (row, column))) {
        let colour = match random.below(5) {
            0 | 1 => light,
            2 => shade,
            _ => continue,
        };
        for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (y, x) = (2 + 2 * row + dy, 2 + 2 * column + dx);
            figure[y][x] = colour;
            figure[y][TILE - 1 - x] = colour;
        }
    }
    let pixels = figure.as_flattened();
    std::array::from_fn(|index| pixels[index])
}

/// A tile of loud dots, as a bad update stores.
pub(super) fn dots(random: &mut Random) -> Tile {
    std::array::from_fn(|_| hsv(random.below(1000) as f32 / 1000.0, 1.0, 1.0))
}

/// Puts one sector's part of a tile into its payload.
pub(super) fn draw_sector(tile: &Tile, sector: usize, payload: &mut [u8]) {
    let part = tile[tile_part(sector)].as_flattened();
    payload[..part.len()].copy_from_slice(part);
}

/// Takes one sector's part of a tile out of its payload; without a payload it becomes unreadable.
pub(super) fn read_sector(tile: &mut Tile, sector: usize, payload: Option<&[u8]>) {
    let part = &mut tile[tile_part(sector)];
    match payload {
        Some(payload) => part.as_flattened_mut().iter_mut().zip(payload).for_each(|(to, from)| *to = *from),
        None => part.fill(UNREADABLE),
    }
}

pub(super) fn store_tile(memory: &GuestMemory, index: u64, tile: &Tile) {
    let bytes = tile.as_flattened();
    state::change(memory, GALLERY_PAGES.start + index, |content| content[..bytes.len()].copy_from_slice(bytes));
}

/// Figures that the strip shows.
pub(super) struct Figures {
    pub(super) generation: u64,
    pub(super) disk_writes: u64,
    pub(super) disk_reads: u64,
}

/// What the screen shows.
pub(super) fn render(memory: &GuestMemory, figures: &Figures) -> Frame {
    let cells = load_cells(memory);
    let mut colours = [[0; 3]; 256];
    state::look(memory, PALETTE_PAGE, |content| colours.as_flattened_mut().copy_from_slice(&content[..768]));
    let mut pixels: Vec<[u8; 3]> = cells.iter().map(|cell| colours[usize::from(*cell)]).collect();
    pixels.resize(WIDTH * FRAME_HEIGHT, DARK);
    let mut checksum = crc32c::crc32c(&figures.generation.to_le_bytes());
    checksum = crc32c::crc32c_append(checksum, pixels[..CELLS].as_flattened());

    let text = format!("GEN {}  W {}  R {}", figures.generation, figures.disk_writes, figures.disk_reads);
    write_text(&mut pixels, 3, HEIGHT + 2, &text);
    for index in 0..TILES {
        let (row, column) = (index as usize / TILES_PER_ROW, index as usize % TILES_PER_ROW);
        let corner = (HEIGHT + STRIP + 1 + row * TILE_PLACE) * WIDTH + column * TILE_PLACE + 1;
        state::look(memory, GALLERY_PAGES.start + index, |content| {
            let tile = &content[..TILE * TILE * 3];
            checksum = crc32c::crc32c_append(checksum, tile);
            for (y, line) in tile.chunks_exact(TILE * 3).enumerate() {
                pixels[corner + y * WIDTH..][..TILE].as_flattened_mut().copy_from_slice(line);
            }
        });
    }
    Frame {
        width: WIDTH as u32,
        height: FRAME_HEIGHT as u32,
        rgb: pixels.into_flattened(),
        generation: figures.generation,
        checksum,
    }
}

/// Three by five dots, the top row first, the left dot in the highest of 15 bits.
fn glyph(character: char) -> u16 {
    match character {
        '0' => 0b111_101_101_101_111,
        '1' => 0b010_110_010_010_111,
        '2' => 0b111_001_111_100_111,
        '3' => 0b111_001_111_001_111,
        '4' => 0b101_101_111_001_001,
        '5' => 0b111_100_111_001_111,
        '6' => 0b111_100_111_101_111,
        '7' => 0b111_001_010_010_010,
        '8' => 0b111_101_111_101_111,
        '9' => 0b111_101_111_001_111,
        'G' => 0b111_100_101_101_111,
        'E' => 0b111_100_110_100_111,
        'N' => 0b110_101_101_101_101,
        'W' => 0b101_101_101_111_101,
        'R' => 0b110_101_110_101_101,
        _ => 0,
    }
}

fn write_text(pixels: &mut [[u8; 3]], left: usize, top: usize, text: &str) {
    for (position, character) in text.chars().take((WIDTH - left) / 4).enumerate() {
        let dots = glyph(character);
        for dot in (0..15).filter(|dot| dots & (1 << (14 - dot)) != 0) {
            pixels[(top + dot / 3) * WIDTH + left + position * 4 + dot % 3] = TEXT;
        }
    }
}
