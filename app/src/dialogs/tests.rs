//! Dialogs about images, in the real window: what is asked of the engine, and what is shown of its answers.

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT, Queryable};
use snaptree_core::chain::{Gate, Target, inspect};
use snaptree_core::disk::{self, CreateOptions, ImageFormat, ImageType};
use snaptree_core::engine::{Answer, Command, Event, ImportMode, Mode, Outside, Plan, Refusal, Request};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::{DiskBus, Hardware, MachineKind};
use snaptree_core::units::ByteCount;
use tempfile::TempDir;

use crate::model::fabricated;
use crate::tests::{Fake, Window, verb, window};

fn shown() -> (Window, Fake, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fabricated::write_screens(folder.path());
    let (mut window, fake) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, fabricated::events(folder.path()));
    window.run_steps(4);
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(6);
    (window, fake, folder)
}

fn by_palette(window: &mut Window, words: &str) {
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::P);
    window.run_steps(3);
    window.get_by_role(Role::SearchInput).type_text(words);
    window.run_steps(3);
    window.key_press(egui::Key::Enter);
    window.run_steps(4);
}

/// What was asked last without doing it.
fn asked(fake: &Fake) -> Request {
    fake.asked.borrow().iter().rfind(|request| request.mode == Mode::WhatIf).expect("something was asked").clone()
}

fn answer(window: &mut Window, fake: &Fake, answer: Result<Answer, Refusal>) {
    let request = asked(fake).id;
    fake.events.borrow_mut().push_back(Event::Answer { request, answer });
    window.run_steps(4);
}

fn type_into(window: &mut Window, label: &str, text: &str) {
    window.get_by_role_and_label(Role::TextInput, label).focus();
    window.run_steps(2);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::A);
    window.get_by_role_and_label(Role::TextInput, label).type_text(text);
    window.run_steps(3);
}

/// What was just clicked has put there.
fn copied(window: &mut Window) -> String {
    let mut copied = None;
    for _ in 0..4 {
        window.step();
        copied = copied.or(window.output().platform_output.commands.iter().find_map(|command| match command {
            egui::OutputCommand::CopyText(text) => Some(text.clone()),
            _ => None,
        }));
    }
    copied.expect("something was copied")
}

fn is_disabled(window: &Window, button: &str) -> bool {
    window.get_by_role_and_label(Role::Button, button).accesskit_node().is_disabled()
}

fn picture(window: &mut Window, name: &str) {
    if let Some(out) = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from) {
        let picture = window.render().expect("a picture of the window");
        picture.save(out.join(format!("{name}.png"))).expect("the picture can be written");
    }
}

#[test]
fn a_disk_is_written_to_a_file_after_the_engine_has_said_what_that_takes() {
    let (mut window, fake, _folder) = shown();
    window.get_by_label_contains("Before SP1, snapshot").click();
    window.run_steps(3);
    by_palette(&mut window, "write a disk");
    assert!(is_disabled(&window, "Write"), "no file was said");
    window.get_by_label("Choose an image, and the new file.");
    type_into(&mut window, "New file", "/backup/sql02.vhdx");
    window.get_by_role_and_label(Role::RadioButton, "VHD, for hosts before 2012: disks of 2040 GiB at most").click();
    window.run_steps(4);
    window.get_by_label("Choose where…").focus();
    window.run_steps(4);
    let Command::Convert(request) = asked(&fake).command else { panic!("{:?}", asked(&fake)) };
    assert_eq!(request.to, std::path::Path::new("/backup/sql02.vhd"), "its name says the format");
    let vhd = Target::Image { format: ImageFormat::Vhd, kind: ImageType::Dynamic, block_size: None };
    assert_eq!((request.raw, request.target), (false, vhd));
    assert!(request.image.is_absolute() && !request.folders.is_empty(), "{request:?}");

    // A refusal is said before anything is begun.
    let why = "a .vhd file holds a disk of at most 2040 GiB, and this one has 3.0 TiB";
    answer(&mut window, &fake, Err(Refusal::rule(why)));
    window.get_by_label(why);
    assert!(is_disabled(&window, "Write"));
    window.get_by_role_and_label(Role::RadioButton, "VHDX, which is recommended").click();
    window.run_steps(6);
    answer(&mut window, &fake, Ok(Answer::Plan(Box::new(Plan::Convert { most: ByteCount::gib(7) }))));
    window.get_by_label("Up to 7.0 GiB are written. What is zero takes no space.");
    assert_eq!(fake.done(), []);
    picture(&mut window, "convert");
    window.get_by_role_and_label(Role::Button, "Write").click();
    window.run_steps(3);
    let done = fake.done();
    let [Command::Convert(done)] = &done[..] else { panic!("{done:?}") };
    assert_eq!((done.to.as_path(), &done.image), (std::path::Path::new("/backup/sql02.vhdx"), &request.image));
    assert!(window.query_by_label("Write a disk to a file").is_none(), "it is a job now");
}

