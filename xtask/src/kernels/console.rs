//! What the serial console of a booted kernel says: which tests ran and how they ended, and whether the kernel itself
//! complained. Pure; `init.sh` writes the lines that begin with `@`.

use super::Run;

/// How lines of the kernel's log begin, after their time, where something is wrong with the kernel.
const COMPLAINTS: [&str; 13] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG",
    "Oops: ",
    "general protection fault",
    "Kernel panic",
    "Call Trace:",
    "INFO: task ",
    "rcu: INFO: ",
    "UBSAN: ",
    "refcount_t: ",
    "list_add corruption",
    "unregister_netdevice: ",
];

/// What a console has said.
#[derive(Debug, Default)]
pub(super) struct Console {
    rest: Vec<u8>,
    /// What `uname -r` said.
    pub(super) kernel: Option<String>,
    binaries: Vec<Binary>,
    complaints: Vec<String>,
    tainted: Option<String>,
    done: bool,
    given_up: Option<String>,
}

/// One test binary that was begun.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    tests: Vec<Test>,
    status: Option<String>,
}

/// One test and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// Its name within its binary.
    pub(super) name: String,
    /// `ok`, `FAILED`, `ignored…`, or `no result` where the line ends before it or in other words.
    pub(super) result: String,
}

impl Console {
    /// Takes what was read and returns the lines that a person wants to see: the tests', not the kernel's log.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut shown = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if self.line(&line) {
                shown.push(line);
            }
        }
        shown
    }

    /// The console as it is when nothing more will come, and why it was given up if it was.
    pub(super) fn ended(mut self, given_up: Option<String>) -> Self {
        // The line of a test that never ended.
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned();
        self.line(&line);
        self.given_up = given_up;
        self
    }

    /// The tests of a binary.
    pub(super) fn tests(&self, binary: &str) -> &[Test] {
        self.binary(binary).map(|binary| binary.tests.as_slice()).unwrap_or_default()
    }

    /// All that is wrong; empty where every run did what it should in the kernel `release`, and it did not complain.
    pub(super) fn faults(&self, release: &str, runs: &[Run]) -> Vec<String> {
        let mut faults: Vec<String> = self.given_up.iter().cloned().collect();
        match &self.kernel {
            None => faults.push("did not boot".to_owned()),
            Some(kernel) if kernel != release => faults.push(format!("is {kernel}, not {release}")),
            Some(_) => {}
        }
        // First: what the tests did afterwards may be its consequence.
        faults.extend(self.complaints.iter().map(|line| format!("the kernel says: {line}")));
        faults.extend(runs.iter().flat_map(|run| self.faults_of(run)));
        match self.tainted.as_deref() {
            Some("0") => {}
            Some(flags) => faults.push(format!("the kernel is tainted: {flags}")),
            None => faults.push("the kernel did not say whether it is tainted".to_owned()),
        }
        if !self.done {
            faults.push("ended before its tests".to_owned());
        }
        faults
    }

    /// Whether the kernel itself is well, and got to the end: what failed is a test.
    pub(super) fn is_kernel_well(&self) -> bool {
        self.done
            && self.given_up.is_none()
            && self.complaints.is_empty()
            && self.tainted.as_deref() == Some("0")
    }

    fn faults_of(&self, run: &Run) -> Vec<String> {
        let Some(binary) = self.binary(run.binary) else {
            return vec![format!("{} did not run", run.binary)];
        };
        let mut faults = Vec::new();
        for test in binary.tests.iter().filter(|test| test.result != "ok") {
            faults.push(format!("{}::{}: {}", binary.name, test.name, test.result));
        }
        match binary.status.as_deref() {
            Some("0") => {}
            Some(status) => faults.push(format!("{}: exit status {status}", binary.name)),
            None => faults.push(format!("{} did not end", binary.name)),
        }
        if binary.tests.is_empty() {
            faults.push(format!("{}: no test ran", binary.name));
        }
        let unmatched = |filter: &&&str| !binary.tests.iter().any(|test| test.name.contains(**filter));
        faults.extend(
            run.tests.iter().filter(unmatched).map(|filter| format!("{}: no test {filter}", binary.name)),
        );
        faults
    }

    fn binary(&self, name: &str) -> Option<&Binary> {
        self.binaries.iter().find(|binary| binary.name == name)
    }

    /// Reads a line; whether it is a test's.
    fn line(&mut self, line: &str) -> bool {
        if let Some(complaint) = complaint(line) {
            self.complaints.push(complaint.to_owned());
            return true;
        }
        if let Some(words) = line.strip_prefix("@ ") {
            self.report(words);
            return false;
        }
        let (Some(binary), false) = (self.binaries.last_mut(), line.starts_with('[')) else { return false };
        let test = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "));
        if let Some((name, result)) = test {
            let ended = ["ok", "FAILED"].contains(&result) || result.starts_with("ignored");
            let result = if ended { result } else { "no result" };
            binary.tests.push(Test { name: name.to_owned(), result: result.to_owned() });
        }
        true
    }

    fn report(&mut self, words: &str) {
        match words.split(' ').collect::<Vec<_>>().as_slice() {
            ["kernel", release] => self.kernel = Some((*release).to_owned()),
            ["begin", name] => {
                self.binaries.push(Binary { name: (*name).to_owned(), ..Binary::default() });
            }
            ["end", _, status] => {
                if let Some(binary) = self.binaries.last_mut() {
                    binary.status = Some((*status).to_owned());
                }
            }
            ["tainted", flags] => self.tainted = Some((*flags).to_owned()),
            ["done"] => self.done = true,
            _ => {}
        }
    }
}

