//! Every byte to an image, a manifest, a journal or a memory file passes `core/src/host_file.rs`: only so can tests
//! crash it, fill it or break it.

use std::fs;
use std::path::Path;

use snaptree_tests::source::{self, SourceFile};

/// The door itself.
const DOOR: &str = "host_file.rs";

/// Who else speaks with the file system, and why nothing of a machine is lost by it.
const BESIDE: [(&str, &str); 9] = [
    ("engine/wire.rs", "makes the folder of the sockets"),
    ("engine/serve.rs", "removes its socket and its log"),
    ("engine/owner.rs", "gives the owner's process a log to say why it ended"),
    ("engine/hand_over.rs", "leaves word beside the sockets that an owner waits for a machine"),
    ("nbd/receive.rs", "reads from a connection"),
    ("nbd/server.rs", "makes and removes its socket"),
    ("vm/qemu/permission.rs", "asks whether this user may use the device by which writes are tracked"),
    ("vm/qemu/process.rs", "asks whose process has a socket, and ends it"),
    ("engine/around.rs", "looks whether an owner's socket is there"),
];

/// Ways to a file that don't name the standard library's module.
const METHODS: [&str; 7] =
    [".exists()", ".canonicalize()", ".metadata()", ".read_dir()", ".is_file()", ".is_dir()", ".read_link()"];

/// Where a file reaches around the door.
fn ways_around(file: &SourceFile, text: &str) -> Vec<String> {
    let mut found: Vec<String> = file
        .paths_of("std")
        .into_iter()
        .filter(|path| path.room == "fs")
        .chain(["rustix", "libc", "tempfile"].into_iter().flat_map(|name| file.paths_of(name)))
        .map(|path| format!("{}:{}: {}", file.path.display(), path.line, path.room))
        .collect();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        if let Some(method) = METHODS.iter().find(|method| line.contains(**method)) {
            found.push(format!("{}:{}: {method}", file.path.display(), number + 1));
        }
    }
    found
}

#[test]
fn nothing_goes_around_the_door() {
    let core = source::root().join("core/src");
    let (mut wrong, mut beside) = (Vec::new(), Vec::new());
    for file in source::files(&core).iter().filter(|file| !file.for_tests) {
        let inside = file.path.strip_prefix(&core).expect("below core").to_path_buf();
        if inside == Path::new(DOOR) || inside.starts_with("testing") {
            continue;
        }
        let found = ways_around(file, &fs::read_to_string(&file.path).expect("readable"));
        match BESIDE.iter().find(|(allowed, _)| inside == Path::new(allowed)) {
            Some((allowed, _)) if !found.is_empty() => beside.push(*allowed),
            _ => wrong.extend(found),
        }
    }
    assert!(wrong.is_empty(), "files that are reached without host_file.rs:\n{}", wrong.join("\n"));
    let idle: Vec<_> = BESIDE.iter().filter(|(file, _)| !beside.contains(file)).collect();
    assert!(idle.is_empty(), "these don't need to be in the list any more: {idle:?}");
}

#[test]
fn a_way_around_is_found() {
    let text = "use std::{fs, io};\nfn f(path: &std::path::Path) -> bool {\n    path.exists()\n}\n\
                fn g() { let _ = std::fs::File::open(\"x\"); }\nfn h() { rustix::fs::sync(); }\n// path.exists()\n\
                #[cfg(test)]\nmod tests { use std::fs; }\n";
    let found = ways_around(&SourceFile::parse(Path::new("store/json.rs"), text), text);
    assert_eq!(found.len(), 4, "{found:?}");
}
