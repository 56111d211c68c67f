//! What deletions of a large tree lead to, computed on a thread of its own: each looks at the whole tree.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use snaptree_core::cost::{self, DeletionCost};
use snaptree_core::engine::MachineState;
use snaptree_core::snapshot::SnapshotId;

/// The deletions of one state. Its thread starts with the first question, and ends with it.
pub struct Beside {
    state: Arc<MachineState>,
    todo: RefCell<Option<Sender<SnapshotId>>>,
    done: RefCell<Option<Receiver<Answer>>>,
    asked: RefCell<HashSet<SnapshotId>>,
    known: RefCell<HashMap<SnapshotId, Option<Rc<DeletionCost>>>>,
}

type Answer = (SnapshotId, Option<DeletionCost>);

impl Beside {
    /// Nothing is known yet.
    pub fn new(state: Arc<MachineState>) -> Self {
        let (todo, done, asked, known) = Default::default();
        Self { state, todo, done, asked, known }
    }

    /// What deleting a snapshot would do; `None` while it isn't known.
    pub fn deletion(&self, snapshot: SnapshotId) -> Option<Option<Rc<DeletionCost>>> {
        if let Some(done) = &*self.done.borrow() {
            self.known.borrow_mut().extend(done.try_iter().map(|(id, cost)| (id, cost.map(Rc::new))));
        }
        if let Some(known) = self.known.borrow().get(&snapshot) {
            return Some(known.clone());
        }
        if self.asked.borrow_mut().insert(snapshot) {
            let mut todo = self.todo.borrow_mut();
            let todo = todo.get_or_insert_with(|| {
                let (todo, done) = start(self.state.clone());
                *self.done.borrow_mut() = Some(done);
                todo
            });
            // A thread that has ended only means that no answer comes.
            let _ = todo.send(snapshot);
        }
        None
    }
}

fn start(state: Arc<MachineState>) -> (Sender<SnapshotId>, Receiver<Answer>) {
    let (todo, questions) = unbounded::<SnapshotId>();
    let (answers, done) = unbounded();
    std::thread::spawn(move || {
        // The newest first: what is in sight now. Older ones may have been scrolled away.
        let mut waiting: Vec<SnapshotId> = Vec::new();
        while let Some(next) = {
            waiting.extend(questions.try_iter());
            waiting.pop()
        }
        .or_else(|| questions.recv().ok())
        {
            let cost = cost::deletion_cost(&state.facts(), &[next], false);
            if answers.send((next, cost)).is_err() {
                return;
            }
        }
    });
    (todo, done)
}
