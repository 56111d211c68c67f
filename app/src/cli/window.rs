//! `window`: when merging is allowed, and which merge somebody has put where.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{Days, NaiveDate, NaiveDateTime, NaiveTime, Weekday};
use clap::{ArgGroup, Args, Subcommand};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::{Answer, Command, MachineState, PlanState, Refusal};
use snaptree_core::snapshot::{DiskId, MachineId};
use snaptree_core::units::ByteRate;
use snaptree_core::window::{MaintenanceWindow, Occurrence, OccurrenceKey, Scope, When as WindowWhen, WindowId};

use super::client::Client;
use super::output::{Align, Output, table};
use super::plan::{Known, now};
use super::{Common, Done, Failure, answers, names, parse};
use crate::export;
use crate::text::When;
use crate::text::plan as words;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists the windows.
    List,
    /// Makes a window.
    Add(Add),
    /// Changes a window; what isn't given stays.
    Change(Change),
    /// Forgets a window; what was planned for it is planned anew.
    Remove {
        /// The window's name or identifier.
        name: String,
    },
    /// Puts a machine's merge into a window: it starts there or not at all.
    Pin {
        /// The machine's name or identifier.
        machine: String,
        /// The window's name or identifier.
        window: String,
        /// On which day it starts, such as 2026-06-06 [default: the next].
        #[arg(long, value_name = "DATE")]
        on: Option<NaiveDate>,
        /// Only this disk, such as disk0.
        #[arg(long)]
        disk: Option<String>,
    },
    /// Leaves a machine's merges to the planner again.
    Unpin {
        /// The machine's name or identifier.
        machine: String,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("when").args(["weekly", "once"]).required(true)))]
pub struct Add {
    /// Its name.
    name: String,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    rest: Rest,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("when").args(["weekly", "once"])))]
pub struct Change {
    /// The window's name or identifier.
    name: String,
    /// Its new name.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    rest: Rest,
    /// For all machines.
    #[arg(long, conflicts_with = "machine")]
    all: bool,
    /// Machines go on running.
    #[arg(long, conflicts_with = "stopped")]
    live: bool,
    /// As fast as it goes.
    #[arg(long, conflicts_with = "limit")]
    no_limit: bool,
    /// It doesn't take place until it is switched on again.
    #[arg(long, conflicts_with = "on")]
    off: bool,
    /// It takes place again.
    #[arg(long)]
    on: bool,
}

/// When a window is, in the computer's own time.
#[derive(Debug, Args)]
struct Time {
    /// On these days of every week, such as sat,sun.
    #[arg(long, value_name = "DAYS", value_delimiter = ',', value_parser = parse::weekday)]
    weekly: Vec<Weekday>,
    /// Once, on this day, such as 2026-06-06.
    #[arg(long, value_name = "DATE")]
    once: Option<NaiveDate>,
    /// It starts at this time of day, such as 22:00.
    #[arg(long, value_name = "TIME", value_parser = parse::time)]
    from: Option<NaiveTime>,
    /// It ends at this time of day, on the next day if that isn't later; or, of one that is once, 2026-06-07T02:00.
    #[arg(long, value_name = "TIME", value_parser = parse::end)]
    to: Option<parse::End>,
}

/// What else there is to a window.
#[derive(Debug, Args)]
struct Rest {
    /// Only for this machine; once for each [default: all].
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// Machines that run may be shut down for it, and are up again by its end.
    #[arg(long)]
    stopped: bool,
    /// At most this fast, such as 50M (a second).
    #[arg(long, value_name = "RATE", value_parser = parse::rate)]
    limit: Option<ByteRate>,
}

pub fn run(verb: &Verb, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    let plan = client.plan()?;
    let known = Known::of(&mut client)?;
    let names = |id: MachineId| known.name(id);
    let command = match verb {
        Verb::List => {
            let windows: Vec<_> = plan.windows.iter().map(|window| export::json::window(window, &plan, &names)).collect();
            output.say(&windows, || lines(&plan, &names, &now()));
            return Ok(());
        }
        Verb::Add(add) => Command::SetWindow(added(add, &plan, &mut client)?),
        Verb::Change(change) => Command::SetWindow(changed(change, &plan, &mut client)?),
        Verb::Remove { name } => Command::RemoveWindow(names::window(&plan.windows, name)?.id),
        Verb::Pin { machine, window, on, disk } => {
            let state = client.machine(machine)?;
            let window = names::window(&plan.windows, window)?;
            let occurrence = occurrence(window, *on, &plan, &state)?.key;
            let disk = due_disk(&state, disk.as_deref(), &plan)?;
            let pin = Command::PinMerge { machine: state.machine.id, disk, occurrence: Some(occurrence) };
            let answer = client.call(pin)?;
            return say_verdict(state.machine.id, &answer, &mut client, output);
        }
        Verb::Unpin { machine } => return unpin(machine, &mut client, &plan, output),
    };
    answers::answer(output, None, &client.call(command)?)
}

