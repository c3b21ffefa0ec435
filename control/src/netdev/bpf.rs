//! Names of BPF programs, and cutting an XDP link. Never loads anything.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Name of Sluice's own XDP program.
pub const OUR_PROGRAM: &str = "sluice";

const PROG_GET_FD_BY_ID: i64 = 13;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const LINK_GET_FD_BY_ID: i64 = 30;
const LINK_GET_NEXT_ID: i64 = 31;
const LINK_DETACH: i64 = 34;
/// `BPF_LINK_TYPE_XDP`.
const LINK_TYPE_XDP: u32 = 6;
/// Offset of `name` in `struct bpf_prog_info`, and its length.
const NAME: std::ops::Range<usize> = 64..80;

/// `union bpf_attr`, as far as used here.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new(first: u32) -> Attr {
        let mut attr = Attr([0; 128]);
        attr.0[..4].copy_from_slice(&first.to_ne_bytes());
        attr
    }
}

fn bpf(command: i64, attr: &mut Attr) -> io::Result<i64> {
    // SAFETY: the pointer and size describe `attr`; every pointer inside it is set by `info`, which keeps its
    // buffer alive during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_mut_ptr(), attr.0.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn open(command: i64, id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(command, &mut Attr::new(id))?;
    // SAFETY: the call returned a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn info(object: &OwnedFd) -> io::Result<[u8; 256]> {
    let mut buffer = [0u8; 256];
    let mut attr = Attr::new(object.as_raw_fd() as u32);
    attr.0[4..8].copy_from_slice(&(buffer.len() as u32).to_ne_bytes());
    attr.0[8..16].copy_from_slice(&(buffer.as_mut_ptr() as u64).to_ne_bytes());
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(buffer)
}

/// The name a program was loaded under; at most 15 bytes.
pub fn program_name(id: u32) -> io::Result<String> {
    let info = info(&open(PROG_GET_FD_BY_ID, id)?)?;
    let name = &info[NAME];
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Cuts the BPF link that holds program `program` on interface `index`.
pub fn detach_link(index: u32, program: u32) -> io::Result<()> {
    let mut id = 0;
    loop {
        let mut attr = Attr::new(id);
        match bpf(LINK_GET_NEXT_ID, &mut attr) {
            Ok(_) => id = u32::from_ne_bytes([attr.0[4], attr.0[5], attr.0[6], attr.0[7]]),
            Err(e) => return Err(e),
        }
        // A link may vanish between the two calls.
        let Ok(link) = open(LINK_GET_FD_BY_ID, id) else { continue };
        let info = info(&link)?;
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        // struct bpf_link_info: type, id, prog_id, padding, then for XDP the interface index.
        if word(0) == LINK_TYPE_XDP && word(8) == program && word(16) == index {
            return bpf(LINK_DETACH, &mut Attr::new(link.as_raw_fd() as u32)).map(drop);
        }
    }
}
