//! A home of its own for the built program.

use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home with a library; machines that still run in it are stopped with it.
pub struct Home(pub TempDir);

impl Home {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::DirBuilder::new().mode(0o700).create(folder.path().join("run")).expect("a folder");
        Self(folder)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snaptree"));
        command.args(args).current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("XDG_RUNTIME_DIR", self.0.path().join("run"));
        command.env("XDG_DATA_HOME", self.0.path().join("data"));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("the program starts")
    }

    /// What it prints, ending with this status.
    pub fn ends(&self, status: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}{err}");
        assert_eq!(err.starts_with("snaptree: ") || err.starts_with("error: "), status != 0, "{args:?}: {err}");
        out.into_owned()
    }

    pub fn done(&self, args: &[&str]) -> String {
        self.ends(0, args)
    }

    pub fn json(&self, status: i32, args: &[&str]) -> Value {
        let text = self.ends(status, &[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
    }

    /// The tree's rows.
    pub fn rows(&self) -> Vec<Value> {
        self.json(0, &["tree", "WEB01"])["rows"].as_array().expect("rows").clone()
    }

    pub fn labels(&self) -> Vec<String> {
        self.rows().iter().map(|row| format!("{} {}", text(&row["node"]), text(&row["label"]))).collect()
    }

    pub fn verify(&self, labels: &[&str]) {
        self.done(&["workload", "verify", "WEB01"]);
        for label in labels {
            let report = self.json(0, &["workload", "verify", "WEB01", "--at", label]);
            assert_eq!((&report["disk"], &report["wrong"]), (&(32 << 20).into(), &Value::Array(vec![])), "{label}");
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["machine", "stop", "WEB01"]);
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is text"))
}
