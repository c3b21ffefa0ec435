//! The index file across processes, and the store over it: what was stored is continued, what cannot be
//! continued is refused.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_forwarder::engine::index_store::{Direction, IndexHandle, IndexMemory};
use sluice_forwarder::index_file::store::{IndexStore, StoreError};
use sluice_forwarder::index_file::{IndexFile, IndexFileError, MAX_ROWS};
use sluice_srtp::{KeyId, Ssrc};
use tempfile::TempDir;

const HEADER: usize = 4_096;

fn key(n: u8) -> KeyId {
    KeyId([n; 16])
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice/indexes");
    (directory, path)
}

/// Opens a file nobody uses. Another test may be between `fork` and `exec` with a copy of a descriptor just closed
/// here, which keeps the lock for a moment.
fn open(path: &Path, rows: u32) -> IndexFile {
    for _ in 0..500 {
        match IndexFile::open(path, rows) {
            Err(IndexFileError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other.unwrap(),
        }
    }
    panic!("{} stays in use", path.display());
}

fn store(path: &Path, rows: u32) -> IndexStore {
    IndexStore::new(Arc::new(open(path, rows))).unwrap()
}

fn small(rows: u32) -> IndexStore {
    IndexStore::new(Arc::new(IndexFile::anonymous(rows).unwrap())).unwrap()
}

fn send(store: &mut IndexStore, k: u8, ssrc: u32) -> Result<IndexHandle, StoreError> {
    store.get_or_create(key(k), Ssrc(ssrc), Direction::Send)
}

#[test]
fn a_new_store_over_the_same_file_continues() {
    let (_directory, path) = place();
    let mut first = store(&path, 16);
    let out = send(&mut first, 1, 7).unwrap();
    out.pin().store_next(100);
    out.get().store_timing(9_000, 3);
    out.pin().store_rtcp_next(5);
    first.get_or_create(key(1), Ssrc(7), Direction::Receive).unwrap().pin().store_next(u64::from(u16::MAX) + 8);
    drop((first, out));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    let mut second = store(&path, 16);
    assert!(second.knows_key(key(1)) && !second.knows_key(key(2)));
    let out = send(&mut second, 1, 7).unwrap();
    assert_eq!((out.next(), out.timing(), out.rtcp_next()), (100, Some((9_000, 3)), 5));
    assert_eq!(second.get(key(1), Ssrc(7), Direction::Receive).unwrap().next(), 65_543);
    assert!(second.get(key(1), Ssrc(8), Direction::Send).is_none());
    assert_eq!(send(&mut second, 1, 8).unwrap().next(), 0);
}

#[test]
fn a_file_grows_and_never_shrinks_and_keeps_its_id() {
    let (_directory, path) = place();
    send(&mut store(&path, 4), 1, 7).unwrap().pin().store_next(9);
    let id = open(&path, 4).id();
    assert_ne!(id, [0, 0]);
    for (asked, given) in [(64, 64), (8, 64)] {
        let file = open(&path, asked);
        assert_eq!((file.rows().len(), file.id()), (given, id));
    }
    assert_eq!(send(&mut store(&path, 64), 1, 7).unwrap().next(), 9);
    assert!(matches!(IndexFile::open(&path, 0), Err(IndexFileError::Rows(0))));
    assert!(matches!(IndexFile::anonymous(MAX_ROWS + 1), Err(IndexFileError::Rows(_))));
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let (_directory, path) = place();
    let holder = open(&path, 4);
    match IndexFile::open(&path, 4) {
        Err(error @ IndexFileError::InUse { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
            assert!(error.to_string().contains(&std::process::id().to_string()));
        }
        other => panic!("{other:?}"),
    }
    // A handle to a row keeps the lock: a worker may still write.
    let handle = IndexHandle::new(Arc::new(holder), 0).unwrap();
    assert!(matches!(IndexFile::open(&path, 4), Err(IndexFileError::InUse { .. })));
    drop(handle);
    open(&path, 4);
}

#[test]
fn what_a_killed_process_stored_is_continued() {
    const CHILD: &str = "SLUICE_TEST_INDEX_FILE";
    if let Some(path) = std::env::var_os(CHILD) {
        // The process to be killed: stores indexes as a worker does, and makes rows, until it dies.
        let mut store = store(Path::new(&path), 4_096);
        let row = send(&mut store, 1, 7).unwrap().pin();
        for next in 1..u64::from(u32::MAX) {
            row.store_next(next);
            if next % 64 == 0 {
                let handle = send(&mut store, 2, (next / 64) as u32).unwrap();
                store.release(&handle);
            }
        }
        panic!("nobody killed this process");
    }
    let (_directory, path) = place();
    let mut reached = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_a_killed_process_stored_is_continued"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The child starts over at 1; wait until it is seen to have passed the place of this round.
        let place = HEADER + 64 + 24;
        let mut seen = 0;
        for _ in 0..60_000 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            let bytes = fs::read(&path).unwrap_or_default();
            seen = bytes.get(place..place + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().unwrap()));
            if seen > 1_000 * (round + 1) && seen != reached {
                break;
            }
        }
        assert!(seen > 1_000 * (round + 1), "the child did not get to write");
        assert!(matches!(IndexFile::open(&path, 1), Err(IndexFileError::InUse { pid, .. }) if pid == Some(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut store = store(&path, 1);
        let row = send(&mut store, 1, 7).unwrap();
        assert_eq!(row.row(), 1, "behind the marker of its key");
        reached = row.next();
        assert!(reached >= seen, "{reached} < {seen}");
    }
}

#[test]
fn rows_in_use_are_never_recycled_and_the_oldest_unused_goes_first() {
    let mut store = small(4);
    let rows: Vec<_> = (0..3).map(|ssrc| send(&mut store, 1, ssrc).unwrap()).collect();
    rows[0].pin().store_next(5);
    assert_eq!(send(&mut store, 1, 9).unwrap_err(), StoreError::Full { rows: 4 });
    assert_eq!(send(&mut store, 2, 0).unwrap_err(), StoreError::Full { rows: 4 });
    assert!(!store.knows_key(key(2)));
    let again = send(&mut store, 1, 2).unwrap();
    assert_eq!(again.row(), rows[2].row());
    store.release(&rows[2]);
    store.release(&rows[1]);
    store.release(&rows[0]);
    assert!(!store.key_lost_rows(key(1)));
    // Row 2 has a second user; row 1 was released before row 0.
    assert_eq!(send(&mut store, 1, 9).unwrap().row(), rows[1].row());
    assert!(store.key_lost_rows(key(1)));
    assert!(store.get(key(1), Ssrc(1), Direction::Send).is_none());
    assert_eq!(store.get(key(1), Ssrc(0), Direction::Send).unwrap().next(), 5);
    assert_eq!(send(&mut store, 1, 10).unwrap().next(), 0, "a recycled row starts anew");
    assert_eq!(send(&mut store, 1, 11).unwrap_err(), StoreError::Full { rows: 4 });
    // One release too many changes nothing.
    let (twice, once) = (again.clone(), again);
    store.release(&twice);
    store.release(&once);
    store.release(&once);
    send(&mut store, 1, 11).unwrap();
    assert_eq!(send(&mut store, 1, 12).unwrap_err(), StoreError::Full { rows: 4 });
}

#[test]
fn rows_of_installed_keys_go_last_and_forgotten_keys_give_their_marker() {
    let mut store = small(5);
    store.hold_key(key(1)).unwrap();
    let held = send(&mut store, 1, 0).unwrap();
    store.release(&held);
    let other = send(&mut store, 2, 0).unwrap();
    store.release(&other);
    assert_eq!(store.free_rows(), 1);
    // Key 3 takes the last free row for its marker, then key 2's row though key 1's is older.
    let third = send(&mut store, 3, 0).unwrap();
    assert_eq!(third.row(), other.row());
    assert!(store.key_lost_rows(key(2)) && store.knows_key(key(2)) && !store.key_lost_rows(key(1)));
    // Then the marker of key 2, which nobody holds and which has no rows.
    send(&mut store, 3, 1).unwrap();
    assert!(!store.knows_key(key(2)));
    assert!(store.get(key(1), Ssrc(0), Direction::Send).is_some());
    // Only then key 1's row; its marker stays, because the key is installed.
    send(&mut store, 3, 2).unwrap();
    assert!(store.key_lost_rows(key(1)));
    assert_eq!(send(&mut store, 3, 3).unwrap_err(), StoreError::Full { rows: 5 });
    store.release_key(key(1));
    send(&mut store, 3, 3).unwrap();
    assert!(!store.knows_key(key(1)));
    assert_eq!(send(&mut store, 0, 0).unwrap_err(), StoreError::ZeroKey);
}

#[test]
fn the_order_of_last_use_and_the_lost_mark_survive() {
    let (_directory, path) = place();
    let mut first = store(&path, 4);
    let rows: Vec<_> = (0..3).map(|ssrc| send(&mut first, 1, ssrc).unwrap()).collect();
    for at in [1, 2, 0] {
        first.release(&rows[at]);
    }
    drop((first, rows));
    let mut second = store(&path, 4);
    assert!(!second.key_lost_rows(key(1)));
    send(&mut second, 1, 9).unwrap();
    assert!(second.get(key(1), Ssrc(1), Direction::Send).is_none(), "the first released goes first");
    assert!(second.get(key(1), Ssrc(2), Direction::Send).is_some());
    drop(second);
    assert!(store(&path, 4).key_lost_rows(key(1)));
}

#[test]
fn files_that_cannot_be_continued_are_refused() {
    let (_directory, path) = place();
    drop(open(&path, 4));
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), HEADER + 4 * 64);
    let mut cases = vec![good[..good.len() - 1].to_vec(), good[..good.len() - 64].to_vec(), vec![b'x'; 5_120], vec![1]];
    for (at, value) in [(0, 1), (8, 2), (16, 5), (16, 0), (23, 1)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        cases.push(bytes);
    }
    for (number, bytes) in cases.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let refused = IndexFile::open(&path, 4);
        assert!(matches!(refused, Err(IndexFileError::Foreign { .. })), "case {number}: {refused:?}");
        assert_eq!(&fs::read(&path).unwrap(), bytes, "case {number} was changed");
    }
    // Killed while the file was made, or lengthened.
    for bytes in [vec![], vec![0; HEADER + 64], [good.clone(), vec![0; 128]].concat()] {
        fs::write(&path, bytes).unwrap();
        open(&path, 4);
    }
}

