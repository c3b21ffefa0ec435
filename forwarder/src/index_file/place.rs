//! Opens the index file where nobody else can have put it: own directory, own file, no links followed.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::IndexFileError;

/// Opens or creates the file (0600) in its directory (0700, created if missing).
pub(super) fn open(path: &Path) -> Result<File, IndexFileError> {
    let io_error = |what, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| IndexFileError::Io { what, path, source }
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(IndexFileError::Unsafe { path: path.to_owned(), why: "names no file".into() });
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io_error("creating the directory", directory))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags | OFlags::RDONLY, Mode::empty())
        .map_err(|error| io_error("opening the directory", directory)(error.into()))?;
    let opened = File::from(opened);
    check(&opened, directory)?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&opened, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| io_error("opening (or creating)", path)(error.into()))?;
    let file = File::from(file);
    let metadata = check(&file, path)?;
    let refuse = |why: &str| Err(IndexFileError::Unsafe { path: path.to_owned(), why: why.into() });
    match () {
        () if !metadata.is_file() => refuse("is no regular file"),
        () if metadata.nlink() != 1 => refuse("has another name (hard link) or was removed"),
        () => Ok(file),
    }
}

/// Ours, and closed to others.
fn check(file: &File, path: &Path) -> Result<std::fs::Metadata, IndexFileError> {
    let path: PathBuf = path.to_owned();
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(IndexFileError::Io { what: "reading the owner of", path, source }),
    };
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        let why = format!("belongs to user {}, not to user {us}", metadata.uid());
        return Err(IndexFileError::Unsafe { path, why });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IndexFileError::Unsafe { path, why: format!("has mode {mode:04o}") });
    }
    Ok(metadata)
}
