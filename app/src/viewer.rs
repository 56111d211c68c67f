//! A program that shows a machine's screen and sends it keys and mouse. It is somebody else's, and started on request: one
//! that speaks VNC over a unix socket.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// TigerVNC takes a socket's path for a server's name. Debian gives its viewer the first name; others may have the second.
const SURE: &str = "xtigervncviewer";
const PERHAPS: &str = "vncviewer";
/// What the second says of itself if it is that one.
const MAKER: &str = "TigerVNC";

/// Shows what is at this socket; in words, what came of it, or why nothing did.
pub fn open(socket: &Path) -> Result<String, String> {
    open_with(&env::var_os("PATH").unwrap_or_default(), socket)
}

fn open_with(path: &OsStr, socket: &Path) -> Result<String, String> {
    let Some(viewer) = find(path) else {
        return Err(format!(
            "no viewer that can show it is installed. Install TigerVNC's (on Debian and Ubuntu: tigervnc-viewer); \
             the screen is at {}",
            socket.display()
        ));
    };
    let mut command = Command::new(&viewer);
    command.arg(socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(unix)]
    {
        // Ctrl+C in the terminal that this was started from is not for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
    }
    let mut started = command.spawn().map_err(|error| format!("{} could not be started: {error}", viewer.display()))?;
    // Nobody waits for it, but it must not stay as a dead process.
    std::thread::spawn(move || drop(started.wait()));
    Ok(format!("{} shows its screen.", viewer.display()))
}

/// The viewer in the folders of `PATH`.
fn find(path: &OsStr) -> Option<PathBuf> {
    let named = |name: &str| env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let is_it = |file: &PathBuf| {
        let said = Command::new(file).arg("-h").stdin(Stdio::null()).output();
        said.is_ok_and(|said| [said.stdout, said.stderr].iter().any(|said| String::from_utf8_lossy(said).contains(MAKER)))
    };
    named(SURE).or_else(|| named(PERHAPS).filter(is_it))
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use super::*;

    fn program(folder: &Path, name: &str, text: &str) {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_viewer_is_told_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let (said, socket) = (folder.path().join("said"), folder.path().join("a socket"));
        program(folder.path(), SURE, &format!("printf %s \"$1\" > '{0}.new'; mv '{0}.new' '{0}'", said.display()));
        // The shell needs its own tools.
        let path = env::join_paths([folder.path(), Path::new("/bin"), Path::new("/usr/bin")]).unwrap();
        open_with(&path, &socket).unwrap();
        let began = Instant::now();
        while !said.exists() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(fs::read_to_string(&said).unwrap(), socket.to_str().unwrap());
    }

    #[test]
    fn another_maker_s_viewer_is_not_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        let why = open_with(path, Path::new("/s")).unwrap_err();
        assert!(why.contains("tigervnc-viewer") && why.contains("/s"), "{why}");
        program(folder.path(), PERHAPS, "echo TightVNC Viewer >&2; exit 1");
        assert!(open_with(path, Path::new("/s")).is_err());
        program(folder.path(), PERHAPS, "echo TigerVNC Viewer v1.12 >&2; exit 1");
        assert_eq!(find(path).unwrap(), folder.path().join(PERHAPS));
    }
}
