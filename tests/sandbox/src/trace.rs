//! Which test asked for what: with `RDM_SANDBOX_TRACE` in the environment, each answered request is a line of the file
//! that it names. Many processes write there at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;

use parking_lot::Mutex;

use crate::traffic::Request;

/// Lines of `binary::module::test`, method, path without its query, and status, with tabs between. The query may hold
/// secrets.
#[derive(Default)]
pub(crate) struct Trace(Option<Writer>);

struct Writer {
    test: String,
    file: File,
    written: Mutex<BTreeSet<String>>,
}

impl Trace {
    /// Of the test that runs on the calling thread. The test harness names its threads.
    pub fn of_this_test() -> Trace {
        let Some(path) = std::env::var_os("RDM_SANDBOX_TRACE").filter(|path| !path.is_empty()) else {
            return Trace::default();
        };
        let file = File::options().append(true).create(true).open(&path);
        let file =
            file.unwrap_or_else(|error| panic!("no trace can be written to {}: {error}", path.display()));
        let binary = std::env::current_exe().unwrap_or_default();
        let binary = binary.file_stem().unwrap_or_default().to_string_lossy();
        // `mount-0123456789abcdef`
        let binary = binary.rsplit_once('-').map_or(&*binary, |(name, _)| name);
        let test = format!("{binary}::{}", std::thread::current().name().unwrap_or("main"));
        Trace(Some(Writer {
            test,
            file,
            written: Mutex::default(),
        }))
    }

    /// Notes a request that was answered; a second one like it is not written again.
    pub fn note(&self, request: &Request) {
        let Some(Writer { test, file, written }) = &self.0 else {
            return;
        };
        let Request {
            method, path, status, ..
        } = request;
        let path = path.split('?').next().unwrap_or_default();
        let line = format!("{test}\t{method}\t{path}\t{status}\n");
        if written.lock().insert(line.clone()) {
            let _ = (&mut &*file).write_all(line.as_bytes());
        }
    }
}
