//! Every invariant of a manifest. A manifest is hostile input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::trash::TRASH;
use super::{Configuration, DiskId, Forest, ImageId, Machine, SavedMemory, Snapshot, Tree};

/// The deepest chain that a manifest may describe.
const MAX_CHAIN: usize = 1024;
/// More changes than any machine sees.
const MAX_GENERATION: u64 = 1 << 53;
/// The most things wrong that are told.
const MAX_PROBLEMS: usize = 20;

/// Checks every invariant; the error lists what is wrong (the first twenty), in words with the field.
/// Run before each publish and on each load.
pub fn validate(machine: &Machine) -> Result<(), Vec<String>> {
    let mut check = Check { machine, problems: Vec::new() };
    check.head();
    check.images();
    check.nodes();
    if check.problems.is_empty() {
        // What follows walks the links, which hold now.
        check.links();
        check.readers();
    }
    check.files();
    check.merges();
    check.problems.truncate(MAX_PROBLEMS);
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

/// Why a path of a manifest or journal can't be followed, if it can't: it must be relative and stay inside the folder.
pub(crate) fn path_problem(path: &Path) -> Option<&'static str> {
    const OWN: [&str; 6] = ["machine.json", "journal.json", "history.jsonl", "machine.lock", "console.log", "ended.txt"];
    let mut parts = path.components().peekable();
    if parts.peek().is_none() {
        return Some("is empty");
    }
    if path.as_os_str().len() > 1024 {
        return Some("is longer than 1024 bytes");
    }
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => name.to_str().is_some_and(|name| !name.contains(['\\', '\0'])),
        _ => false,
    };
    if !parts.all(normal) {
        return Some("must be relative and stay inside the machine's folder");
    }
    OWN.iter().any(|own| path == Path::new(own)).then_some("is the name of a file with another purpose")
}

/// Why a text can't be a label, if it can't.
pub(crate) fn label_problem(label: &str) -> Option<&'static str> {
    if label.trim().is_empty() {
        Some("is empty")
    } else if label.len() > 200 {
        Some("is longer than 200 bytes")
    } else if label.chars().any(char::is_control) {
        Some("has control characters")
    } else {
        None
    }
}

struct Check<'a> {
    machine: &'a Machine,
    problems: Vec<String>,
}

