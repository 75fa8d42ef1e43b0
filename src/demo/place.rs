//! Where a demo keeps everything: a temporary folder that is removed at the end, or one that the user named.

use std::{
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The demo's folder.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    /// Makes the folder; one that is named has to be new or empty.
    pub fn new(named: Option<&Path>) -> io::Result<Place> {
        let Some(named) = named else {
            let temporary = tempfile::Builder::new().prefix("binlake-demo-").tempdir()?;
            return Ok(Place { path: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        std::fs::create_dir_all(named)?;
        if std::fs::read_dir(named)?.next().is_some() {
            let sentence = format!("{} is not empty; name a new folder", named.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, sentence));
        }
        Ok(Place { path: std::path::absolute(named)?, temporary: None })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there after the demo.
    pub fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }
}
