//! One connection after the handshake.
//!
//! Handing a request to another thread takes longer than a cached read itself. So the receiving thread does what is
//! quick, sends the answers of what came together together, and hands out what waits for the disk: flushes, zeroes,
//! and all the rest as long as that was slow lately.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Export;
use super::flushes::Flushes;
use super::negotiate::{ALLOCATION, Agreed, Contexts, DEPTH};
use super::protocol::{Answers, Errno, PAYLOAD_MAX, Problem, Request, broken, command, flag, state};
use super::receive::Receiver;
use crate::locks::{lock, wait};

/// Threads of one connection that do what is slow.
const THREADS: usize = 16;
/// Bytes of reads and writes that one connection may have under way.
const UNDER_WAY: u64 = 64 << 20;
/// Answers are sent when they have become so long.
const SEND: usize = 64 << 10;
/// What takes longer is handed out rather than done by the receiving thread.
const QUICK: Duration = Duration::from_micros(40);
/// How much of the disk is asked about at a time, and how many stretches are told in one answer.
const STATUS_STEP: u64 = 64 << 20;
const STRETCHES_MAX: usize = 4096;
/// Zeroes written at a time where they must have a place.
const ZEROES: usize = 1 << 20;

/// An export, and what all its connections share.
#[derive(Debug)]
pub(super) struct Served {
    pub export: Export,
    pub flushes: Flushes,
    /// Requests that were answered with an error because the disk failed.
    pub failures: AtomicU64,
}

/// What a request asks for, once it is known that it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Read,
    Write,
    Flush,
    Trim,
    Zero { hole: bool },
    Status { one: bool },
}

#[derive(Debug)]
struct Handed {
    request: Request,
    task: Task,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Handed>,
    /// Requests that are waiting or being done, and their bytes.
    requests: usize,
    bytes: u64,
    idle: usize,
    threads: usize,
    ended: bool,
}

#[derive(Debug)]
struct Session {
    stream: Arc<UnixStream>,
    /// Held while answers are written.
    sending: Mutex<()>,
    served: Arc<Served>,
    structured: bool,
    contexts: Contexts,
    size: u64,
    sector: u64,
    queue: Mutex<Queue>,
    come: Condvar,
    done: Condvar,
    /// What a read or write took lately, in ns.
    pace: AtomicU32,
}

/// Does what the client asks until it leaves. Nothing of it is under way any more when this returns.
///
/// # Errors
/// What isn't the protocol, and failures of the stream.
pub(super) fn run(stream: Arc<UnixStream>, served: Arc<Served>, agreed: Agreed) -> io::Result<()> {
    let device = &served.export.device;
    let session = Arc::new(Session {
        sending: Mutex::default(),
        structured: agreed.structured,
        contexts: agreed.contexts,
        size: device.size().0,
        sector: device.sector_size().into(),
        queue: Mutex::default(),
        come: Condvar::new(),
        done: Condvar::new(),
        pace: AtomicU32::new(0),
        stream,
        served,
    });
    let mut threads = Vec::new();
    let mut answers = Answers::default();
    let received = receive(&session, &mut threads, &mut answers);
    lock(&session.queue).ended = true;
    session.come.notify_all();
    for thread in threads {
        // One that panicked has said so.
        let _ = thread.join();
    }
    received.and(session.send(&mut answers))
}

fn receive(session: &Arc<Session>, threads: &mut Vec<JoinHandle<()>>, answers: &mut Answers) -> io::Result<()> {
    let mut receiver = Receiver::new(session.stream.clone());
    // Whether a request came while another one, that took long, was done here.
    let mut crowded = false;
    loop {
        if answers.length() >= SEND || !receiver.has_next() {
            session.send(answers)?;
        }
        let Some(request) = receiver.request()? else { return Ok(()) };
        let length = request.payload();
        if length > PAYLOAD_MAX {
            return Err(broken(format!("a write of {length} bytes")));
        }
        if request.kind == command::DISC {
            return Ok(());
        }
        let payload = receiver.short(length as usize)?;
        let task = match session.check(&request) {
            Ok(task) => task,
            Err(problem) => {
                if payload.is_none() {
                    receiver.payload(length as usize)?;
                }
                answers.error(request.cookie, session.structured, &problem);
                continue;
            }
        };
        let alone = !crowded && lock(&session.queue).requests == 0;
        if let Some(payload) = payload
            && session.is_quick(&request, task, alone)
        {
            let took = session.timed(&request, task, payload, answers);
            crowded = took > QUICK && receiver.look()?;
            continue;
        }
        let payload = match payload {
            Some(payload) => payload.to_vec(),
            None => receiver.payload(length as usize)?,
        };
        session.send(answers)?;
        hand_out(session, threads, Handed { request, task, payload })?;
        crowded = false;
    }
}

