//! A device is what a target's wiring can open; a program cannot add a kind.

struct Toaster;

impl fata::Device for Toaster {
    const KIND: fata::wiring::DeviceKind = fata::wiring::DeviceKind::Block;

    async fn take_attached(
        _: &mut fata::wiring::Wiring,
        _: &'static str,
    ) -> Result<Option<Self>, fata::wiring::WiringError> {
        Ok(Some(Toaster))
    }
}

fn main() {}
