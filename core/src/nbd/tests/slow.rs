//! Disks that take their time, and disks that fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::{self, DiskError};
use crate::locks::lock;
use crate::nbd::flushes::Flushes;

/// Counts what goes on at the same time; flushes wait until they are told to end.
#[derive(Debug)]
struct Slow {
    read_takes: Duration,
    inside: AtomicUsize,
    most: AtomicUsize,
    flushes: AtomicU64,
    gate: Option<Mutex<Receiver<()>>>,
    fails: Option<std::io::ErrorKind>,
    ended: AtomicBool,
}

impl Slow {
    fn new(read_takes: Duration) -> Self {
        let (inside, most, flushes) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { read_takes, inside, most, flushes, gate: None, fails: None, ended: AtomicBool::new(false) }
    }

    /// One flush ends for each message.
    fn gated() -> (Sender<()>, Arc<Self>) {
        let (open, gate) = channel();
        (open, Arc::new(Self { gate: Some(Mutex::new(gate)), ..Self::new(Duration::ZERO) }))
    }

    fn failing(kind: std::io::ErrorKind) -> Arc<Self> {
        Arc::new(Self { fails: Some(kind), ..Self::new(Duration::ZERO) })
    }

    fn outcome(&self) -> disk::Result<()> {
        self.fails.map_or(Ok(()), |kind| Err(DiskError::io("slow".as_ref(), "use it", kind.into())))
    }

    /// Waits until so many flushes have begun.
    fn wait_for_flushes(&self, count: u64) {
        let began = Instant::now();
        while self.flushes.load(Ordering::SeqCst) < count {
            assert!(began.elapsed() < Duration::from_secs(20), "flush {count} doesn't begin");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl BlockDevice for Slow {
    fn size(&self) -> ByteCount {
        ByteCount::mib(64)
    }
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> disk::Result<()> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        thread::sleep(self.read_takes);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        buf.fill(5);
        self.outcome()
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> disk::Result<()> {
        self.outcome()
    }
    fn write_zeroes(&self, _offset: u64, _length: u64) -> disk::Result<()> {
        self.outcome()
    }
    fn trim(&self, _offset: u64, _length: u64) -> disk::Result<()> {
        self.outcome()
    }
    fn flush(&self) -> disk::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            let _ = lock(gate).recv();
        }
        self.ended.store(true, Ordering::SeqCst);
        self.outcome()
    }
}

#[test]
fn slow_reads_of_one_connection_are_done_side_by_side() {
    let slow = Arc::new(Slow::new(Duration::from_millis(4)));
    let (_folder, _server, mut client) = served(slow.clone());
    for at in 0..64 {
        client.send(READ, 0, at * 4096, 4096, &[]).unwrap();
    }
    for _ in 0..64 {
        assert_eq!(client.answer().unwrap().data, [5; 4096]);
    }
    let most = slow.most.load(Ordering::SeqCst);
    assert!((4..=17).contains(&most), "{most} at a time");
}

#[test]
fn two_slow_reads_at_a_time_are_done_side_by_side() {
    let slow = Arc::new(Slow::new(Duration::from_millis(4)));
    let (_folder, _server, mut client) = served(slow.clone());
    client.send(READ, 0, 0, 4096, &[]).unwrap();
    for at in 0..64 {
        client.send(READ, 0, at * 4096, 4096, &[]).unwrap();
        assert_eq!(client.answer().unwrap().errno, 0);
    }
    client.answer().unwrap();
    assert_eq!(slow.most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_flush_holds_nothing_up() {
    let (open, slow) = Slow::gated();
    let (_folder, _server, mut client) = served(slow.clone());
    let flush = client.send(FLUSH, 0, 0, 0, &[]).unwrap();
    let durable = client.send(WRITE, FUA, 0, 512, &[1; 512]).unwrap();
    for at in 0..100 {
        let read = client.send(READ, 0, at * 512, 512, &[]).unwrap();
        assert_eq!(client.answer().unwrap().cookie, read);
    }
    open.send(()).unwrap();
    open.send(()).unwrap();
    let mut last = [client.answer().unwrap().cookie, client.answer().unwrap().cookie];
    last.sort_unstable();
    assert_eq!(last, [flush, durable]);
}

#[test]
fn every_change_with_fua_is_flushed() {
    let slow = Arc::new(Slow::new(Duration::ZERO));
    let (_folder, _server, mut client) = served(slow.clone());
    for (number, kind) in (1..).zip([WRITE, WRITE_ZEROES, TRIM]) {
        let payload = if kind == WRITE { vec![1; 512] } else { vec![] };
        assert_eq!(client.ask(kind, 0, 0, 512, &payload).unwrap().errno, 0);
        assert_eq!(slow.flushes.load(Ordering::SeqCst), number - 1, "{kind} alone");
        assert_eq!(client.ask(kind, FUA, 0, 512, &payload).unwrap().errno, 0);
        assert_eq!(slow.flushes.load(Ordering::SeqCst), number, "{kind} with FUA");
    }
    client.ask(READ, FUA, 0, 512, &[]).unwrap();
    assert_eq!(slow.flushes.load(Ordering::SeqCst), 3, "a read has nothing to flush");
}

#[test]
fn one_flush_does_for_all_who_ask_before_it_begins() {
    let (open, slow) = Slow::gated();
    let flushes = Flushes::default();
    let (ended, count) = (AtomicU64::new(0), || slow.flushes.load(Ordering::SeqCst));
    thread::scope(|scope| {
        let ask = || {
            scope.spawn(|| {
                flushes.flush(&*slow).unwrap();
                ended.fetch_add(1, Ordering::SeqCst)
            })
        };
        let first = ask();
        slow.wait_for_flushes(1);
        // What these have written, the first may have passed by already.
        let later: Vec<_> = (0..6).map(|_| ask()).collect();
        thread::sleep(Duration::from_millis(50));
        assert_eq!((count(), ended.load(Ordering::SeqCst)), (1, 0));
        open.send(()).unwrap();
        first.join().unwrap();
        slow.wait_for_flushes(2);
        assert_eq!(ended.load(Ordering::SeqCst), 1, "the first flush doesn't do for those who asked after it began");
        open.send(()).unwrap();
        later.into_iter().for_each(|asked| drop(asked.join()));
        assert_eq!((count(), ended.load(Ordering::SeqCst)), (2, 7));
    });
}

#[test]
fn a_flush_that_fails_does_for_nobody() {
    let slow = Slow::failing(std::io::ErrorKind::Other);
    let flushes = Flushes::default();
    thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| flushes.flush(&*slow).is_err())).collect();
        assert!(asked.into_iter().all(|asked| asked.join().unwrap()));
    });
}

