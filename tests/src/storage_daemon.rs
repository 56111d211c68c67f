//! `qemu-storage-daemon` with a chain of qcow2 as a machine's disk: its guest is a client of NBD on a unix socket, and
//! `block-commit` merges under it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// The daemon, steered over QMP on its standard streams; it ends when this is dropped.
#[derive(Debug)]
pub struct StorageDaemon {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl StorageDaemon {
    /// Opens a chain through its top and serves it at `socket`.
    pub fn start(top: &Path, socket: &Path) -> Result<Self> {
        let node = json!({"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": top}});
        let mut process = Command::new("qemu-storage-daemon")
            .args(["--chardev", "stdio,id=qmp", "--monitor", "chardev=qmp"])
            .args(["--blockdev", &node.to_string()])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
            .args(["--export", "type=nbd,id=export,node-name=top,name=disk,writable=on"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-storage-daemon")?;
        let (input, output) = (process.stdin.take().context("a pipe")?, process.stdout.take().context("a pipe")?);
        let mut daemon = Self { process, input, output: BufReader::new(output) };
        daemon.ask("qmp_capabilities", &json!({}))?;
        Ok(daemon)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        writeln!(self.input, "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "qemu-storage-daemon has ended");
            // Its greeting, and events, come in between.
            let answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// Begins to merge all of the chain into its base, with at most so many bytes a second; 0 is no limit.
    pub fn commit(&mut self, limit: u64) -> Result<()> {
        self.ask("block-commit", &json!({"job-id": "commit", "device": "top", "speed": limit})).map(drop)
    }

    /// Bytes that the merge has done and has to do in all; `None` when it is no longer under way.
    pub fn committed(&mut self) -> Result<Option<(u64, u64)>> {
        let jobs = self.ask("query-block-jobs", &json!({}))?;
        let of = |name: &str| jobs[0][name].as_u64();
        Ok(of("offset").zip(of("len")))
    }

    /// Gives the merge up; what was copied stays.
    pub fn cancel(&mut self) -> Result<()> {
        self.ask("block-job-cancel", &json!({"device": "commit", "force": true}))?;
        while self.committed()?.is_some() {
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client of NBD that waits for each answer.
#[derive(Debug)]
pub struct NbdClient(UnixStream);

const OPTION_MAGIC: &[u8] = b"IHAVEOPT";
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;

impl NbdClient {
    /// Connects to the daemon's export.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        ensure!(&greeting[..8] == b"NBDMAGIC" && &greeting[8..16] == OPTION_MAGIC, "not a server of NBD");
        let name = b"disk";
        // Fixed newstyle, no zeroes.
        let mut hello = 3_u32.to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC);
        hello.extend([OPTION_GO, name.len() as u32 + 6, name.len() as u32].map(u32::to_be_bytes).concat());
        hello.extend(name);
        hello.extend([0; 2]);
        stream.write_all(&hello)?;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let mut rest = vec![0; word(16) as usize];
            stream.read_exact(&mut rest)?;
            match word(12) {
                REPLY_ACK => return Ok(Self(stream)),
                REPLY_INFO => {}
                other => bail!("the server of NBD says {other:#x}: {}", String::from_utf8_lossy(&rest)),
            }
        }
    }

    fn request(&mut self, kind: u16, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, kind].map(u16::to_be_bytes).concat());
        request.extend([0, offset].map(u64::to_be_bytes).concat());
        request.extend((bytes.len() as u32).to_be_bytes());
        request.extend(bytes);
        self.0.write_all(&request)?;
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply)?;
        ensure!(reply[..4] == REPLY_MAGIC.to_be_bytes() && reply[4..8] == [0; 4], "the server of NBD answers {reply:x?}");
        Ok(())
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.request(WRITE, offset, bytes)
    }

    /// Everything written is durable afterwards.
    pub fn flush(&mut self) -> Result<()> {
        self.request(FLUSH, 0, &[])
    }
}
