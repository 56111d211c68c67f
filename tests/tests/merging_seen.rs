//! A merge as 7-Zip sees it, on files: after every batch, and after every single change that the switch makes, each kept
//! node's leaf is handed to it as the files are at that instant, which is what a kill would leave; what it reads is
//! compared with the node's content.
//!
//! It never reads a wrong byte. After every batch it reads every node right, without a word. During the switch:
//!
//! ```text
//! right, log   an image's log isn't empty: 7-Zip reads past it, right, and says so (exit status 2)
//! right, copy  a VHD's footer is replaced, and its copy at the head isn't yet: 7-Zip goes by the copy, and says so
//! no locator,  the metadata of an image are being changed in place, and 7-Zip doesn't replay the log, which has the whole
//! no image     of them; it refuses between two writes
//! no parent    the same of a parent; or the target has the top's identifier already, and what reads through it accepts
//!              both (parent_linkage2), which 7-Zip doesn't look at: it refuses until the target has the top's name, or
//!              the child is relinked; the top itself until the manifest names the merged image
//! ```
//!
//! 7-Zip follows no parent out of the image's folder, so that here the base lies beside the others.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use snaptree_core::chain::Chain;
use snaptree_core::disk::{self, ImageFormat, ParentTarget};
use snaptree_core::host_file::{Access, Host, OsHost};
use snaptree_core::locks::lock;
use snaptree_core::merge::{self, Execution, StepOutcome};
use snaptree_core::snapshot::{NodeRef, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::MemHost;
use snaptree_core::units::ByteCount;
use snaptree_tests::content::Content;
use snaptree_tests::doors::Doors;
use snaptree_tests::lab::{self, Contents, Counted, NOW, Shape};
use snaptree_tests::witness::{Witness, seven_zip_looks, sha256_of};
use tempfile::TempDir;

/// Small, so that a merge has several batches.
const BUDGET: ByteCount = ByteCount::kib(256);

/// An even number of sectors: 7-Zip 26 takes other sizes for errors.
const EVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 12_292, sector: 512, blocks: &[2, 1, 2, 1, 2], fixed: false, grows: 0 };
const UNEVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 6_002, sector: 512, blocks: &[1, 2, 1, 2, 1], fixed: true, grows: 700 };

/// The same as VHD, which has no log: what can't be done in one sector is done beside, and one sector names it.
const VHD: Shape = Shape { format: ImageFormat::Vhd, ..EVEN };
const VHD_UNEVEN: Shape = Shape { format: ImageFormat::Vhd, ..UNEVEN };

/// A merge that is looked at.
struct Case {
    shape: &'static Shape,
    seed: u64,
    /// Whether two images read through x3: Now's, and that of a snapshot y.
    branch: bool,
    /// The snapshots that are deleted.
    deleted: &'static [&'static str],
    /// The target's place in the run.
    place: usize,
    /// How it is carried out.
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Stopped,
    /// The machine has the images open, has written, and does nothing meanwhile.
    Live,
}

/// What 7-Zip makes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Right,
    /// Right, and it says that a log isn't empty.
    RightLog,
    /// Right, and it says that the footer at the end isn't the one at the head.
    RightCopy,
    NoLocator,
    NoImage,
    NoParent,
    /// Never.
    Wrong,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "right",
            Self::RightLog => "right, log",
            Self::RightCopy => "right, copy",
            Self::NoLocator => "no locator",
            Self::NoImage => "no image",
            Self::NoParent => "no parent",
            Self::Wrong => "WRONG",
        })
    }
}

/// What is seen of every node, by label.
type Nodes = BTreeMap<String, Seen>;

/// Every call that changed something, and what was seen then.
type Told = Vec<(String, Nodes)>;

/// Hands every node that the manifest names now to 7-Zip.
struct Eye {
    dir: PathBuf,
    /// By label.
    expected: BTreeMap<String, String>,
}

impl Eye {
    fn of(dir: &Path, contents: &Contents) -> Self {
        let hash = |content: &Content| sha256_of(&*content.read(0, content.size())).expect("a hash");
        let expected = contents.iter().map(|(label, content)| (label.clone(), hash(content))).collect();
        Self { dir: dir.into(), expected }
    }

