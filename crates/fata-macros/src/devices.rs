//! `#[derive(Devices)]`: from a struct to the code that builds it and to its manifest.

use crate::json;
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use std::collections::BTreeMap;
use syn::parse::Parse;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, ExprUnary, Field, Fields, Lit, LitStr, UnOp,
};

/// One field of the struct, understood.
struct Entry<'a> {
    field: &'a Field,
    /// The name that users see: a device's, or an argument's without the dashes.
    name: String,
    help: String,
    kind: Kind,
}

enum Kind {
    Device,
    /// With the default's text, if there is one.
    Argument(Option<String>),
}

pub(crate) fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let fields = named_fields(&input)?;
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new(
            input.generics.span(),
            "a struct of devices has no type parameters: it says which devices the program has, \
             and an image has one answer",
        ));
    }
    let mut entries = Vec::new();
    for field in fields {
        entries.push(entry(field)?);
    }
    refuse_duplicates(&entries)?;

    let name = &input.ident;
    let about = doc_text(&input.attrs);
    let takes = entries.iter().map(take);
    let manifest = manifest(&about, &entries);
    let devices = entries.iter().filter_map(device_spec);
    let arguments = entries.iter().filter_map(argument_spec);
    Ok(quote! {
        #[automatically_derived]
        impl ::fata::Devices for #name {
            const PROGRAM: ::fata::wiring::Program = ::fata::wiring::Program {
                about: #about,
                devices: &[#(#devices),*],
                arguments: &[#(#arguments),*],
            };
            const MANIFEST: &'static [&'static str] = #manifest;

            async fn take(
                wiring: &mut ::fata::wiring::Wiring,
            ) -> ::core::result::Result<Self, ::fata::wiring::WiringError> {
                ::core::result::Result::Ok(Self { #(#takes),* })
            }
        }
    })
}

fn named_fields(input: &DeriveInput) -> syn::Result<impl Iterator<Item = &Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter()),
            Fields::Unit | Fields::Unnamed(_) => Err(syn::Error::new(
                input.ident.span(),
                "devices have names: write a struct with named fields",
            )),
        },
        Data::Enum(_) | Data::Union(_) => Err(syn::Error::new(
            input.ident.span(),
            "a program has all of its devices: write a struct with named fields",
        )),
    }
}

/// Reads one field and its `#[fata(…)]` attributes.
fn entry(field: &Field) -> syn::Result<Entry<'_>> {
    let identifier = field.ident.as_ref().expect("named_fields checked").to_string();
    let identifier = identifier.trim_start_matches("r#").to_string();
    let (mut argument, mut default, mut name) = (false, None, None);
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("fata")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("arg") {
                argument = true;
            } else if meta.path.is_ident("default") {
                let value = meta.value()?;
                default = Some((value.span(), literal_text(&Expr::parse(value)?)?));
            } else if meta.path.is_ident("name") {
                let literal: LitStr = meta.value()?.parse()?;
                check_name(&literal)?;
                name = Some(literal.value());
            } else {
                return Err(meta.error("unknown: expected `arg`, `default = …` or `name = \"…\"`"));
            }
            Ok(())
        })?;
    }
    let kind = match (argument, default) {
        (true, default) => Kind::Argument(default.map(|(_, text)| text)),
        (false, None) => Kind::Device,
        (false, Some((span, _))) => {
            return Err(syn::Error::new(span, "only an argument has a default: add `arg`"));
        }
    };
    let name = name.unwrap_or_else(|| match kind {
        Kind::Device => identifier.clone(),
        Kind::Argument(_) => identifier.replace('_', "-"),
    });
    if matches!(kind, Kind::Argument(_)) && name == "help" {
        return Err(syn::Error::new(field.span(), "`--help` is every program's own"));
    }
    Ok(Entry { field, name, help: doc_text(&field.attrs), kind })
}

/// A name stands on command lines, in virtio serials (20 bytes) and in launcher files.
fn check_name(literal: &LitStr) -> syn::Result<()> {
    let name = literal.value();
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    if starts && rest && name.len() <= 20 {
        return Ok(());
    }
    Err(syn::Error::new(
        literal.span(),
        "a name is 1 to 20 of a-z, 0-9, `-` and `_`, and begins with a letter",
    ))
}

fn refuse_duplicates(entries: &[Entry<'_>]) -> syn::Result<()> {
    let mut seen = BTreeMap::new();
    for entry in entries {
        let device = matches!(entry.kind, Kind::Device);
        if device && entry.name.len() > 20 {
            return Err(syn::Error::new(
                entry.field.ident.span(),
                "a device's name has at most 20 bytes, which is what a virtio serial holds: give it \
                 a shorter one with #[fata(name = \"…\")]",
            ));
        }
        if seen.insert((device, entry.name.clone()), ()).is_some() {
            let what = if device { "devices" } else { "arguments" };
            return Err(syn::Error::new(
                entry.field.ident.span(),
                format!("two {what} have the name `{}`", entry.name),
            ));
        }
    }
    Ok(())
}

/// The text of a literal, as a user would write it on a command line.
fn literal_text(expression: &Expr) -> syn::Result<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.value()),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Ok(number.base10_digits().to_string()),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => {
            Ok(number.base10_digits().to_string())
        }
        Expr::Lit(ExprLit { lit: Lit::Bool(truth), .. }) => Ok(truth.value.to_string()),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => {
            Ok(format!("-{}", literal_text(expr)?))
        }
        other => Err(syn::Error::new(
            other.span(),
            "the default stands in the manifest: write a literal (a number, a string, true, false)",
        )),
    }
}

