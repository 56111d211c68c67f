//! What follows from a machine's state by core's pure functions, each computed once, when it is
//! first looked at. A new state brings new figures, so none can be stale.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use snaptree_core::cost::{self, DeletionCost, Finding, MergeCost, MergeTotal, NodeCost};
use snaptree_core::engine::MachineState;
use snaptree_core::snapshot::{ImageId, NodeRef, SnapshotId};
use snaptree_core::units::ByteCount;

use super::Node;
use super::beside::Beside;

/// Time that new figures may take within a frame; the rest waits for the next one.
const BUDGET: Duration = Duration::from_micros(1500);

/// From this many images on, what a deletion leads to takes too long for a frame.
const LARGE: usize = 500;

/// What a verdict on an action depends on, beside the machine's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The action, by its label.
    pub verb: &'static str,
    /// The selected snapshot.
    pub chosen: Option<SnapshotId>,
    /// The ticked ones.
    pub ticked: Vec<SnapshotId>,
    /// Whether a job is under way on the machine.
    pub job: bool,
}

/// Snapshots to delete, and whether all that hangs from them goes too.
type Deletion = (Vec<SnapshotId>, bool);

/// The figures of one machine.
pub struct Figures {
    state: Arc<MachineState>,
    /// Merges that are due.
    pub due: Vec<MergeCost>,
    /// Their sum.
    pub due_total: MergeTotal,
    /// What somebody should look at, the worst first.
    pub findings: Vec<Finding>,
    /// What Now costs.
    pub now: NodeCost,
    /// Bytes of all images and saved memory of the tree, the trash not counted.
    pub held: ByteCount,
    /// Bytes in the trash.
    pub trash: ByteCount,
    /// Pairs of images (lower, upper) between which a merge is due.
    due_pairs: HashSet<(ImageId, ImageId)>,
    /// Images that a due merge makes superfluous, and the merge.
    due_sources: HashMap<ImageId, usize>,
    costs: RefCell<HashMap<Node, Option<Rc<NodeCost>>>>,
    deletions: RefCell<HashMap<Deletion, Option<Rc<DeletionCost>>>>,
    verdicts: RefCell<HashMap<Question, Result<(), String>>>,
    spent: Cell<Duration>,
    waiting: Cell<bool>,
    /// Deletions of a large tree, which are computed beside the frames.
    beside: Option<Beside>,
}

impl Figures {
    /// The figures of a state. The expensive ones wait until they are looked at.
    pub fn new(state: Arc<MachineState>, now: DateTime<Utc>) -> Self {
        let facts = state.facts();
        let due = cost::merges_due(&facts);
        let due_total = MergeTotal::of(&facts, &due);
        let findings = state.advice(now);
        let now_cost = cost::node_cost(&facts, NodeRef::Now, &[]).unwrap_or_default();
        let mut due_pairs = HashSet::new();
        let mut due_sources = HashMap::new();
        for (i, merge) in due.iter().enumerate() {
            due_pairs.extend(merge.run.windows(2).map(|w| (w[0], w[1])));
            if let [sources @ .., _] = merge.run.as_slice() {
                due_sources.extend(sources.iter().map(|s| (*s, i)));
            }
        }
        let m = &state.machine;
        let images = m.images.keys().map(|i| facts.held(*i)).sum::<ByteCount>();
        let memories = m.snapshots.values().filter_map(|s| s.memory.as_ref()).map(|s| s.held).sum::<ByteCount>();
        let held = images + memories;
        let trash = m.trash.iter().map(|t| t.held).sum();
        Self {
            due,
            due_total,
            findings,
            now: now_cost,
            held,
            trash,
            due_pairs,
            due_sources,
            costs: RefCell::default(),
            deletions: RefCell::default(),
            verdicts: RefCell::default(),
            spent: Cell::default(),
            waiting: Cell::default(),
            beside: (m.images.len() > LARGE).then(|| Beside::new(state.clone())),
            state,
        }
    }

    /// A new frame begins: there is time again. Says whether something is still to be computed.
    pub fn new_frame(&self) -> bool {
        self.spent.set(Duration::ZERO);
        self.waiting.take()
    }

    fn timed<T>(&self, hurry: bool, compute: impl FnOnce() -> T) -> Option<T> {
        if hurry && self.spent.get() >= BUDGET {
            self.waiting.set(true);
            return None;
        }
        let start = Instant::now();
        let value = compute();
        self.spent.set(self.spent.get() + start.elapsed());
        Some(value)
    }

    /// What a node holds and costs. `None` while this frame's time is used up.
    pub fn node(&self, node: Node) -> Option<Rc<NodeCost>> {
        if let Some(known) = self.costs.borrow().get(&node) {
            return known.clone();
        }
        let value =
            self.timed(true, || cost::node_cost(&self.state.facts(), node.in_core(&self.state.machine), &[]).map(Rc::new))?;
        self.costs.borrow_mut().insert(node, value.clone());
        value
    }

    /// What deleting one snapshot would do. `None` while this frame's time is used up.
    pub fn deletion(&self, snapshot: SnapshotId) -> Option<Rc<DeletionCost>> {
        match &self.beside {
            Some(beside) => beside.deletion(snapshot).unwrap_or_else(|| {
                self.waiting.set(true);
                None
            }),
            None => self.deletion_of(vec![snapshot], false, true),
        }
    }

    /// What deleting these snapshots would do, computed at once.
    pub fn deletion_now(&self, snapshots: &[SnapshotId], subtree: bool) -> Option<Rc<DeletionCost>> {
        let mut sorted = snapshots.to_vec();
        sorted.sort();
        self.deletion_of(sorted, subtree, false)
    }

    fn deletion_of(&self, of: Vec<SnapshotId>, subtree: bool, hurry: bool) -> Option<Rc<DeletionCost>> {
        let key = (of, subtree);
        if let Some(known) = self.deletions.borrow().get(&key) {
            return known.clone();
        }
        let value = self.timed(hurry, || cost::deletion_cost(&self.state.facts(), &key.0, subtree).map(Rc::new))?;
        self.deletions.borrow_mut().insert(key, value.clone());
        value
    }

    /// Whether something may be done, as it was judged for this state before.
    pub fn verdict(&self, question: Question, judge: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        if let Some(known) = self.verdicts.borrow().get(&question) {
            return known.clone();
        }
        let verdict = judge();
        self.verdicts.borrow_mut().insert(question, verdict.clone());
        verdict
    }

    /// Whether a merge is due between two images.
    pub fn is_due(&self, lower: ImageId, upper: ImageId) -> bool {
        self.due_pairs.contains(&(lower, upper))
    }

    /// The merge that will make this image superfluous.
    pub fn merge_of(&self, image: ImageId) -> Option<&MergeCost> {
        self.due_sources.get(&image).map(|i| &self.due[*i])
    }

    /// Bytes that an image's file takes.
    pub fn image_held(&self, image: ImageId) -> ByteCount {
        self.state.facts().held(image)
    }
}
