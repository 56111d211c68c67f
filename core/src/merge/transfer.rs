//! Copies a batch's data: large reads ahead of large writes, with a few buffers that are used again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use super::Result;
use super::batch::Move;
use super::survey::Images;
use crate::disk::Image;

/// One write to the target, joined from neighbouring stretches of any owners.
const CHUNK: u64 = 4 << 20;
/// Buffers in flight between the reader and the writer.
const BUFFERS: usize = 3;
/// So much of the target is flushed beside the copying, again and again.
const FLUSH_EVERY: u64 = 16 << 20;
/// From how many bytes on reading in a thread of its own pays.
const THREAD_FROM: u64 = 2 * CHUNK;

/// A write: where, and from which images and file offsets its bytes come.
pub(super) struct Chunk {
    pub(super) offset: u64,
    length: u64,
    parts: Vec<Part>,
}

struct Part {
    source: usize,
    host_offset: u64,
    length: u64,
}

pub(super) fn chunks(moves: &[Move]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for step in moves {
        let Some(mut host_offset) = step.host_offset else { continue };
        let (mut offset, mut left) = (step.offset, step.length);
        while left > 0 {
            let joins = chunks.last().is_some_and(|last| last.offset + last.length == offset && last.length < CHUNK);
            if !joins {
                chunks.push(Chunk { offset, length: 0, parts: Vec::new() });
            }
            let last = chunks.last_mut().expect("one was just pushed");
            let length = left.min(CHUNK - last.length);
            last.parts.push(Part { source: step.source, host_offset, length });
            last.length += length;
            (offset, host_offset, left) = (offset + length, host_offset + length, left - length);
        }
    }
    chunks
}

pub(super) fn read(images: &Images, chunk: &Chunk, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.resize(chunk.length as usize, 0);
    let mut rest = &mut buffer[..];
    for part in &chunk.parts {
        let (bytes, others) = rest.split_at_mut(part.length as usize);
        images[part.source].read_host(bytes, part.host_offset)?;
        rest = others;
    }
    Ok(())
}

/// Writes the data and the zeros that the moves name into the target; nothing is flushed.
pub(super) fn transfer(images: &Images, target: usize, moves: &[Move], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
    let chunks = chunks(moves);
    buffers.resize_with(BUFFERS, Vec::new);
    if chunks.iter().map(|chunk| chunk.length).sum::<u64>() < THREAD_FROM {
        for chunk in &chunks {
            read(images, chunk, &mut buffers[0])?;
            images[target].write_at(&buffers[0], chunk.offset)?;
        }
    } else {
        pipe(images, &images[target], &chunks, buffers)?;
    }
    write_zeros(&*images[target], moves)
}

fn pipe(images: &Images, target: &Arc<dyn Image>, chunks: &[Chunk], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
    let (free, empty): (Sender<Vec<u8>>, Receiver<Vec<u8>>) = channel();
    let (full, filled) = channel();
    for buffer in buffers.drain(..) {
        let _ = free.send(buffer);
    }
    // Its ends of the channels are gone when this ends early: the reader, who waits for a buffer then, ends too.
    thread::scope(move |scope| {
        scope.spawn(move || {
            for chunk in chunks {
                let Ok(mut buffer) = empty.recv() else { break };
                let outcome = read(images, chunk, &mut buffer).map(|()| buffer);
                let failed = outcome.is_err();
                if full.send(outcome).is_err() || failed {
                    break;
                }
            }
        });
        // The volume works while the next bytes are read; what a flush says must not be lost.
        let (due, flushes) = sync_channel::<()>(1);
        let flusher = scope.spawn(move || flushes.iter().try_for_each(|()| target.flush()));
        let mut unflushed = 0;
        for chunk in chunks {
            let Ok(outcome) = filled.recv() else { break };
            let buffer = outcome?;
            target.write_at(&buffer, chunk.offset)?;
            unflushed += chunk.length;
            if unflushed >= FLUSH_EVERY && due.try_send(()).is_ok() {
                unflushed = 0;
            }
            // The reader has ended where nobody takes it: then it isn't needed any more.
            let _ = free.send(buffer);
        }
        drop(due);
        Ok(flusher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })
}

pub(super) fn write_zeros(target: &dyn Image, moves: &[Move]) -> Result<()> {
    let mut stretches = Vec::new();
    for step in moves.iter().filter(|step| step.host_offset.is_none() && !step.done) {
        super::batch::join(&mut stretches, step.offset, step.length);
    }
    for (offset, length) in stretches {
        target.write_zeroes(offset, length)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{self, CreateOptions, ImageFormat, Presence};
    use crate::testing::MemHost;
    use crate::units::ByteCount;

    #[test]
    fn a_full_volume_ends_it_though_much_is_still_to_be_read() {
        let (host, size) = (MemHost::new(), ByteCount::mib(48));
        let shared = host.shared();
        let options = CreateOptions::dynamic(size);
        let base = disk::create(&shared, "/base.vhdx".as_ref(), ImageFormat::Vhdx, &options).unwrap();
        base.write_at(&vec![7; size.0 as usize], 0).unwrap();
        let child = disk::create_child(&shared, "/child.avhdx".as_ref(), &*base, None).unwrap();
        let mut moves = Vec::new();
        for extent in base.extents(0, size.0).unwrap() {
            let Presence::Data { host_offset } = extent.presence else { panic!("{extent:?}") };
            let host_offset = Some(host_offset);
            moves.push(Move { offset: extent.offset, length: extent.length, source: 0, host_offset, done: false });
        }
        host.set_capacity(Some(host.used() + ByteCount::mib(1)));
        let images = [base, child];
        transfer(&images, 1, &moves, &mut Vec::new()).unwrap_err();
        host.set_capacity(None);
        transfer(&images, 1, &moves, &mut Vec::new()).unwrap();
    }
}
