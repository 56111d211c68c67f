//! The only place that turns units into words.

mod advice;
mod apply;
mod outcome;
pub mod plan;
mod zone;

pub use advice::{Advised, advice, freeable, no_room};
pub use apply::{apply, back_in_time};
pub use outcome::{
    ESTIMATE_SHORT, Said, deletion, deletion_row, estimate, estimate_long, estimate_short, merge, orders, reads_change, to_move,
};
pub use zone::Zone;

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use snaptree_core::engine::{JobKind, Power};
use snaptree_core::snapshot::{DiskBus, Hardware};
use snaptree_core::units::{ByteCount, ByteRate};

/// What dates are told against.
#[derive(Debug, Clone, Copy)]
pub struct When {
    pub now: DateTime<Utc>,
    pub zone: Zone,
}

impl When {
    /// The day, with the year where it isn't this one: "3 Feb", "3 Feb 2025".
    pub fn day(&self, t: DateTime<Utc>) -> String {
        let (t, now) = (t.with_timezone(&self.zone), self.now.with_timezone(&self.zone));
        let format = if t.format("%Y").to_string() == now.format("%Y").to_string() { "%-d %b" } else { "%-d %b %Y" };
        t.format(format).to_string()
    }

    /// The day and the minute; today's only the minute.
    pub fn short(&self, t: DateTime<Utc>) -> String {
        let (local, now) = (t.with_timezone(&self.zone), self.now.with_timezone(&self.zone));
        if local.date_naive() == now.date_naive() {
            local.format("today %H:%M").to_string()
        } else {
            format!("{} {}", self.day(t), local.format("%H:%M"))
        }
    }

    /// With the minute while it matters: "today 09:20", "21 May 09:20", "3 Feb".
    pub fn brief(&self, t: DateTime<Utc>) -> String {
        if (self.now - t).num_days() < 7 { self.short(t) } else { self.day(t) }
    }

    /// To the second: "2 Apr 2026 17:20:31".
    pub fn exact(&self, t: DateTime<Utc>) -> String {
        t.with_timezone(&self.zone).format("%-d %b %Y %H:%M:%S").to_string()
    }

    /// How long ago: "51 days", "3 h", "just now".
    pub fn age(&self, t: DateTime<Utc>) -> String {
        let seconds = (self.now - t).num_seconds().max(0) as u64;
        match seconds {
            0..60 => "just now".into(),
            60..3600 => format!("{} min", seconds / 60),
            3600..172_800 => format!("{} h", seconds / 3600),
            _ => format!("{} days", seconds / 86_400),
        }
    }

    /// The same, for a badge: "51 d".
    pub fn age_short(&self, t: DateTime<Utc>) -> String {
        let hours = (self.now - t).num_hours().max(0);
        if hours < 48 { format!("{hours} h") } else { format!("{} d", hours / 24) }
    }
}

/// "41 GiB", "2.1 GiB", "512 B": three figures at most.
pub fn bytes(n: ByteCount) -> String {
    n.to_string()
}

/// "120 MiB/s".
pub fn rate(r: ByteRate) -> String {
    format!("{}/s", bytes(ByteCount(r.0.max(0.0) as u64)))
}

