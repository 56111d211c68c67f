//! Images of other programs become machines here: converted, what names other files refused, and what they show kept.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::Random;
use snaptree_tests::boot_sector::wait_until;
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
    let left: Vec<_> = in_library(&home)?.into_iter().filter(|name| name.contains("wrong") || name.contains("child")).collect();
    ensure!(left.is_empty() && converting(&home)?.is_empty(), "left: {left:?} {:?}", converting(&home)?);
    Ok(())
}

fn in_library(home: &Home) -> Result<Vec<String>> {
    let entries = fs::read_dir(home.path().join("data/snaptree/machines"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Folders of conversions.
fn converting(home: &Home) -> Result<Vec<String>> {
    Ok(in_library(home)?.into_iter().filter(|name| name.starts_with(".import-")).collect())
}

#[test]
fn what_a_killed_conversion_leaves_goes_with_the_next_one_unless_it_is_in_use() -> Result<()> {
    let home = Home::new();
    fs::write(home.path().join("small.img"), vec![7; 1 << 20])?;
    let import = |name: &str| -> Result<()> {
        let (code, said) = ask(&home, &["machine", "import", "small.img", "--name", name])?;
        ensure!(code == Some(0), "{said}");
        Ok(())
    };
    import("first")?;
    let large = home.path().join("large.img");
    fs::write(&large, vec![7; 256 << 20])?;
    let mut command = home.command(&program());
    let mut killed = command.args(["machine", "import", "large.img"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_until("it converts", || Ok(!converting(&home)?.is_empty()))?;
    run(Command::new("kill").args(["-STOP", &killed.id().to_string()]))?;
    import("while it is under way")?;
    let in_use = converting(&home)?;
    killed.kill()?;
    killed.wait()?;
    ensure!(in_use.len() == 1, "the conversion under way has kept its folder: {in_use:?}");
    ensure!(converting(&home)? == in_use, "it was killed too late");
    import("afterwards")?;
    ensure!(converting(&home)?.is_empty(), "left: {:?}", converting(&home)?);
    Ok(())
}
