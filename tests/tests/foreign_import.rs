//! Images of other programs become machines here: converted, what names other files refused, and what they show kept.
#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::Random;
use snaptree_core::vm::qemu::{OtherFormat, OtherImage};
use snaptree_tests::peer::run;
use snaptree_tests::program::{Home, program};
use snaptree_tests::witness::{skip, tool};

fn ask(home: &Home, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = home.command(&program()).args(args).output()?;
    Ok((output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))))
}

fn qemu_img(args: &[&str], folder: &Path) -> Result<()> {
    run(Command::new("qemu-img").args(args).current_dir(folder)).map(drop)
}

#[test]
fn images_of_other_programs_come_in_whole_or_not_at_all() -> Result<()> {
    if tool("qemu-img").is_none() {
        skip("qemu-img is not installed");
        return Ok(());
    }
    let home = Home::new();
    let folder = home.path();
    let mut content = vec![0; 12 << 20];
    content[5000..905_000].copy_from_slice(&Random::new(7).bytes(900_000));
    content[(9 << 20) + 512..][..4096].copy_from_slice(&Random::new(8).bytes(4096));
    fs::write(folder.join("a.img"), &content)?;
    for format in ["qcow2", "vmdk", "vdi"] {
        qemu_img(&["convert", "-f", "raw", "-O", format, "a.img", &format!("a.{format}")], folder)?;
    }
    for file in ["a.img", "a.qcow2", "a.vmdk", "a.vdi"] {
        let before = fs::read(folder.join(file))?;
        let name = file.replace('.', "-");
        let args = ["machine", "import", file, "--name", &name, "--kind", "qemu", "--memory", "64M", "--processors", "2"];
        let (code, said) = ask(&home, &args)?;
        ensure!(code == Some(0), "{file}: {said}");
        ensure!(fs::read(folder.join(file))? == before, "{file} was changed");
        let (_, said) = ask(&home, &["machine", "show", &name, "--json"])?;
        let shown: Value = serde_json::from_str(&said)?;
        ensure!(shown["kind"] == "qemu" && shown["memory"] == 64 << 20 && shown["hardware"]["processors"] == 2, "{shown}");
        let machine = folder.join("data/snaptree/machines").join(&name);
        let manifest: Value = serde_json::from_slice(&fs::read(machine.join("machine.json"))?)?;
        let leaf = manifest["now"]["images"]["disk0"].as_str().context("a leaf")?;
        let image = machine.join(manifest["images"][leaf]["file"].as_str().context("its file")?);
        let chain = Chain::open(&OsHost::shared(), &image, Access::Look, &Gate::new([machine]))?;
        let mut found = vec![0; chain.virtual_size().0 as usize];
        chain.read_at(&mut found, 0)?;
        ensure!(found == content, "{file} shows something else now");
    }
    let (code, said) = ask(&home, &["machine", "import", "a.qcow2", "--name", "later", "--what-if"])?;
    ensure!(code == Some(0) && !folder.join("data/snaptree/machines/later").exists(), "{code:?} {said}");
    let (code, said) = ask(&home, &["machine", "import", "a.qcow2", "--name", "moved", "--move"])?;
    ensure!(code == Some(3) && said.contains("stays") && folder.join("a.qcow2").exists(), "{code:?} {said}");
    // What isn't in one file is refused, and nothing is left of it.
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "child.qcow2"], folder)?;
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", "a.img", "flat.vmdk"], folder)?;
    for (file, named) in [("child.qcow2", "a.qcow2 (its backing file)"), ("flat.vmdk", "flat-flat.vmdk")] {
        let (code, said) = ask(&home, &["machine", "import", file])?;
        ensure!(code == Some(3) && said.contains(named), "{file}: {code:?} {said}");
    }
    fs::write(folder.join("wrong.qcow2"), b"QFI\xfb\0\0\0\x03".repeat(100))?;
    let (code, said) = ask(&home, &["machine", "import", "wrong.qcow2"])?;
    ensure!(code != Some(0), "{said}");
    let machines = names(&folder.join("data/snaptree/machines"))?;
    ensure!(machines.iter().all(|name| !["child", "flat", "wrong", "moved"].contains(&&**name)), "left: {machines:?}");
    Ok(())
}