/// Gives a request to a thread that has nothing to do, or to a new one; waits while too much is under way.
fn hand_out(session: &Arc<Session>, threads: &mut Vec<JoinHandle<()>>, handed: Handed) -> io::Result<()> {
    let mut queue = lock(&session.queue);
    let bytes = handed.bytes();
    while queue.requests > 0 && queue.bytes + bytes > UNDER_WAY {
        queue = wait(&session.done, queue);
    }
    queue.requests += 1;
    queue.bytes += bytes;
    queue.waiting.push_back(handed);
    if queue.idle < queue.waiting.len() && queue.threads < THREADS {
        let worker = session.clone();
        let started = thread::Builder::new().name("nbd".into()).spawn(move || worker.work());
        match started {
            Ok(thread) => {
                threads.push(thread);
                queue.threads += 1;
            }
            // Those that there are will do it.
            Err(error) if queue.threads > 0 => tracing::warn!(%error, "no further thread for a connection"),
            Err(error) => return Err(error),
        }
    }
    drop(queue);
    session.come.notify_one();
    Ok(())
}

impl Handed {
    fn bytes(&self) -> u64 {
        if matches!(self.task, Task::Read | Task::Write) { self.request.length.into() } else { 0 }
    }
}

/// Takes a request out of the count, even where doing it panicked.
struct Counted<'a>(&'a Session, u64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.requests -= 1;
        queue.bytes -= self.1;
        self.0.done.notify_one();
    }
}

