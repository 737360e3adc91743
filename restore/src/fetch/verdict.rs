//! What the answers of all repositories amount to: the decision on which a quiet early promotion hangs, as one pure function.

use super::SourceError;
use crate::plan_file::Scope;

/// What one repository said in this round.
#[derive(Debug)]
pub enum Answer {
    /// It proved that it does not have the file.
    Absent,
    /// It could not say, or what it has is damaged.
    Failed(SourceError),
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tell PostgreSQL that there is no such file.
    Absent(String),
    /// The plan needs the file, and every repository proved that it has none.
    Missing,
    /// Tell PostgreSQL to stop: it is not known.
    Unproven {
        /// What the repositories said.
        reason: String,
        /// What a person can do.
        hint: Option<String>,
        /// Nobody was asked again, for it could not help.
        beyond_mending: bool,
    },
    /// Wait and ask all again.
    AskAgain,
}

/// Decides; `late` says that there is no time for another round.
///
/// In standby mode PostgreSQL itself asks again every few seconds, so "absent" is never the end there, and only what no
/// waiting can mend is reported.
pub fn verdict(answers: &[Answer], scope: Scope, standby: bool, late: bool) -> Verdict {
    let failed: Vec<&SourceError> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Failed(error) => Some(error),
            Answer::Absent => None,
        })
        .collect();
    let everyone_answered = failed.is_empty() && !answers.is_empty();
    let beyond_mending = !failed.is_empty() && failed.iter().all(|error| error.permanent);
    if everyone_answered {
        return match scope {
            Scope::Needed if !standby => Verdict::Missing,
            Scope::Needed | Scope::Optional | Scope::Outside(_) => {
                Verdict::Absent("no repository has it".to_owned())
            }
        };
    }
    if standby && !beyond_mending && !failed.is_empty() {
        return Verdict::Absent(format!("until asked again: {}", reasons(&failed)));
    }
    if late || beyond_mending || failed.is_empty() {
        let reason = if failed.is_empty() { "no repository to ask".to_owned() } else { reasons(&failed) };
        let hint = failed.iter().find_map(|error| error.hint.clone());
        return Verdict::Unproven { reason, hint, beyond_mending };
    }
    Verdict::AskAgain
}

fn reasons(failed: &[&SourceError]) -> String {
    failed.iter().map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(permanent: bool) -> Answer {
        Answer::Failed(SourceError { repository: "r".into(), message: "m".into(), hint: None, permanent })
    }

    fn absent(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Absent(_))
    }

    /// I14: "no such file" outside of standby mode is said only when every repository says so.
    #[test]
    fn absence_needs_every_repository() {
        assert!(absent(&verdict(&[Answer::Absent, Answer::Absent], Scope::Optional, false, false)));
        for late in [false, true] {
            for answers in [
                vec![],
                vec![failure(false)],
                vec![failure(true)],
                vec![Answer::Absent, failure(false)],
                vec![failure(true), Answer::Absent],
            ] {
                for scope in [Scope::Optional, Scope::Needed] {
                    assert!(!absent(&verdict(&answers, scope, false, late)), "{answers:?} {scope:?} {late}");
                }
            }
        }
    }

    /// I14: within the plan a missing segment is an error, though everyone proves that it is missing.
    #[test]
    fn what_the_plan_needs_is_never_simply_absent() {
        assert_eq!(verdict(&[Answer::Absent], Scope::Needed, false, false), Verdict::Missing);
        assert!(absent(&verdict(&[Answer::Absent], Scope::Needed, true, false)));
    }

    #[test]
    fn a_passing_error_is_asked_again_until_it_is_late() {
        assert_eq!(verdict(&[failure(false)], Scope::Needed, false, false), Verdict::AskAgain);
        assert_eq!(verdict(&[failure(true), failure(false)], Scope::Needed, false, false), Verdict::AskAgain);
        assert!(matches!(verdict(&[failure(false)], Scope::Needed, false, true), Verdict::Unproven { .. }));
        assert!(matches!(verdict(&[failure(true)], Scope::Needed, false, false), Verdict::Unproven { .. }));
        assert!(matches!(
            verdict(&[Answer::Absent, failure(true)], Scope::Optional, false, false),
            Verdict::Unproven { .. }
        ));
    }

    /// An outage does not end a standby, but damage is not hidden from it.
    #[test]
    fn only_a_standby_takes_a_passing_error_for_absence() {
        assert!(absent(&verdict(&[failure(false)], Scope::Optional, true, false)));
        assert!(absent(&verdict(&[failure(false), failure(true)], Scope::Needed, true, true)));
        assert!(matches!(verdict(&[failure(true)], Scope::Optional, true, false), Verdict::Unproven { .. }));
    }
}
