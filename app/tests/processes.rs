//! Owners, clients and merges that are killed: what was acknowledged is there, and things go on.
#![cfg(unix)]

mod due;
mod home;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use home::Home;

/// The processes of this home's owners, by their command lines.
fn owners(home: &Home) -> Vec<u32> {
    let library = home.0.path().display().to_string();
    let is_owner = |pid: &u32| {
        let line = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(" serve ") && line.contains(&library)
    };
    let processes = std::fs::read_dir("/proc").expect("the list of processes");
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_owner).collect()
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "{pid} was not there to be killed");
}

/// Kills the one owner and waits until its lock is gone.
fn kill_owner(home: &Home) {
    let running = owners(home);
    assert_eq!(running.len(), 1, "one owner runs");
    kill(running[0]);
    let until = Instant::now() + Duration::from_secs(10);
    while owners(home).contains(&running[0]) {
        assert!(Instant::now() < until, "the owner doesn't end");
        sleep(Duration::from_millis(10));
    }
}

fn spawn(home: &Home, args: &[&str]) -> Child {
    home.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

fn state(home: &Home) -> String {
    let list = home.json(0, &["machine", "list"]);
    home::text(&list[0]["power"]).to_owned()
}

/// Every snapshot that the tree shows reads back right, and so does Now.
fn verify_all(home: &Home) -> usize {
    let labels: Vec<String> =
        home.labels().iter().filter_map(|label| label.strip_prefix("snapshot ").map(str::to_owned)).collect();
    home.verify(&labels.iter().map(String::as_str).collect::<Vec<_>>());
    labels.len()
}

#[test]
fn a_killed_owner_leaves_the_machine_off_and_every_acknowledged_write() {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "8M", "--seed", "3"]);
    for round in 0..4 {
        home.done(&["machine", "start", "WEB01"]);
        assert_eq!(state(&home), "running");
        home.done(&["snapshot", "take", "WEB01", &format!("live {round}")]);
        sleep(Duration::from_millis(150 + 70 * round));
        kill_owner(&home);
        assert_eq!(state(&home), "off");
        assert_eq!(verify_all(&home), round as usize + 1);
    }
    home.done(&["snapshot", "apply", "WEB01", "live 1", "--no-safety"]);
    home.done(&["machine", "start", "WEB01"]);
    home.done(&["machine", "stop", "WEB01"]);
    assert_eq!(verify_all(&home), 4);
    assert!(owners(&home).is_empty());
}

#[test]
fn an_owner_killed_during_a_take_leaves_a_whole_snapshot_or_none() {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "64M", "--seed", "5"]);
    let mut kept = 0;
    for round in 0..5 {
        home.done(&["machine", "start", "WEB01"]);
        sleep(Duration::from_millis(100));
        let mut take = spawn(&home, &["snapshot", "take", "WEB01", &format!("cut {round}")]);
        sleep(Duration::from_millis(20 + 25 * round));
        kill_owner(&home);
        take.wait().expect("the client ends");
        let now = verify_all(&home);
        assert!(now == kept || now == kept + 1, "{now} snapshots after {kept}");
        kept = now;
    }
    home.done(&["machine", "start", "WEB01"]);
    home.done(&["machine", "stop", "WEB01"]);
    verify_all(&home);
}

#[test]
fn a_killed_merge_goes_on_where_it_was() {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "8M", "--seed", "9"]);
    for label in ["one", "two", "three"] {
        home.done(&["workload", "run", "WEB01", "--seconds", "40"]);
        home.done(&["snapshot", "take", "WEB01", label]);
    }
    home.done(&["snapshot", "delete", "WEB01", "one"]);
    home.done(&["snapshot", "delete", "WEB01", "two"]);
    let due =
        || home.json(0, &["merge", "WEB01", "--what-if"])["plan"]["merge"]["total"]["data"].as_u64().expect("bytes to move");
    let at_first = due();
    assert!(at_first > 2 << 20, "{at_first} bytes are too few to be cut short");
    let mut left = at_first;
    for _ in 0..3 {
        let mut merge = spawn(&home, &["merge", "WEB01", "--limit", "1M"]);
        sleep(Duration::from_millis(900));
        merge.kill().expect("the merge runs");
        merge.wait().expect("it ends");
        home.verify(&["three"]);
        let now = due();
        assert!(now <= left, "{now} bytes are left after {left}");
        left = now;
    }
    assert!(left < at_first && left > 0, "{left} of {at_first} bytes are left");
    assert!(home.ends(3, &["snapshot", "undelete", "WEB01", "one"]).is_empty(), "a merge that has started can't be taken back");
    home.done(&["merge", "WEB01"]);
    assert_eq!(home.labels(), ["snapshot three", "now Now"]);
    home.verify(&["three"]);
}

