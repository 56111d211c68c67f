use std::path::PathBuf;

use uuid::Uuid;

use super::*;
use crate::repair::Step;

#[test]
fn nothing_in_a_name_ends_its_quotes() {
    assert_eq!(quote("a b"), "'a b'");
    assert_eq!(quote("Bob's $(Remove-Item) `n"), "'Bob''s $(Remove-Item) `n'");
    assert_eq!(quote("a\u{2019}; Stop-VM"), "'a\u{2019}\u{2019}; Stop-VM'");
}

#[test]
fn a_repair_is_taken_over_by_the_host() {
    let step = |change| Step { change, words: String::new(), warnings: Vec::new() };
    let path = |name: &str| PathBuf::from("/mnt/vms").join(name);
    let id = Uuid::nil();
    let plan = Plan {
        folder: PathBuf::from("/mnt/vms"),
        steps: vec![
            step(Change::Reconnect { child: path("one.avhdx"), parent: path("old/base's.vhdx"), id }),
            step(Change::Relink { child: path("two.avhdx"), parent: path("one.avhdx"), id }),
            step(Change::SetAside { image: path("x.avhdx"), to: path("Set aside/x.avhdx") }),
        ],
        refused: Vec::new(),
        in_use: None,
    };
    assert_eq!(
        of_repair(&plan),
        [
            "$folder = '/mnt/vms' # where the folder is on the host",
            r"Set-VHD -Path (Join-Path $folder 'one.avhdx') -ParentPath (Join-Path $folder 'old\base''s.vhdx')",
            r"Set-VHD -Path (Join-Path $folder 'two.avhdx') -ParentPath (Join-Path $folder 'one.avhdx') -IgnoreIdMismatch",
            r"Test-VHD -Path (Join-Path $folder 'one.avhdx')",
            r"Test-VHD -Path (Join-Path $folder 'two.avhdx')",
        ]
    );
}

mod of_commands;
