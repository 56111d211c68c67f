//! What the demo's plan of merges stands on: windows so short that they matter to disks so small, and a month of sizes,
//! which nobody has sampled. That month is a story, and the window says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{Days, Local, NaiveTime, TimeDelta, Utc, Weekday};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::{Command, MachineState};
use snaptree_core::fresh;
use snaptree_core::host_file::SharedHost;
use snaptree_core::snapshot::MachineId;
use snaptree_core::store::{History, HistoryRecord};
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_core::window::{MaintenanceWindow, Scope, When, WindowId};

use super::caller::Caller;

/// Days of sizes.
const DAYS: u32 = 30;
/// In so many days the volume is full, if it goes on so.
const LEFT: u64 = 9;

/// So many days ahead, nothing will be free.
const TOO_LATE: u64 = 20;

/// Windows for each verdict: one that is enough, one that is too short, one that is too short while a machine
/// runs beside one in which it may be shut down, and one that comes too late. What has no window needs one.
pub fn make_windows(caller: &mut Caller) -> Result<()> {
    use MergeMode::{Live, Stopped};
    let daily = |from, to| -> Result<When> {
        let days = (0..7u8).filter_map(|day| Weekday::try_from(day).ok()).collect();
        Ok(When::Weekly { days, from: time(from)?, to: time(to)? })
    };
    let weekly = |day, from, to| -> Result<When> { Ok(When::Weekly { days: vec![day], from: time(from)?, to: time(to)? }) };
    let once = (Local::now().date_naive() + Days::new(TOO_LATE)).and_time(time((20, 0))?);
    let once = When::Once { from: once, to: once + TimeDelta::hours(4) };
    let windows = [
        ("SQL02", "Nights", daily((22, 0), (2, 0))?, Live, 128),
        ("DB01", "Lunch", daily((12, 30), (12, 35))?, Live, 64),
        ("MAIL01", "Saturdays, while it runs", weekly(Weekday::Sat, (13, 0), (13, 1))?, Live, 64),
        ("MAIL01", "Sundays, shut down", weekly(Weekday::Sun, (4, 0), (6, 0))?, Stopped, 1024),
        ("ARCHIVE", "Yearly closing", once, Live, 1024),
    ];
    for (machine, name, when, mode, kib) in windows {
        let machine = caller.find(machine).with_context(|| format!("the demo has lost {machine}"))?;
        caller.ask(Command::SetWindow(MaintenanceWindow {
            id: WindowId(fresh::uuid()),
            name: name.into(),
            when,
            scope: Scope::Machines(BTreeSet::from([machine])),
            mode,
            limit: Some(ByteRate(f64::from(kib) * 1024.0)),
            enabled: true,
        }))?;
    }
    Ok(())
}

fn time((hour, minute): (u32, u32)) -> Result<NaiveTime> {
    NaiveTime::from_hms_opt(hour, minute, 0).context("a time of day")
}

/// What every machine's history says of merges stays; sizes are told anew: the volume and the leaves have grown.
pub fn tell_sizes(host: &SharedHost, library: &Path, machines: &[Arc<MachineState>]) -> Result<()> {
    let free = host.free_bytes(library)?;
    for state in machines {
        let history = History::of(host, &state.folder);
        let merges: Vec<HistoryRecord> =
            history.read()?.into_iter().filter(|record| matches!(record, HistoryRecord::Merge { .. })).collect();
        history.clear()?;
        merges.iter().try_for_each(|record| history.append(record))?;
        let leaves: BTreeMap<_, _> =
            state.machine.now.images.values().filter_map(|leaf| Some((*leaf, state.files.get(leaf)?.held))).collect();
        for day in (0..=DAYS).rev() {
            let ago = u64::from(day);
            // Some days bring more than others.
            let wiggle = free.0 / LEFT / 8 * (ago * 7 % 5);
            let grown = |held: ByteCount| ByteCount(held.0 * (u64::from(DAYS) + 1 - ago) / (u64::from(DAYS) + 1));
            history.append(&HistoryRecord::Sizes {
                at: Utc::now() - TimeDelta::days(i64::from(day)) - TimeDelta::minutes(11),
                images: leaves.iter().map(|(leaf, held)| (*leaf, grown(*held))).collect(),
                free: ByteCount(free.0 + free.0 / LEFT * ago + wiggle),
            })?;
        }
    }
    Ok(())
}

/// Every machine as it was last seen.
pub fn states(caller: &mut Caller) -> Result<Vec<Arc<MachineState>>> {
    let machines: Vec<MachineId> = caller.all()?;
    machines.into_iter().map(|machine| caller.counted(machine)).collect()
}
