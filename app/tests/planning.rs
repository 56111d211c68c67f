//! Windows and the plan, by the built program's command line.
#![cfg(unix)]

mod home;

use home::{Home, text};
use serde_json::Value;

/// A machine with a deleted snapshot, whose merge is due.
fn due() -> Home {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "2M", "--seed", "7"]);
    for label in ["one", "two", "three"] {
        home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
        home.done(&["snapshot", "take", "WEB01", label]);
    }
    home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
    home.done(&["snapshot", "delete", "WEB01", "two"]);
    home
}

fn windows(home: &Home) -> Vec<Value> {
    home.json(0, &["window", "list"]).as_array().expect("a list").clone()
}

fn merge(home: &Home) -> Value {
    home.json(0, &["plan"])["merges"][0].clone()
}

const NIGHTS: [&str; 9] = ["window", "add", "Nights", "--weekly", "sat,sun", "--from", "22:00", "--to", "02:00"];
const EVERY_DAY: &str = "mon,tue,wed,thu,fri,sat,sun";

#[test]
fn a_window_is_made_and_the_plan_says_when() {
    let home = due();
    assert_eq!(merge(&home)["verdict"], "no_windows");
    assert!(home.done(&["plan"]).contains("There is no window for WEB01: "));
    // On a day that isn't near, so that it isn't open now.
    let day = chrono::Utc::now() + chrono::TimeDelta::days(3);
    let (short, long) = (day.format("%a").to_string(), day.format("%As").to_string());
    let nights = ["window", "add", "Nights", "--weekly", &short, "--from", "22:00", "--to", "02:00", "--limit", "50M"];
    home.done(&[&nights[..], &["--what-if"]].concat());
    assert!(windows(&home).is_empty(), "nothing was done");

    home.done(&nights);
    let window = &windows(&home)[0];
    assert_eq!(text(&window["sentence"]), format!("{long} 22:00 to 02:00, all machines, live, at most 50.0 MiB/s"));
    let planned = merge(&home);
    assert!(planned["verdict"]["fits"]["spare_seconds"].as_f64().is_some_and(|spare| spare > 3600.0), "{planned}");
    assert_eq!(
        (&planned["pieces"][0]["occurrence"]["window"], &planned["pieces"][0]["bytes"]),
        (&window["id"], &planned["bytes"])
    );
    assert_eq!(planned["pieces"][0]["start"], window["next"], "it starts with the window");
    let said = home.done(&["plan"]);
    assert!(said.contains(&format!("\n{}\n", text(&planned["sentence"]))), "{said}");
    assert!(said.contains("fits, 3 h 59 min to spare") && said.lines().any(|line| line.starts_with("WEB01 ")), "{said}");

    // What is changed is changed, and nothing else.
    home.done(&["window", "change", "Nights", "--from", "21:30", "--machine", "WEB01", "--stopped", "--rename", "Late"]);
    let sentence = format!("{long} 21:30 to 02:00, WEB01, machines are shut down for it, at most 50.0 MiB/s");
    assert_eq!((&windows(&home)[0]["sentence"], &windows(&home)[0]["id"]), (&sentence.into(), &window["id"]));
    home.done(&["window", "change", "Late", "--off"]);
    assert_eq!(merge(&home)["verdict"], "no_windows");
    home.done(&["window", "change", "Late", "--on", "--all", "--live", "--no-limit", "--weekly", "tue"]);
    assert_eq!(text(&windows(&home)[0]["sentence"]), "Tuesdays 21:30 to 02:00, all machines, live");
    home.done(&["window", "remove", "Late"]);
    assert_eq!(merge(&home)["verdict"], "no_windows");
}

