//! Disks of ours over NBD, used by other programs: libnbd's, QEMU's and fio.
#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::nbd::{Export, Server};
use snaptree_core::testing::Random;
use snaptree_core::units::ByteCount;
use snaptree_tests::peer::run;
use snaptree_tests::witness::{sha256_of, sha256_of_chain, skip, tool};
use tempfile::TempDir;

/// Not whole blocks.
const SIZE: u64 = (40 << 20) + 3 * 4096;

/// A chain of files in a folder of its own, served.
struct Disk {
    folder: TempDir,
    chain: Arc<Chain>,
    server: Server,
}

impl Disk {
    fn new(sector: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let (host, block) = (OsHost::shared(), Some(ByteCount::mib(1)));
        let path = |layer: u64| folder.path().join(format!("{layer}.vhdx"));
        let options = CreateOptions { block_size: block, logical_sector_size: sector, ..CreateOptions::dynamic(ByteCount(SIZE)) };
        let chain = Chain::from_images(vec![disk::create(&host, &path(0), ImageFormat::Vhdx, &options)?])?;
        let mut random = Random::new(sector.into());
        for layer in 0..3 {
            if layer > 0 {
                let old = chain.images().pop().context("a leaf")?;
                old.pin_data_write_id()?;
                chain.push_leaf(disk::create_child(&host, &path(layer), &*old, block)?)?;
                old.freeze()?;
            }
            chain.write_at(&random.bytes(3 << 20), layer << 20)?;
            chain.write_at(&random.bytes(8192), (20 + layer) << 20)?;
            chain.write_zeroes((10 + layer) << 20, 1 << 20)?;
        }
        let chain = Arc::new(chain);
        let export = Export { name: "disk".into(), description: "a disk".into(), device: chain.clone(), read_only: false };
        let server = Server::start(&folder.path().join("s"), vec![export])?;
        Ok(Self { folder, chain, server })
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.server.socket().display())
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The images are whole, and show the same when they are opened again.
    fn check_whole(self) -> Result<()> {
        let sha = sha256_of_chain(&self.chain)?;
        drop(self.server);
        let leaf = self.chain.images().pop().context("a leaf")?.path();
        drop(self.chain);
        let again = Chain::open(&OsHost::shared(), &leaf, Access::Look, &Gate::around(&leaf))?;
        for image in again.images() {
            ensure!(image.check()? == [""; 0], "{}", image.path().display());
        }
        ensure!(sha256_of_chain(&again)? == sha, "another disk when it is opened again");
        Ok(())
    }
}

/// Whether all of these are installed; the first missing one is said.
fn are_there(tools: &[&str]) -> bool {
    let missing = tools.iter().find(|name| tool(name).is_none());
    missing.inspect(|name| skip(&format!("{name} is not installed"))).is_none()
}

/// Offset, length and state of each stretch, as nbdinfo tells them.
fn stretches(disk: &Disk, context: &str) -> Result<Vec<(u64, u64, u64)>> {
    let map: Value =
        serde_json::from_str(&run(Command::new("nbdinfo").args(["--json", &format!("--map={context}"), &disk.uri()]))?)?;
    let number = |entry: &Value, name: &str| entry[name].as_u64().with_context(|| format!("{name} in {entry}"));
    let entries = map.as_array().context("a list")?;
    entries.iter().map(|entry| Ok((number(entry, "offset")?, number(entry, "length")?, number(entry, "type")?))).collect()
}

#[test]
fn nbdinfo_sees_what_is_there() -> Result<()> {
    if !are_there(&["nbdinfo"]) {
        return Ok(());
    }
    for sector in [512, 4096] {
        let disk = Disk::new(sector)?;
        let told: Value = serde_json::from_str(&run(Command::new("nbdinfo").args(["--json", "--list", &disk.uri()]))?)?;
        let export = &told["exports"][0];
        assert_eq!((&told["protocol"], &told["structured"]), (&"newstyle-fixed".into(), &true.into()), "{told}");
        assert_eq!((&export["export-name"], &export["description"]), (&"disk".into(), &"a disk".into()));
        assert_eq!(export["contexts"], serde_json::json!(["base:allocation", "snaptree:depth"]));
        assert_eq!((&export["export-size"], &export["block_size_minimum"]), (&SIZE.into(), &sector.into()));
        for can in ["can_df", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"] {
            assert_eq!(export[can], true, "{can}: {told}");
        }

        // Joined as the server joins them.
        let joined = |state: &dyn Fn(Option<u16>, bool) -> u64| -> Result<Vec<(u64, u64, u64)>> {
            let mut joined: Vec<(u64, u64, u64)> = Vec::new();
            for stretch in disk.chain.stretches(0, SIZE)? {
                match joined.last_mut() {
                    Some(last) if last.2 == state(stretch.owner, stretch.zero) => last.1 += stretch.length,
                    _ => joined.push((stretch.offset, stretch.length, state(stretch.owner, stretch.zero))),
                }
            }
            Ok(joined)
        };
        let allocation = joined(&|owner, zero| if zero || owner.is_none() { 3 } else { 0 })?;
        assert_eq!(stretches(&disk, "base:allocation")?, allocation);
        assert_eq!(stretches(&disk, "snaptree:depth")?, joined(&|owner, _| owner.map_or(0, |owner| 3 - u64::from(owner)))?);
    }
    Ok(())
}

