//! The agent as a service of the user: a unit for systemd's manager of that user, so that the plan is carried out
//! while no window is open.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The unit's name.
const UNIT: &str = "snaptree-agent.service";
/// What starts the program in the unit.
const START: &str = "ExecStart=";

/// The service of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    unit: PathBuf,
}

impl Service {
    /// The service of who runs this program; `None` where there is no home directory.
    pub fn of_user() -> Option<Self> {
        let folder = directories::BaseDirs::new()?.config_dir().join("systemd").join("user");
        Some(Self { unit: folder.join(UNIT) })
    }

    /// Whether it is set up for this library.
    pub fn is_for(&self, library: &Path) -> bool {
        self.start_line().is_some_and(|line| line.ends_with(&quoted(library.as_os_str())))
    }

    /// What it starts, if it is set up.
    pub fn start_line(&self) -> Option<String> {
        let text = fs::read_to_string(&self.unit).ok()?;
        text.lines().find_map(|line| line.strip_prefix(START)).map(str::to_owned)
    }

    /// Sets it up for a library, starts it, and has it started at each login. In words, what came of it; or why not.
    pub fn install(&self, program: &Path, library: &Path) -> Result<String, String> {
        manager(&["show-environment"]).map_err(|why| {
            format!("there is no systemd that runs services for you here ({why}); have `snaptree agent` started at login some other way")
        })?;
        let written =
            self.unit.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&self.unit, unit(program, library)));
        written.map_err(|error| format!("{}: {error}", self.unit.display()))?;
        manager(&["daemon-reload"])?;
        manager(&["enable", UNIT])?;
        manager(&["restart", UNIT])?;
        Ok("The agent is at work, and starts at each login. For it to work while you are logged out: loginctl enable-linger"
            .into())
    }

    /// Ends it and removes it.
    pub fn remove(&self) -> Result<String, String> {
        if self.start_line().is_none() {
            return Ok("It isn't set up.".into());
        }
        manager(&["disable", "--now", UNIT])?;
        match fs::remove_file(&self.unit) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(format!("{}: {error}", self.unit.display())),
            _ => {}
        }
        manager(&["daemon-reload"])?;
        Ok("The agent is ended and starts no more.".into())
    }
}

/// Asks the user's manager of services.
fn manager(args: &[&str]) -> Result<(), String> {
    let ran = Command::new("systemctl").arg("--user").args(args).stdin(Stdio::null()).output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("systemctl --user {}: {}", args.join(" "), said.trim().lines().next().unwrap_or("it failed")))
        }
        Err(error) => Err(format!("systemctl: {error}")),
    }
}

/// The unit. Machines that the agent has started again outlive it.
fn unit(program: &Path, library: &Path) -> String {
    let (program, library) = (quoted(program.as_os_str()), quoted(library.as_os_str()));
    format!(
        "[Unit]\nDescription=Snaptree: merges in the maintenance windows\n\n\
         [Service]\n{START}{program} agent --library {library}\nRestart=on-failure\nRestartSec=10\nKillMode=process\n\n\
         [Install]\nWantedBy=default.target\n"
    )
}

/// A word of a command line as systemd reads it (systemd.service(5), "COMMAND LINES"; systemd.syntax(7), "QUOTING").
fn quoted(word: &OsStr) -> String {
    let mut text = String::from("\"");
    for c in word.to_string_lossy().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            '\n' => text += "\\n",
            c => text.push(c),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_systemd() {
        assert_eq!(quoted(OsStr::new("/a b/100%")), "\"/a b/100%%\"");
        assert_eq!(quoted(OsStr::new("/$x\"\\")), "\"/$$x\\\"\\\\\"");
    }

    #[test]
    fn a_unit_says_for_which_library_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service { unit: folder.path().join(UNIT) };
        assert_eq!(service.start_line(), None);
        assert_eq!(service.remove(), Ok("It isn't set up.".into()));
        fs::write(&service.unit, unit("/bin/snap tree".as_ref(), "/data".as_ref())).unwrap();
        assert_eq!(service.start_line().unwrap(), "\"/bin/snap tree\" agent --library \"/data\"");
        assert!(service.is_for("/data".as_ref()) && !service.is_for("/other".as_ref()));
    }
}