#[test]
fn rows_that_contradict_are_refused() {
    let (_directory, path) = place();
    let mut first = store(&path, 6);
    send(&mut first, 1, 7).unwrap();
    send(&mut first, 1, 8).unwrap();
    drop(first);
    let good = fs::read(&path).unwrap();
    // Row 0 marks the key, rows 1 and 2 are its streams; the tag is at 16, the next index at 24, SRTCP's at 40.
    let of = |row: usize, at: usize| HEADER + row * 64 + at;
    for (at, value, why) in [
        (of(1, 16), 8, "repeats a stream"),
        (of(1, 22), 1, "never written"),
        (of(1, 31), 1, "beyond the last"),
        (of(1, 47), 1, "beyond the last"),
        (of(0, 0), 9, "without a marker"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        fs::write(&path, bytes).unwrap();
        let error = IndexStore::new(Arc::new(open(&path, 6))).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut bytes = good.clone();
    bytes[of(1, 0)..of(1, 16)].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = IndexStore::new(Arc::new(open(&path, 6))).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { row: 1, .. }), "{error}");
    // A row without a tag was being claimed or freed when the process died: it is free, whatever else is in it.
    let mut bytes = good;
    bytes[of(2, 16)..of(2, 24)].fill(0);
    fs::write(&path, bytes).unwrap();
    let mut again = store(&path, 6);
    assert_eq!(again.free_rows(), 4);
    assert!(again.get(key(1), Ssrc(8), Direction::Send).is_none());
    assert_eq!(send(&mut again, 1, 7).unwrap().row(), 1);
}