#[test]
fn nbdcopy_reads_and_writes_whole_disks() -> Result<()> {
    if !are_there(&["nbdcopy"]) {
        return Ok(());
    }
    for sector in [512, 4096] {
        let disk = Disk::new(sector)?;
        let (from, to) = (disk.file("from.raw"), disk.file("to.raw"));
        let copy = |from: &str, to: &str| run(Command::new("nbdcopy").args(["--connections=4", "--requests=16", from, to]));
        copy(&disk.uri(), &from)?;
        assert_eq!(sha256_of(File::open(&from)?)?, sha256_of_chain(&disk.chain)?, "read, sectors of {sector}");
        // With holes, data in other places, and an end that isn't a whole block.
        let file = File::create(&to)?;
        file.set_len(SIZE)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &Random::new(9).bytes(5 << 20), 7 << 20)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[3; 4096], SIZE - 4096)?;
        run(Command::new("nbdcopy").args(["--connections=4", "--flush", &to, &disk.uri()]))?;
        assert_eq!(sha256_of_chain(&disk.chain)?, sha256_of(File::open(&to)?)?, "written, sectors of {sector}");
        disk.check_whole()?;
    }
    Ok(())
}

#[test]
fn qemu_io_finds_what_it_wrote() -> Result<()> {
    if !are_there(&["qemu-io", "qemu-img"]) {
        return Ok(());
    }
    for sector in [512, 4096] {
        let disk = Disk::new(sector)?;
        let commands = [
            // Not whole sectors: QEMU reads what is around them, as it was told their size.
            "write -P 17 1000 3000",
            "read -P 17 1000 3000",
            "aio_write -P 18 1M 3M",
            "aio_write -P 19 8M 64k",
            "aio_flush",
            "read -P 18 1M 3M",
            "write -z -u 2M 1M",
            "read -P 0 2M 1M",
            "write -z 8M 4k",
            "read -P 0 8M 4k",
            "read -P 19 8196k 60k",
            "discard 3M 1M",
            "write -f -P 20 39M 4k",
            "flush",
        ];
        let mut qemu = Command::new("qemu-io");
        qemu.args(["-f", "raw", &disk.uri()]);
        for command in commands {
            qemu.args(["-c", command]);
        }
        // It says so, and ends with 0, where what it reads isn't what it expects.
        let said = run(&mut qemu)?;
        ensure!(!said.contains("failed") && !said.contains("error"), "{said}");
        let compare = ["compare", "-f", "raw", "-F", "raw", &disk.uri(), &disk.file("copy.raw")];
        run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", &disk.uri(), &disk.file("copy.raw")]))?;
        run(Command::new("qemu-img").args(compare))?;
        assert_eq!(sha256_of(File::open(disk.file("copy.raw"))?)?, sha256_of_chain(&disk.chain)?);
        disk.check_whole()?;
    }
    Ok(())
}

#[test]
fn fio_verifies_what_it_wrote() -> Result<()> {
    let knows_nbd = || run(Command::new("fio").arg("--enghelp")).is_ok_and(|help| help.contains("nbd"));
    if !are_there(&["fio"]) {
        return Ok(());
    }
    if !knows_nbd() {
        skip("fio is without its nbd engine");
        return Ok(());
    }
    for sector in [512, 4096] {
        let disk = Disk::new(sector)?;
        // Two jobs, each in its own half, mixed sizes, some trims.
        let jobs =
            ["--numjobs=2", "--size=16M", "--offset_increment=16M", "--iodepth=32", "--bsrange=4k-128k", "--blockalign=4k"];
        let what = ["--ioengine=nbd", "--rw=randrw", "--rwmixread=30", "--fsync=64", "--group_reporting"];
        let verify = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--loops=2", "--name=verified"];
        let mut fio = Command::new("fio");
        fio.current_dir(disk.folder.path()).args(what).args(jobs).args(verify).arg(format!("--uri={}", disk.uri()));
        run(&mut fio)?;
        disk.check_whole()?;
    }
    Ok(())
}

#[test]
fn another_user_is_hung_up_on() -> Result<()> {
    if !are_there(&["nbdinfo", "setpriv", "id"]) {
        return Ok(());
    }
    if run(Command::new("id").arg("-u"))?.trim() != "0" {
        skip("only root can run a program as another user");
        return Ok(());
    }
    let disk = Disk::new(512)?;
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "nbdinfo", "--size", &disk.uri()]).output()
    };
    assert!(!as_nobody()?.status.success(), "the file's mode keeps it out");
    // Even where somebody opens the way to the socket.
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(disk.folder.path(), 0o755)?;
    open(disk.server.socket(), 0o666)?;
    let refused = as_nobody()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !said.contains("Permission denied"), "{said}");
    assert_eq!(run(Command::new("nbdinfo").args(["--size", &disk.uri()]))?.trim(), SIZE.to_string());
    Ok(())
}
