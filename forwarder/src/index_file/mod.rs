//! The shared mapping that packet indexes live in: a file on tmpfs that outlives the process, held by one forwarder
//! at a time. Knows its header and its size; what rows mean is [`store`]'s and the engine's business. No keys are
//! in it, only one-way names of keys.

mod map;
mod place;
pub mod store;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use crate::engine::index_store::{IndexMemory, IndexRow};
use map::Map;

/// Where the file is if nothing else is configured.
pub const DEFAULT_PATH: &str = "/dev/shm/sluice/indexes";
/// Most rows: 4 GiB.
pub const MAX_ROWS: u32 = 1 << 26;

const HEADER_LEN: usize = 4_096;
const ROW_LEN: usize = size_of::<IndexRow>();
const MAGIC: u64 = u64::from_be_bytes(*b"sluiceix");
const LAYOUT: u64 = 1;

const _: () = assert!(ROW_LEN == 64);

/// The first page. Words in the machine's order: the file never leaves the machine.
#[repr(C)]
struct Header {
    /// Written last when the file is made.
    magic: AtomicU64,
    layout: AtomicU64,
    rows: AtomicU64,
    id: [AtomicU64; 2],
    /// The process that holds the lock, or held it last.
    pid: AtomicU64,
}

/// Why the index file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexFileError {
    /// A system call failed.
    #[error("{what} {path} failed")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The directory or file could be changed by others.
    #[error("{path} {why}; only a directory (0700) and file (0600) of the forwarder's own user are safe")]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another forwarder uses the file.
    #[error(
        "{path} is in use by another forwarder (pid {}); stop it or configure another index file",
        pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Its holder, if known.
        pid: Option<u32>,
    },
    /// The file is not one this build can continue.
    #[error(
        "{path} {why}; to continue without the stored indexes stop every forwarder, remove the file and let \
         every client join again, so that no key it names is used again"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Too few or too many rows were asked for.
    #[error("an index file has 1 to {MAX_ROWS} rows, not {0}")]
    Rows(u32),
}

/// Rows in a shared mapping. The file stays locked while this value, or a handle to one of its rows, lives.
pub struct IndexFile {
    map: Map,
    rows: usize,
    /// Holds the lock; `None` for anonymous memory.
    _file: Option<File>,
}

impl fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexFile").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl IndexFile {
    /// Opens the file at `path` with at least `rows` rows; makes it, and its directory, if it is missing, and
    /// lengthens it if it has fewer. A file that already has more keeps them.
    pub fn open(path: &Path, rows: u32) -> Result<IndexFile, IndexFileError> {
        check_rows(rows)?;
        let file = place::open(path)?;
        let io_error = |what, source| IndexFileError::Io { what, path: path.to_owned(), source };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(IndexFileError::InUse { path: path.to_owned(), pid: read_pid(&file) });
            }
            Err(error) => return Err(io_error("locking", error.into())),
        }
        let length = file.metadata().map_err(|error| io_error("reading the size of", error))?.size();
        let found = find_rows(&file, length).map_err(|reason| match reason {
            Unreadable::Io(error) => io_error("reading", error),
            Unreadable::Foreign(why) => IndexFileError::Foreign { path: path.to_owned(), why },
        })?;
        let rows = rows.max(found.unwrap_or(0));
        let wanted = HEADER_LEN + rows as usize * ROW_LEN;
        // Allocating now turns a full tmpfs into an error here instead of a fatal signal later.
        fallocate(&file, FallocateFlags::empty(), 0, wanted as u64)
            .map_err(|error| io_error("allocating space for", error.into()))?;
        let map = Map::of_file(&file, wanted).map_err(|error| io_error("mapping", error))?;
        let this = IndexFile { map, rows: rows as usize, _file: Some(file) };
        let id = match found {
            Some(_) => None,
            None => Some(random_id().map_err(|error| io_error("making an id for", error))?),
        };
        this.write_header(id);
        Ok(this)
    }

    /// Rows in memory that ends with the process, for tests and benches.
    pub fn anonymous(rows: u32) -> Result<IndexFile, IndexFileError> {
        check_rows(rows)?;
        let length = HEADER_LEN + rows as usize * ROW_LEN;
        let map = Map::anonymous(length).map_err(|source| IndexFileError::Io {
            what: "mapping",
            path: "anonymous memory".into(),
            source,
        })?;
        let this = IndexFile { map, rows: rows as usize, _file: None };
        this.write_header(Some([0, 0]));
        Ok(this)
    }

    /// The random name the file was given when it was made; zero for anonymous memory.
    pub fn id(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.header().id[at].load(Ordering::Relaxed))
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned and longer than the header, which consists of atomics only, so
        // every content is valid; it lives as long as `self`.
        unsafe { self.map.start().cast::<Header>().as_ref() }
    }

    fn write_header(&self, id: Option<[u64; 2]>) {
        let header = self.header();
        if let Some(id) = id {
            header.layout.store(LAYOUT, Ordering::SeqCst);
            header.id[0].store(id[0], Ordering::SeqCst);
            header.id[1].store(id[1], Ordering::SeqCst);
        }
        header.rows.store(self.rows as u64, Ordering::SeqCst);
        header.pid.store(u64::from(std::process::id()), Ordering::SeqCst);
        header.magic.store(MAGIC, Ordering::SeqCst);
    }
}