#[test]
fn places_others_can_write_to_are_refused() {
    let (directory, path) = place();
    drop(open(&path, 1));
    let parent = path.parent().unwrap();
    let refused = |path: &Path| IndexFile::open(path, 1).unwrap_err();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refused(&path), IndexFileError::Unsafe { why, .. } if why.contains("0640")));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(refused(&path), IndexFileError::Unsafe { why, .. } if why.contains("0777")));
    fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&path, parent.join("link")).unwrap();
    assert!(matches!(refused(&parent.join("link")), IndexFileError::Io { .. }));
    symlink(parent, directory.path().join("elsewhere")).unwrap();
    assert!(matches!(refused(&directory.path().join("elsewhere/indexes")), IndexFileError::Io { .. }));
    fs::hard_link(&path, parent.join("second")).unwrap();
    assert!(matches!(refused(&path), IndexFileError::Unsafe { .. }));
    fs::create_dir(parent.join("directory")).unwrap();
    assert!(matches!(refused(&parent.join("directory")), IndexFileError::Io { .. }));
}

#[test]
fn a_full_file_system_is_an_error_and_not_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: plain system calls with constant strings; only this thread changes its mounts.
            let private = unsafe {
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), PRIVATE, std::ptr::null()) == 0
            };
            if !private && std::env::var_os("CI").is_none() {
                eprintln!("skipped: no mount namespace: {}", std::io::Error::last_os_error());
                return;
            }
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=128k,mode=0700", "none"])
                .arg(directory.path())
                .status()
                .unwrap();
            assert!(private && mounted.success());
            let path = directory.path().join("indexes");
            match IndexFile::open(&path, 1 << 16).unwrap_err() {
                IndexFileError::Io { what: "allocating space for", source, .. } => {
                    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
                }
                other => panic!("{other}"),
            }
            assert_eq!(store(&path, 16).free_rows(), 16, "fewer rows fit");
        });
        inside.join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

