//! `agent`: carries the plan out while nobody looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use snaptree_core::engine::Agent;

use super::client::{Client, options};
use super::output::Output;
use super::plan::now;
use super::{Common, Done, Failure, json};
use crate::service::Service;
use crate::text::{self, sentence};

/// Merges in the maintenance windows, as planned, until it is told to end.
#[derive(Debug, Args)]
pub struct Run {
    /// Sets it up as a service of yours, which starts at each login.
    #[arg(long, group = "service")]
    install: bool,
    /// Ends that service and removes it.
    #[arg(long, group = "service")]
    uninstall: bool,
    /// Says whether one is at work, and how it is started.
    #[arg(long, group = "service")]
    status: bool,
}

/// What `agent --status` says.
#[derive(Debug, Serialize)]
struct Status {
    is_at_work: bool,
    /// What the service starts, where there is one.
    service: Option<String>,
    /// In words.
    sentence: String,
}

pub fn run(verb: &Run, common: &Common, output: &Output) -> Done {
    if common.what_if && !verb.status {
        return Err(Failure::usage("what the agent would do is what `snaptree plan` says"));
    }
    if verb.install || verb.uninstall {
        let service = Service::of_user().ok_or_else(|| Failure::usage("there is no home directory"))?;
        let said = if verb.install {
            let library = options(&common.library()?).library;
            service.install(&std::env::current_exe()?, &library)
        } else {
            service.remove()
        };
        let said = said.map_err(Failure::failed)?;
        output.say(&json::Done { done: said.clone() }, || vec![said]);
        return Ok(());
    }
    if verb.status {
        return status(common, output);
    }
    work(common)
}

fn status(common: &Common, output: &Output) -> Done {
    let plan = Client::open(common)?.plan()?;
    let service = Service::of_user().and_then(|service| service.start_line());
    let started = service.as_ref().map_or("It isn't set up as a service.".into(), |line| format!("The service starts {line}"));
    let sentence = text::plan::agent(&plan.agent, &now());
    output.say(&Status { is_at_work: plan.agent.is_at_work, service, sentence: sentence.clone() }, || vec![sentence, started]);
    Ok(())
}

/// Set when it is to end.
static ENDED: AtomicBool = AtomicBool::new(false);

fn work(common: &Common) -> Done {
    let mut agent = Agent::new(options(&common.library()?))?;
    ctrlc::set_handler(|| ENDED.store(true, Ordering::SeqCst)).map_err(|error| Failure::failed(error.to_string()))?;
    println!("At work on {}", options(&common.library()?).library.display());
    while !ENDED.load(Ordering::SeqCst) {
        let idle = agent.tick();
        for line in agent.said() {
            println!("{}", sentence(line));
        }
        sleep(idle.min(Duration::from_millis(200)));
    }
    agent.leave();
    Ok(())
}