/// "under 1 s", "13 s", "1 min 30 s", "2 h 10 min", "3 days 4 h".
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64().round() as u64;
    match s {
        0 => "under 1 s".into(),
        1..60 => format!("{s} s"),
        60..3600 if s < 600 && !s.is_multiple_of(60) => format!("{} min {} s", s / 60, s % 60),
        60..3600 => format!("{} min", s / 60),
        3600..172_800 if s % 3600 >= 60 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        3600..172_800 => format!("{} h", s / 3600),
        _ if s % 86_400 >= 3600 => format!("{} days {} h", s / 86_400, s % 86_400 / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

/// "2.0 GiB", or that it isn't known.
pub fn memory(size: ByteCount) -> String {
    if size == ByteCount::ZERO { "not known".into() } else { bytes(size) }
}

/// "7 ms", for figures below a second.
pub fn short_duration(d: Duration) -> String {
    match d.as_micros() {
        n if n < 1000 => format!("{n} µs"),
        n if n < 10_000 => format!("{:.1} ms", n as f64 / 1000.0),
        n if n < 1_000_000 => format!("{} ms", n / 1000),
        _ => duration(d),
    }
}

/// With a capital letter in front.
pub fn sentence(text: impl AsRef<str>) -> String {
    let mut letters = text.as_ref().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A file's or folder's own name.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A path from a folder on, where it is inside.
pub fn inside(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// "1 snapshot", "3 snapshots".
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// "a", "a and b", "a, b and c", "a, b and 4 more".
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [a] => a.clone(),
        [a, b] => format!("{a} and {b}"),
        [a, b, c] => format!("{a}, {b} and {c}"),
        [a, b, rest @ ..] => format!("{a}, {b} and {} more", rest.len()),
    }
}

/// The state of a machine, one word.
pub fn power(p: &Power) -> &'static str {
    match p {
        Power::Off => "off",
        Power::Saved => "saved",
        Power::Starting => "starting",
        Power::Running => "running",
        Power::Paused => "paused",
        Power::NoRoom => "no room",
        Power::Failed(_) => "failed",
    }
}

/// What lets a machine's memory be saved while it runs on; the command is a line of its own, to be copied.
pub fn remedy(command: &str) -> String {
    format!("This command, once, lets it run on meanwhile, from the machine's next start on:\n{command}")
}

/// What a machine that QEMU runs consists of, in a line.
pub fn hardware(h: &Hardware) -> String {
    let mut parts = vec![
        count(h.processors as usize, "processor"),
        match h.bus {
            DiskBus::Virtio => "virtio disks".to_owned(),
            DiskBus::Sata => "SATA disks".to_owned(),
        },
    ];
    parts.extend(h.network.then(|| "a network card".to_owned()));
    parts.extend(h.boot.as_ref().map(|boot| format!("starts {}", boot.kernel.display())));
    parts.join(", ")
}

/// What a job does, for its line.
pub fn job(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Create => "Creating",
        JobKind::Import => "Importing",
        JobKind::Repair => "Repairing",
        JobKind::Convert => "Writing a disk to a file",
        JobKind::Take => "Taking a snapshot",
        JobKind::Apply => "Applying",
        JobKind::UndoApply => "Undoing an apply",
        JobKind::Delete => "Deleting",
        JobKind::Undelete => "Undeleting",
        JobKind::Merge => "Merging",
        JobKind::EmptyTrash => "Emptying the trash",
        JobKind::RunWorkload => "Running",
        JobKind::Verify => "Verifying",
        JobKind::Start => "Starting",
        JobKind::Stop => "Stopping",
        JobKind::Remove => "Removing",
        JobKind::Edit => "Changing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{FixedOffset, TimeZone};

    #[test]
    fn sizes_have_three_figures() {
        assert_eq!(bytes(ByteCount(0)), "0 B");
        assert_eq!(bytes(ByteCount(512)), "512 B");
        assert_eq!(bytes(ByteCount::mib(1)), "1.0 MiB");
        assert_eq!(bytes(ByteCount(2_254_857_830)), "2.1 GiB");
        assert_eq!(bytes(ByteCount::gib(118)), "118 GiB");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let say = |s: f64| duration(Duration::from_secs_f64(s));
        assert_eq!(say(0.2), "under 1 s");
        assert_eq!(say(13.4), "13 s");
        assert_eq!(say(90.0), "1 min 30 s");
        assert_eq!(say(120.0), "2 min");
        assert_eq!(say(700.0), "11 min");
        assert_eq!(say(7800.0), "2 h 10 min");
        assert_eq!(say(273_600.0), "3 days 4 h");
        assert_eq!(short_duration(Duration::from_micros(7340)), "7.3 ms");
    }

    #[test]
    fn dates_say_the_year_only_where_it_is_another() {
        let when =
            When { now: Utc.with_ymd_and_hms(2026, 5, 23, 12, 0, 0).unwrap(), zone: FixedOffset::east_opt(7200).unwrap().into() };
        let at = |y, m, d, h| Utc.with_ymd_and_hms(y, m, d, h, 20, 31).unwrap();
        assert_eq!(when.day(at(2026, 2, 3, 1)), "3 Feb");
        assert_eq!(when.day(at(2025, 12, 31, 23)), "1 Jan");
        assert_eq!(when.day(at(2025, 2, 3, 1)), "3 Feb 2025");
        assert_eq!(when.short(at(2026, 5, 23, 7)), "today 09:20");
        assert_eq!(when.age(at(2026, 4, 2, 11)), "51 days");
        assert_eq!(when.age_short(at(2026, 5, 22, 11)), "24 h");
    }

    #[test]
    fn lists_stay_short() {
        let names = |n: usize| (0..n).map(|i| format!("n{i}")).collect::<Vec<_>>();
        assert_eq!(list(&names(2)), "n0 and n1");
        assert_eq!(list(&names(3)), "n0, n1 and n2");
        assert_eq!(list(&names(6)), "n0, n1 and 4 more");
    }
}
