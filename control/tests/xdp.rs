//! `sluice xdp detach` and `sluice doctor` against real XDP programs on a veth in a network namespace of the
//! test's own thread.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Output};

use sluice_control::netdev::netlink::{Request, ask, put};
use sluice_control::netdev::{self, link};

/// Whether this thread now is alone in a network namespace; without root the test is left out, except in CI.
fn isolated() -> bool {
    // SAFETY: a plain system call; it moves this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        return true;
    }
    let error = std::io::Error::last_os_error();
    assert!(std::env::var_os("CI").is_none(), "CI must run this test as root: {error}");
    eprintln!("left out: a network namespace cannot be made: {error}");
    false
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn sluice(args: &[&str]) -> (i32, String) {
    let made = run(env!("CARGO_BIN_EXE_sluice"), args);
    let text = format!("{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    (made.status.code().unwrap(), text)
}

fn bpf(command: i64, attr: &mut [u64; 16]) -> OwnedFd {
    // SAFETY: the pointer and size describe `attr`; pointers in it are to buffers the callers keep alive.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    assert!(fd >= 0, "bpf command {command}: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor without another owner.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Loads `return XDP_PASS`.
fn program(name: &str) -> OwnedFd {
    // r0 = 2; exit.
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut attr = [0u64; 16];
    // Program type XDP, two instructions.
    attr[0] = 6 | 2 << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    let mut bytes = [0u8; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    attr[6] = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
    attr[7] = u64::from_ne_bytes(bytes[8..].try_into().unwrap());
    bpf(5, &mut attr)
}

/// Attaches without a link, as `ip link set xdp` does.
fn attach(index: u32, program: &OwnedFd) {
    let mut nested = Vec::new();
    put(&mut nested, 1, &program.as_raw_fd().to_ne_bytes());
    // XDP_FLAGS_DRV_MODE.
    put(&mut nested, 3, &4u32.to_ne_bytes());
    let mut info = [0; 16];
    info[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(&info);
    // IFLA_XDP, nested.
    request.attribute(0x802b, &nested);
    ask(libc::NETLINK_ROUTE, 19, libc::NLM_F_ACK as u16, &request).unwrap();
}

/// Attaches by a link, as the forwarder does.
fn attach_link(index: u32, program: &OwnedFd) -> OwnedFd {
    let mut attr = [0u64; 16];
    attr[0] = program.as_raw_fd() as u64 | u64::from(index) << 32;
    // Attach type BPF_XDP (37), in driver mode.
    attr[1] = 0x25 | 4 << 32;
    bpf(28, &mut attr)
}

#[test]
fn own_programs_are_detached_and_foreign_ones_only_by_force() {
    if !isolated() {
        return;
    }
    assert!(run("ip", &["link", "add", "sluice-t0", "type", "veth", "peer", "name", "sluice-t1"]).status.success());
    assert!(run("ip", &["link", "set", "sluice-t0", "up"]).status.success());
    let index = netdev::index("sluice-t0").unwrap();
    assert_eq!(link::xdp(index).unwrap(), []);
    assert_eq!(sluice(&["xdp", "detach", "sluice-t0"]), (0, "sluice-t0 has no XDP program\n".to_owned()));

    let foreign = program("stranger");
    attach(index, &foreign);
    assert_eq!(link::xdp(index).unwrap().len(), 1);
    let (code, text) = sluice(&["xdp", "detach", "sluice-t0"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("\"stranger\"") && text.contains("sluice xdp detach sluice-t0 --force"), "{text}");
    assert_eq!(link::xdp(index).unwrap().len(), 1, "a foreign program was removed unasked");
    let (code, text) = sluice(&["doctor", "sluice-t0"]);
    assert_eq!(code, 5);
    assert!(text.contains("a foreign XDP program is attached: \"stranger\""), "{text}");
    let (code, text) = sluice(&["xdp", "detach", "sluice-t0", "--force", "--json"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\"name\": \"stranger\""), "{text}");
    assert_eq!(link::xdp(index).unwrap(), []);

    let own = program("sluice");
    attach(index, &own);
    assert!(sluice(&["doctor", "sluice-t0"]).1.contains("Sluice's program"), "doctor knows its own");
    assert_eq!(sluice(&["xdp", "detach", "sluice-t0"]).0, 0);
    assert_eq!(link::xdp(index).unwrap(), []);

    // Held by a link, as a live forwarder holds it.
    let _link = attach_link(index, &own);
    assert_eq!(link::xdp(index).unwrap().len(), 1);
    let (code, text) = sluice(&["xdp", "detach", "sluice-t0"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(link::xdp(index).unwrap(), []);
}
