//! `#[fata::main]`: from an `async fn main` to the program.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{FnArg, ItemFn, LitBool, ReturnType, Type};

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let log = parse_log(attributes)?;
    let function: ItemFn = syn::parse2(item)?;
    if function.sig.asyncness.is_none() {
        return Err(syn::Error::new(function.sig.fn_token.span(), "write `async fn main`"));
    }
    if function.sig.ident != "main" {
        return Err(syn::Error::new(function.sig.ident.span(), "the program is called `main`"));
    }
    if !function.sig.generics.params.is_empty() {
        return Err(syn::Error::new(function.sig.generics.span(), "`main` has no type parameters"));
    }
    // A `main` that never returns has no outcome to tell.
    let is_endless =
        matches!(&function.sig.output, ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)));
    let told = |main: TokenStream| {
        if is_endless {
            return main;
        }
        quote! {{
            use ::fata::wiring::{ByDisplay as _, ByTermination as _};
            ::fata::wiring::Outcome::new(#main).report()
        }}
    };
    let (devices, call) = match devices_type(&function)? {
        Some(ty) => {
            let main = quote_spanned! { ty.span() => main };
            let told = told(quote! { #main(devices).await });
            (quote! { #ty }, quote! { async |devices: #ty| #told })
        }
        None => {
            let told = told(quote! { main().await });
            (
                quote! { ::fata::wiring::NoDevices },
                quote! { async |_: ::fata::wiring::NoDevices| #told },
            )
        }
    };
    let manifest = match devices_type(&function)? {
        Some(ty) => quote_spanned! { ty.span() => <#ty as ::fata::Devices>::MANIFEST },
        None => bare_manifest(),
    };
    let package = crate::devices::environment("CARGO_PKG_NAME");
    Ok(quote! {
        fn main() -> ::std::process::ExitCode {
            #function
            ::fata::wiring::manifest_note!(#manifest);
            ::fata::wiring::run::<#devices, _, _>(
                ::fata::wiring::Start { package: #package, log: #log },
                #call,
            )
        }
    })
}

fn parse_log(attributes: TokenStream) -> syn::Result<bool> {
    let mut log = true;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("log") {
            log = meta.value()?.parse::<LitBool>()?.value;
            Ok(())
        } else {
            Err(meta.error("unknown: expected `log = false`"))
        }
    });
    parser.parse2(attributes)?;
    Ok(log)
}

/// The type of `main`'s argument.
fn devices_type(function: &ItemFn) -> syn::Result<Option<&Type>> {
    let mut inputs = function.sig.inputs.iter();
    let Some(first) = inputs.next() else { return Ok(None) };
    if let Some(second) = inputs.next() {
        return Err(syn::Error::new(
            second.span(),
            "`main` takes one struct, which derives `fata::Devices` and holds them all",
        ));
    }
    match first {
        FnArg::Typed(argument) => Ok(Some(&argument.ty)),
        FnArg::Receiver(receiver) => Err(syn::Error::new(receiver.span(), "`main` has no `self`")),
    }
}

/// The manifest of a program without devices.
fn bare_manifest() -> TokenStream {
    let name = crate::json::string(&crate::devices::environment("CARGO_PKG_NAME"));
    let version = crate::json::string(&crate::devices::environment("CARGO_PKG_VERSION"));
    let head = format!("{{\"fata\":1,\"package\":{name},\"version\":{version},\"target\":\"");
    let tail = "\",\"about\":\"\",\"devices\":[],\"arguments\":[]}";
    quote! { &[#head, ::fata::wiring::TARGET, #tail] }
}