    fn look(&self) -> Nodes {
        let machine = MachineStore::look(&OsHost::shared(), &self.dir).expect("a manifest");
        let tree = Tree::of(&machine);
        let look = |(label, node): (String, NodeRef)| {
            let image = tree.images_of(node).expect("a node")[&lab::disk0()];
            let seen = self.look_at(&label, &self.dir.join(&machine.images[&image].file));
            (label, seen)
        };
        lab::labels(&machine).into_iter().map(look).collect()
    }

    fn look_at(&self, label: &str, path: &Path) -> Seen {
        let look = seven_zip_looks(path).expect("7-Zip");
        let says = |text: &str| look.complaints.contains(text);
        if look.sha256 == self.expected[label] {
            return match look.status {
                Some(0) if look.complaints.trim().is_empty() => Seen::Right,
                Some(2) if says("non-empty LOG was not replayed") && !says("ERROR:") => Seen::RightLog,
                Some(2) if look.complaints.trim() == "ERRORS:\nCan't find footer" => Seen::RightCopy,
                _ => panic!("{label} is right, but {look:?}"),
            };
        }
        match look.status {
            Some(2)
                if look.bytes == 0
                    && (says("Cannot open the file as [VHDX] archive") || says("Cannot open the file as [VHD] archive")) =>
            {
                Seen::NoImage
            }
            Some(2) if look.bytes == 0 && says("Parent locator is not defined") => Seen::NoLocator,
            Some(2) if look.bytes == 0 && says("Unsupported Method") => Seen::NoParent,
            _ => Seen::Wrong,
        }
    }
}

/// What was seen of a whole merge.
struct Story {
    /// After each step but the last.
    batches: Vec<Nodes>,
    /// For each node, every change of what is seen of it from the switch on, and which call made it.
    switch: BTreeMap<String, Vec<String>>,
}

/// A machine, on files, whose images all lie in one folder.
fn make(case: &Case) -> (TempDir, Contents) {
    let host = MemHost::new();
    let mut contents = lab::make_machine(&host, case.shape, case.seed);
    let mut store = lab::open(&host).expect("a machine");
    if case.branch {
        let taken = store.clock().now();
        let prepared = store.prepare_take("y", "", &Default::default(), ByteCount::ZERO).expect("room");
        store.publish_take(&prepared, None, false, taken).expect("taken");
        drop(prepared);
        contents.insert("y".into(), contents[NOW].clone());
        store.apply(lab::labelled(&store, "x3")).expect("applied");
        contents.insert(NOW.into(), contents["x3"].clone());
    }
    for label in case.deleted {
        let snapshot = lab::labelled(&store, label);
        store.delete(&[snapshot], false, true).expect("deleted");
        contents.remove(*label);
    }
    store.empty_trash(true).expect("emptied");
    into_one_folder(&host, &mut store);
    drop(store);
    (write_out(&host), contents)
}

/// Writes to Now, and flushes.
fn write_now(chain: &Chain, contents: &mut Contents) {
    let now = contents.get_mut(NOW).expect("Now");
    for (number, offset) in [0, 100 << 9, 1 << 20, 2 << 20].into_iter().enumerate() {
        let bytes = vec![number as u8 + 1; 7 << 9];
        chain.write_at(&bytes, offset).expect("written");
        now.write(&bytes, offset);
    }
    chain.flush().expect("flushed");
}

/// Moves the base to where the others are.
fn into_one_folder(host: &MemHost, store: &mut MachineStore) {
    let mut machine = store.machine().clone();
    let (base, record) = machine.images.iter_mut().find(|(_, record)| record.parent.is_none()).expect("a base");
    let (base, from) = (*base, store.path(&record.file));
    record.file = Path::new("Snapshots").join(from.file_name().expect("a name"));
    let to = store.path(&record.file);
    host.rename(&from, &to).expect("renamed");
    let data_write_id = disk::open(store.host(), &to, record.format, Access::Look).expect("a base").info().data_write_id;
    for record in machine.images.values().filter(|record| record.parent == Some(base)) {
        let child = disk::open(store.host(), &store.path(&record.file), record.format, Access::Write).expect("a child");
        child.set_parent(&ParentTarget { path: to.clone(), data_write_id }).expect("linked");
        child.freeze().expect("frozen");
    }
    store.publish(machine).expect("published");
}