/// What the kernel complains about in this line, which may begin in the middle of another one.
fn complaint(line: &str) -> Option<&str> {
    let mut parts = line.split("] ").skip(1).map(str::trim_start);
    parts.find(|part| COMPLAINTS.iter().any(|complaint| part.starts_with(complaint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: [Run; 1] = [Run { subject: "s", binary: "hooks", tests: &["one"] }];

    const WELL: &str = "@ kernel 6.1\r\n[    0.1] Linux\r\n@ begin hooks\r\n\r\nrunning 2 tests\r\ntest one ... ok\r\n\
        test two ... ok\r\n\r\ntest result: ok. 2 passed\r\n@ end hooks 0\r\n@ tainted 0\r\n@ done\r\n";

    #[test]
    fn only_of_a_kernel_that_is_well_tests_are_tried_again() {
        let is_well = |said: &str| {
            let mut console = Console::default();
            console.feed(said.as_bytes());
            console.ended(None).is_kernel_well()
        };
        assert!(is_well(WELL) && is_well(&WELL.replace("two ... ok", "two ... FAILED")));
        for (from, to) in [
            ("[    0.1] Linux", "[    0.1] BUG: a"),
            ("@ tainted 0", "@ tainted 512"),
            ("@ tainted 0", ""),
            ("@ done\r\n", ""),
        ] {
            assert!(!is_well(&WELL.replace(from, to)), "{to}");
        }
    }

    fn faults(said: &str) -> Vec<String> {
        let mut console = Console::default();
        console.feed(said.as_bytes());
        console.ended(None).faults("6.1", &RUNS)
    }

    #[test]
    fn a_console_on_which_all_went_well_has_no_faults() {
        assert_eq!(faults(WELL), [""; 0]);
    }

    #[test]
    fn it_may_come_byte_by_byte_and_only_the_tests_lines_are_shown() {
        let mut console = Console::default();
        let shown: Vec<String> = WELL.bytes().flat_map(|byte| console.feed(&[byte])).collect();
        assert_eq!(shown.concat(), "running 2 teststest one ... oktest two ... oktest result: ok. 2 passed");
        let ok = |name: &str| Test { name: name.to_owned(), result: "ok".to_owned() };
        assert_eq!(console.tests("hooks"), [ok("one"), ok("two")]);
        assert_eq!(console.tests("other"), []);
    }

    #[test]
    fn everything_that_can_go_wrong_is_a_fault() {
        for (from, to, fault) in [
            ("@ kernel 6.1\r", "\r", "did not boot"),
            ("@ kernel 6.1\r", "@ kernel 6.2\r", "is 6.2, not 6.1"),
            ("test two ... ok", "test two ... FAILED", "hooks::two: FAILED"),
            ("test two ... ok", "test two ... ignored, why", "hooks::two: ignored, why"),
            ("test one ... ok\r\n", "", "hooks: no test one"),
            ("hooks 0", "hooks 101", "hooks: exit status 101"),
            ("@ end hooks 0", "", "hooks did not end"),
            ("@ tainted 0", "@ tainted 512", "the kernel is tainted: 512"),
            ("@ tainted 0", "", "the kernel did not say whether it is tainted"),
            ("@ done\r\n", "", "ended before its tests"),
            ("@ done\r\n", "@ done", ""),
            ("[    0.1] Linux", "[    0.1] WARNING: CPU: 0", "the kernel says: WARNING: CPU: 0"),
            ("[    0.1] Linux", "[    0.1][  T99] BUG: a", "the kernel says: BUG: a"),
            ("two ... ok", "two ... [   9.1] BUG: a\r\nok", "the kernel says: BUG: a"),
            ("[    0.1] Linux", "[    0.1]  Call Trace:", "the kernel says: Call Trace:"),
        ] {
            assert!(WELL.contains(from), "{from}");
            let found = faults(&WELL.replace(from, to));
            assert_eq!(found.first().map(String::as_str).unwrap_or_default(), fault, "{to}: {found:?}");
        }
    }

    #[test]
    fn a_binary_without_tests_has_not_passed() {
        let none = WELL.replace("test one ... ok\r\n", "").replace("test two ... ok\r\n", "");
        assert_eq!(faults(&none), ["hooks: no test ran", "hooks: no test one"]);
        let (before, _) = WELL.split_once("@ begin").unwrap_or_default();
        assert_eq!(faults(before).first().map(String::as_str), Some("hooks did not run"));
    }

    #[test]
    fn a_test_that_never_ends_is_named() {
        let (before, _) = WELL.split_once("two ... ok").unwrap_or_default();
        let mut console = Console::default();
        console.feed(format!("{before}two ... ").as_bytes());
        let found = console.ended(Some("still running after 600 s".to_owned())).faults("6.1", &RUNS);
        assert_eq!(found.first().map(String::as_str), Some("still running after 600 s"));
        assert!(found.contains(&"hooks::two: no result".to_owned()), "{found:?}");
    }
}
