use std::collections::BTreeMap;

use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::{DiskId, MachineId};
use snaptree_core::window::{PlannedMerge, PlannedPiece, Verdict};

use super::*;
use crate::text::plan::fabricated::{at, fits, plan, two_windows, unplanned, when};

/// Names as somebody would choose them to do harm: each format's own marks, a line's end, and letters of several bytes.
const HOSTILE: &str = "=cmd|'/C calc'!A1,;\\\"quoted\"\r\nEND:VEVENT\r\nX-EVIL:1 <script>alert(1)</script> ü€😀";

fn hostile(id: MachineId) -> String {
    if id.0.as_u128() == 1 { HOSTILE.into() } else { "DB01".into() }
}

fn three() -> PlanState {
    let mut state = plan(vec![fits(), two_windows(), unplanned(Verdict::NoWindows)]);
    state.windows[0].name = HOSTILE.into();
    state
}

fn exported(format: Format, state: &PlanState) -> String {
    export(format, state, &hostile, Span::default(), &when())
}

/// Reads a calendar as its format is written: unfolds, splits, and takes the escapes away.
fn events(ics: &str) -> Vec<BTreeMap<String, String>> {
    assert!(ics.ends_with("\r\n") && !ics.replace("\r\n", "").contains(['\r', '\n']), "every line ends with CRLF");
    for line in ics.split("\r\n") {
        assert!(line.len() <= 75, "{} octets: {line}", line.len());
    }
    let whole = ics.replace("\r\n ", "");
    let lines: Vec<&str> = whole.trim_end().split("\r\n").collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"BEGIN:VCALENDAR"), Some(&"END:VCALENDAR")));
    assert!(lines.contains(&"VERSION:2.0") && lines.iter().any(|line| line.starts_with("PRODID:")));
    let mut events: Vec<BTreeMap<String, String>> = Vec::new();
    let mut open = false;
    for line in lines {
        let (name, value) = line.split_once(':').expect("a name and a value");
        match line {
            "BEGIN:VEVENT" => {
                assert!(!std::mem::replace(&mut open, true));
                events.push(BTreeMap::new());
            }
            "END:VEVENT" => assert!(std::mem::take(&mut open)),
            _ if open => {
                let (mut text, mut letters) = (String::new(), value.chars());
                while let Some(letter) = letters.next() {
                    text.push(match letter {
                        '\\' => match letters.next().expect("what is escaped") {
                            'n' => '\n',
                            other => other,
                        },
                        ',' | ';' => panic!("{letter} has to be escaped in {line}"),
                        other => other,
                    });
                }
                let is_new = events.last_mut().expect("an event").insert(name.to_owned(), text).is_none();
                assert!(is_new, "{name} twice");
            }
            _ => {}
        }
    }
    events
}

#[test]
fn a_calendar_has_an_event_for_each_piece_and_reads_back() {
    let events = events(&exported(Format::Ics, &three()));
    assert_eq!(events.len(), 3);
    let name = HOSTILE.replace("\r\n", "\n");
    let of = |number: usize, field: &str| events[number][field].as_str();
    let mut summaries: Vec<&str> = (0..3).map(|n| of(n, "SUMMARY")).collect();
    summaries.sort_unstable();
    let own = format!("Merge {name} disk0");
    assert_eq!(summaries, [own.as_str(), "Merge DB01 disk0, part 1 of 2", "Merge DB01 disk0, part 2 of 2"]);
    let web = events.iter().find(|event| event["SUMMARY"] == own).expect("WEB01's");
    assert_eq!((web["DTSTART"].as_str(), web["DTEND"].as_str()), ("20260530T200000Z", "20260530T231000Z"));
    assert_eq!(web["DTSTAMP"], "20260528T120000Z");
    assert!(web["DESCRIPTION"].contains(&format!("Window: {name}, its end 50 min after this.")), "{web:?}");
    assert!(web["DESCRIPTION"].contains("31.0 GiB of 31.0 GiB"), "{web:?}");
    assert!(events.iter().all(|event| !event.contains_key("X-EVIL")));
}

#[test]
fn an_event_keeps_its_identifier_when_the_plan_is_made_again() {
    let ids = |state: &PlanState| -> Vec<String> {
        events(&exported(Format::Ics, state)).iter().map(|event| event["UID"].clone()).collect()
    };
    let before = ids(&three());
    let mut again = three();
    again.plan.made = at(29, 12, 0);
    for piece in again.plan.merges.iter_mut().flat_map(|merge| &mut merge.pieces) {
        piece.start += chrono::TimeDelta::minutes(7);
    }
    assert_eq!(ids(&again), before);
    let mut other = three();
    other.plan.merges[0].disk = DiskId("disk0 ü".into());
    let all: std::collections::BTreeSet<String> = before.iter().cloned().chain(ids(&other)).collect();
    assert_eq!(all.len(), 4, "each piece its own: {all:?}");
    assert!(all.iter().all(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || "-_@".contains(c))), "{all:?}");
}

#[test]
fn a_machine_that_is_shut_down_is_in_the_calendar_for_as_long_as_it_is_down() {
    let mut state = plan(vec![fits()]);
    state.plan.merges[0].pieces[0].down = Some((at(30, 19, 55), at(30, 23, 13)));
    let events = events(&exported(Format::Ics, &state));
    assert_eq!((events[0]["DTSTART"].as_str(), events[0]["DTEND"].as_str()), ("20260530T195500Z", "20260530T231300Z"));
    assert!(events[0]["SUMMARY"].ends_with("(shut down)"));
}

