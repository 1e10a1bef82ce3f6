//! How a program's end is told: an error in words, where it has some.

use core::fmt::Display;
use std::process::{ExitCode, Termination};

/// What `main` returned. `std` shows an error as its `Debug` text, which is for programmers; whoever
/// started the program wants its `Display` text. `#[fata::main]` calls `report` with both traits in
/// scope: the first one that applies is taken, so that errors without words still end a program.
#[derive(Debug)]
pub struct Outcome<R>(Option<R>);

impl<R> Outcome<R> {
    /// Of what `main` returned.
    pub fn new(returned: R) -> Self {
        Outcome(Some(returned))
    }
}

/// Errors that have words.
pub trait ByDisplay {
    /// Tells how the program ended. An error is told with `{:#}`, for which some types write their
    /// causes, too.
    fn report(self) -> ExitCode;
}

impl<T: Termination, E: Display> ByDisplay for Outcome<Result<T, E>> {
    fn report(self) -> ExitCode {
        match self.0 {
            Some(Ok(returned)) => returned.report(),
            Some(Err(error)) => {
                eprintln!("Error: {error:#}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        }
    }
}

/// All else that `main` may return.
pub trait ByTermination {
    /// Tells how the program ended, as `std` does.
    fn report(self) -> ExitCode;
}

impl<R: Termination> ByTermination for &mut Outcome<R> {
    fn report(self) -> ExitCode {
        self.0.take().map_or(ExitCode::SUCCESS, Termination::report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No words.
    #[derive(Debug)]
    struct Mute;

    /// Words, and no `Debug` text that anybody should see.
    struct Fault;

    impl Display for Fault {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("line 7: what to do")
        }
    }

    fn is(code: ExitCode, expected: ExitCode) -> bool {
        format!("{code:?}") == format!("{expected:?}")
    }

    #[test]
    fn whatever_main_may_return_is_told() {
        assert!(is(Outcome::new(()).report(), ExitCode::SUCCESS));
        assert!(is(Outcome::new(ExitCode::from(7)).report(), ExitCode::from(7)));
        assert!(is(
            Outcome::new(Ok::<ExitCode, Mute>(ExitCode::from(7))).report(),
            ExitCode::from(7)
        ));
        assert!(is(Outcome::new(Err::<(), Mute>(Mute)).report(), ExitCode::FAILURE));
        // It has no `Debug` text at all: only the words can be what is told.
        assert!(is(Outcome::new(Err::<(), Fault>(Fault)).report(), ExitCode::FAILURE));
        let boxed: Box<dyn std::error::Error> = "words".into();
        assert!(is(Outcome::new(Err::<(), _>(boxed)).report(), ExitCode::FAILURE));
    }
}