/// The windows, one a line.
pub fn lines(plan: &PlanState, names: words::Names<'_>, when: &When) -> Vec<String> {
    if plan.windows.is_empty() {
        return vec!["There is no window: nothing is merged by itself. See `snaptree window add --help`.".into()];
    }
    let columns = [("WINDOW", Align::Left), ("NEXT", Align::Left), ("WHEN", Align::Left)];
    let row = |window: &MaintenanceWindow| {
        let next = plan.occurrences.iter().find(|occurrence| occurrence.key.window == window.id);
        let next = next.map_or_else(|| "-".into(), |next| words::span(next.key.start, next.end, when));
        vec![window.name.clone(), next, words::window(window, names)]
    };
    table(&columns, &plan.windows.iter().map(row).collect::<Vec<_>>())
}

fn added(add: &Add, plan: &PlanState, client: &mut Client) -> Result<MaintenanceWindow, Failure> {
    is_free(&add.name, None, plan)?;
    let (Some(from), Some(to)) = (add.time.from, add.time.to) else {
        return Err(Failure::usage("give --from and --to: when the window starts and ends"));
    };
    Ok(MaintenanceWindow {
        id: WindowId::new(),
        name: add.name.clone(),
        when: time(&add.time.weekly, add.time.once, from, to)?,
        scope: scope(&add.rest.machine, client)?.unwrap_or_default(),
        mode: if add.rest.stopped { MergeMode::Stopped } else { MergeMode::Live },
        limit: add.rest.limit,
        enabled: true,
    })
}

fn changed(change: &Change, plan: &PlanState, client: &mut Client) -> Result<MaintenanceWindow, Failure> {
    let old = names::window(&plan.windows, &change.name)?;
    let mut window = old.clone();
    if let Some(name) = &change.rename {
        is_free(name, Some(old.id), plan)?;
        window.name = name.clone();
    }
    let given = &change.time;
    if !given.weekly.is_empty() || given.once.is_some() || given.from.is_some() || given.to.is_some() {
        let (days, once, old_from, old_to) = match &old.when {
            WindowWhen::Weekly { days, from, to } => (days.clone(), None, *from, parse::End::Time(*to)),
            WindowWhen::Once { from, to } => (Vec::new(), Some(from.date()), from.time(), parse::End::Instant(*to)),
        };
        let is_new_day = !given.weekly.is_empty() || given.once.is_some();
        // On another day it ends at the same time of day.
        let old_to = if is_new_day { parse::End::Time(old_to.time()) } else { old_to };
        let days = if is_new_day { &given.weekly } else { &days };
        let once = if is_new_day { given.once } else { once };
        window.when = time(days, once, given.from.unwrap_or(old_from), given.to.unwrap_or(old_to))?;
    }
    if let Some(scope) = scope(&change.rest.machine, client)? {
        window.scope = scope;
    }
    if change.all {
        window.scope = Scope::All;
    }
    if change.rest.stopped || change.live {
        window.mode = if change.live { MergeMode::Live } else { MergeMode::Stopped };
    }
    if change.no_limit || change.rest.limit.is_some() {
        window.limit = change.rest.limit;
    }
    if change.on || change.off {
        window.enabled = change.on;
    }
    Ok(window)
}

/// A name that two windows had would mean neither.
fn is_free(name: &str, own: Option<WindowId>, plan: &PlanState) -> Done {
    match plan.windows.iter().any(|window| window.name == name && Some(window.id) != own) {
        true => Err(Refusal::rule(format!("there is a window {name} already; see `snaptree window change`")).into()),
        false => Ok(()),
    }
}

