//! Happy eyeballs in virtual time: who is tried when, and who wins.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// What happens to an attempt.
#[derive(Clone, Copy)]
enum Fate {
    /// It succeeds after so many milliseconds.
    Connects(u64),
    /// It fails after so many.
    Fails(u64),
    /// Nothing, for ever.
    Hangs,
}
use Fate::{Connects, Fails, Hangs};

/// What happened, by the millisecond: attempts that began, and that were given up.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<(u64, String)>>>);

/// Notes that its attempt was given up, unless it ended by itself.
struct Guard {
    journal: Journal,
    begun: Instant,
    what: Option<String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            self.journal.note(self.begun, format!("-{what}"));
        }
    }
}

impl Journal {
    fn note(&self, begun: Instant, what: String) {
        let milliseconds = begun.elapsed().as_millis() as u64;
        self.0.lock().unwrap().push((milliseconds, what));
    }
}

/// Lookups that answer after so many milliseconds with so many addresses, or fail.
type Answer = (u64, Result<Vec<Fate>, Failure>);

/// Runs a race; its end, when it was, and what happened.
async fn run(six: Answer, four: Answer) -> (io::Result<IpAddr>, u64, Vec<(u64, String)>) {
    let begun = Instant::now();
    let journal = Journal::default();
    let fates = [six.1.clone().unwrap_or_default(), four.1.clone().unwrap_or_default()];
    let lookup = |family: usize, (delay, answer): Answer| {
        Box::pin(async move {
            sleep(Duration::from_millis(delay)).await;
            Ok((0..answer?.len()).map(|index| address(family, index)).collect())
        })
    };
    let connect = |target: IpAddr| {
        let (family, index) = place(target);
        let fate = fates[family][index];
        let name = format!("{}.{index}", if family == 0 { 6 } else { 4 });
        journal.note(begun, name.clone());
        let guard = Guard { journal: journal.clone(), begun, what: Some(name) };
        Box::pin(async move {
            let mut guard = guard;
            match fate {
                Hangs => core::future::pending().await,
                Connects(delay) | Fails(delay) => sleep(Duration::from_millis(delay)).await,
            }
            guard.what = None;
            match fate {
                Connects(_) => Ok(target),
                _ => Err(io::Error::new(ErrorKind::ConnectionRefused, format!("{target}"))),
            }
        }) as Attempt<'_, IpAddr>
    };
    let end = race("host.test", lookup(0, six), lookup(1, four), connect).await;
    let at = begun.elapsed().as_millis() as u64;
    let happened = journal.0.lock().unwrap().clone();
    (end, at, happened)
}

fn address(family: usize, index: usize) -> IpAddr {
    match family {
        0 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, index as u16]),
        _ => IpAddr::from([192, 0, 2, index as u8]),
    }
}

fn place(address: IpAddr) -> (usize, usize) {
    match address {
        IpAddr::V6(address) => (0, usize::from(address.segments()[7])),
        IpAddr::V4(address) => (1, usize::from(address.octets()[3])),
    }
}

fn events(happened: &[(u64, String)]) -> Vec<(u64, &str)> {
    happened.iter().map(|(at, what)| (*at, what.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn ipv6_is_first_when_it_answers() {
    let (end, at, happened) = run((10, Ok(vec![Connects(30)])), (5, Ok(vec![Connects(1)]))).await;
    assert_eq!((end.unwrap(), at), (address(0, 0), 40));
    assert_eq!(events(&happened), [(10, "6.0")]);
}

#[tokio::test(start_paused = true)]
async fn ipv4_waits_fifty_milliseconds_for_ipv6s_addresses_and_no_longer() {
    let (end, at, happened) = run((1000, Ok(vec![Connects(1)])), (5, Ok(vec![Connects(20)]))).await;
    assert_eq!((end.unwrap(), at), (address(1, 0), 75));
    assert_eq!(events(&happened), [(55, "4.0")]);
    // Unless there are none.
    let (end, at, _) = run((10, Ok(vec![])), (5, Ok(vec![Connects(20)]))).await;
    assert_eq!((end.unwrap(), at), (address(1, 0), 30));
    let (end, at, _) = run((10, Err(Failure::NoAddress)), (5, Ok(vec![Connects(20)]))).await;
    assert_eq!((end.unwrap(), at), (address(1, 0), 30));
}

#[tokio::test(start_paused = true)]
async fn families_take_turns_a_quarter_of_a_second_apart_and_losers_are_given_up() {
    let six = vec![Hangs, Hangs, Hangs];
    let four = vec![Hangs, Connects(10), Connects(10)];
    let (end, at, happened) = run((0, Ok(six)), (0, Ok(four))).await;
    assert_eq!((end.unwrap(), at), (address(1, 1), 760));
    assert_eq!(
        events(&happened),
        [
            (0, "6.0"),
            (250, "4.0"),
            (500, "6.1"),
            (750, "4.1"),
            (760, "-6.0"),
            (760, "-4.0"),
            (760, "-6.1"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_begins_at_once_when_one_fails() {
    let (end, at, happened) =
        run((0, Ok(vec![Fails(20), Fails(0)])), (0, Ok(vec![Fails(30), Connects(5)]))).await;
    assert_eq!((end.unwrap(), at), (address(1, 1), 55));
    assert_eq!(events(&happened), [(0, "6.0"), (20, "4.0"), (50, "6.1"), (50, "4.1")]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_may_win_after_all() {
    let (end, at, happened) = run((0, Ok(vec![Connects(600)])), (0, Ok(vec![Hangs]))).await;
    assert_eq!((end.unwrap(), at), (address(0, 0), 600));
    assert_eq!(events(&happened), [(0, "6.0"), (250, "4.0"), (600, "-4.0")]);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_come_late_join_in() {
    let (end, at, happened) =
        run((400, Ok(vec![Connects(10)])), (0, Ok(vec![Hangs, Hangs, Hangs]))).await;
    assert_eq!((end.unwrap(), at), (address(0, 0), 560));
    assert_eq!(events(&happened)[..3], [(50, "4.0"), (300, "4.1"), (550, "6.0")]);
}

#[tokio::test(start_paused = true)]
async fn when_nothing_answers_the_last_error_names_the_host() {
    let (end, at, _) = run((0, Ok(vec![Fails(10)])), (100, Ok(vec![Fails(10)]))).await;
    let error = end.unwrap_err();
    assert_eq!((error.kind(), at), (ErrorKind::ConnectionRefused, 110));
    let text = error.to_string();
    assert!(text.contains("host.test") && text.contains("192.0.2.0"), "{text}");
    let (end, _, _) = run((0, Err(Failure::NoName)), (0, Err(Failure::NoName))).await;
    let error = end.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("host.test: there is no such name"), "{error}");
    let (end, _, _) = run((0, Ok(vec![])), (0, Ok(vec![]))).await;
    assert!(end.unwrap_err().to_string().contains("no address"));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_in_number() {
    let (end, _, happened) = run((0, Ok(vec![Fails(1); 32])), (0, Ok(vec![Fails(1); 32]))).await;
    assert!(end.is_err());
    assert_eq!(happened.len(), ATTEMPTS_MAX);
}