#[test]
fn an_image_is_looked_into() {
    let (mut window, fake, folder) = shown();
    // A chain of three with holes, parts and zeros.
    let host = OsHost::shared();
    let path = |name: &str| folder.path().join(name);
    let options = CreateOptions { block_size: Some(ByteCount::mib(2)), ..CreateOptions::dynamic(ByteCount::mib(512)) };
    let mut below = disk::create(&host, &path("base.vhd"), ImageFormat::Vhd, &options).expect("a base");
    below.write_at(&vec![1; 48 << 20], 0).expect("written");
    below.write_at(&vec![1; 6 << 20], 200 << 20).expect("written");
    for (number, name) in ["one.avhd", "two.avhd"].into_iter().enumerate() {
        below.freeze().expect("complete");
        let child = disk::create_child(&host, &path(name), &*below, options.block_size).expect("a child");
        for at in 0..12_u64 {
            let at = (at * 13 + number as u64 * 3) << 20;
            child.write_at(&vec![2; (at % (5 << 20)) as usize + 4096], at).expect("written");
        }
        below = child;
    }
    below.freeze().expect("complete");
    let leaf = path("two.avhd");
    let seen = inspect(&host, &leaf, &Gate::around(&leaf)).expect("a look");

    by_palette(&mut window, "look into");
    let Command::Inspect { image, folders } = asked(&fake).command else { panic!("{:?}", asked(&fake)) };
    assert!(image.is_absolute() && !folders.is_empty(), "the selected row's");
    window.get_by_label("Looking…");
    type_into(&mut window, "Image that shows the disk", &leaf.display().to_string());
    window.get_by_label("Another file…").focus();
    window.run_steps(4);
    assert!(matches!(asked(&fake).command, Command::Inspect { image, .. } if image == leaf));
    answer(&mut window, &fake, Ok(Answer::Inspected(Box::new(seen.clone()))));
    for name in ["base.vhd: dynamic VHD", "one.avhd: differencing VHD", "two.avhd: differencing VHD"] {
        window.get_by_label_contains(name);
    }
    let squares = seen.map.squares.len();
    window.get_by_label_contains("Block map: 1\u{202f}024 squares of 512 KiB, ");
    assert_eq!(squares, 1024);
    window.get_by_label_contains("256 blocks of 2.0 MiB: ");
    picture(&mut window, "inspect");
    window.get_by_label_contains("Parent Locator W2ru, ").click_accesskit();
    window.run_steps(30);
    window.get_by_label(r"Path: .\one.avhd");
    // Another image of the chain.
    window.get_by_label_contains("base.vhd: dynamic VHD").click();
    window.run_steps(3);
    assert!(window.query_by_label_contains("Parent Locator").is_none(), "a base has none");
    window.get_by_label_contains("27 with data");
    assert_eq!(fake.done(), [], "nothing was changed");
}

#[test]
fn a_machine_of_vhds_is_created_and_what_they_cannot_hold_is_refused() {
    let (mut window, fake, _folder) = shown();
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::N);
    window.run_steps(3);
    let vhd = "VHD, for hosts before 2012: disks of 2040 GiB at most";
    let disk = |window: &mut Window, size: u64| {
        window.get_by_role_and_label(Role::SpinButton, "Disk 0").focus();
        window.run_steps(2);
        window.event(egui::Event::Text(size.to_string()));
        window.run_steps(2);
    };
    disk(&mut window, 2041 << 10);
    assert!(!is_disabled(&window, "Create"));
    window.get_by_role_and_label(Role::RadioButton, vhd).click();
    window.run_steps(3);
    assert!(is_disabled(&window, "Create"));
    window.get_by_label("A .vhd file holds a disk of at most 2040 GiB.");
    picture(&mut window, "create-vhd");
    disk(&mut window, 2040 << 10);
    window.get_by_role_and_label(Role::Button, "Create").click();
    window.run_steps(3);
    let done = fake.done();
    let [Command::Create(create)] = &done[..] else { panic!("{done:?}") };
    assert_eq!((create.format, &create.disks[..]), (ImageFormat::Vhd, &[ByteCount::gib(2040)][..]));
}

