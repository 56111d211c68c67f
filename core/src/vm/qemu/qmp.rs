//! QMP: lines of JSON on a unix socket. Answers come in the order of the questions, events in between.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::locks::lock;

/// Longest line that is taken: QEMU's longest answers (its own schema) have less than a tenth of it.
const LINE_MAX: u64 = 16 << 20;
/// Events that are kept; older ones that nobody asked for are forgotten.
const EVENTS_MAX: usize = 256;

/// Why QEMU didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It said no.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// What it was asked.
        command: String,
        /// QEMU's own words.
        reason: String,
    },
    /// It didn't say anything in time.
    #[error("QEMU hasn't answered {what} within {seconds:.0} s", seconds = .limit.as_secs_f64())]
    Silent {
        /// What it was asked, or what was waited for.
        what: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The connection is gone, and so is QEMU.
    #[error("QEMU has ended: {0}")]
    Ended(String),
    /// The connection can't be used.
    #[error("the connection to QEMU: {0}")]
    Io(#[from] io::Error),
}

/// A result of asking QEMU.
pub type Result<T, E = QmpError> = std::result::Result<T, E>;

/// Something that QEMU told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QmpEvent {
    /// Such as `STOP` or `MIGRATION`.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

/// A connection to QEMU's monitor; several threads may ask at once.
#[derive(Debug)]
pub struct Qmp {
    stream: Arc<UnixStream>,
    /// Held while a question is written.
    asking: Mutex<u64>,
    heard: Arc<Heard>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By question: what came back. A question that nobody waits for any more isn't in here.
    answers: BTreeMap<u64, Option<Value>>,
    events: VecDeque<QmpEvent>,
    ended: Option<String>,
}

impl Heard {
    /// Waits until `found` finds something; `None` where the time is over.
    fn wait<T>(&self, limit: Duration, mut found: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = found(&mut state) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What one line says.
    fn take(&self, line: &[u8]) -> Result<(), String> {
        let mut value: Value = serde_json::from_slice(line).map_err(|error| format!("it doesn't speak JSON: {error}"))?;
        let mut state = lock(&self.state);
        if let Some(name) = value["event"].as_str() {
            let event = QmpEvent { name: name.to_owned(), data: value["data"].take() };
            if state.events.len() == EVENTS_MAX {
                state.events.pop_front();
            }
            state.events.push_back(event);
        } else if let Some(answer) = value["id"].as_u64().and_then(|id| state.answers.get_mut(&id)) {
            *answer = Some(value);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

/// Reads lines until QEMU ends, and says how it did.
fn listen(mut lines: impl BufRead, heard: &Heard) -> String {
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return "it has closed its monitor".into(),
            Ok(_) if !line.ends_with(b"\n") => return "it has ended in the middle of a line, or said too much in one".into(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        if let Err(what) = heard.take(&line) {
            return what;
        }
    }
}

impl Qmp {
    /// Connects to the monitor at `socket`, which must be there within `limit`, and makes it ready to be asked.
    ///
    /// # Errors
    /// Where nobody listens, or who does isn't QEMU.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let until = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= until => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let qmp = Self::over(stream)?;
        qmp.ask("qmp_capabilities", json!({}), until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100)))?;
        Ok(qmp)
    }

    pub(super) fn over(stream: UnixStream) -> Result<Self> {
        let (stream, heard) = (Arc::new(stream), Arc::new(Heard::default()));
        let lines = BufReader::new(stream.try_clone()?);
        let hearing = heard.clone();
        let listening = thread::Builder::new().name("qmp".into()).spawn(move || {
            let end = listen(lines, &hearing);
            lock(&hearing.state).ended = Some(end);
            hearing.changed.notify_all();
        })?;
        Ok(Self { stream, asking: Mutex::default(), heard, listening: Some(listening) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Where QEMU refuses, says nothing within `limit`, or is gone. An answer that comes later is ignored.
    pub fn ask(&self, command: &str, arguments: Value, limit: Duration) -> Result<Value> {
        let id = {
            let mut last = lock(&self.asking);
            *last += 1;
            lock(&self.heard.state).answers.insert(*last, None);
            let line = format!("{}\n", json!({"execute": command, "arguments": arguments, "id": *last}));
            if let Err(error) = (&*self.stream).write_all(line.as_bytes()) {
                return Err(self.forget(*last).map_or(QmpError::Io(error), QmpError::Ended));
            }
            *last
        };
        let answer = self.heard.wait(limit, |state| match state.answers.get_mut(&id).and_then(Option::take) {
            Some(answer) => Some(Ok(answer)),
            None => state.ended.clone().map(Err),
        });
        self.forget(id);
        let mut answer = match answer {
            None => return Err(QmpError::Silent { what: command.to_owned(), limit }),
            Some(Err(ended)) => return Err(QmpError::Ended(ended)),
            Some(Ok(answer)) => answer,
        };
        if let Some(error) = answer.get("error") {
            let reason = error["desc"].as_str().unwrap_or("without a reason").to_owned();
            return Err(QmpError::Refused { command: command.to_owned(), reason });
        }
        Ok(answer["return"].take())
    }

    /// Nobody waits for this answer any more; why QEMU ended, if it did.
    fn forget(&self, id: u64) -> Option<String> {
        let mut state = lock(&self.heard.state);
        state.answers.remove(&id);
        state.ended.clone()
    }

    /// Waits for the first event that `wanted` takes, which is forgotten then, as are those before it.
    ///
    /// # Errors
    /// Where it doesn't come within `limit`, or QEMU is gone.
    pub fn wait_for(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&QmpEvent) -> bool) -> Result<QmpEvent> {
        let found = self.heard.wait(limit, |state| match state.events.iter().position(&mut wanted) {
            Some(at) => state.events.drain(..=at).next_back().map(Ok),
            None => state.ended.clone().map(Err),
        });
        match found {
            Some(Ok(event)) => Ok(event),
            Some(Err(ended)) => Err(QmpError::Ended(ended)),
            None => Err(QmpError::Silent { what: what.to_owned(), limit }),
        }
    }

    /// The events that came and that nobody has waited for, the oldest first; they are forgotten then.
    pub fn events(&self) -> Vec<QmpEvent> {
        lock(&self.heard.state).events.drain(..).collect()
    }

    /// Why the connection ended, if it did.
    pub fn ended(&self) -> Option<String> {
        lock(&self.heard.state).ended.clone()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const AT_ONCE: Duration = Duration::from_millis(30);

    /// A QEMU that does what the test says with each line; it ends when that says `None`.
    fn qemu(mut answer: impl FnMut(Value) -> Option<String> + Send + 'static) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(theirs.try_clone().unwrap()).lines() {
                let Some(said) = answer(serde_json::from_str(&line.unwrap()).unwrap()) else { return };
                (&theirs).write_all(said.as_bytes()).unwrap();
            }
        });
        Qmp::over(ours).unwrap()
    }

    fn returned(question: &Value, value: &Value) -> String {
        format!("{}\n", json!({"return": value, "id": question["id"]}))
    }

    #[test]
    fn answers_and_events_come_apart() {
        let qmp = qemu(|question| {
            let event = |name: &str| format!("{}\n", json!({"event": name, "data": {"of": question["id"]}}));
            Some(event("STOP") + &returned(&question, &question["arguments"]) + &event("RESUME"))
        });
        assert_eq!(qmp.ask("echo", json!({"a": 1}), SOON).unwrap(), json!({"a": 1}));
        assert_eq!(qmp.ask("echo", json!({"a": 2}), SOON).unwrap(), json!({"a": 2}));
        let second = qmp.wait_for("a stop", SOON, |event| event.name == "STOP" && event.data["of"] == 2).unwrap();
        assert_eq!(second.data, json!({"of": 2}));
        let last = qmp.wait_for("a resume", SOON, |event| event.name == "RESUME").unwrap();
        assert_eq!((last.data, qmp.events()), (json!({"of": 2}), vec![]), "what came before is forgotten");
        let late = qmp.wait_for("another stop", AT_ONCE, |event| event.name == "STOP");
        assert!(matches!(late, Err(QmpError::Silent { .. })), "{late:?}");
    }

    #[test]
    fn refusals_silence_and_ends_are_told_apart() {
        let qmp = qemu(|question| match question["execute"].as_str() {
            Some("refuse") => {
                Some(format!("{}\n", json!({"error": {"class": "GenericError", "desc": "no"}, "id": question["id"]})))
            }
            Some("wait") => Some(String::new()),
            Some("end") => None,
            _ => Some(returned(&question, &json!("right"))),
        });
        let said = |command: &str, limit| qmp.ask(command, json!({}), limit).map_err(|error| error.to_string());
        assert_eq!(said("refuse", SOON), Err("QEMU refuses refuse: no".into()));
        assert_eq!(said("wait", AT_ONCE), Err("QEMU hasn't answered wait within 0 s".into()));
        assert_eq!(said("other", SOON), Ok(json!("right")), "the answer to this question, not a late one");
        assert_eq!(said("end", SOON), Err("QEMU has ended: it has closed its monitor".into()));
        assert_eq!(said("other", SOON).unwrap_err(), "QEMU has ended: it has closed its monitor");
        assert!(qmp.wait_for("anything", SOON, |_| true).is_err() && qmp.ended().is_some());
    }

    #[test]
    fn a_late_answer_is_nobodys() {
        let mut late = None;
        let qmp = qemu(move |question| match late.take() {
            None => {
                late = Some(question);
                Some(String::new())
            }
            Some(before) => Some(returned(&before, &json!("late")) + &returned(&question, &json!("in time"))),
        });
        assert!(qmp.ask("first", json!({}), AT_ONCE).is_err());
        assert_eq!(qmp.ask("second", json!({}), SOON).unwrap(), json!("in time"));
    }

    #[test]
    fn who_does_not_speak_json_is_no_qemu() {
        let qmp = qemu(|_| Some("hello\n".into()));
        let error = qmp.ask("anything", json!({}), SOON).unwrap_err().to_string();
        assert!(error.starts_with("QEMU has ended: it doesn't speak JSON"), "{error}");
        let qmp = qemu(|_| Some("{\"return\"".into()));
        assert!(qmp.ask("anything", json!({}), AT_ONCE).is_err());
    }

    #[test]
    fn threads_ask_side_by_side() {
        let qmp = qemu(|question| Some(returned(&question, &question["arguments"])));
        thread::scope(|scope| {
            for thread in 0..8 {
                let qmp = &qmp;
                scope.spawn(move || {
                    for number in 0..50 {
                        assert_eq!(qmp.ask("echo", json!([thread, number]), SOON).unwrap(), json!([thread, number]));
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_listens_is_said_in_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Qmp::connect(&folder.path().join("none"), AT_ONCE), Err(QmpError::Io(_))));
    }
}