const PRIVATE: libc::c_ulong = libc::MS_REC | libc::MS_PRIVATE;

#[test]
fn the_stream_of_a_learn_rule_is_found_again() {
    let (_directory, path) = place();
    let learn = |store: &mut IndexStore, ssrc: u32, rule: u64| {
        let row = store.get_or_create(key(1), Ssrc(ssrc), Direction::Receive).unwrap();
        store.set_learned(&row, rule);
        row
    };
    let mut first = store(&path, 8);
    learn(&mut first, 10, 5).pin().store_next(70_000);
    let former = learn(&mut first, 11, 6);
    learn(&mut first, 12, 6);
    first.release(&former);
    assert_eq!([5, 6, 7].map(|rule| first.learned(key(1), rule)), [Some(Ssrc(10)), Some(Ssrc(12)), None]);
    drop((first, former));

    let mut second = store(&path, 8);
    assert_eq!([5, 6, 7].map(|rule| second.learned(key(1), rule)), [Some(Ssrc(10)), Some(Ssrc(12)), None]);
    assert_eq!(second.learned(key(2), 5), None);
    assert_eq!(second.get(key(1), Ssrc(10), Direction::Receive).unwrap().next(), 70_000);
    // A stream that another rule made by now.
    learn(&mut second, 10, 7);
    assert_eq!([5, 7].map(|rule| second.learned(key(1), rule)), [None, Some(Ssrc(10))]);
    drop(second);

    // Killed between the two halves of a change: the newer stream is the rule's.
    let mut third = store(&path, 8);
    let row = learn(&mut third, 12, 7);
    third.get(key(1), Ssrc(10), Direction::Receive).unwrap().get().rule.store(7, Ordering::Relaxed);
    drop((third, row));
    let mut fourth = store(&path, 8);
    assert_eq!(fourth.learned(key(1), 7), Some(Ssrc(12)));

    // One that nobody asks for again is free at once, unless somebody else uses it.
    let (free, row) = (fourth.free_rows(), learn(&mut fourth, 13, 8));
    let again = fourth.get_or_create(key(1), Ssrc(13), Direction::Receive).unwrap();
    fourth.discard(&row);
    assert_eq!((fourth.free_rows(), fourth.learned(key(1), 8)), (free - 1, Some(Ssrc(13))));
    fourth.discard(&again);
    assert_eq!((fourth.free_rows(), fourth.learned(key(1), 8)), (free, None));
    assert!(!fourth.key_lost_rows(key(1)), "nothing was ever sealed under it");

    // A row that is given away is no stream of the rule any more.
    for ssrc in 100..110 {
        let row = send(&mut fourth, 3, ssrc).unwrap();
        fourth.release(&row);
    }
    assert_eq!([5, 6, 7].map(|rule| fourth.learned(key(1), rule)), [None; 3]);
}
