//! Who may connect, and what is left.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn the_socket_is_its_owners_and_goes_with_the_server() {
    let (_folder, server) = serve(vec![export("disk", chain(512))]);
    let socket = server.socket().to_path_buf();
    assert_eq!(fs::symlink_metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = client(&server);
    assert_eq!(server.connections(), 1);
    drop(server);
    assert!(!socket.exists());
    assert!(client.ask(READ, 0, 0, 512, &[]).is_err(), "it was hung up on");
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let (_folder, server) = serve(vec![export("disk", chain(512))]);
    let clients: Vec<_> = (0..5).map(|_| client(&server)).collect();
    assert_eq!(server.connections(), 5);
    drop(clients);
    while server.connections() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn there_is_an_end_to_connections() {
    let (_folder, server) = serve(vec![export("disk", chain(512))]);
    let mut clients: Vec<_> = (0..64).map(|_| client(&server)).collect();
    assert!(NbdClient::connect(server.socket()).is_err());
    assert_eq!(clients[0].ask(READ, 0, 0, 512, &[]).unwrap().errno, 0, "those that are there are served");
    clients.pop();
    while server.connections() > 63 {
        thread::sleep(Duration::from_millis(1));
    }
    client(&server);
}

#[test]
fn what_a_killed_server_left_is_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let start = || Server::start(&path, vec![export("disk", chain(512))]);
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket that nobody listens on");
    let server = start().unwrap();
    assert_eq!(start().unwrap_err().kind(), ErrorKind::AddrInUse, "somebody listens");
    client(&server);
    drop(server);

    fs::write(&path, "precious").unwrap();
    assert_eq!(start().unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let long = folder.path().join("s".repeat(120));
    let error = Server::start(&long, vec![]).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}