impl IndexMemory for IndexFile {
    fn rows(&self) -> &[IndexRow] {
        // SAFETY: `rows` rows fit behind the header (both constructors map that length), the start is aligned to
        // 64 bytes, rows consist of atomics, and the mapping lives as long as `self` and never moves.
        unsafe {
            let first = self.map.start().byte_add(HEADER_LEN).cast::<IndexRow>();
            std::slice::from_raw_parts(first.as_ptr(), self.rows)
        }
    }
}

fn check_rows(rows: u32) -> Result<(), IndexFileError> {
    if (1..=MAX_ROWS).contains(&rows) { Ok(()) } else { Err(IndexFileError::Rows(rows)) }
}

enum Unreadable {
    Io(io::Error),
    Foreign(String),
}

/// The rows an existing file has; `None` for one that was never written.
fn find_rows(file: &File, length: u64) -> Result<Option<u32>, Unreadable> {
    let foreign = |why: String| Err(Unreadable::Foreign(why));
    if length == 0 {
        return Ok(None);
    }
    if length < HEADER_LEN as u64 || !(length - HEADER_LEN as u64).is_multiple_of(ROW_LEN as u64) {
        return foreign(format!("has {length} bytes, which is no whole number of rows"));
    }
    let mut page = [0; HEADER_LEN];
    file.read_exact_at(&mut page, 0).map_err(Unreadable::Io)?;
    let [magic, layout, rows] = [0, 8, 16].map(|at: usize| word(&page, at));
    if magic == 0 && layout <= LAYOUT {
        // Killed before the header was finished: the magic comes last, and no row can have been used.
        return Ok(None);
    }
    if magic != MAGIC {
        return foreign("is no index file".to_owned());
    }
    if layout != LAYOUT {
        return foreign(format!("has layout {layout}, this build reads layout {LAYOUT}"));
    }
    let available = (length - HEADER_LEN as u64) / ROW_LEN as u64;
    match u32::try_from(rows) {
        // More space than rows is a lengthening that was interrupted.
        Ok(rows @ 1..=MAX_ROWS) if u64::from(rows) <= available => Ok(Some(rows)),
        _ => foreign(format!("says it has {rows} rows and has space for {available}")),
    }
}

fn word(page: &[u8], at: usize) -> u64 {
    page.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn read_pid(file: &File) -> Option<u32> {
    let mut page = [0; size_of::<Header>()];
    file.read_exact_at(&mut page, 0).ok()?;
    let pid = u32::try_from(word(&page, std::mem::offset_of!(Header, pid))).ok()?;
    (word(&page, 0) == MAGIC && pid != 0).then_some(pid)
}

fn random_id() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok([word(&bytes, 0), word(&bytes, 8)])
}