/// The files, as files.
fn write_out(host: &MemHost) -> TempDir {
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir().expect("a folder");
    for path in host.files() {
        let to = folder.path().join(path.strip_prefix("/").expect("from the top"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        let (from, mut file) = (host.open(&path, Access::Look).expect("a file"), File::create(to).expect("a file"));
        let length = from.len().expect("a length");
        file.set_len(length).expect("room");
        let mut offset = 0;
        while offset < length {
            let mut piece = vec![0; (length - offset).min(64 << 10) as usize];
            from.read_exact_at(&mut piece, offset).expect("read");
            if piece.iter().any(|&byte| byte != 0) {
                file.seek(SeekFrom::Start(offset)).expect("sought");
                file.write_all(&piece).expect("written");
            }
            offset += piece.len() as u64;
        }
    }
    folder
}

/// Carries it out and looks.
fn story(case: &Case) -> Story {
    let (folder, mut contents) = make(case);
    let dir = folder.path().join("library").join(lab::NAME);
    let doors = Doors::of(OsHost::shared());
    let mut store = MachineStore::open(&doors.shared(), &lab::clock(), &dir).expect("a machine");
    let chain = lab::chain(&store, NodeRef::Now, Access::Write).expect("Now's disk");
    write_now(&chain, &mut contents);
    let open = match case.how {
        How::Live => lab::open_images(&store, &chain),
        How::Stopped => BTreeMap::new(),
    };
    let chain = match case.how {
        How::Live => Some(Arc::new(chain)),
        How::Stopped => {
            chain.images().last().expect("a leaf").freeze().expect("frozen");
            drop(chain);
            None
        }
    };
    let eye = Arc::new(Eye::of(&dir, &contents));

    let counted = Counted::of_running(store.host(), store.dir(), store.machine(), true, &open).expect("counted");
    let run = Tree::of(store.machine()).runs().into_iter().next().expect("a run");
    let plan = merge::plan_into(&counted.facts(), &run, run.images[case.place]).expect("a plan");
    let now = lab::clock().now();
    let execution = match (case.how, &chain) {
        (How::Stopped, _) => Execution::begin(&mut store, &plan, now),
        (How::Live, Some(chain)) => Execution::begin_live(&mut store, &plan, now, chain),
        (How::Live, None) => unreachable!("it is running"),
    };
    let mut execution = execution.expect("begun");

    // From the journal on, every change.
    let calls = Calls::of(&store);
    let told: Arc<Mutex<Option<Told>>> = Arc::default();
    let (watching, watched) = (eye.clone(), told.clone());
    doors.watch(move |call, path| {
        let mut told = lock(&watched);
        if told.is_none() && path.ends_with("journal.json") {
            *told = Some(Vec::new());
        }
        // A flush changes nothing that another program could see.
        if let Some(told) = told.as_mut().filter(|_| call != "flush") {
            told.push((format!("{call} {}", calls.name(path)), watching.look()));
        }
    });
    let mut batches = vec![eye.look()];
    while !matches!(execution.step(&mut store, BUDGET).expect("a step"), StepOutcome::Done(_)) {
        batches.push(eye.look());
    }
    doors.unwatch();
    let told = lock(&told).take().expect("a switch");
    println!("into {} of {}: {} batches, a switch of {} changes", case.place, run.images.len(), batches.len(), told.len());
    let mut switch: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = batches.last().expect("one").clone();
    for (call, seen) in told {
        for (label, seen) in seen {
            if last.insert(label.clone(), seen) != Some(seen) {
                switch.entry(label).or_default().push(format!("{call}: {seen}"));
            }
        }
    }
    assert!(last.values().all(|seen| *seen == Seen::Right), "at the end: {last:?}");
    Story { batches, switch }
}

/// Files by what they are called here.
struct Calls(BTreeMap<PathBuf, String>);

impl Calls {
    fn of(store: &MachineStore) -> Self {
        let (machine, tree) = (store.machine(), Tree::of(store.machine()));
        let leaf = tree.images_of(NodeRef::Now).expect("Now")[&lab::disk0()];
        let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
        for (label, node) in lab::labels(machine) {
            names.insert(store.image_path(tree.images_of(node).expect("a node")[&lab::disk0()]).expect("a file"), label);
        }
        for (place, image) in tree.chain(leaf).into_iter().enumerate() {
            names.entry(store.image_path(image).expect("a file")).or_insert_with(|| format!("x{place}"));
        }
        Self(names)
    }

    fn name(&self, path: &Path) -> String {
        let plain = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.0.get(path).cloned().unwrap_or_else(plain)
    }
}

/// Looks at a merge whose nodes must be seen so in the switch.
fn check(case: &Case, switch: &[(&str, Vec<String>)]) {
    let Some(story) = Witness::SevenZip.is_there().then(|| story(case)) else { return };
    assert!(story.batches.len() > 4, "{} batches", story.batches.len());
    for (number, seen) in story.batches.iter().enumerate() {
        assert!(seen.values().all(|seen| *seen == Seen::Right), "after batch {number}: {seen:?}");
    }
    let expected: BTreeMap<String, Vec<String>> =
        switch.iter().map(|(label, seen)| ((*label).to_owned(), seen.clone())).collect();
    assert_eq!(story.switch, expected, "{:#?}", story.switch);
}

/// What is seen while a file is written, in order.
fn write(file: &str, seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| format!("write {file}: {seen}")).collect()
}

/// An identifier of it is changed through its log.
fn logged(file: &str) -> Vec<String> {
    write(file, &[Seen::RightLog, Seen::Right])
}

/// Its metadata are changed.
fn metadata(file: &str, between: Seen) -> Vec<String> {
    write(file, &[Seen::RightLog, between, Seen::RightLog, Seen::Right])
}

fn renamed_to(name: &str) -> Vec<String> {
    vec![format!("rename to {name}: right")]
}

fn all_see(seen: &[Vec<String>]) -> Vec<(&'static str, Vec<String>)> {
    ["Now", "x3", "y"].map(|label| (label, seen.concat())).into()
}

const ALL_BELOW: &[&str] = &["x0", "x1", "x2"];

fn into_a_base(case: &Case) {
    let before = [logged("x1"), logged("x0"), write("x0", &[Seen::NoParent])].concat();
    let relinked = |child| [before.clone(), write(child, &[Seen::NoImage, Seen::RightLog, Seen::Right])].concat();
    let x3 = [before.clone(), renamed_to("machine.json")].concat();
    check(case, &[("Now", relinked("Now")), ("x3", x3), ("y", relinked("y"))]);
}

#[test]
fn into_the_lowest_a_base() {
    into_a_base(&Case { shape: &EVEN, seed: 50, branch: true, deleted: ALL_BELOW, place: 0, how: How::Stopped });
    into_a_base(&Case { shape: &UNEVEN, seed: 53, branch: true, deleted: ALL_BELOW, place: 0, how: How::Stopped });
}

#[test]
fn into_one_in_the_middle_which_becomes_a_base() {
    for (shape, seed, place, how) in [(&EVEN, 51, 1, How::Stopped), (&UNEVEN, 54, 2, How::Stopped), (&EVEN, 57, 1, How::Live)] {
        let (target, above) = (format!("x{place}"), format!("x{}", place + 1));
        let becomes_a_base = [logged(&target), metadata(&target, Seen::NoLocator)];
        let seen = [vec![logged(&above), logged(&target)], becomes_a_base.into()].concat();
        let seen = [seen, vec![write(&target, &[Seen::NoParent]), renamed_to("x3")]].concat();
        check(&Case { shape, seed, branch: true, deleted: ALL_BELOW, place, how }, &all_see(&seen));
    }
}

#[test]
fn into_the_topmost_which_becomes_a_base() {
    let seen = [logged("x3"), metadata("x3", Seen::NoLocator)];
    let case = Case { shape: &EVEN, seed: 52, branch: true, deleted: ALL_BELOW, place: 3, how: How::Stopped };
    check(&case, &all_see(&seen));
}

#[test]
fn above_one_that_is_kept() {
    let case = |place| Case { shape: &EVEN, seed: 51, branch: true, deleted: &["x1", "x2"], place, how: How::Stopped };
    let lowest = [logged("x2"), logged("x1"), write("x1", &[Seen::NoParent]), renamed_to("x3")];
    check(&case(0), &all_see(&lowest));
    let relinked = metadata("x2", Seen::NoParent);
    let middle = [logged("x3"), logged("x2"), relinked, write("x2", &[Seen::NoParent]), renamed_to("x3")];
    check(&case(1), &all_see(&middle));
    let child = metadata("x3", Seen::NoParent);
    check(&case(2), &[("Now", child.clone()), ("x3", metadata("x3", Seen::NoImage)), ("y", child)]);
}

/// The machine runs, and writes nothing meanwhile.
#[test]
fn under_a_machine() {
    into_a_base(&Case { shape: &EVEN, seed: 55, branch: true, deleted: ALL_BELOW, place: 0, how: How::Live });
    let upper = &["x1", "x2", "x3"];
    let case = |place| Case { shape: &EVEN, seed: 54, branch: false, deleted: upper, place, how: How::Live };
    let now = [logged("x2"), logged("x1"), write("x1", &[Seen::NoParent]), renamed_to("machine.json")].concat();
    check(&case(0), &[("Now", now)]);
    check(&case(3), &[("Now", metadata("Now", Seen::NoImage))]);
}

/// A VHD has no log: a header is written beside, and the footer, one sector, names it. While the two are of different
/// states a chain is refused.
#[test]
fn of_vhds() {
    use Seen::{NoImage, NoParent, Right, RightCopy};
    let case = |shape, seed, place, how| Case { shape, seed, branch: true, deleted: ALL_BELOW, place, how };
    let switches = |file: &str, times: usize| write(file, &[NoParent, Right].repeat(times));

    // Into the base: each child is linked to it, and the identifier that they had until then is forgotten at the end.
    let relinked = |child| [write("x0", &[NoParent]), write(child, &[NoImage, NoParent]), write("x0", &[Right])].concat();
    let x3 = [write("x0", &[NoParent]), renamed_to("machine.json")].concat();
    for (shape, seed) in [(&VHD, 50), (&VHD_UNEVEN, 53)] {
        let seen = [("Now", relinked("Now")), ("x3", x3.clone()), ("y", relinked("y"))];
        check(&case(shape, seed, 0, How::Stopped), &seen);
    }
    let seen = [("Now", switches("x0", 1)), ("x3", x3), ("y", relinked("y"))];
    check(&case(&VHD, 55, 0, How::Live), &seen);

    // Into one in the middle: it gets the top's identifier, and then its name.
    for (seed, how, times, last) in [(51, How::Stopped, 1, "x3"), (57, How::Live, 2, "x1")] {
        let before = [switches("x1", times), write("x1", &[NoParent])].concat();
        let child = [before.clone(), write(last, &[Right])].concat();
        let x3 = [before, vec!["rename to x3: no image".into()], write(last, &[Right])].concat();
        check(&case(&VHD, seed, 1, how), &[("Now", child.clone()), ("x3", x3), ("y", child)]);
    }

    // Into the topmost.
    let x3 = write("x3", &[RightCopy, Right, NoImage, Right]);
    check(&case(&VHD, 52, 3, How::Stopped), &[("Now", switches("x3", 1)), ("x3", x3), ("y", switches("x3", 1))]);
}

/// What the others rest on: a byte that isn't right is seen, and a link that doesn't hold.
#[test]
fn what_is_wrong_is_seen() {
    if !Witness::SevenZip.is_there() {
        return;
    }
    let case = Case { shape: &EVEN, seed: 50, branch: true, deleted: ALL_BELOW, place: 0, how: How::Stopped };
    let (folder, mut contents) = make(&case);
    let dir = folder.path().join("library").join(lab::NAME);
    let look = |contents: &Contents| Eye::of(&dir, contents).look();
    assert!(look(&contents).values().all(|seen| *seen == Seen::Right));
    let x3 = contents.get_mut("x3").expect("x3");
    let last = x3.size() - 1;
    let byte = x3.read(last, 1)[0];
    x3.write(&[byte ^ 1], last);
    assert_eq!(look(&contents)["x3"], Seen::Wrong);
    contents.get_mut("x3").expect("x3").write(&[byte], last);
    let store = MachineStore::open(&OsHost::shared(), &lab::clock(), &dir).expect("a machine");
    let leaf = store.machine().now.images[&lab::disk0()];
    let image = disk::open(store.host(), &store.image_path(leaf).expect("a file"), ImageFormat::Vhdx, Access::Write);
    let image = image.expect("Now's leaf");
    image.set_linkage(uuid::Uuid::from_u128(7), None).expect("linked");
    image.freeze().expect("frozen");
    let seen = look(&contents);
    assert_eq!((seen[NOW], seen["x3"], seen["y"]), (Seen::NoParent, Seen::Right, Seen::Right));
}
