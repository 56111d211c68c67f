//! `machine screen`, `console` and `viewer`: what a running machine shows and says.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use snaptree_core::engine::{MachineState, Outside};
use snaptree_core::snapshot::MachineKind;
use snaptree_core::store::CONSOLE;

use super::client::Client;
use super::output::Output;
use super::{Done, Failure, json};
use crate::viewer;

/// Writes what a running machine's screen shows to a PNG file.
pub fn screen(client: &mut Client, name: &str, to: &Path, output: &Output) -> Done {
    let state = client.machine(name)?;
    if !state.power.is_up() {
        return Err(refused(&state));
    }
    let screen = client.screen(name)?;
    fs::write(to, &screen.png).map_err(|error| Failure::failed(format!("{}: {error}", to.display())))?;
    let picture = json::Picture { file: to.to_owned(), width: screen.width, height: screen.height };
    output.say(&picture, || vec![format!("{}: {} x {} pixels", to.display(), screen.width, screen.height)]);
    Ok(())
}

/// Copies what a machine's serial port has said since its last start to the standard output, as it is.
pub fn console(client: &mut Client, name: &str) -> Done {
    let state = client.machine(name)?;
    let file = state.folder.join(CONSOLE);
    if state.machine.kind != MachineKind::Qemu || !file.exists() {
        outside(&state)?;
        return Err(Failure::refused("it has said nothing yet"));
    }
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", file.display()));
    let mut said = File::open(&file).map_err(failed)?;
    let mut out = io::stdout().lock();
    io::copy(&mut said, &mut out).and_then(|_| out.flush()).map_err(failed)
}

/// Shows a machine's screen in a viewer.
pub fn viewer(client: &mut Client, name: &str, output: &Output) -> Done {
    let state = client.machine(name)?;
    let socket = outside(&state)?.viewer.clone();
    let said = viewer::open(&socket).map_err(Failure::failed)?;
    output.say(&json::Viewer { socket }, || vec![said]);
    Ok(())
}

fn outside(state: &MachineState) -> Result<&Outside, Failure> {
    state.outside.as_ref().ok_or_else(|| match state.power.is_up() {
        true => Failure::refused(
            "it is of the built-in kind, which has no serial port and no keys; `machine screen` shows its screen",
        ),
        false => refused(state),
    })
}

fn refused(state: &MachineState) -> Failure {
    Failure::refused(format!("{} doesn't run; start it first", state.machine.name))
}
