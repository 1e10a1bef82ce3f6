//! [`Link`]: what a handshake and an interface share.
//!
//! The handshake runs in a task of its own: it makes the rings, hands them over when both ends are
//! connected, and takes them away when they no longer are. The interface is with a stack, which
//! polls it. Nothing is transmitted on an interface that is not connected, because there are no
//! rings then: it waits, and is woken by the connection.

use super::channel::{Sleeper, Sleepers};
use crate::xenbus::DeviceEvent;
use core::task::{Context, Poll, Waker};
use fata_device::NicError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rings of one connection, or their absence. Clones are the same link.
#[derive(Debug)]
pub(super) struct Link<Rings> {
    shared: Arc<Mutex<State<Rings>>>,
    sleepers: Arc<Sleepers>,
}

impl<Rings> Clone for Link<Rings> {
    fn clone(&self) -> Self {
        Link { shared: self.shared.clone(), sleepers: self.sleepers.clone() }
    }
}

#[derive(Debug)]
pub(super) struct State<Rings> {
    /// The rings while the interface is connected; `None` while it is not; or why it never will be
    /// again.
    pub(super) rings: Result<Option<Rings>, NicError>,
    /// What the interface found the other end doing wrong, until the handshake has heard of it.
    fault: Option<String>,
    /// The interface was dropped.
    abandoned: bool,
    /// The handshake's task.
    watcher: Option<Waker>,
}

impl<Rings> State<Rings> {
    /// Closes the interface for good because the other end broke a rule.
    pub(super) fn fail(&mut self, rule: impl ToString) -> NicError {
        let rule = rule.to_string();
        let error = NicError::Misbehaved(rule.clone());
        // Whatever the other end still does to its pages, nobody looks any more.
        self.rings = Err(error.clone());
        self.fault = Some(rule);
        self.wake_watcher();
        error
    }

    fn wake_watcher(&mut self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
}

impl<Rings> Link<Rings> {
    /// Not connected; wakes these.
    pub(super) fn with(sleepers: Arc<Sleepers>) -> Self {
        let state = State { rings: Ok(None), fault: None, abandoned: false, watcher: None };
        Link { shared: Arc::new(Mutex::new(state)), sleepers }
    }

    pub(super) fn sleepers(&self) -> &Arc<Sleepers> {
        &self.sleepers
    }

    /// Nobody else ever waits long for it: the handshake takes it for single assignments.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<Rings>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called when there are no rings: wakes the task when there are.
    pub(super) fn wait(&self, sleeper: Sleeper, cx: &Context<'_>) {
        self.sleepers.store(sleeper, cx.waker());
    }

    /// The interface is connected.
    pub(super) fn connect(&self, rings: Rings) {
        {
            let mut state = self.lock();
            if state.rings.is_ok() {
                state.rings = Ok(Some(rings));
            }
        }
        self.sleepers.wake_all();
    }

    /// The interface is no longer connected, and may be again. The rings, if there were any.
    pub(super) fn disconnect(&self) -> Option<Rings> {
        match &mut self.lock().rings {
            Ok(rings) => rings.take(),
            Err(_) => None,
        }
    }

    /// The interface will never be connected again.
    pub(super) fn end(&self, why: NicError) {
        {
            let mut state = self.lock();
            if state.rings.is_ok() {
                state.rings = Err(why);
            }
        }
        self.sleepers.wake_all();
    }

    /// Waits for what the interface's user does.
    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        let mut state = self.lock();
        if let Some(rule) = state.fault.take() {
            return Poll::Ready(DeviceEvent::Fault(rule));
        }
        if core::mem::take(&mut state.abandoned) {
            return Poll::Ready(DeviceEvent::Close);
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The interface was dropped. Its rings stay until the handshake has closed the device, so that
    /// what is under way arrives.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        // One that has ended is nobody's any more.
        state.abandoned = state.rings.is_ok();
        state.wake_watcher();
    }
}
