//! Whether this user may have QEMU track a machine's writes, and what an administrator does about it.
//!
//! QEMU asks `/dev/userfaultfd` first, whose owner root is until a rule says otherwise (Linux 6.1 and later have it), and then
//! the system call, which `vm.unprivileged_userfaultfd` opens to everybody.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

const DEVICE: &str = "/dev/userfaultfd";
/// One line for a shell of the user who runs the machines: the device becomes theirs, now and after each start of the host.
const RULE: &str = r#"printf 'KERNEL=="userfaultfd", OWNER="%s"\n' "$(id -un)" | sudo tee /etc/udev/rules.d/60-userfaultfd.rules && sudo udevadm control --reload && sudo udevadm trigger --sysname-match=userfaultfd"#;
/// The same where there is no such device: for every user.
const SETTING: &str = "echo vm.unprivileged_userfaultfd=1 | sudo tee /etc/sysctl.d/60-userfaultfd.conf && sudo sysctl --load=/etc/sysctl.d/60-userfaultfd.conf";

/// The command that lets this user track writes, where that is what is missing.
pub(super) fn remedy() -> Option<&'static str> {
    remedy_for(Path::new(DEVICE))
}

fn remedy_for(device: &Path) -> Option<&'static str> {
    match accessat(CWD, device, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS) {
        Err(Errno::ACCESS | Errno::PERM) => Some(RULE),
        Err(Errno::NOENT) => Some(SETTING),
        // It may, and something else is missing.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_offered() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("userfaultfd");
        assert_eq!(remedy_for(&device), Some(SETTING), "there is none");
        std::fs::write(&device, "").unwrap();
        assert_eq!(remedy_for(&device), None, "it is ours");
        assert!(!RULE.contains('\n') && !SETTING.contains('\n'), "each is one line");
    }
}