#[test]
fn a_merge_is_put_into_another_window_and_back() {
    let home = due();
    home.done(&["window", "add", "Soon", "--weekly", EVERY_DAY, "--from", "22:00", "--to", "02:00"]);
    home.done(&["window", "add", "Later", "--once", "2999-06-06", "--from", "22:00", "--to", "02:00"]);
    home.ends(2, &["window", "pin", "WEB01", "Later"]);
    home.done(&["window", "change", "Later", "--weekly", EVERY_DAY, "--from", "03:00", "--to", "05:00"]);
    let of = |name: &str| windows(&home).into_iter().find(|window| window["name"] == name).expect(name)["id"].clone();
    let planned = || merge(&home)["pieces"][0]["occurrence"]["window"].clone();
    let chosen = planned();
    let other = if chosen == of("Soon") { "Later" } else { "Soon" };
    home.done(&["window", "pin", "WEB01", other, "--what-if"]);
    assert_eq!(planned(), chosen);
    assert!(home.done(&["window", "pin", "WEB01", other]).starts_with("Merge WEB01 "));
    assert_eq!((planned(), merge(&home)["reason"].clone()), (of(other), "pinned".into()));
    home.done(&["window", "unpin", "WEB01"]);
    assert_eq!((planned(), merge(&home)["pinned"].clone()), (chosen, Value::Null));
    let refused = home.json(3, &["window", "unpin", "WEB01"]);
    assert_eq!(text(&refused["error"]["reason"]), "nobody has put a merge of WEB01 anywhere");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let home = due();
    home.done(&NIGHTS);
    fn add<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["window", "add", "X"], more].concat()
    }
    let reason = |status: i32, args: &[&str]| text(&home.json(status, args)["error"]["reason"]).to_owned();
    // What clap says is no document.
    home.ends(2, &add(&["--from", "22:00", "--to", "02:00"]));
    home.ends(2, &add(&["--weekly", "someday", "--from", "22:00", "--to", "02:00"]));
    home.ends(2, &add(&["--weekly", "sat", "--once", "2999-06-06", "--from", "22:00", "--to", "02:00"]));
    home.ends(2, &add(&["--weekly", "sat", "--from", "25:00", "--to", "02:00"]));
    assert!(reason(2, &add(&["--weekly", "sat", "--from", "22:00"])).contains("--to"));
    assert!(reason(2, &add(&["--weekly", "sat", "--from", "22:00", "--to", "2999-06-06T02:00"])).contains("time of day"));
    assert!(reason(2, &add(&["--weekly", "sat", "--from", "22:00", "--to", "02:00", "--machine", "NOPE"])).contains("WEB01"));
    let once = |end| reason(3, &add(&["--once", "2999-06-06", "--from", "22:00", "--to", end]));
    assert_eq!(once("2999-06-05T23:00"), "the window ends before it starts");
    assert!(reason(3, &add(&["--weekly", "sat", "--from", "1:00", "--to", "2:00", "--limit", "1K"])).contains("too low"));
    assert_eq!(reason(3, &NIGHTS), "there is a window Nights already; see `snaptree window change`");
    assert!(reason(2, &["window", "remove", "Days"]).contains("there are Nights"));
    assert!(reason(2, &["window", "pin", "NOPE", "Nights"]).contains("there is no machine NOPE"));
    assert!(reason(2, &["window", "pin", "WEB01", "Nights", "--on", "2999-06-06"]).contains("doesn't take place on 2999-06-06"));
    assert!(reason(2, &["window", "pin", "WEB01", "Nights", "--disk", "disk9"]).contains("disk9"));
    home.done(&["machine", "create", "DB01", "--disk", "4M", "--memory", "2M"]);
    assert_eq!(reason(3, &["window", "pin", "DB01", "Nights"]), "no merge of DB01 is due");
    home.done(&["window", "change", "Nights", "--machine", "DB01"]);
    assert_eq!(reason(3, &["window", "pin", "WEB01", "Nights"]), "the window Nights isn't for WEB01");
    assert!(reason(2, &["plan", "--from", "2026-06-07", "--to", "2026-06-06"]).contains("is before"));
    home.ends(2, &["plan", "plan.ics"]);
    assert_eq!(windows(&home).len(), 1, "nothing of it was done");
}

#[test]
fn a_plan_is_written_for_other_programs() {
    let home = due();
    home.done(&NIGHTS);
    let path = |name: &str| home.0.path().join(name);
    home.done(&["plan", "--export", "ics", "plan.ics", "--what-if"]);
    assert!(!path("plan.ics").exists());
    assert_eq!(home.done(&["plan", "--export", "ics", "plan.ics"]), "plan.ics is written.\n");
    let ics = std::fs::read_to_string(path("plan.ics")).expect("it is there");
    assert!(ics.starts_with("BEGIN:VCALENDAR\r\n") && ics.ends_with("END:VCALENDAR\r\n"), "{ics}");
    assert_eq!(ics.matches("SUMMARY:Merge WEB01 disk0\r\n").count(), 1, "{ics}");
    let csv = home.done(&["plan", "--export", "csv"]);
    assert_eq!((csv.lines().count(), csv.lines().nth(1).and_then(|row| row.split(',').next())), (2, Some("WEB01")), "{csv}");
    assert!(home.done(&["plan", "--export", "change-request"]).contains("<h1>Change request: 1 merge</h1>"));
    let document: Value = serde_json::from_str(&home.done(&["plan", "--export", "json"])).expect("it parses");
    assert_eq!((&document["merges"][0]["machine"], &document["windows"][0]["name"]), (&"WEB01".into(), &"Nights".into()));
    home.ends(1, &["plan", "--export", "ics", "no/such/folder.ics"]);
    // Nothing of it is on a day that is over.
    let csv = home.done(&["plan", "--export", "csv", "--to", "2026-01-01"]);
    assert_eq!(csv.lines().count(), 1, "{csv}");
}

