//! The macros of Fata: [`macro@main`] and [`macro@Devices`].
//!
//! The struct that a program's `main` takes *is* its configuration. [`macro@Devices`] reads it and
//! writes two things: how a target's wiring builds it, and the fragments of the manifest. And
//! [`macro@main`] joins the two to a program: it starts the runtime, and puts the manifest into an
//! ELF note of the image.
//!
//! Use them through the `fata` crate, whose documentation shows a whole program.
#![forbid(unsafe_code)]

mod devices;
mod entry;
mod json;

use proc_macro::TokenStream;

/// Makes an `async fn main` the program.
///
/// The function takes nothing, or one struct that derives [`macro@Devices`]. It may return whatever
/// an ordinary `main` may; an error is told by its `Display` text, if it has one. It runs on tokio's current-thread runtime on every target.
///
/// `#[fata::main(log = false)]` leaves the installation of a `tracing` subscriber to the program.
#[proc_macro_attribute]
pub fn main(attributes: TokenStream, item: TokenStream) -> TokenStream {
    entry::expand(attributes.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a struct with named fields the list of a program's devices and arguments.
///
/// - A field whose type is a device (`fata::Stack`, `fata::Block`) is a device of the field's name.
///   `#[fata(name = "…")]` gives it another one.
/// - A field with `#[fata(arg)]` is an argument, `--field-name=VALUE` on the command line, of any
///   type that implements `fata::Argument`. `#[fata(arg, default = LITERAL)]` makes it optional, and
///   so does the type `Option<T>`.
/// - Doc comments become the help that `--help` and `fata describe` show.
#[proc_macro_derive(Devices, attributes(fata))]
pub fn derive_devices(item: TokenStream) -> TokenStream {
    devices::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
