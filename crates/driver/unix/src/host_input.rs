//! [`HostInput`]: what is typed or piped into the process.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, ReadBuf};

/// The process's standard input, waited for without a thread.
///
/// The file stays as it is: it is not made non-blocking, since a terminal is shared with the shell
/// that started the process. Instead the kernel is asked before each read whether something is there.
/// Only if another process takes that very input in between does the read, and with it the process,
/// wait for the next.
pub struct HostInput {
    source: Source,
}

enum Source {
    /// A terminal, a pipe, a socket: read when the kernel says so.
    Waited(AsyncFd<OwnedFd>),
    /// A file, or `/dev/null`: nobody has to be waited for, and the kernel refuses to.
    Immediate(OwnedFd),
}

impl HostInput {
    /// Standard input. To be called in a tokio runtime.
    ///
    /// # Errors
    /// The process was started without one, or the host has no more file descriptors.
    pub fn standard() -> io::Result<Self> {
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| {
            io::Error::new(error.kind(), format!("the process has no standard input: {error}"))
        })?;
        Self::over(input)
    }

    // What made it deprecated is a type whose `as_raw_fd` says another number each time. An OwnedFd's
    // does not; and its successor is unsafe, which this crate forbids.
    #[allow(deprecated)]
    fn over(input: OwnedFd) -> io::Result<Self> {
        let source = match AsyncFd::try_new(input) {
            Ok(waited) => Source::Waited(waited),
            Err(refused) => match refused.into_parts() {
                // epoll_ctl(2), EPERM: the file does not support being waited for.
                (input, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Source::Immediate(input)
                }
                (_, error) => return Err(error),
            },
        };
        Ok(HostInput { source })
    }
}

/// Reads into `buffer`; how much it was.
fn read(input: &OwnedFd, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
    let count =
        rustix::io::retry_on_intr(|| rustix::io::read(input, buffer.initialize_unfilled()))?;
    buffer.advance(count);
    Ok(())
}

impl AsyncRead for HostInput {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let input = match &self.source {
            Source::Immediate(input) => return Poll::Ready(read(input, buffer)),
            Source::Waited(input) => input,
        };
        loop {
            let mut guard = ready!(input.poll_read_ready(cx))?;
            let mut asked = [PollFd::new(input, PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut asked, Some(&at_once)) {
                Ok(0) => guard.clear_ready(),
                Ok(_) => match read(input.get_ref(), buffer) {
                    // Somebody else made it non-blocking, and was quicker.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                    result => return Poll::Ready(result),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl fmt::Debug for HostInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostInput")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

    #[tokio::test]
    async fn a_pipe_is_waited_for_and_other_tasks_go_on_meanwhile() {
        let (input, mut output) = std::io::pipe().expect("a pipe");
        let mut lines = BufReader::new(HostInput::over(input.into()).expect("input")).lines();
        let typist = tokio::spawn(async move {
            for line in ["one", "two"] {
                // The reader waits by now; were it to block, this would never be written.
                tokio::task::yield_now().await;
                writeln!(output, "{line}").expect("the pipe is open");
            }
        });
        assert_eq!(lines.next_line().await.expect("read"), Some("one".to_owned()));
        assert_eq!(lines.next_line().await.expect("read"), Some("two".to_owned()));
        typist.await.expect("it types");
        assert_eq!(lines.next_line().await.expect("the end"), None);
    }

    #[tokio::test]
    async fn more_than_one_read_takes_is_not_forgotten() {
        let (input, mut output) = std::io::pipe().expect("a pipe");
        output.write_all(&[7; 5000]).expect("it fits the pipe");
        let mut input = HostInput::over(input.into()).expect("input");
        let mut small = [0; 100];
        for _ in 0..50 {
            input.read_exact(&mut small).await.expect("there is more");
            assert_eq!(small, [7; 100]);
        }
        drop(output);
        assert_eq!(input.read(&mut small).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn files_and_nothing_are_read_at_once() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"a script\n").expect("written");
        std::io::Seek::rewind(&mut file).expect("rewound");
        let mut text = String::new();
        HostInput::over(file.into()).expect("input").read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "a script\n");
        let nothing = std::fs::File::open("/dev/null").expect("there").into();
        let mut nothing = HostInput::over(nothing).expect("input");
        assert_eq!(nothing.read(&mut [0; 4]).await.expect("the end"), 0);
    }
}
