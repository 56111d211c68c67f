//! Disks over NBD by the command line.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use snaptree_core::testing::NbdClient;
use snaptree_tests::program::{Home, program};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is text"))
}

/// What it prints, ending with this status.
fn ends(home: &Home, status: i32, args: &[&str]) -> Vec<u8> {
    let output = home.command(&program()).args(args).stdin(Stdio::null()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    output.stdout
}

/// A verb that serves, from when it does so until it is told to end.
struct Serving {
    process: Child,
    said: Value,
}

impl Serving {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(&program());
        let mut process =
            command.args(args).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut said = String::new();
        // Its document ends with a bracket at a line's beginning.
        for line in BufReader::new(process.stdout.as_mut().expect("its output")).lines() {
            let line = line.expect("text");
            said += &line;
            if line == "}" {
                break;
            }
        }
        Self { process, said: serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}")) }
    }

    fn socket(&self) -> PathBuf {
        text(&self.said["socket"]).into()
    }

    fn client(&self, export: &str) -> NbdClient {
        let mut client = NbdClient::connect(&self.socket()).expect("it is served");
        client.structured().expect("structured answers");
        client.go(export).expect("the export");
        client
    }

    /// As Ctrl+C does; it ends with 0 and leaves nothing.
    fn end(mut self) {
        let told = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().expect("kill");
        assert!(told.success());
        assert!(self.process.wait().expect("its end").success());
        assert!(!self.socket().exists());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(client: &mut NbdClient) -> Vec<u8> {
    let answer = client.ask(0, 0, 4096, 4096, &[]).expect("an answer");
    assert_eq!(answer.errno, 0, "{}", answer.text);
    answer.data
}

fn write(client: &mut NbdClient, byte: u8) -> u32 {
    client.ask(1, 1, 4096, 4096, &[byte; 4096]).expect("an answer").errno
}

#[test]
fn a_file_is_served_and_changed() {
    let home = Home::new();
    ends(&home, 0, &["disk", "create", "base.vhdx", "--size", "8M"]);
    ends(&home, 0, &["disk", "create", "leaf.avhdx", "--parent", "base.vhdx"]);
    let serve = |file| ["disk", "serve", file, "--socket", "s"];
    ends(&home, 3, &serve("base.vhdx"));
    ends(&home, 2, &["disk", "serve", "leaf.avhdx"]);
    let planned = ends(&home, 0, &["disk", "serve", "leaf.avhdx", "--socket", "s", "--what-if", "--json"]);
    let planned: Value = serde_json::from_slice(&planned).expect("JSON");
    assert!(!home.path().join("s").exists());

    let serving = Serving::start(&home, &serve("leaf.avhdx"));
    assert_eq!(serving.said, planned);
    let export = &serving.said["exports"][0];
    assert_eq!(
        (&export["name"], &export["size"], &export["read_only"]),
        (&"leaf.avhdx".into(), &(8 << 20).into(), &false.into())
    );
    assert!(text(&export["uri"]).starts_with("nbd+unix:///leaf.avhdx?socket=/"));
    ends(&home, 3, &["disk", "serve", "leaf.avhdx", "--socket", "t"]);
    assert_eq!(write(&mut serving.client(""), 7), 0);
    serving.end();

    let serving = Serving::start(&home, &[&serve("leaf.avhdx")[..], &["--read-only"]].concat());
    let mut client = serving.client("leaf.avhdx");
    assert_eq!(write(&mut client, 8), 1, "EPERM");
    assert_eq!(read(&mut client), [7; 4096]);
    serving.end();
    let stored = ends(&home, 0, &["disk", "read", "leaf.avhdx", "--offset", "4096", "--length", "4096"]);
    assert_eq!(stored, [7; 4096]);
    ends(&home, 0, &["disk", "check", "leaf.avhdx"]);
}

#[test]
fn a_machines_disks_are_served() {
    let home = Home::new();
    ends(&home, 0, &["machine", "create", "WEB01", "--disk", "8M", "--disk", "12M", "--memory", "2M"]);
    let nbd = |more: &[&'static str]| [&["nbd", "WEB01", "--socket", "s"], more].concat();
    let serving = Serving::start(&home, &nbd(&[]));
    let names: Vec<&str> = serving.said["exports"].as_array().expect("a list").iter().map(|e| text(&e["name"])).collect();
    assert_eq!(names, ["disk0", "disk1"]);
    assert_eq!(write(&mut serving.client("disk1"), 1), 0);
    // It is held meanwhile.
    ends(&home, 3, &["snapshot", "take", "WEB01", "one"]);
    serving.end();

    ends(&home, 0, &["snapshot", "take", "WEB01", "one"]);
    let serving = Serving::start(&home, &nbd(&["--disk", "disk1"]));
    assert_eq!(write(&mut serving.client(""), 2), 0);
    serving.end();
    let serving = Serving::start(&home, &nbd(&["--snapshot", "one"]));
    let mut client = serving.client("disk1");
    assert_eq!((read(&mut client), write(&mut client, 3)), (vec![1; 4096], 1), "as it was, and read-only");
    serving.end();
    ends(&home, 2, &nbd(&["--disk", "disk9"]));
    ends(&home, 2, &nbd(&["--snapshot", "two"]));

    // A running machine's disks belong to it; its snapshots can be looked at.
    ends(&home, 0, &["machine", "start", "WEB01"]);
    ends(&home, 3, &nbd(&[]));
    let serving = Serving::start(&home, &nbd(&["--snapshot", "one", "--disk", "disk1"]));
    assert_eq!(read(&mut serving.client("disk1")), [1; 4096]);
    serving.end();
    ends(&home, 0, &["machine", "stop", "WEB01"]);
}
