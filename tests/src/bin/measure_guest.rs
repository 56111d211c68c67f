//! Measures what a live merge costs a Linux that QEMU runs: each of its records is written and flushed, and it says how long
//! that took. Ours at rest and during the merge of a middle snapshot, then QEMU's own qcow2 at rest and during its
//! `block-commit` of equal images, in turns: the same guest, the same data, both through the page cache.
//!
//! ```text
//! measure_guest [--runs N] [--mib N] [--rest SECONDS] [--limit MIB]
//!     so often; so much is to be moved; so long at rest; at most so much moved a second, where that is said
//! ```

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    println!("QEMU's disks are served over unix sockets only");
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command as Process, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};
    use serde_json::{Value, json};
    use snaptree_core::engine::Command;
    use snaptree_core::host_file::Access;
    use snaptree_core::units::{ByteCount, ByteRate};
    use snaptree_core::vm::qemu::qmp::Qmp;
    use snaptree_core::vm::qemu::{Acceleration, Qemu};
    use snaptree_tests::boot_sector::qemu;
    use snaptree_tests::driver::Driver;
    use snaptree_tests::guest::{Linux, Said, said};
    use snaptree_tests::linux_machine::{LinuxMachine, MEMORY};
    use snaptree_tests::measure::Spread;
    use snaptree_tests::peer::{run, their_layer};

    const MIB: u64 = 1 << 20;
    /// The guest's file system; what is merged lies behind it.
    const FILE_SYSTEM: u64 = 256 * MIB;
    /// Records before anything is measured.
    const WARM: usize = 100;
    const PATIENCE: Duration = Duration::from_secs(600);

    struct Options {
        runs: usize,
        bytes: u64,
        rest: Duration,
        limit: u64,
    }

    fn options() -> Result<Options> {
        let mut options = Options { runs: 5, bytes: 1024 * MIB, rest: Duration::from_secs(20), limit: 0 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let number: u64 = words.next().with_context(|| format!("{word} and a number"))?.parse()?;
            match &*word {
                "--runs" => options.runs = number as usize,
                "--mib" => options.bytes = number * MIB,
                "--rest" => options.rest = Duration::from_secs(number),
                "--limit" => options.limit = number * MIB,
                _ => anyhow::bail!("{word} isn't known"),
            }
        }
        Ok(options)
    }

    /// What was measured of one side.
    struct Side {
        /// What the guest's records took, in ms, sorted.
        rest: Vec<f64>,
        merge: Vec<f64>,
        seconds: f64,
        moved: u64,
    }

    fn times(console: &str) -> Result<Vec<f64>> {
        let took = |said: &Said| if let Said::Done(_, took) = said { Some(*took as f64 / 1e3) } else { None };
        let mut times: Vec<f64> = said(console)?.iter().filter_map(took).collect();
        times.sort_by(f64::total_cmp);
        ensure!(!times.is_empty(), "no record was written: the merge was over too soon");
        Ok(times)
    }

    fn quantile(sorted: &[f64], share: f64) -> f64 {
        sorted[((sorted.len() - 1) as f64 * share).ceil() as usize]
    }

    fn ours(linux: Linux, options: &Options) -> Result<(Linux, Side)> {
        let size = ByteCount(FILE_SYSTEM + 2 * options.bytes);
        let mut lab = LinuxMachine::create(linux, Driver::new(), size, ByteCount(FILE_SYSTEM))?;
        let machine = lab.machine;
        lab.driver.take(machine, "base", false);
        let mut middle = None;
        for (part, label) in ["middle", "top"].into_iter().enumerate() {
            let chains = lab.driver.chains(machine, None, Access::Write);
            let chain = chains.values().next().context("a disk")?;
            let data = vec![part as u8 + 1; MIB as usize];
            for at in (0..options.bytes).step_by(MIB as usize) {
                chain.write_at(&data, FILE_SYSTEM + part as u64 * options.bytes + at)?;
            }
            chain.flush()?;
            drop(chains);
            middle.get_or_insert(lab.driver.take(machine, label, false).0);
        }
        run(&mut Process::new("sync"))?;
        lab.boots()?;
        lab.writes(WARM, 0)?;
        let from = lab.console_length()?;
        lab.driver.pass(options.rest);
        let rest = times(&lab.console(from)?)?;
        lab.driver.delete(machine, &[middle.context("a snapshot")?]);
        let limit = (options.limit > 0).then_some(ByteRate(options.limit as f64));
        let (from, began) = (lab.console_length()?, Instant::now());
        lab.driver.done(Command::Merge { machine, disk: None, limit, until: None });
        let seconds = began.elapsed().as_secs_f64();
        let merge = times(&lab.console(from)?)?;
        let moved = lab.driver.jobs.last().context("a job")?.done.0;
        lab.driver.done(Command::TurnOff(machine));
        Ok((lab.linux, Side { rest, merge, seconds, moved }))
    }

    /// A chain of qcow2 with the same in it.
    fn build(folder: &Path, linux: &Linux, options: &Options) -> Result<()> {
        let raw = folder.join("raw");
        fs::write(&raw, linux.file_system(FILE_SYSTEM)?)?;
        run(Process::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &their_layer(folder, 0)]))?;
        fs::remove_file(&raw)?;
        let size = (FILE_SYSTEM + 2 * options.bytes).to_string();
        run(Process::new("qemu-img").args(["resize", "-q", "-f", "qcow2"]).arg(their_layer(folder, 0)).arg(&size))?;
        for layer in 1..4 {
            let below = their_layer(Path::new(""), layer - 1);
            let mut create = Process::new("qemu-img");
            create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(below);
            run(create.arg(their_layer(folder, layer)).arg(&size))?;
        }
        for part in 0..2_u64 {
            let mut write = Process::new("qemu-io");
            write.args(["-f", "qcow2"]);
            for at in (0..options.bytes).step_by(16 << 20) {
                let (length, offset) = ((16 << 20).min(options.bytes - at), FILE_SYSTEM + part * options.bytes + at);
                write.arg("-c").arg(format!("write -q -P {} {offset} {length}", part + 1));
            }
            run(write.arg(their_layer(folder, part as usize + 1)))?;
        }
        run(&mut Process::new("sync")).map(drop)
    }

    /// A QEMU with its own disk.
    struct Theirs {
        process: Child,
        qmp: Qmp,
        console: PathBuf,
    }

    impl Drop for Theirs {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    impl Theirs {
        /// With the hardware that a machine of ours has.
        fn start(folder: &Path, linux: &Linux, qemu: &Qemu) -> Result<Self> {
            let file = |layer| json!({"driver": "file", "filename": their_layer(folder, layer)});
            let layers = ["base", "middle", "top", "leaf"].into_iter().enumerate();
            let mut disk = Value::Null;
            for (layer, name) in layers {
                let below = std::mem::replace(&mut disk, json!({"driver": "qcow2", "node-name": name, "file": file(layer)}));
                if !below.is_null() {
                    disk["backing"] = below;
                }
            }
            let (accel, cpu) = match qemu.acceleration {
                Acceleration::Kvm => ("kvm", "host"),
                Acceleration::Emulated => ("tcg,thread=multi", "max"),
            };
            let (boot, console, monitor) = (linux.boot(), folder.join("console"), folder.join("monitor"));
            let process = Process::new(&qemu.program)
                .args(["-machine", "q35", "-accel", accel, "-cpu", cpu, "-smp", "1", "-display", "none", "-device", "VGA"])
                .args(["-m", &format!("{}M", MEMORY.0 / MIB), "-nodefaults", "-no-user-config"])
                .args(["-blockdev", &disk.to_string(), "-device", "virtio-blk-pci,drive=leaf"])
                .args(["-chardev", &format!("socket,id=monitor,path={},server=on,wait=off", monitor.display())])
                .args(["-mon", "chardev=monitor,mode=control"])
                .args(["-serial", &format!("file:{}", console.display())])
                .arg("-kernel")
                .arg(&boot.kernel)
                .arg("-initrd")
                .arg(boot.initrd.context("a file system")?)
                .args(["-append", &boot.command_line])
                .stdin(Stdio::null())
                .spawn()?;
            // Before anything fails: it ends with this.
            let qmp = Qmp::connect(&monitor, Duration::from_secs(20));
            match qmp {
                Ok(qmp) => Ok(Self { process, qmp, console }),
                Err(error) => {
                    let mut process = process;
                    process.kill()?;
                    process.wait()?;
                    Err(error.into())
                }
            }
        }

        fn console(&self, from: usize) -> Result<String> {
            let bytes = fs::read(&self.console)?;
            Ok(String::from_utf8_lossy(&bytes[from.min(bytes.len())..]).into_owned())
        }
    }

    fn theirs(linux: &Linux, qemu: &Qemu, options: &Options) -> Result<Side> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        build(folder.path(), linux, options)?;
        let theirs = Theirs::start(folder.path(), linux, qemu)?;
        let began = Instant::now();
        while said(&theirs.console(0)?)?.iter().filter(|said| matches!(said, Said::Done(..))).count() < WARM {
            ensure!(began.elapsed() < PATIENCE, "it doesn't write");
            sleep(Duration::from_millis(50));
        }
        let from = theirs.console(0)?.len();
        sleep(options.rest);
        let rest = times(&theirs.console(from)?)?;
        let (from, began) = (theirs.console(0)?.len(), Instant::now());
        let commit =
            json!({"job-id": "commit", "device": "leaf", "top-node": "top", "base-node": "middle", "speed": options.limit});
        theirs.qmp.ask("block-commit", commit, Duration::from_secs(60))?;
        let ended = |name: &str| ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR"].contains(&name);
        let event = theirs.qmp.wait_for("the end of the commit", PATIENCE, |event| ended(&event.name))?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(event.name == "BLOCK_JOB_COMPLETED" && event.data.get("error").is_none(), "{event:?}");
        let merge = times(&theirs.console(from)?)?;
        // Its progress counts what isn't copied too; what is in the image's clusters is.
        let moved = options.bytes;
        Ok(Side { rest, merge, seconds, moved })
    }

    fn print(name: &str, sides: &[Side], which: impl Fn(&Side) -> &Vec<f64>) {
        let all = |share: f64| Spread::of(sides.iter().map(|side| quantile(which(side), share)));
        let mut pooled: Vec<f64> = sides.iter().flat_map(|side| which(side).clone()).collect();
        pooled.sort_by(f64::total_cmp);
        println!("{name}: {} records", pooled.len());
        for (label, share) in [("median", 0.5), ("99th percentile", 0.99), ("most", 1.0)] {
            println!("    {label:<16} ms  {}", all(share));
        }
        println!("    99.9th percentile of all  ms  {:.3}", quantile(&pooled, 0.999));
    }

    fn print_ratios(name: &str, sides: &[Side]) {
        println!("{name}, during / at rest:");
        for (label, share) in [("median", 0.5), ("99th percentile", 0.99)] {
            let ratio = sides.iter().map(|side| quantile(&side.merge, share) / quantile(&side.rest, share));
            println!("    {label:<16}  {}", Spread::of(ratio));
        }
        let seconds = Spread::of(sides.iter().map(|side| side.seconds));
        let moved = Spread::of(sides.iter().map(|side| side.moved as f64 / MIB as f64));
        println!("    took, s  {seconds}");
        println!("    moved, MiB  {moved}");
    }

    pub fn main() -> Result<()> {
        let options = options()?;
        let (Some(mut linux), Some(qemu)) = (Linux::prepare()?, qemu()?) else { return Ok(()) };
        let (mut our_sides, mut their_sides) = (Vec::new(), Vec::new());
        for round in 0..options.runs {
            // Each round begins with the other one.
            for side in [round % 2, 1 - round % 2] {
                if side == 0 {
                    let (back, measured) = ours(linux, &options)?;
                    linux = back;
                    our_sides.push(measured);
                } else {
                    their_sides.push(theirs(&linux, &qemu, &options)?);
                }
            }
        }
        let limit = if options.limit > 0 { format!("at most {} MiB/s", options.limit / MIB) } else { "unlimited".into() };
        println!("{} rounds, {} MiB to move, {limit}, {:?}:", options.runs, options.bytes / MIB, qemu.acceleration);
        print("ours at rest", &our_sides, |side| &side.rest);
        print("ours during a merge", &our_sides, |side| &side.merge);
        print("QEMU's qcow2 at rest", &their_sides, |side| &side.rest);
        print("QEMU's qcow2 during its commit", &their_sides, |side| &side.merge);
        print_ratios("ours", &our_sides);
        print_ratios("QEMU", &their_sides);
        Ok(())
    }
}