/// Reads a table as its format is written.
fn table(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut is_quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = csv.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !is_quoted => {
                assert_eq!(letters.next(), Some('\n'));
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\n' if !is_quoted => panic!("a bare line's end"),
            letter => cell.push(letter),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !is_quoted, "it ends with a line's end");
    rows
}

#[test]
fn a_table_has_a_row_for_each_piece_and_reads_back() {
    let rows = table(&exported(Format::Csv, &three()));
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    let web = rows.iter().find(|row| row[1] == fits().machine.to_string()).expect("WEB01's");
    let of = |name: &str| web[rows[0].iter().position(|heading| heading == name).expect(name)].as_str();
    // A formula for a spreadsheet no longer.
    assert_eq!(of("machine"), format!("'{HOSTILE}"));
    assert_eq!((of("start"), of("p90_end")), ("2026-05-30T20:00:00Z", "2026-05-30T23:10:00Z"));
    assert_eq!((of("window_end"), of("bytes")), ("2026-05-31T00:00:00Z", (31u64 << 30).to_string().as_str()));
    assert_eq!((of("p50_seconds"), of("p90_seconds"), of("down_from")), ("9000", "11400", ""));
    assert_eq!(of("verdict"), "fits, 50 min to spare");
    let parts: Vec<(&str, &str)> = rows[1..].iter().map(|row| (row[7].as_str(), row[8].as_str())).collect();
    assert!(parts.contains(&("1", "2")) && parts.contains(&("2", "2")), "{parts:?}");
}

#[test]
fn the_document_has_the_shape_that_is_promised() {
    let value: serde_json::Value = serde_json::from_str(&exported(Format::Json, &three())).expect("it parses");
    let keys = |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&value), "agent_seen findings made merges missed until volumes windows");
    let merges = value["merges"].as_array().expect("merges");
    assert_eq!(
        keys(&merges[0]),
        "bytes comes_back deadline disk id if_skipped late latest_safe_start machine pieces pinned reason reason_sentence scratch \
         seconds sentence stopped_seconds verdict volume"
    );
    assert_eq!((&merges[0]["machine"], &merges[0]["verdict"]["fits"]["spare_seconds"]), (&HOSTILE.into(), &3000.0.into()));
    assert_eq!(
        keys(&merges[1]["pieces"][0]),
        "bytes down_from down_to occurrence p50_end p90_end resumes start window window_end"
    );
    assert_eq!(merges[1]["pieces"][0]["resumes"], merges[1]["pieces"][1]["occurrence"]);
    assert_eq!((&merges[2]["verdict"], &merges[2]["pieces"]), (&"no_windows".into(), &serde_json::json!([])));
    assert_eq!(keys(&value["windows"][0]), "enabled id limit machines mode name next sentence when");
    assert_eq!(value["windows"][0]["when"]["weekly"]["from"], "22:00:00");
    assert_eq!(
        keys(&value["volumes"][0]),
        "floor free full full_as_planned growth history_from history_to id points samples sentence"
    );
}

#[test]
fn a_change_request_says_all_that_has_to_be_approved() {
    let mut state = three();
    state.plan.merges[1].pieces[0].down = Some((at(30, 19, 55), at(30, 23, 33)));
    let page = exported(Format::ChangeRequest, &state);
    for said in [
        "<h1>Change request: 2 merges</h1>",
        "Generated Thu 28 May 2026 14:00 (UTC+02:00)",
        "91.0 GiB are moved, 24.0 GiB come back",
        "Sat 30 May 2026 22:00 (UTC+02:00) to Sun 31 May 2026 01:10 (UTC+02:00)",
        "shut down from Sat 30 May 2026 21:55 (UTC+02:00), up again by Sun 31 May 2026 01:33 (UTC+02:00)",
        "it pauses here, and goes on in the next part",
        "Stays as it is: if it runs, it goes on running",
        "Is shut down for it, and started again",
        "2 h 30 min, in 9 of 10 cases at most 3 h 10 min",
        "needs 2.0 GiB; gives 12.0 GiB back",
        "If it is skipped, the volume is full on Tue 2 Jun about 14:00.",
        "Due, and not part of this change",
        "goes on where it was",
    ] {
        assert!(page.contains(said), "{said} isn't in\n{page}");
    }
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "names are escaped");
    // It stands alone.
    assert!(!page.contains("http") && !page.contains("src="), "{page}");
    let tags = |tag: &str| (page.matches(&format!("<{tag}>")).count(), page.matches(&format!("</{tag}>")).count());
    for tag in ["section", "ul", "li", "tr", "td", "bdi", "h2", "body"] {
        let (opened, closed) = tags(tag);
        assert!(opened == closed && opened > 0, "{tag}: {opened} {closed}");
    }
}

#[test]
fn a_span_leaves_out_what_is_outside() {
    let state = three();
    let sunday = Span { from: Some(at(31, 10, 0)), to: Some(at(32, 10, 0)) };
    let rows = table(&export(Format::Csv, &state, &hostile, sunday, &when()));
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[1][0].as_str(), rows[1][7].as_str()), ("DB01", "2"));
    let document = json::document(&state, &hostile, sunday, &when());
    assert_eq!(document.merges.iter().map(|merge| merge.pieces.len()).collect::<Vec<_>>(), [0, 1, 0]);
    let page = export(Format::ChangeRequest, &state, &hostile, sunday, &when());
    assert!(page.contains("<h1>Change request: 1 merge</h1>") && !page.contains("Part 1 of 2"), "{page}");
    // What touches an end isn't in it.
    let meets = |from: PlannedPiece| Span { from: Some(from.p90_end), to: None }.has(&from);
    assert!(!meets(PlannedMerge { ..fits() }.pieces.remove(0)));
}
