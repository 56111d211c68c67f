//! The built program, and a home of its own for it to run in.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The folder into which cargo built this test or measuring program, and the program beside it.
pub fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    // TARGET/debug/deps/test, or TARGET/debug/measure
    let folder = own.parent().expect("a folder");
    if folder.ends_with("deps") { folder.parent().expect("a folder") } else { folder }.to_path_buf()
}

/// The program, with the door through which tests see its window. Built by `./tests/run`; by hand,
/// `cargo build --workspace --features snaptree/inspection`.
pub fn program() -> PathBuf {
    built("snaptree")
}

/// The program as it is released, without that door. Built by `./tests/run`.
pub fn plain_program() -> Option<PathBuf> {
    let path = build_folder().join("snaptree-plain");
    path.exists().then_some(path)
}

fn built(name: &str) -> PathBuf {
    let path = build_folder().join(name);
    let by = "cargo build --workspace --features snaptree/inspection";
    assert!(path.exists(), "{} is missing; `{by}` builds it", path.display());
    path
}

/// Folders of a person who has never run the program. What was started in them and still runs is
/// ended with them.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// A new, empty one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir().expect("a temporary folder");
        for name in ["data", "config", "cache"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        DirBuilder::new().mode(0o700).create(folder.path().join("run")).expect("a folder");
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that runs in it, without a display, and without what the tests' own surroundings say.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.path());
        for (variable, name) in
            [("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache"), ("XDG_RUNTIME_DIR", "run")]
        {
            command.env(variable, self.path().join(name));
        }
        for variable in ["DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "EGUI_INSPECTION", "DBUS_SESSION_BUS_ADDRESS"] {
            command.env_remove(variable);
        }
        command.current_dir(self.path());
        command
    }

    /// Processes that run in it, such as owners of machines.
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("XDG_RUNTIME_DIR={}", self.path().join("run").display());
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter(|id: &u32| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for id in self.processes() {
            let _ = Command::new("kill").arg("-9").arg(id.to_string()).status();
        }
    }
}