impl Session {
    /// What a thread does until the connection ends.
    fn work(&self) {
        let mut answers = Answers::default();
        loop {
            let mut queue = lock(&self.queue);
            let handed = loop {
                if let Some(handed) = queue.waiting.pop_front() {
                    break handed;
                }
                if queue.ended {
                    return;
                }
                queue.idle += 1;
                queue = wait(&self.come, queue);
                queue.idle -= 1;
            };
            drop(queue);
            let counted = Counted(self, handed.bytes());
            self.timed(&handed.request, handed.task, &handed.payload, &mut answers);
            drop(counted);
            if self.send(&mut answers).is_err() {
                // Whoever receives is to hear of it.
                let _ = self.stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn send(&self, answers: &mut Answers) -> io::Result<()> {
        if answers.length() == 0 {
            return Ok(());
        }
        let _sending = lock(&self.sending);
        let sent = (&*self.stream).write_all(answers.bytes());
        answers.truncate(0);
        sent
    }

    /// Whether the receiving thread does it itself.
    fn is_quick(&self, request: &Request, task: Task, alone: bool) -> bool {
        let small = matches!(task, Task::Read | Task::Write) && !(request.has(flag::FUA) && task == Task::Write);
        small && (alone || u128::from(self.pace.load(Ordering::Relaxed)) < QUICK.as_nanos())
    }

    /// Does it, and returns how long that took.
    fn timed(&self, request: &Request, task: Task, payload: &[u8], answers: &mut Answers) -> Duration {
        let began = Instant::now();
        self.carry_out(request, task, payload, answers);
        let took = began.elapsed();
        if matches!(task, Task::Read | Task::Write) {
            let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            let pace = self.pace.load(Ordering::Relaxed);
            self.pace.store(pace - pace / 8 + took / 8, Ordering::Relaxed);
        }
        took
    }

    /// Whether it can be done.
    fn check(&self, request: &Request) -> Result<Task, Problem> {
        let (offset, length) = (request.offset, u64::from(request.length));
        let (task, flags) = match request.kind {
            command::READ => (Task::Read, flag::DF),
            command::WRITE => (Task::Write, 0),
            command::FLUSH => (Task::Flush, 0),
            command::TRIM => (Task::Trim, 0),
            command::WRITE_ZEROES => (Task::Zero { hole: !request.has(flag::NO_HOLE) }, flag::NO_HOLE),
            command::BLOCK_STATUS => (Task::Status { one: request.has(flag::REQ_ONE) }, flag::REQ_ONE),
            kind => return Err(Problem::invalid(format!("request {kind} isn't known here"))),
        };
        if request.flags & !(flags | flag::FUA) != 0 {
            return Err(Problem::invalid(format!("request {} with flags {:#x}", request.kind, request.flags)));
        }
        let changes = matches!(task, Task::Write | Task::Trim | Task::Zero { .. });
        if changes && self.served.export.read_only {
            return Err(Problem::new(Errno::Perm, "the disk is read-only"));
        }
        if task == Task::Flush {
            let plain = offset == 0 && length == 0;
            return if plain { Ok(task) } else { Err(Problem::invalid("a flush of a range")) };
        }
        if length == 0 || !offset.is_multiple_of(self.sector) || !length.is_multiple_of(self.sector) {
            let text = format!("{length} bytes at {offset} aren't whole sectors of {} bytes", self.sector);
            return Err(Problem::invalid(text));
        }
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let errno = if matches!(task, Task::Write | Task::Zero { .. }) { Errno::NoSpc } else { Errno::Inval };
            return Err(Problem::new(errno, format!("{length} bytes at {offset} go beyond the disk's {} bytes", self.size)));
        }
        if task == Task::Read && request.length > PAYLOAD_MAX {
            return Err(Problem::invalid(format!("a read of {length} bytes")));
        }
        if matches!(task, Task::Status { .. }) && self.contexts == Contexts::default() {
            return Err(Problem::invalid("no context was agreed"));
        }
        Ok(task)
    }

    /// Does it; the answer is added to the others.
    fn carry_out(&self, request: &Request, task: Task, payload: &[u8], answers: &mut Answers) {
        let before = answers.length();
        if let Err(problem) = self.attempt(request, task, payload, answers) {
            if problem.errno == Errno::Io {
                // Before the answer: who hears of it finds it counted.
                self.served.failures.fetch_add(1, Ordering::SeqCst);
            }
            answers.truncate(before);
            answers.error(request.cookie, self.structured, &problem);
        }
    }

    fn attempt(&self, request: &Request, task: Task, payload: &[u8], answers: &mut Answers) -> Result<(), Problem> {
        let device = &*self.served.export.device;
        let (offset, length) = (request.offset, u64::from(request.length));
        match task {
            Task::Read if self.structured => {
                device.read_at(answers.data(request), offset)?;
                return Ok(());
            }
            Task::Read => {
                answers.simple(request.cookie, 0);
                device.read_at(answers.extend(request.length as usize), offset)?;
                return Ok(());
            }
            Task::Status { one } => return self.status(request, one, answers),
            Task::Flush => {}
            Task::Write => device.write_at(payload, offset)?,
            Task::Trim => device.trim(offset, length)?,
            Task::Zero { hole: true } => device.write_zeroes(offset, length)?,
            Task::Zero { hole: false } => {
                // They are to have a place, so that later writes need none.
                let zeroes = vec![0; ZEROES.min(request.length as usize)];
                for at in (0..length).step_by(ZEROES) {
                    device.write_at(&zeroes[..(length - at).min(ZEROES as u64) as usize], offset + at)?;
                }
            }
        }
        if task == Task::Flush || request.has(flag::FUA) {
            self.served.flushes.flush(device)?;
        }
        answers.simple(request.cookie, 0);
        Ok(())
    }

    /// What the agreed contexts say of a range, from its start on and as far as is known soon.
    fn status(&self, request: &Request, one: bool, answers: &mut Answers) -> Result<(), Problem> {
        let most = if one { 1 } else { STRETCHES_MAX };
        let (end, mut at) = (request.offset + u64::from(request.length), request.offset);
        let (mut allocation, mut depth) = (Vec::new(), Vec::new());
        while at < end && allocation.len() <= most && depth.len() <= most {
            let layers = self.served.export.device.layers(at, (end - at).min(STATUS_STEP))?;
            let before = at;
            for layer in layers {
                let absent = if layer.zero || layer.depth == 0 { state::HOLE | state::ZERO } else { 0 };
                join(&mut allocation, layer.length as u32, absent);
                join(&mut depth, layer.length as u32, layer.depth.into());
                at += layer.length;
            }
            if at == before {
                return Err(Problem::new(Errno::Io, format!("nothing is known of what is at {at}")));
            }
        }
        allocation.truncate(most);
        depth.truncate(most);
        if self.contexts.allocation {
            answers.states(request.cookie, !self.contexts.depth, ALLOCATION.0, &allocation);
        }
        if self.contexts.depth {
            answers.states(request.cookie, true, DEPTH.0, &depth);
        }
        Ok(())
    }
}

/// Adds a stretch, joined to the one before where it is the same.
fn join(stretches: &mut Vec<(u32, u32)>, length: u32, state: u32) {
    match stretches.last_mut() {
        Some(last) if last.1 == state => last.0 += length,
        _ => stretches.push((length, state)),
    }
}