#[test]
fn an_import_that_is_killed_leaves_nothing() -> Result<()> {
    if tool("qemu-img").is_none() {
        skip("qemu-img is not installed");
        return Ok(());
    }
    let home = Home::new();
    let folder = home.path();
    let mut random = Random::new(9);
    let image = File::create(folder.join("a.img"))?;
    for part in 0..64 {
        image.write_all_at(&random.bytes(4 << 20), part << 22)?;
    }
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "a.img", "a.qcow2"], folder)?;
    let machines = folder.join("data/snaptree/machines");
    let mut cut = 0;
    for (round, file) in ["a.img", "a.qcow2"].repeat(3).into_iter().enumerate() {
        let disks = machines.join("half/Virtual Hard Disks");
        let mut import = home.command(&program()).args(["machine", "import", file, "--name", "half"]).spawn()?;
        let until = Instant::now() + Duration::from_secs(30);
        while names(&disks).unwrap_or_default().is_empty() && Instant::now() < until && import.try_wait()?.is_none() {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(10 * round as u64));
        import.kill()?;
        cut += usize::from(!import.wait()?.success());
        // The next to open the library sweeps it.
        let (code, said) = ask(&home, &["machine", "list"])?;
        ensure!(code == Some(0), "{said}");
        let left = names(&machines)?;
        if left.iter().any(|name| name == "half") {
            let (_, said) = ask(&home, &["machine", "show", "half"])?;
            ensure!(machines.join("half/machine.json").exists(), "{file}: left in {left:?}: {said}");
            ask(&home, &["machine", "remove", "half", "--delete-files"])?;
        }
    }
    ensure!(cut >= 3, "only {cut} imports were cut short");
    Ok(())
}

#[test]
fn an_import_is_paused_goes_on_and_is_cancelled() -> Result<()> {
    if tool("qemu-img").is_none() {
        skip("qemu-img is not installed");
        return Ok(());
    }
    let home = Home::new();
    let folder = home.path();
    fs::write(folder.join("a.img"), Random::new(11).bytes(192 << 20))?;
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "a.img", "a.qcow2"], folder)?;
    for cancels in [false, true] {
        let name = format!("cancelled {cancels}");
        let image = OtherImage::look(&OsHost::shared(), &folder.join("a.qcow2"), OtherFormat::Qcow2)?;
        let to = folder.join(format!("{name}.vhdx"));
        // When it was last written to: a file's blocks also change when the kernel writes them out.
        let written = || fs::metadata(&to).and_then(|file| Ok((file.len(), file.modified()?))).ok();
        let (mut told, mut while_still) = (Vec::new(), (None, None));
        let whole = image.convert(&OsHost::shared(), &to, &mut |done, total| {
            told.push((done, total));
            if told.len() == 1 {
                // It has only begun, and stands still as long as this takes: on a fast disk long enough to be done.
                sleep(Duration::from_millis(50));
                while_still.0 = written();
                sleep(Duration::from_millis(600));
                while_still.1 = written();
            }
            !(cancels && told.len() == 2)
        })?;
        ensure!(while_still.0 == while_still.1, "it went on: {while_still:?}");
        ensure!(told.iter().is_sorted() && told.iter().all(|(_, total)| *total == image.size()), "{told:?}");
        ensure!(whole != cancels, "{name}: {told:?}");
        ensure!(told.len() >= 2 && (cancels || told.last().is_some_and(|(done, total)| done == total)), "{told:?}");
        let still = written();
        ensure!(cancels || still > while_still.1, "nothing was written after it went on");
        sleep(Duration::from_millis(200));
        ensure!(written() == still, "qemu-img still works");
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    Ok(fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