#[test]
fn a_computer_is_created_with_its_hardware() {
    let (mut window, fake, _folder) = shown();
    by_palette(&mut window, "create a machine");
    picture(&mut window, "create-built-in");
    window.get_by_role_and_label(Role::RadioButton, "QEMU: a computer that boots an operating system").click();
    window.run_steps(4);
    window.get_by_role_and_label(Role::RadioButton, "SATA, which every guest knows").click();
    window.get_by_role_and_label(Role::SpinButton, "Processors").focus();
    window.run_steps(2);
    window.key_press(egui::Key::ArrowUp);
    window.run_steps(4);
    picture(&mut window, "create-qemu");
    window.get_by_role_and_label(Role::Button, "Create").click();
    window.run_steps(4);
    let done = fake.done();
    let Some(Command::Create(created)) = done.last() else { panic!("{done:?}") };
    let hardware = Hardware { processors: 2, bus: DiskBus::Sata, network: true, boot: None };
    assert_eq!((created.kind, created.hardware.as_ref()), (MachineKind::Qemu, Some(&hardware)));
    assert_eq!((created.memory, &created.disks[..]), (ByteCount::gib(2), &[ByteCount::gib(20)][..]), "what is usual for it");
}

/// SQL02 as a computer that runs, with what its serial port said.
fn computer(fake: &Fake, folder: &std::path::Path, why: Option<&str>) {
    let console = folder.join("console.log");
    std::fs::write(&console, "Loading Linux ...\r\n\u{1b}[32mok\u{1b}[0m login:\r\n").expect("written");
    let mut state = fabricated::sql02(folder);
    let machine = std::sync::Arc::make_mut(&mut state.machine);
    machine.kind = MachineKind::Qemu;
    machine.configuration.hardware = Some(Hardware { processors: 4, ..Hardware::default() });
    state.outside = Some(Outside {
        sockets: "/run/sql02".into(),
        viewer: "/run/sql02/vnc".into(),
        console: Some(console),
        accelerated: false,
        stands_still_to_save: why.map(str::to_owned),
        remedy: why.map(|_| {
            "printf 'KERNEL==\"userfaultfd\", OWNER=\"%s\"\\n' \"$(id -un)\" | sudo tee /etc/udev/rules.d/60-userfaultfd.rules && sudo udevadm control --reload && sudo udevadm trigger --sysname-match=userfaultfd".to_owned()
        }),
    });
    fake.events.borrow_mut().push_back(Event::Machine(std::sync::Arc::new(state)));
}

