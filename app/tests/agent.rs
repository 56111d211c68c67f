//! The agent as a process of its own: it merges in windows, is killed, and goes on.
#![cfg(unix)]

mod due;
mod home;

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::{Local, NaiveDateTime, TimeDelta};
use home::{Home, text};

fn power(home: &Home) -> String {
    text(&home.json(0, &["machine", "list"])[0]["power"]).to_owned()
}

fn in_seconds(seconds: i64) -> NaiveDateTime {
    Local::now().naive_local() + TimeDelta::seconds(seconds)
}

fn add_window(home: &Home, name: &str, from: NaiveDateTime, to: NaiveDateTime, more: &[&str]) {
    let (day, time) = (from.format("%Y-%m-%d").to_string(), from.format("%H:%M:%S").to_string());
    let to = to.format("%Y-%m-%dT%H:%M:%S").to_string();
    home.done(&[&["window", "add", name, "--once", &day, "--from", &time, "--to", &to], more].concat());
}

/// An agent at work, and what it says; killed with the test.
struct Agent(Child, PathBuf);

impl Agent {
    fn start(home: &Home) -> Self {
        let said = home.0.path().join("said");
        let file = File::create(&said).expect("a file");
        let agent = home.command(&["agent"]).stdin(Stdio::null()).stdout(file).spawn().expect("the program starts");
        let agent = Self(agent, said);
        wait_for("the agent", 20, || home.json(0, &["agent", "--status"])["is_at_work"] == true);
        agent
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.1).expect("what it said")
    }

    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// Asks it to end; what it has said.
    fn end(mut self) -> String {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").arg(pid).status().expect("kill").success());
        assert!(self.0.wait().expect("it ends").success(), "{}", self.said());
        self.said()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

/// Looks again and again.
fn wait_for(what: &str, seconds: u64, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !there() {
        assert!(Instant::now() < until, "{what} doesn't come about within {seconds} s");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_merge_pauses_with_its_window_and_goes_on_in_the_next_also_after_a_kill() {
    let home = Home::new();
    let total = due::make(&home);
    assert!(total > 4 << 20, "{total} bytes are too few");
    let end = in_seconds(14);
    add_window(&home, "First", in_seconds(-1), end, &["--limit", "400K"]);
    add_window(&home, "Second", end + TimeDelta::seconds(6), in_seconds(600), &[]);
    let agent = Agent::start(&home);
    wait_for("the merge", 8, || power(&home) == "off" && due_or_busy(&home).is_none_or(|left| left < total));
    agent.kill();
    let at_kill = due::bytes(&home);
    assert!(at_kill > 0 && at_kill <= total, "{at_kill} of {total}");
    let agent = Agent::start(&home);
    let refused = home.run(&["agent"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another agent is at work"), "{refused:?}");
    assert_eq!(home.json(0, &["agent", "--status"])["is_at_work"], true);
    wait_for("the window's end", 20, || Local::now().naive_local() > end + TimeDelta::seconds(1));
    let left = due_or_busy(&home).expect("the merge has let go when its window is over");
    assert!(left > 0 && left <= at_kill, "{left} of {at_kill}");
    wait_for("the end of the merge", 30, || agent.said().contains("1 merge is done"));
    assert_eq!(home.labels(), ["snapshot three", "now Now"]);
    let said = agent.end();
    assert!(said.contains("WEB01: goes on with what was begun before"), "{said}");
    assert!(said.contains("its time is over") && said.contains("1 merge is done"), "{said}");
    home.verify(&["three"]);
    let status = home.json(0, &["agent", "--status"]);
    assert_eq!((&status["is_at_work"], &status["service"]), (&false.into(), &serde_json::Value::Null));
}

/// Bytes that are to be merged; `None` while the merge has the machine.
fn due_or_busy(home: &Home) -> Option<u64> {
    let output = home.run(&["merge", "WEB01", "--what-if", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    output.status.success().then(|| answer["plan"]["merge"]["total"]["data"].as_u64().unwrap_or(0))
}

#[test]
fn a_stopped_window_shuts_the_machine_down_merges_and_starts_it_also_after_a_kill() {
    let home = Home::new();
    let total = due::make(&home);
    home.done(&["machine", "start", "WEB01"]);
    add_window(&home, "Night", in_seconds(-1), in_seconds(1800), &["--stopped", "--limit", "800K"]);
    let agent = Agent::start(&home);
    wait_for("the shutdown", 10, || power(&home) == "off");
    sleep(Duration::from_millis(700));
    agent.kill();
    assert_eq!(power(&home), "off");
    let left = due::bytes(&home);
    assert!(left > 0 && left <= total, "{left} of {total}");
    let agent = Agent::start(&home);
    wait_for("the machine", 40, || agent.said().contains("WEB01: runs again"));
    let said = agent.end();
    assert!(said.contains("1 merge is done") && said.contains("WEB01: runs again"), "{said}");
    assert_eq!(power(&home), "running", "it outlives the agent");
    home.done(&["machine", "stop", "WEB01"]);
    assert_eq!(home.labels(), ["snapshot three", "now Now"]);
    home.verify(&["three"]);
}

#[test]
fn it_is_set_up_as_a_service_and_removed_again() {
    let home = Home::new();
    // No service is started by a test: in the place of the system's manager stands one that writes down what it is told.
    let (bin, asked) = (home.0.path().join("bin"), home.0.path().join("asked"));
    std::fs::create_dir(&bin).expect("a folder");
    let manager = bin.join("systemctl");
    std::fs::write(&manager, format!("#!/bin/sh\necho \"$@\" >> '{}'\n", asked.display())).expect("a script");
    std::fs::set_permissions(&manager, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command.env("PATH", &path).env("XDG_CONFIG_HOME", home.0.path().join("config"));
        command.stdin(Stdio::null()).output().expect("the program starts")
    };
    let unit = home.0.path().join("config/systemd/user/snaptree-agent.service");
    assert!(run(&["agent", "--install"]).status.success());
    let written = std::fs::read_to_string(&unit).expect("the unit");
    let start = written.lines().find(|line| line.starts_with("ExecStart=")).expect("what it starts");
    let library = home.0.path().join("data/snaptree/machines");
    assert_eq!(start, format!("ExecStart=\"{}\" agent --library \"{}\"", env!("CARGO_BIN_EXE_snaptree"), library.display()));
    assert!(written.contains("KillMode=process"), "machines that it has started outlive it");
    let status = run(&["agent", "--status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("The service starts \""), "{status:?}");
    assert!(run(&["agent", "--uninstall"]).status.success());
    assert!(!unit.exists());
    let asked = std::fs::read_to_string(&asked).expect("what was asked");
    let unit = "snaptree-agent.service";
    let expected = ["show-environment", "daemon-reload", &format!("enable {unit}"), &format!("restart {unit}")];
    let removed = [&format!("disable --now {unit}"), "daemon-reload"];
    let expected: Vec<String> = expected.iter().chain(&removed).map(|line| format!("--user {line}")).collect();
    assert_eq!(asked.lines().collect::<Vec<_>>(), expected);

    // Where there is none, it says what to do.
    std::fs::write(&manager, "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n").expect("a script");
    let refused = run(&["agent", "--install"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("Failed to connect to bus") && said.contains("`snaptree agent`"), "{said}");
}