impl Check<'_> {
    fn wrong(&mut self, field: impl std::fmt::Display, problem: impl std::fmt::Display) {
        if self.problems.len() <= MAX_PROBLEMS {
            self.problems.push(format!("{field}: {problem}"));
        }
    }

    fn head(&mut self) {
        let machine = self.machine;
        if machine.format != "snaptree-machine" {
            self.wrong("format", format_args!("is {:?}, must be \"snaptree-machine\"", machine.format));
        }
        if machine.version != 1 {
            self.wrong("version", format_args!("is {}, must be 1", machine.version));
        }
        if machine.generation > MAX_GENERATION {
            self.wrong("generation", format_args!("is {}, must be at most {MAX_GENERATION}", machine.generation));
        }
        if let Some(problem) = label_problem(&machine.name) {
            self.wrong("name", problem);
        }
        self.configuration("configuration", &machine.configuration);
    }

    fn configuration(&mut self, field: &str, configuration: &Configuration) {
        if !configuration.memory.0.is_multiple_of(4096) {
            self.wrong(field, format_args!("memory is {} bytes, must be a multiple of 4096", configuration.memory.0));
        }
        if let Some(problem) = configuration.hardware.as_ref().and_then(|hardware| hardware.problem(configuration.disks.len())) {
            self.wrong(field, format_args!("hardware: {problem}"));
        }
        let mut seen = BTreeSet::new();
        for disk in &configuration.disks {
            if !is_disk_name(&disk.id) {
                self.wrong(field, format_args!("disk name {:?} must be 1 to 64 letters, digits, '-' or '_'", disk.id.0));
            }
            if !seen.insert(&disk.id) {
                self.wrong(field, format_args!("disk {} is there twice", disk.id));
            }
        }
    }

    /// Identifiers resolve, disks agree, no chain is a circle.
    fn images(&mut self) {
        let images = &self.machine.images;
        let mut depths: BTreeMap<ImageId, usize> = BTreeMap::new();
        for (id, record) in images {
            if let Some(parent) = record.parent {
                match images.get(&parent) {
                    None => self.wrong(format_args!("images.{id}.parent"), format_args!("there is no image {parent}")),
                    Some(other) if other.disk != record.disk => {
                        self.wrong(
                            format_args!("images.{id}.parent"),
                            format_args!("is of disk {}, not of {}", other.disk, record.disk),
                        );
                    }
                    Some(_) => {}
                }
            }
            let mut path = vec![*id];
            let mut at = record.parent;
            while let Some(below) = at.filter(|below| !depths.contains_key(below) && path.len() <= MAX_CHAIN) {
                path.push(below);
                at = images.get(&below).and_then(|record| record.parent);
            }
            let mut depth = at.and_then(|below| depths.get(&below)).copied().unwrap_or(0);
            if depth + path.len() > MAX_CHAIN {
                self.wrong(format_args!("images.{id}.parent"), format_args!("is a circle, or more than {MAX_CHAIN} images deep"));
                return;
            }
            for image in path.into_iter().rev() {
                depth += 1;
                depths.insert(image, depth);
            }
        }
    }

    /// One image per disk and node, each the content of one node at most; labels are unique.
    fn nodes(&mut self) {
        let machine = self.machine;
        let mut content_of: BTreeMap<ImageId, String> = BTreeMap::new();
        let mut labels = BTreeSet::new();
        for (id, node) in &machine.snapshots {
            let field = format!("snapshots.{id}");
            if let Some(problem) = label_problem(&node.label) {
                self.wrong(format_args!("{field}.label"), problem);
            }
            if !labels.insert(&node.label) {
                self.wrong(format_args!("{field}.label"), format_args!("{:?} is there twice", node.label));
            }
            if let Some(parent) = node.parent.filter(|parent| !machine.snapshots.contains_key(parent)) {
                self.wrong(format_args!("{field}.parent"), format_args!("there is no snapshot {parent}"));
            }
            self.configuration(&field, &node.configuration);
            self.content(&field, &node.images, &node.configuration, &mut content_of);
        }
        if let Some(parent) = machine.now.parent.filter(|parent| !machine.snapshots.contains_key(parent)) {
            self.wrong("now.parent", format_args!("there is no snapshot {parent}"));
        }
        self.content("now", &machine.now.images, &machine.configuration, &mut content_of);
        for (id, ghost) in &machine.ghosts {
            if machine.snapshots.contains_key(id) {
                self.wrong(format_args!("ghosts.{id}"), "is a snapshot too");
            }
            if let Some(parent) = ghost.snapshot.parent
                && !machine.snapshots.contains_key(&parent)
                && !machine.ghosts.contains_key(&parent)
            {
                self.wrong(format_args!("ghosts.{id}.snapshot.parent"), format_args!("there is no snapshot or ghost {parent}"));
            }
            self.configuration(&format!("ghosts.{id}.snapshot"), &ghost.snapshot.configuration);
            for (disk, image) in &ghost.snapshot.images {
                if machine.images.get(image).is_some_and(|record| record.disk != *disk) {
                    self.wrong(format_args!("ghosts.{id}.snapshot.images.{disk}"), "is an image of another disk");
                }
                if let Some(other) = content_of.get(image) {
                    self.wrong(format_args!("ghosts.{id}.snapshot.images.{disk}"), format_args!("is the content of {other}"));
                }
            }
        }
    }

    fn content(
        &mut self,
        field: &str,
        images: &BTreeMap<DiskId, ImageId>,
        configuration: &Configuration,
        content_of: &mut BTreeMap<ImageId, String>,
    ) {
        let disks: BTreeSet<_> = configuration.disks.iter().map(|disk| &disk.id).collect();
        if images.keys().collect::<BTreeSet<_>>() != disks {
            self.wrong(format_args!("{field}.images"), "must have one image for each disk of its configuration");
        }
        for (disk, image) in images {
            match self.machine.images.get(image) {
                None => self.wrong(format_args!("{field}.images.{disk}"), format_args!("there is no image {image}")),
                Some(record) if record.disk != *disk => {
                    self.wrong(format_args!("{field}.images.{disk}"), format_args!("is an image of disk {}", record.disk));
                }
                Some(_) => {}
            }
            if let Some(other) = content_of.insert(*image, field.to_owned()) {
                self.wrong(format_args!("{field}.images.{disk}"), format_args!("is the content of {other} too"));
            }
        }
    }

    /// The links of snapshots, ghosts and Now are those of one full tree without circles.
    fn links(&mut self) {
        let forest = Forest::of(self.machine);
        if let Some(id) = forest.circle() {
            self.wrong(format_args!("snapshots.{id}.parent"), "is a circle");
            return;
        }
        let mut written = self.machine.clone();
        forest.write(&mut written);
        let sorted = |list: &[super::SnapshotId]| list.iter().copied().collect::<BTreeSet<_>>();
        let same = |a: &Snapshot, b: &Snapshot| a.parent == b.parent;
        for (id, node) in &self.machine.snapshots {
            if !same(node, &written.snapshots[id]) {
                self.wrong(format_args!("snapshots.{id}.parent"), "doesn't agree with the ghosts' children");
            }
        }
        for (id, ghost) in &self.machine.ghosts {
            let other = &written.ghosts[id];
            if !same(&ghost.snapshot, &other.snapshot)
                || sorted(&ghost.children) != sorted(&other.children)
                || ghost.was_parent_of_now != other.was_parent_of_now
            {
                self.wrong(format_args!("ghosts.{id}.children"), "doesn't agree with the parents of other nodes");
            }
        }
        if self.machine.now.parent != written.now.parent {
            self.wrong("now.parent", "doesn't agree with the ghosts' children");
        }
    }

    /// Nothing reads through Now's leaves; something reads through every image that no node is.
    fn readers(&mut self) {
        let tree = Tree::of(self.machine);
        for (disk, leaf) in &self.machine.now.images {
            if let Some(child) = tree.child_images(*leaf).first() {
                self.wrong(
                    format_args!("now.images.{disk}"),
                    format_args!("image {child} reads through it, so it can't be written"),
                );
            }
        }
        for image in tree.retained() {
            if tree.child_images(image).is_empty() {
                self.wrong(format_args!("images.{image}"), "belongs to no node, and nothing reads through it");
            }
        }
    }

    fn path(&mut self, field: &str, path: &Path) {
        if let Some(problem) = path_problem(path) {
            self.wrong(field, format_args!("{} {problem}", path.display()));
        }
    }

    /// Paths stay inside, no file has two purposes, the trash lies in the trash.
    fn files(&mut self) {
        let machine = self.machine;
        let mut purposes: BTreeSet<&Path> = BTreeSet::new();
        for (id, record) in &machine.images {
            let field = format!("images.{id}.file");
            self.path(&field, &record.file);
            if !purposes.insert(&record.file) {
                self.wrong(&field, format_args!("{} belongs to another image too", record.file.display()));
            }
        }
        let in_place = purposes.clone();
        let mut trashed = BTreeSet::new();
        for (index, item) in machine.trash.iter().enumerate() {
            let field = format!("trash.{index}");
            self.path(&field, &item.file);
            self.path(&field, &item.original);
            if !item.file.starts_with(TRASH) || item.original.starts_with(TRASH) {
                self.wrong(&field, format_args!("file must lie in {TRASH}, and original outside"));
            }
            if !purposes.insert(&item.file) {
                self.wrong(&field, format_args!("{} is there twice", item.file.display()));
            }
            if let Some((id, record)) = &item.image {
                if machine.images.contains_key(id) || !trashed.insert(*id) {
                    self.wrong(&field, format_args!("image {id} is there twice"));
                }
                if record.file != item.original {
                    self.wrong(&field, "original and the image's file differ");
                }
            }
            if item.image.is_some() && in_place.contains(&*item.original) {
                self.wrong(&field, format_args!("{} belongs to another image now", item.original.display()));
            }
        }
        let of_node = |node: &'_ Snapshot| {
            node.memory.iter().map(|memory| memory.file.clone()).chain(node.screen.clone()).collect::<Vec<_>>()
        };
        let memory = |memory: &Option<SavedMemory>| memory.iter().map(|memory| memory.file.clone()).collect::<Vec<_>>();
        let mut others: Vec<(String, std::path::PathBuf)> = Vec::new();
        for (id, node) in &machine.snapshots {
            others.extend(of_node(node).into_iter().map(|file| (format!("snapshots.{id}"), file)));
        }
        for (id, ghost) in &machine.ghosts {
            others.extend(of_node(&ghost.snapshot).into_iter().map(|file| (format!("ghosts.{id}"), file)));
        }
        others.extend(memory(&machine.now.memory).into_iter().map(|file| ("now.memory".to_owned(), file)));
        if let Some(applied) = &machine.applied {
            others.extend(memory(&applied.now.memory).into_iter().map(|file| ("applied.now.memory".to_owned(), file)));
        }
        for (field, file) in others {
            self.path(&field, &file);
            if purposes.contains(file.as_path()) {
                self.wrong(&field, format_args!("{} has another purpose too", file.display()));
            }
        }
    }

    fn merges(&mut self) {
        let machine = self.machine;
        let mut busy = BTreeSet::new();
        for (index, merge) in machine.merges.iter().enumerate() {
            let field = format!("merges.{index}");
            if merge.run.len() < 2 || !merge.run.contains(&merge.target) {
                self.wrong(&field, "run must have two images or more, the target among them");
            }
            for image in &merge.run {
                if machine.images.get(image).is_none_or(|record| record.disk != merge.disk) {
                    self.wrong(&field, format_args!("there is no image {image} of disk {}", merge.disk));
                }
                if !busy.insert(*image) {
                    self.wrong(&field, format_args!("image {image} is being merged twice"));
                }
            }
        }
    }
}

fn is_disk_name(disk: &DiskId) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&disk.0.len()) && disk.0.chars().all(fits)
}