/// The first paragraph's lines of a doc comment, joined; later paragraphs keep their breaks.
fn doc_text(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let syn::Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value
        {
            lines.push(text.value().trim().to_string());
        }
    }
    let paragraphs: Vec<String> = lines
        .split(|line| line.is_empty())
        .filter(|paragraph| !paragraph.is_empty())
        .map(|paragraph| paragraph.join(" "))
        .collect();
    paragraphs.join("\n")
}

/// `field: take it out of the wiring`.
fn take(entry: &Entry<'_>) -> TokenStream {
    let (identifier, ty, name) = (&entry.field.ident, &entry.field.ty, &entry.name);
    // The type's span, so that "is no device" points at the type.
    match entry.kind {
        Kind::Device => quote_spanned! { ty.span() =>
            #identifier: <#ty as ::fata::Device>::take(wiring, #name).await?
        },
        Kind::Argument(_) => quote_spanned! { ty.span() =>
            #identifier: ::fata::wiring::Wiring::argument::<#ty>(wiring, #name)?
        },
    }
}

fn device_spec(entry: &Entry<'_>) -> Option<TokenStream> {
    let Kind::Device = entry.kind else { return None };
    let (ty, name, help) = (&entry.field.ty, &entry.name, &entry.help);
    Some(quote_spanned! { ty.span() =>
        ::fata::wiring::DeviceSpec {
            name: #name,
            kind: <#ty as ::fata::Device>::KIND,
            optional: <#ty as ::fata::Device>::OPTIONAL,
            help: #help,
        }
    })
}

fn argument_spec(entry: &Entry<'_>) -> Option<TokenStream> {
    let Kind::Argument(default) = &entry.kind else { return None };
    let (ty, name, help) = (&entry.field.ty, &entry.name, &entry.help);
    let default = option(default.as_deref());
    Some(quote_spanned! { ty.span() =>
        ::fata::wiring::ArgumentSpec {
            name: #name,
            ty: <#ty as ::fata::Argument>::TYPE,
            optional: <#ty as ::fata::Argument>::OPTIONAL,
            default: #default,
            help: #help,
        }
    })
}

fn option(text: Option<&str>) -> TokenStream {
    match text {
        Some(text) => quote! { ::core::option::Option::Some(#text) },
        None => quote! { ::core::option::Option::None },
    }
}

/// The manifest in fragments: all that is known here as literals, with the types' own constants
/// between them. `#[fata::main]` puts them together at compile time.
fn manifest(about: &str, entries: &[Entry<'_>]) -> TokenStream {
    let mut parts = vec![literal(&format!(
        "{{\"fata\":1,\"package\":{},\"version\":{},\"target\":\"",
        json::string(&environment("CARGO_PKG_NAME")),
        json::string(&environment("CARGO_PKG_VERSION")),
    ))];
    parts.push(quote! { ::fata::wiring::TARGET });
    parts.push(literal(&format!("\",\"about\":{},\"devices\":[", json::string(about))));
    let mut first = true;
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::Device)) {
        let ty = &entry.field.ty;
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        parts.push(literal(&format!(
            "{comma}{{\"name\":{},\"help\":{},\"kind\":\"",
            json::string(&entry.name),
            json::string(&entry.help)
        )));
        parts.push(quote_spanned! { ty.span() => <#ty as ::fata::Device>::KIND.as_str() });
        parts.push(literal("\",\"optional\":"));
        parts.push(quote_spanned! { ty.span() =>
            if <#ty as ::fata::Device>::OPTIONAL { "true" } else { "false" }
        });
        parts.push(literal("}"));
    }
    parts.push(literal("],\"arguments\":["));
    first = true;
    for entry in entries {
        let Kind::Argument(default) = &entry.kind else { continue };
        let ty = &entry.field.ty;
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        let default = default.as_deref().map_or("null".to_string(), json::string);
        parts.push(literal(&format!(
            "{comma}{{\"name\":{},\"help\":{},\"default\":{default},\"type\":\"",
            json::string(&entry.name),
            json::string(&entry.help)
        )));
        parts.push(quote_spanned! { ty.span() => <#ty as ::fata::Argument>::TYPE });
        parts.push(literal("\",\"optional\":"));
        parts.push(quote_spanned! { ty.span() =>
            if <#ty as ::fata::Argument>::OPTIONAL { "true" } else { "false" }
        });
        parts.push(literal("}"));
    }
    parts.push(literal("]}"));
    quote! { &[#(#parts),*] }
}

fn literal(text: &str) -> TokenStream {
    let literal = LitStr::new(text, Span::call_site());
    quote! { #literal }
}

/// What cargo says of the crate that is being compiled; empty when something else compiles it.
pub(crate) fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