#[test]
fn errors_of_the_disk_are_told() {
    for (kind, errno, failures) in [(std::io::ErrorKind::StorageFull, ENOSPC, 0), (std::io::ErrorKind::Other, EIO, 5)] {
        let (_folder, server, mut client) = served(Slow::failing(kind));
        for (request, payload) in [(READ, vec![]), (WRITE, vec![1; 512]), (WRITE_ZEROES, vec![]), (TRIM, vec![])] {
            let answer = client.ask(request, 0, 0, 512, &payload).unwrap();
            assert_eq!((answer.errno, answer.data.len()), (errno, 0));
            assert!(answer.text.starts_with("slow: use it"), "{}", answer.text);
        }
        assert_eq!(client.ask(FLUSH, 0, 0, 0, &[]).unwrap().errno, errno);
        // What can't be is the client's fault.
        assert_eq!(client.ask(READ, 0, 0, 100, &[]).unwrap().errno, EINVAL);
        assert_eq!(server.failures(), failures);
    }
}

#[test]
fn a_server_that_ends_leaves_nothing_under_way() {
    let (open, slow) = Slow::gated();
    let (_folder, server, mut client) = served(slow.clone());
    client.send(FLUSH, 0, 0, 0, &[]).unwrap();
    slow.wait_for_flushes(1);
    let opening = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        open.send(()).unwrap();
    });
    drop(server);
    assert!(slow.ended.load(Ordering::SeqCst));
    opening.join().unwrap();
}
