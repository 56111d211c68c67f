//! Whether QEMU is there, new enough, and what it can be quick with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::arguments::{arguments, monitor};
use super::picture::picture;
use super::process::Process;
use crate::locks::lock;
use crate::snapshot::{Configuration, WorkloadProfile};
use crate::units::ByteCount;
use crate::vm::{Places, Result, VmError};

/// The program, and the package of Debian and Ubuntu that has it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Memory is saved into files from this version on.
const OLDEST: (u32, u32) = (8, 2);
/// How long the firmware may take until its words are seen.
const BOOT: Duration = Duration::from_secs(5);
/// The screen in the firmware's text mode; before that, QEMU shows words of its own.
const TEXT: (u32, u32) = (720, 400);

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor itself.
    Kvm,
    /// QEMU, many times slower.
    Emulated,
}

/// An installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: (u32, u32),
    /// What it runs guests with here.
    pub acceleration: Acceleration,
}

impl Qemu {
    /// Looks for it, and lets firmware boot once, to see what works. `folder`, which nobody else may enter, is for that.
    ///
    /// # Errors
    /// Where it isn't installed, or too old: with the package's name.
    pub fn find(folder: &Path) -> Result<Self> {
        Self::at(Path::new(PROGRAM), folder, BOOT)
    }

    /// The same, looked for once by each process: what works here doesn't change meanwhile.
    pub(in crate::vm) fn known(folder: &Path) -> Result<Self> {
        static KNOWN: Mutex<Option<Qemu>> = Mutex::new(None);
        let mut known = lock(&KNOWN);
        match &*known {
            Some(known) => Ok(known.clone()),
            None => Ok(known.insert(Self::find(folder)?).clone()),
        }
    }

    fn at(program: &Path, folder: &Path, limit: Duration) -> Result<Self> {
        let version = version(program)?;
        let acceleration = if boots(program, folder, limit)? { Acceleration::Kvm } else { Acceleration::Emulated };
        Ok(Self { program: program.into(), version, acceleration })
    }
}

fn version(program: &Path) -> Result<(u32, u32)> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        VmError::Refused(match error.kind() {
            io::ErrorKind::NotFound => format!("QEMU isn't installed: the package is {PACKAGE}"),
            _ => format!("{} can't be started: {error}", program.display()),
        })
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let Some(version) = parse(&said) else {
        return Err(VmError::Refused(format!("{} doesn't tell its version: {:?}", program.display(), said.trim())));
    };
    if version < OLDEST {
        let ((a, b), (c, d)) = (version, OLDEST);
        let text = format!("QEMU {a}.{b} is too old to save memory: {c}.{d} or newer of {PACKAGE} is needed");
        return Err(VmError::Refused(format!("{text} (Debian 12 has it in bookworm-backports)")));
    }
    Ok(version)
}

/// "QEMU emulator version 10.0.2 (Debian ...)".
fn parse(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split("version ").nth(1)?.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether a machine boots with KVM as far as its screen shows the firmware's words. That `/dev/kvm` can be opened and a
/// machine be made isn't enough, nor that the firmware runs: where KVM is emulated itself, screens were seen that stay
/// black, and no Linux booted there.
fn boots(program: &Path, folder: &Path, limit: Duration) -> Result<bool> {
    let configuration =
        Configuration { memory: ByteCount::mib(32), disks: Vec::new(), workload: WorkloadProfile::default(), hardware: None };
    let places = Places { sockets: folder.into(), console: None };
    let arguments = arguments(&configuration, Acceleration::Kvm, &places, false)?;
    let until = Instant::now() + limit;
    let Ok(process) = Process::start(program, &arguments, &monitor(folder), limit) else { return Ok(false) };
    while Instant::now() < until {
        match picture(&process, folder, 0) {
            Ok(frame) if (frame.width, frame.height) == TEXT && frame.rgb.iter().any(|byte| *byte != 0) => return Ok(true),
            Ok(_) => thread::sleep(Duration::from_millis(20)),
            Err(_) => break,
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
        assert_eq!(parse("QEMU emulator version 8.2.91"), Some((8, 2)));
        assert_eq!((parse("QEMU emulator version x"), parse(""), parse("version 8")), (None, None, None));
    }

    /// A program that is called as QEMU is.
    fn fake(script: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        std::fs::write(&program, format!("#!/bin/sh\nif [ \"$1\" = --version ]; then\n{script}")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, program)
    }

    fn found(script: &str) -> Result<Qemu, String> {
        let (folder, program) = fake(script);
        Qemu::at(&program, folder.path(), Duration::from_millis(500)).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_and_old_are_said_with_the_package() {
        let missing = Qemu::at(Path::new("/nowhere/qemu"), Path::new("/nowhere"), BOOT).unwrap_err().to_string();
        assert!(missing.contains("isn't installed") && missing.contains(PACKAGE), "{missing}");
        let old = found("echo QEMU emulator version 7.2.22; fi").unwrap_err();
        assert!(old.contains("7.2 is too old") && old.contains(PACKAGE), "{old}");
        assert!(found("echo hello; fi").unwrap_err().contains("hello"));
    }

    #[test]
    fn what_does_not_boot_in_time_is_no_acceleration() {
        let version = "echo QEMU emulator version 9.1.0; exit; fi";
        let began = Instant::now();
        let silent = found(&format!("{version}\nexec sleep 60")).unwrap();
        assert_eq!((silent.version, silent.acceleration), ((9, 1), Acceleration::Emulated));
        assert!(began.elapsed() < Duration::from_secs(30), "it isn't waited for without end");
        assert_eq!(found(&format!("{version}\nexit 1")).unwrap().acceleration, Acceleration::Emulated);
    }
}
