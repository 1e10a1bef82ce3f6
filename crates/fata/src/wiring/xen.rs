//! The target `xen`: a PVH guest whose devices are backends in other domains.

use super::arguments::{Arguments, WiringError};
use super::spec::{DeviceKind, Program};
use super::{machine, stack_config};
use crate::{Block, Channel, Clients, Export, Interface, Stack};

/// What the manifest calls this target.
pub const TARGET: &str = "xen";

pub(super) struct Entry;

pub(super) fn enter() -> Entry {
    machine::enter();
    Entry
}

pub(super) use machine::runtime;

/// The settings of a device of `kind`, with their help.
pub(super) fn settings(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Stack => &stack_config::SETTINGS,
        _ => &[],
    }
}

pub(super) struct Target;

impl Target {
    pub(super) async fn new(_: Entry, _: &'static Program) -> Result<Self, WiringError> {
        tokio::spawn(machine::backstop());
        Ok(Target)
    }

    pub(super) async fn stack(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Stack>, WiringError> {
        Ok(None)
    }

    pub(super) async fn interface(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Interface>, WiringError> {
        Ok(None)
    }

    pub(super) async fn clients(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Clients>, WiringError> {
        Ok(None)
    }

    pub(super) async fn block(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Block>, WiringError> {
        Ok(None)
    }

    pub(super) async fn export(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Export>, WiringError> {
        Ok(None)
    }

    pub(super) async fn channel(
        &mut self,
        _: &str,
        _: &Arguments,
    ) -> Result<Option<Channel>, WiringError> {
        Ok(None)
    }

    pub(super) fn missing(&self, name: &str, _: DeviceKind) -> String {
        format!("the guest has no device {name}")
    }
}
