//! The smallest guest: a boot sector that counts in memory, and writes each number to the disk before it goes on with the
//! next. And QEMU, which runs it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use snaptree_core::disk;
use snaptree_core::vm::qemu::Qemu;

use crate::witness::{skip, tool};

/// Records lie in a ring of so many sectors, from the second one on.
pub const RING: u64 = 1024;
/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Where the guest has its number in memory, at the beginning of what it writes.
pub const NUMBER: u64 = 0x8000;
/// How long anything may take on a busy computer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The guest, for the first sector of the first disk. It ends in a loop without a record where a write fails.
pub fn boot_sector() -> Vec<u8> {
    #[rustfmt::skip]
    let mut code = vec![
        0x31, 0xc0,                         //      xor ax, ax
        0x8e, 0xd8,                         //      mov ds, ax
        0x8e, 0xd0,                         //      mov ss, ax
        0xbc, 0x00, 0x7c,                   //      mov sp, 0x7c00
        0x66, 0xff, 0x06, 0x00, 0x80,       // next: inc dword [0x8000]
        0x66, 0xa1, 0x00, 0x80,             //      mov eax, [0x8000]
        0x66, 0x25, 0xff, 0x03, 0x00, 0x00, //      and eax, RING - 1
        0x66, 0x40,                         //      inc eax
        0x66, 0xa3, 0x38, 0x7c,             //      mov [packet + 8], eax
        0xbe, 0x30, 0x7c,                   //      mov si, packet
        0xb8, 0x00, 0x43,                   //      mov ax, 0x4300: write
        0xb2, 0x80,                         //      mov dl, 0x80: the first disk
        0xcd, 0x13,                         //      int 0x13
        0x73, 0xdf,                         //      jnc next
        0xeb, 0xfe,                         //      jmp here
    ];
    assert_eq!(code.len(), 0x2c);
    code.resize(0x30, 0);
    // One sector from 0000:8000 to the place that is filled in.
    code.extend([0x10, 0, 1, 0, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// QEMU, if it is installed. What else is wrong with it is an error.
pub fn qemu() -> Result<Option<Qemu>> {
    if tool("qemu-system-x86_64").is_none() {
        skip("qemu-system-x86_64 is not installed");
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
    Ok(Some(Qemu::find(folder.path())?))
}

/// The newest record on a disk; `read` fills a buffer from an offset on. Each record of the ring must be there, but for the
/// newest ones of a ring not yet filled. Only where the guest doesn't write meanwhile.
pub fn newest(read: impl FnOnce(&mut [u8], u64) -> disk::Result<()>) -> Result<u64> {
    let numbers = ring(read)?;
    let newest = numbers.iter().copied().max().unwrap_or(0);
    for number in newest.saturating_sub(RING - 1).max(1)..=newest {
        let found = numbers[(number % RING) as usize];
        ensure!(found == number, "record {number} is missing: there is {found}, and {newest} is the newest");
    }
    Ok(newest)
}

/// The numbers that stand in the ring.
pub fn ring(read: impl FnOnce(&mut [u8], u64) -> disk::Result<()>) -> Result<Vec<u64>> {
    let mut bytes = vec![0; (RING * SECTOR) as usize];
    read(&mut bytes, SECTOR)?;
    let sectors = bytes.chunks(SECTOR as usize);
    Ok(sectors.map(|s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]).into()).collect())
}

/// Waits until something is so, and says what was waited for in vain.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Processes whose command lines contain a text.
pub fn processes_with(text: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}