fn time(days: &[Weekday], once: Option<NaiveDate>, from: NaiveTime, to: parse::End) -> Result<WindowWhen, Failure> {
    let Some(date) = once else {
        let parse::End::Time(to) = to else {
            return Err(Failure::usage("the end of a weekly window is a time of day, such as 02:00"));
        };
        return Ok(WindowWhen::Weekly { days: days.to_vec(), from, to });
    };
    let from: NaiveDateTime = date.and_time(from);
    let to = match to {
        parse::End::Instant(to) => to,
        parse::End::Time(to) if to > from.time() => date.and_time(to),
        parse::End::Time(to) => date.checked_add_days(Days::new(1)).unwrap_or(date).and_time(to),
    };
    Ok(WindowWhen::Once { from, to })
}

/// Only these machines; `None` where none is given.
fn scope(machines: &[String], client: &mut Client) -> Result<Option<Scope>, Failure> {
    let ids = machines.iter().map(|name| Ok(client.machine(name)?.machine.id)).collect::<Result<BTreeSet<_>, Failure>>()?;
    Ok((!ids.is_empty()).then_some(Scope::Machines(ids)))
}

/// The taking place of a window that is meant.
fn occurrence<'p>(
    window: &MaintenanceWindow,
    on: Option<NaiveDate>,
    plan: &'p PlanState,
    state: &MachineState,
) -> Result<&'p Occurrence, Failure> {
    if !window.scope.covers(state.machine.id) {
        return Err(Refusal::rule(format!("the window {} isn't for {}", window.name, state.machine.name)).into());
    }
    let when = now();
    let date = |occurrence: &Occurrence| occurrence.key.start.with_timezone(&when.zone).date_naive();
    let all = || plan.occurrences.iter().filter(|occurrence| occurrence.key.window == window.id);
    let found = match on {
        Some(on) => all().find(|occurrence| date(occurrence) == on),
        None => all().next(),
    };
    found.ok_or_else(|| {
        let next: Vec<String> = all().take(3).map(|occurrence| date(occurrence).to_string()).collect();
        let until = plan.until.with_timezone(&when.zone).date_naive();
        let on = on.map(|on| format!(" on {on}")).unwrap_or_default();
        let next = if next.is_empty() { String::new() } else { format!("; it does on {}", next.join(", ")) };
        Failure::usage(format!("the window {} doesn't take place{on} (planned until {until}){next}", window.name))
    })
}

/// The disk whose merge is meant.
fn due_disk(state: &MachineState, disk: Option<&str>, plan: &PlanState) -> Result<DiskId, Failure> {
    let machine = &state.machine;
    let due: Vec<&DiskId> = plan.plan.merges.iter().filter(|m| m.machine == machine.id).map(|m| &m.disk).collect();
    let named = disk.map(|name| names::disk(machine, name)).transpose()?;
    match (named, due.as_slice()) {
        (Some(disk), due) if due.contains(&&disk) => Ok(disk),
        (Some(disk), _) => Err(Refusal::rule(format!("no merge of {disk} of {} is due", machine.name)).into()),
        (None, []) => Err(Refusal::rule(format!("no merge of {} is due", machine.name)).into()),
        (None, [one]) => Ok((*one).clone()),
        (None, several) => {
            let disks: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::usage(format!("several disks of {} are due: give --disk {}", machine.name, disks.join(" or "))))
        }
    }
}

fn unpin(name: &str, client: &mut Client, plan: &Arc<PlanState>, output: &Output) -> Done {
    let state: Arc<MachineState> = client.machine(name)?;
    let machine = state.machine.id;
    let mut last = None;
    for pin in plan.pins.iter().filter(|pin| pin.machine == machine) {
        let occurrence: Option<OccurrenceKey> = None;
        last = Some(client.call(Command::PinMerge { machine, disk: pin.disk.clone(), occurrence })?);
    }
    let answer = last.ok_or_else(|| Refusal::rule(format!("nobody has put a merge of {} anywhere", state.machine.name)))?;
    say_verdict(machine, &answer, client, output)
}

/// What came of it for the machine: a place that somebody chose needn't be one where it fits.
fn say_verdict(machine: MachineId, answer: &Answer, client: &mut Client, output: &Output) -> Done {
    if client.is_what_if() {
        return answers::answer(output, None, answer);
    }
    let plan = client.plan()?;
    let known = Known::of(client)?;
    let done = words::machine_verdict(machine, &plan, &|id| known.name(id), &now());
    answers::answer(output, None, &Answer::Done(done))
}