#[test]
fn a_running_machine_is_merged_and_its_owner_killed_meanwhile() {
    let home = Home::new();
    due::make(&home);
    home.done(&["machine", "start", "WEB01"]);
    for round in 0..3 {
        let mut merge = spawn(&home, &["merge", "WEB01", "--limit", "32K"]);
        sleep(Duration::from_millis(300));
        // Another command comes in between.
        home.done(&["snapshot", "take", "WEB01", &format!("between {round}")]);
        home.done(&["snapshot", "delete", "WEB01", &format!("between {round}")]);
        sleep(Duration::from_millis(100 + 100 * round));
        assert!(merge.try_wait().expect("its state").is_none(), "the merge goes on after a snapshot");
        kill_owner(&home);
        assert!(!merge.wait().expect("the client ends").success(), "it says that it didn't end well");
        home.verify(&["three"]);
        home.done(&["machine", "start", "WEB01"]);
    }
    home.done(&["merge", "WEB01"]);
    assert_eq!(state(&home), "running");
    assert_eq!(home.labels(), ["snapshot three", "now Now"]);
    home.done(&["machine", "stop", "WEB01"]);
    home.verify(&["three"]);
    assert!(owners(&home).is_empty());
}

#[test]
fn two_who_ask_at_once_are_both_answered() {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "16M"]);
    home.done(&["machine", "start", "WEB01"]);
    let mut both: Vec<Child> = ["a", "b"].iter().map(|label| spawn(&home, &["snapshot", "take", "WEB01", label])).collect();
    let ended: Vec<_> = both.iter_mut().map(|child| child.wait().expect("it ends").code()).collect();
    let taken = ended.iter().filter(|code| **code == Some(0)).count();
    assert!(taken >= 1 && ended.iter().all(|code| matches!(code, Some(0 | 3))), "{ended:?}");
    assert_eq!(home.labels().len(), taken + 1);
    home.done(&["machine", "stop", "WEB01"]);
    assert_eq!(verify_all(&home), taken);
}

#[test]
fn a_merge_lets_the_machine_be_started_and_goes_on_in_its_owner() {
    let home = Home::new();
    let at_first = due::make(&home);
    let mut merge = spawn(&home, &["merge", "WEB01", "--limit", "1M"]);
    sleep(Duration::from_millis(900));
    home.done(&["machine", "start", "WEB01"]);
    assert_eq!(state(&home), "running");
    assert!(merge.try_wait().expect("its state").is_none(), "it goes on in the owner ({at_first} bytes in all)");
    assert!(merge.wait().expect("it ends").success(), "and ends well");
    assert_eq!(state(&home), "running");
    assert_eq!(home.labels(), ["snapshot three", "now Now"]);
    home.verify(&["three"]);
    home.done(&["machine", "stop", "WEB01"]);
    home.verify(&["three"]);
    assert!(owners(&home).is_empty());
}

#[test]
fn a_stop_ends_a_live_merge_and_what_is_left_is_due() {
    let home = Home::new();
    let at_first = due::make(&home);
    home.done(&["machine", "start", "WEB01"]);
    let mut merge = home.command(&["merge", "WEB01", "--limit", "1M"]);
    let mut merge = merge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    sleep(Duration::from_millis(900));
    home.done(&["machine", "stop", "WEB01"]);
    assert!(!merge.wait().expect("it ends").success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut merge.stderr.take().expect("a pipe"), &mut said).expect("text");
    assert!(said.contains("what was done stays done"), "{said}");
    assert_eq!(state(&home), "off");
    let left = due::bytes(&home);
    assert!(left > 0 && left <= at_first, "{left} of {at_first}");
    home.done(&["merge", "WEB01"]);
    home.verify(&["three"]);
}
