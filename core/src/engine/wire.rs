//! The engine's values over a local socket: a length (u32, little-endian), then JSON.
//!
//! A client sends [`Request`](super::Request)s; the owner answers with [`Event`](super::Event)s.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, ListenerOptions, prelude::*};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::snapshot::MachineId;

/// Longest request, in bytes: one that names 20,000 snapshots fits.
pub(super) const REQUEST_LIMIT: u32 = 1 << 20;
/// Longest event, in bytes: a machine's whole state.
pub(super) const EVENT_LIMIT: u32 = 256 << 20;

/// Sends one value, if it takes at most `limit` bytes.
pub(super) fn send<T: Serialize>(stream: &mut impl Write, value: &T, limit: u32) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= limit);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is too long to be sent"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&frame)
}

/// Receives one value of at most `limit` bytes; the end of the stream is `UnexpectedEof`. A frame that isn't what is
/// expected is `InvalidData`.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read, limit: u32) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes, at most {limit}")));
    }
    // What is read grows with what really arrives, whatever the length says.
    let mut frame = Vec::new();
    stream.take(length.into()).read_to_end(&mut frame)?;
    if frame.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&frame)?)
}

/// The socket of a machine's owner: short enough for a socket address (108 bytes), in a folder
/// that only this user may enter.
pub(super) fn socket_path(library: &Path, machine: MachineId) -> io::Result<PathBuf> {
    let library = crc32c::crc32c(library.as_os_str().as_encoded_bytes());
    let machine = machine.0.simple().to_string();
    Ok(runtime_folder()?.join(format!("{library:08x}{}.sock", &machine[..12])))
}

/// The folder in which a machine that is a process of its own has its sockets, beside its owner's.
pub(super) fn guest_folder(library: &Path, machine: MachineId) -> io::Result<PathBuf> {
    Ok(socket_path(library, machine)?.with_extension("qemu"))
}

/// Makes that folder, if it isn't there.
pub(super) fn make_guest_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes that folder, and what a process that was killed has left in it.
pub(super) fn remove_guest_folder(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}

#[cfg(unix)]
fn runtime_folder() -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let user = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() && folder.is_dir() => folder.join("snaptree"),
        _ => std::env::temp_dir().join(format!("snaptree-{user}")),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        let text = format!("{} must be a folder of this user that nobody else may enter (mode 0700)", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(folder)
}

#[cfg(not(unix))]
fn runtime_folder() -> io::Result<PathBuf> {
    Ok(PathBuf::from(r"\\.\pipe\snaptree"))
}

/// Listens on a socket; a file that a killed owner left there is replaced (the machine's lock
/// is held, so nobody else can be listening).
pub(super) fn listen(socket: &Path) -> io::Result<LocalSocketListener> {
    let name = socket.to_fs_name::<GenericFilePath>()?;
    ListenerOptions::new().name(name).try_overwrite(true).create_sync()
}

/// Connects to an owner.
pub(super) fn connect(socket: &Path) -> io::Result<LocalSocketStream> {
    LocalSocketStream::connect(socket.to_fs_name::<GenericFilePath>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Command, Mode, Request, RequestId};
    use crate::snapshot::SnapshotId;

    #[test]
    fn a_frame_comes_back() {
        let mut bytes = Vec::new();
        // ["a","b"]
        send(&mut bytes, &vec!["a", "b"], 9).unwrap();
        let back: Vec<String> = receive(&mut bytes.as_slice(), 9).unwrap();
        assert_eq!(back, ["a", "b"]);
        assert_eq!(receive::<Vec<String>>(&mut bytes.as_slice(), 8).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut nothing = Vec::new();
        assert_eq!(send(&mut nothing, &vec!["a", "b"], 8).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(nothing.is_empty());
    }

    #[test]
    fn short_long_and_odd_frames_are_errors() {
        let kind = |bytes: &[u8]| receive::<u32>(&mut &*bytes, EVENT_LIMIT).unwrap_err().kind();
        assert_eq!(kind(b"\x05\0"), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"\x05\0\0\0{"), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"\xff\xff\xff\xff{"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"\x02\0\0\0{]"), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_request_that_names_twenty_thousand_snapshots_fits() {
        let snapshots = (0..20_000).map(|_| SnapshotId::new()).collect();
        let command = Command::Delete { machine: MachineId::new(), snapshots, subtree: true, free_now: true };
        let request = Request { id: RequestId(u64::MAX), command, mode: Mode::WhatIf, expected_generation: Some(u64::MAX) };
        let mut bytes = Vec::new();
        send(&mut bytes, &request, REQUEST_LIMIT).unwrap();
        assert_eq!(receive::<Request>(&mut bytes.as_slice(), REQUEST_LIMIT).unwrap(), request);
    }
}
