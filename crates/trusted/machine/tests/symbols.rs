//! `docs/symbols.md` lists every C symbol that an image has, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names that a source defines: functions and statics after `no_mangle`, and the entries of
/// the macros that define many alike.
fn defined(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut after_no_mangle = false;
    let mut in_table = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("accepts!") || line.starts_with("forbids!") {
            in_table = true;
            let inside = line.split_once('{').map_or("", |(_, inside)| inside);
            names.extend(
                inside.split(['}', ' ']).filter(|word| !word.is_empty()).map(str::to_owned),
            );
            in_table &= !line.ends_with('}');
        } else if in_table {
            in_table = !line.starts_with('}');
            names.extend(line.split([' ', '}']).filter(|word| !word.is_empty()).map(str::to_owned));
        } else if line.starts_with("#[unsafe(no_mangle)]") {
            after_no_mangle = true;
        } else if after_no_mangle && !line.starts_with("#[") {
            let name = ["fn ", "static "].iter().find_map(|word| line.split_once(word));
            let name = name.expect("a function or a static after no_mangle").1;
            let end = name.find(['(', ':']).expect("a name ends");
            // `$name` is a macro's.
            names.extend((!name.starts_with('$')).then(|| name[..end].to_owned()));
            after_no_mangle = false;
        } else if let Some((name, _)) = line.split_once(": E").filter(|_| line.ends_with(';')) {
            // An entry of `fails!`: `name: ERRNO;`.
            let is_name =
                name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            names.extend(is_name.then(|| name.to_owned()));
        } else if let Some((name, _)) = line.split_once("(x") {
            // An entry of `functions!`: `name(x, y);`.
            let is_entry = line.ends_with(");") && !name.contains([' ', ':', '.']);
            names.extend(is_entry.then(|| name.to_owned()));
        }
    }
    names
}

#[test]
fn the_list_of_symbols_is_complete_and_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut symbols = BTreeSet::new();
    for entry in fs::read_dir(root.join("src/image/symbols")).unwrap() {
        symbols.extend(defined(&fs::read_to_string(entry.unwrap().path()).unwrap()));
    }
    assert!(symbols.len() > 150 && symbols.contains("memcpy") && symbols.contains("environ"));
    let list = fs::read_to_string(root.join("../../../docs/symbols.md")).unwrap();
    let listed = list.lines().filter_map(|line| match line.strip_prefix("| `") {
        Some(row) => row.split_once('`').map(|(name, _)| vec![name.to_owned()]),
        // The mathematical functions are one paragraph of names.
        None => line
            .starts_with('`')
            .then(|| line.split('`').skip(1).step_by(2).map(str::to_owned).collect()),
    });
    let listed: BTreeSet<String> = listed.flatten().collect();
    let missing: Vec<_> = symbols.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/symbols.md lacks {missing:?}");
    let gone: Vec<_> = listed.difference(&symbols).collect();
    assert!(gone.is_empty(), "docs/symbols.md lists {gone:?}, which no source defines");
}