#[test]
fn the_times_are_those_of_the_computers_zone_also_after_its_clock_changes() {
    let home = due();
    // A zone that is nine hours west of UTC, and five from a day within the plan on, for a hundred days.
    let day = |days| (chrono::Utc::now().date_naive() + chrono::Days::new(days)).format("%-j").to_string();
    let zone = format!("AAA9BBB5,{}/0,{}/0", day(10), day(110));
    let zoned = |args: &[&str]| {
        let output = home.command(args).env("TZ", &zone).output().expect("the program starts");
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    zoned(&["window", "add", "Far", "--weekly", EVERY_DAY, "--from", "22:00", "--to", "23:00"]);
    let far = (chrono::Utc::now() - chrono::TimeDelta::hours(9)).date_naive() + chrono::Days::new(20);
    let said = zoned(&["window", "pin", "WEB01", "Far", "--on", &far.to_string()]);
    assert!(said.contains(&format!("{} 22:00, window to 23:00", far.format("%a %-d %b"))), "{said}");
}

#[test]
fn advice_says_what_is_planned_badly_and_what_is_safe_to_delete() {
    let home = due();
    home.done(&["snapshot", "take", "WEB01", "four"]);
    home.done(&["snapshot", "apply", "WEB01", "one"]);
    let advice = home.json(0, &["advise"]);
    let of = |kind: &str| {
        let found = advice.as_array().expect("a list").iter().find(|found| !found["kind"][kind].is_null());
        found.unwrap_or_else(|| panic!("no {kind} in {advice}")).clone()
    };
    let window = of("no_window_fits");
    assert_eq!((&window["machine"], &window["kind"]["no_window_fits"]["verdict"]), (&"WEB01".into(), &"no_windows".into()));
    let safe = of("safe_to_delete")["kind"]["safe_to_delete"].clone();
    let (label, frees) = (text(&safe["label"]), safe["frees"].as_u64().expect("bytes"));
    let plan = home.json(0, &["snapshot", "delete", "WEB01", label, "--what-if"]);
    assert_eq!((&plan["plan"]["delete"]["frees"], &plan["plan"]["delete"]["merges"]["merges"]), (&frees.into(), &0.into()));
    let said = home.done(&["advise", "WEB01"]);
    assert!(
        said.contains("WEB01 has a merge due and no window for it") && said.contains("window add NAME --machine WEB01"),
        "{said}"
    );
    assert!(said.contains("Safe to delete right now") && said.contains("snapshot delete WEB01 "), "{said}");
    home.done(&NIGHTS);
    let after = home.done(&["advise"]);
    assert!(!after.contains("no window for it"), "{after}");
}

#[test]
fn a_tree_says_what_each_branch_costs_and_what_other_orders_would_move() {
    let home = due();
    let tree = home.json(0, &["tree", "WEB01"]);
    for row in tree["rows"].as_array().expect("rows").iter().filter(|row| row["node"] != "ghost") {
        assert!(row["read_mean"].is_f64() && row["read_p95"].is_u64() && row["first_write"].is_f64(), "{row}");
    }
    let merge = &tree["merges"][0];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is a number"));
    let orders = &merge["orders"];
    let [one, newest, oldest] = ["one_pass", "newest_first", "oldest_first"].map(|order| number(&orders[order]));
    assert!(one == number(&merge["bytes"]) && one <= newest && one <= oldest && one > 0, "{merge}");
    assert!(merge["seconds"]["p10"].as_f64() < merge["seconds"]["p90"].as_f64(), "{merge}");
    assert_eq!(tree["past_error"]["stopped"], Value::Null);
    let said = home.done(&["tree", "WEB01"]);
    assert!(said.contains("FIRST WRITE") && said.contains("in one pass; newest first would move"), "{said}");
    home.done(&["merge", "WEB01"]);
    assert_eq!(home.labels(), ["snapshot one", "snapshot three", "now Now"]);
    home.verify(&["one", "three"]);
    let tree = home.json(0, &["tree", "WEB01"]);
    assert_eq!((&tree["past_error"]["stopped"]["merges"], &tree["merges"]), (&1.into(), &Value::Array(vec![])));
    assert!(home.done(&["tree", "WEB01"]).contains("Past estimates (stopped) were off by "));
}
