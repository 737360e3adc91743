//! The server's log, read as part of every test.

use super::Cluster;

/// What a test need not announce: PostgreSQL says it in the ordinary course of stopping and starting.
const ORDINARY: [&str; 1] = ["WARNING:  terminating connection because of crash of another server process"];

impl Cluster {
    /// What the server has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last forty lines of the log.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Announces that lines with this text are expected in the log.
    pub fn tolerate(&self, text: &str) {
        self.tolerated.lock().unwrap().push(text.to_owned());
    }

    /// The lines of the log that are no good sign and that nobody has announced.
    pub fn unexpected(&self) -> Vec<String> {
        let tolerated = self.tolerated.lock().unwrap();
        unexpected(&self.log(), self.strict, &tolerated).into_iter().map(str::to_owned).collect()
    }

    /// Fails the test if there is such a line.
    pub fn check_log(&self) {
        let lines = self.unexpected();
        assert!(lines.is_empty(), "unexpected in {}:\n{}", self.log.display(), lines.join("\n"));
    }
}

fn unexpected<'a>(log: &'a str, strict: bool, tolerated: &[String]) -> Vec<&'a str> {
    let bad = |line: &str| {
        line.contains("PANIC:  ")
            || strict && (line.contains("WARNING:  ") || line.contains("archive command failed"))
    };
    let expected = |line: &str| {
        ORDINARY.iter().any(|text| line.contains(text))
            || tolerated.iter().any(|text| line.contains(text.as_str()))
    };
    log.lines().filter(|line| bad(line) && !expected(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-20 06:00:00.000 UTC [7] LOG:  database system is ready to accept connections
2026-11-20 06:00:01.000 UTC [8] LOG:  archive command failed with exit code 1
2026-11-20 06:00:02.000 UTC [9] WARNING:  something odd
2026-11-20 06:00:03.000 UTC [9] PANIC:  could not locate a valid checkpoint record";

    #[test]
    fn what_nobody_announced_is_found() {
        assert_eq!(unexpected(LOG, true, &[]).len(), 3);
        assert_eq!(
            unexpected(LOG, true, &["something odd".into(), "archive command failed".into()]).len(),
            1
        );
        assert_eq!(unexpected(LOG, false, &[]).len(), 1);
    }
}