#[test]
fn a_computer_says_what_it_is_and_is_turned_off_only_after_a_question() {
    let (mut window, fake, folder) = shown();
    computer(&fake, folder.path(), Some("writes to its memory can't be tracked here"));
    window.run_steps(3);
    for _ in 0..200 {
        window.run_steps(1);
        if window.query_by_label_contains("ok login:").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let console = window.get_by_label_contains("ok login:");
    assert!(console.accesskit_node().value().unwrap_or_default().contains("Loading Linux ..."));
    window.get_by_label("4 processors, virtio disks.");
    window.get_by_label_contains("It stands still while a snapshot saves its memory");
    window.get_by_label("Copy the command that lets it run on").click();
    assert!(copied(&mut window).contains("sudo udevadm trigger"));
    window.run_steps(4);
    assert!(window.query_by_label("Bad update").is_none(), "only the built-in machine can be scrambled");
    picture(&mut window, "qemu");

    verb(&window, "Take snapshot");
    window.run_steps(4);
    answer(
        &mut window,
        &fake,
        Ok(Answer::Plan(Box::new(Plan::Take {
            images: 1,
            depth: 4,
            memory: ByteCount::mib(512),
            free: ByteCount::gib(9),
            pause: None,
            remedy: None,
        }))),
    );
    window.get_by_label_contains("The machine stands still while 512 MiB of memory are saved: writes to its memory");
    picture(&mut window, "take");
    window.get_by_label("Copy as PowerShell").click();
    let copied = copied(&mut window);
    assert!(copied.starts_with("Checkpoint-VM -Name 'SQL02' -SnapshotName '"), "{copied}");
    window.key_press(egui::Key::Escape);
    window.run_steps(4);

    by_palette(&mut window, "turn off");
    window.get_by_label_contains("as after a power cut");
    let before = fake.done().len();
    window.key_press(egui::Key::Enter);
    window.run_steps(4);
    assert_eq!(fake.done().len(), before, "Enter does the safe thing");
    by_palette(&mut window, "turn off");
    window.get_by_role_and_label(Role::Button, "Turn off").click();
    window.run_steps(4);
    assert_eq!(fake.done().last(), Some(&Command::TurnOff(fabricated::machine_id("SQL02"))));
}

#[test]
fn what_a_machine_consists_of_is_changed_while_it_is_off() {
    let (mut window, fake, folder) = shown();
    let mut state = fabricated::sql02(folder.path());
    let machine = std::sync::Arc::make_mut(&mut state.machine);
    (machine.kind, state.power) = (MachineKind::Disks, snaptree_core::engine::Power::Off);
    fake.events.borrow_mut().push_back(Event::Machine(std::sync::Arc::new(state)));
    window.run_steps(4);
    by_palette(&mut window, "hardware");
    window.get_by_label_contains("QEMU runs it from now on");
    window.get_by_role_and_label(Role::SpinButton, "Processors").focus();
    window.run_steps(2);
    window.key_press(egui::Key::ArrowUp);
    window.run_steps(4);
    picture(&mut window, "hardware");
    window.get_by_role_and_label(Role::Button, "Let QEMU run it").click();
    window.run_steps(4);
    let hardware = Hardware { processors: 2, bus: DiskBus::Sata, network: true, boot: None };
    let wanted = Command::SetHardware { machine: fabricated::machine_id("SQL02"), memory: ByteCount::gib(2), hardware };
    assert_eq!(fake.done().last(), Some(&wanted));
}

#[test]
fn an_image_of_another_program_is_converted_and_can_be_run() {
    let (mut window, fake, _folder) = shown();
    by_palette(&mut window, "import");
    window.get_by_role_and_label(Role::RadioButton, "Move the files into the library").click();
    window.run_steps(3);
    type_into(&mut window, "Disk image (of a chain the newest), or a folder", "/images/OLD.qcow2");
    type_into(&mut window, "Name of the machine", "OLD");
    window.get_by_label("It is converted to VHDX; the original stays untouched.");
    assert_eq!(window.query_all_by_role(Role::RadioButton).count(), 0, "it can't be moved");
    window.get_by_role_and_label(Role::CheckBox, "Let QEMU run it").click();
    window.run_steps(6);
    picture(&mut window, "import");
    let why = "OLD.qcow2: it isn't all of the disk: it names base.qcow2";
    answer(&mut window, &fake, Err(Refusal::rule(why)));
    window.get_by_label(why);
    assert!(is_disabled(&window, "Import"));
    type_into(&mut window, "Name of the machine", "O/LD");
    window.get_by_label_contains("The name has the character '/'");
    type_into(&mut window, "Name of the machine", "OLD 2");
    window.get_by_label("Browse…").focus();
    window.run_steps(4);
    answer(&mut window, &fake, Ok(Answer::Plan(Box::new(Plan::Other))));
    window.get_by_role_and_label(Role::Button, "Import").click();
    window.run_steps(4);
    let done = fake.done();
    let Some(Command::Import(import)) = done.last() else { panic!("{done:?}") };
    assert_eq!((&*import.name, import.mode, import.path.to_str()), ("OLD 2", ImportMode::Copy, Some("/images/OLD.qcow2")));
    let computer = import.computer.as_ref().expect("QEMU runs it");
    assert_eq!((computer.memory, computer.hardware.bus), (ByteCount::gib(2), DiskBus::Sata));
}
