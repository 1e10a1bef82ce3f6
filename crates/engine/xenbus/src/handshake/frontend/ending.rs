//! How a frontend's handshake comes to an end, or to another beginning.

use super::{
    Command, Ending, Frontend, FrontendProtocol, Goal, HandshakeError, Instant, OWN_KEYS, Patience,
    Pending, Phase, Reason, Step, XenbusState,
};
use alloc::format;

impl<P: FrontendProtocol> Frontend<P> {
    /// Begins to take back what was published; then `goal`.
    pub(super) fn close(&mut self, now: Instant, goal: Goal) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let reason = match &goal {
            Goal::End(Ok(_)) => Reason::Asked,
            Goal::End(Err(error)) => Reason::Fault(error.clone()),
            Goal::Again => Reason::Peer(self.view.peer_state),
        };
        self.disconnect(reason);
        if let (Goal::End(verdict), None) = (&goal, &self.peer) {
            // Nobody has heard of us.
            return self.finish(verdict.clone());
        }
        let ends = matches!(goal, Goal::End(_));
        if let Phase::Closing { goal: under_way, .. } = &mut self.phase {
            // Under way already; the first reason to end is the one that is told.
            if ends && *under_way == Goal::Again {
                *under_way = goal;
                self.deadline = Some(now.after_nanos(self.joining.close_nanos));
            }
        } else {
            self.phase = Phase::Closing { goal, closed: false, overdue: false };
            if ends {
                self.deadline = Some(now.after_nanos(self.joining.close_nanos));
            }
        }
        self.dirty = true;
    }

    /// Both ends are Closed, or there is no other end.
    pub(super) fn closed(&mut self) {
        self.release();
        let Phase::Closing { goal, .. } = &self.phase else { return };
        match goal.clone() {
            Goal::Again => {
                self.phase = Phase::Seeking { kicked: true };
                self.write(Step::Initialising);
            }
            Goal::End(verdict) => self.finish(verdict),
        }
    }

    /// The toolstack has removed our directory.
    pub(super) fn removed(&mut self) {
        self.disconnect(Reason::Removed);
        let verdict = match &self.phase {
            Phase::Closing { goal: Goal::End(verdict), .. } => verdict.clone(),
            _ if self.lived => Ok(Ending::Removed),
            _ => Err(HandshakeError::Removed { device: self.joining.device.clone() }),
        };
        self.finish(verdict);
    }

    pub(super) fn disconnect(&mut self, reason: Reason) {
        if self.phase == Phase::Connected {
            self.live_since = None;
            self.commands.push_back(Command::Disconnect(reason));
            self.phase = Phase::Seeking { kicked: false };
        }
    }

    pub(super) fn release(&mut self) {
        if self.rings {
            self.commands.push_back(Command::Release);
        }
        self.rings = false;
        self.published = false;
        self.made = None;
        self.agreed = None;
        self.settings = None;
    }

    pub(super) fn finish(&mut self, verdict: Result<Ending, HandshakeError>) {
        if self.pending == Pending::Rings {
            // The answer is near, and rings must not be left behind: `rings_made` comes here again.
            self.phase = Phase::Closing { goal: Goal::End(verdict), closed: true, overdue: true };
            return;
        }
        self.release();
        self.commands.extend(OWN_KEYS.map(|key| Command::Unwatch(self.joining.path(key))));
        if let Some(peer) = &self.peer {
            self.commands.push_back(Command::Unwatch(format!("{}/state", peer.path)));
        }
        self.commands.push_back(Command::Ended(verdict));
        self.phase = Phase::Ended;
        self.pending = Pending::Nothing;
        self.deadline = None;
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        let error = self.deadline_error(now);
        match &mut self.phase {
            Phase::Closing { goal, overdue, .. } => {
                *overdue = true;
                if *goal == Goal::Again {
                    *goal = Goal::End(Err(error));
                }
                self.dirty = true;
            }
            _ => self.close(now, Goal::End(Err(error))),
        }
    }

    pub(super) fn deadline_error(&self, now: Instant) -> HandshakeError {
        let culprit = match (&self.peer, self.view.peer_state) {
            (None, _) => format!(
                "the toolstack has not written {} and backend-id",
                self.joining.path("backend")
            ),
            (Some(peer), None) => {
                format!(
                    "backend {} has no state: its domain {} has not made it, or it may not be read",
                    peer.path, peer.domain
                )
            }
            (Some(peer), Some(state)) => {
                let hint = match (state, self.view.hotplug) {
                    (XenbusState::Initialising, _) => "; is its driver loaded in that domain?",
                    (XenbusState::InitWait, Some(false)) => {
                        "; its hotplug script has not finished (hotplug-status is missing)"
                    }
                    _ => "",
                };
                format!("backend {} is {state}{hint}", peer.path)
            }
        };
        HandshakeError::Deadline(Patience {
            device: self.joining.device.clone(),
            culprit,
            waited_nanos: now.0.saturating_sub(self.started.0),
            unmoved_nanos: now.0.saturating_sub(self.moved.0),
        })
    }
}
