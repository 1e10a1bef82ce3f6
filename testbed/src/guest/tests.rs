use super::*;
use proptest::prelude::*;

fn paths() -> Dom0Paths {
    Dom0Paths { kernel: "/share/k".into(), ..Dom0Paths::default() }
}

fn text(guest: &Guest) -> Result<String, String> {
    let disks = guest.disks.iter().map(|disk| match &disk.source {
        DiskSource::File(path) => path.to_string_lossy().into_owned(),
        DiskSource::Dom0(path) => path.clone(),
        DiskSource::Backend { target, .. } => target.clone(),
    });
    let paths = Dom0Paths { disks: disks.collect(), ..paths() };
    config_text(guest, &paths).map_err(|error| error.to_string())
}

/// Reads the subset of xl's language that we write: key = "string" | number | [ "string", … ].
/// Panics on anything else.
fn parse(text: &str) -> Vec<(String, Vec<String>)> {
    let mut keys = Vec::new();
    for line in text.lines() {
        let (key, mut rest) = line.split_once(" = ").expect("a key and a value");
        assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{key}");
        let mut values = Vec::new();
        if rest.starts_with('[') {
            rest = rest.strip_prefix("[ ").unwrap().strip_suffix(" ]").unwrap();
        } else if !rest.starts_with('"') {
            assert!(rest.bytes().all(|byte| byte.is_ascii_digit()), "{rest}");
            values.push(rest.to_owned());
            rest = "";
        }
        while !rest.is_empty() {
            let mut value = String::new();
            let mut characters = rest.strip_prefix('"').expect("a string").char_indices();
            let end = loop {
                match characters.next().expect("the string ends") {
                    (at, '"') => break at,
                    (_, '\\') => value.push(characters.next().expect("something escaped").1),
                    (_, other) => value.push(other),
                }
            };
            rest = &rest[1 + end + 1..];
            rest = rest.strip_prefix(", ").unwrap_or(rest);
            values.push(value);
        }
        keys.push((key.to_owned(), values));
    }
    keys
}

#[test]
fn a_guest_with_everything() {
    let mut guest = Guest::new("web-1", "/k");
    guest.command_line = "--greeting=\"hi there\"".into();
    guest.driver_domain = true;
    guest.vifs = vec![
        Vif::bridge("xenbr0").with_mac([0, 0x16, 0x3e, 0, 0, 1]),
        Vif { mtu: Some(1400), ..Vif::backend("router") },
    ];
    guest.disks = vec![
        Disk {
            vdev: "xvda".into(),
            source: DiskSource::Dom0("/share/a,b.img".into()),
            read_only: true,
        },
        Disk {
            vdev: "xvdb".into(),
            source: DiskSource::Backend { domain: "disks".into(), target: "one".into() },
            read_only: false,
        },
    ];
    let expected = r#"name = "web-1"
type = "pvh"
kernel = "/share/k"
cmdline = "--greeting=\"hi there\""
memory = 32
vcpus = 1
driver_domain = 1
vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0", "backend=router,mtu=1400" ]
disk = [ "format=raw,vdev=xvda,access=ro,target=/share/a,b.img", "format=raw,vdev=xvdb,access=rw,backend=disks,backendtype=phy,target=one" ]
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
on_watchdog = "preserve"
"#;
    assert_eq!(text(&guest).unwrap(), expected);
}

#[test]
fn what_xl_does_by_itself_need_not_be_said() {
    let guest = Guest { at_end: AtEnd::Default, ..Guest::new("g", "/k") };
    assert!(!text(&guest).unwrap().contains("on_"));
}

#[test]
fn what_cannot_be_said_is_named() {
    let guest = Guest::new("g", "/k");
    let with = |change: fn(&mut Guest)| {
        let mut guest = guest.clone();
        change(&mut guest);
        text(&guest).unwrap_err()
    };
    assert!(with(|g| g.name = "a b".into()).contains("\"a b\""));
    assert!(with(|g| g.name = "17".into()).contains("a letter among them"));
    assert!(with(|g| g.name = "x".repeat(65)).contains("64"));
    assert!(with(|g| g.memory_mib = 0).contains("memory"));
    assert!(with(|g| g.memory_max_mib = Some(8)).contains("grow"));
    assert!(with(|g| g.command_line = "a\nb".into()).contains("control character"));
    assert!(with(|g| g.command_line = "x".repeat(8193)).contains("8192"));
    assert!(with(|g| g.vcpus = 0).contains("processors"));
    assert!(with(|g| g.vifs = vec![Vif::bridge("a,script=x")]).contains("bridge"));
    assert!(
        with(|g| g.vifs = vec![Vif::bridge("x").with_mac([1, 0, 0, 0, 0, 0])]).contains("group")
    );
    let disk = |vdev: &str, path: &str| Disk {
        vdev: vdev.into(),
        source: DiskSource::Dom0(path.into()),
        read_only: false,
    };
    let disks = |disks: Vec<Disk>| text(&Guest { disks, ..guest.clone() }).unwrap_err();
    assert!(disks(vec![disk("a,b", "/x")]).contains("\"a,b\""));
    assert!(disks(vec![disk("xvda", "x")]).contains("absolute"));
    assert!(disks(vec![disk("xvda", "/x"), disk("xvda", "/y")]).contains("two disks"));
}

proptest! {
    #[test]
    fn nothing_breaks_out(name in ".{0,12}", line in any::<String>(), path in any::<String>()) {
        let mut guest = Guest::new(name.clone(), "/k");
        guest.command_line = line.clone();
        let paths = Dom0Paths { ramdisk: Some(format!("/{path}")), ..paths() };
        if let Ok(text) = config_text(&guest, &paths) {
            let keys = parse(&text);
            let value = |key: &str| {
                let found: Vec<_> = keys.iter().filter(|(name, _)| name == key).collect();
                assert_eq!(found.len(), 1, "{key}");
                found[0].1.clone()
            };
            prop_assert_eq!(value("name"), vec![name]);
            prop_assert_eq!(value("cmdline"), vec![line]);
            prop_assert_eq!(value("ramdisk"), vec![format!("/{path}")]);
            prop_assert_eq!(value("type"), vec!["pvh".to_owned()]);
        }
    }

    #[test]
    fn plain_names_always_work(name in "[a-z][a-z0-9._+-]{0,63}", line in "[ -~]{0,200}") {
        let mut guest = Guest::new(name, "/k");
        guest.command_line = line;
        prop_assert!(text(&guest).is_ok());
    }
}
