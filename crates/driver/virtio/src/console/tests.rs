use super::*;
use crate::model::kinds::ConsoleKind;
use crate::model::{Bus, Model, probe};
use crate::{Device, Options};

fn pair(bus: Bus) -> (VirtioConsole, Model<ConsoleKind>) {
    let model = Model::new(ConsoleKind::default(), ConsoleKind::spec());
    match probe(&model, bus, &Options::default()) {
        Ok(Some(Device::Console(console))) => (console, model),
        other => panic!("no console: {other:?}"),
    }
}

#[test]
fn what_is_written_is_shown() {
    for bus in [Bus::Mmio, Bus::Pci] {
        let (console, model) = pair(bus);
        let mut expected = Vec::new();
        for round in 0..100u8 {
            let line = vec![b'a' + round % 26; usize::from(round) * 17];
            assert_eq!(console.write(&line), line.len());
            expected.extend(line);
        }
        assert_eq!(model.inner().kind.shown, expected);
    }
}

#[test]
fn a_host_that_does_not_read_is_not_waited_for() {
    let (console, model) = pair(Bus::Mmio);
    model.inner().kind.stuck = true;
    assert_eq!(console.write(&[b'x'; 100_000]), 16 * BUFFER_LEN);
    assert_eq!(console.write(b"more"), 0);
}

#[tokio::test]
async fn what_is_typed_is_read() {
    for bus in [Bus::Mmio, Bus::Pci] {
        let (console, model) = pair(bus);
        tokio::spawn(model.clone().run());
        let text: Vec<u8> = (0..5000u32).map(|at| at as u8).collect();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            let mut part = [0; 100];
            while all.len() < 5000 {
                let len = console.read(&mut part).await.unwrap();
                assert!(len > 0);
                all.extend_from_slice(&part[..len]);
            }
            all
        });
        for part in text.chunks(700) {
            tokio::task::yield_now().await;
            ConsoleKind::type_in(&model, part);
        }
        assert_eq!(reader.await.unwrap(), text);
    }
}

#[tokio::test]
async fn lies_close_the_console() {
    let (console, model) = pair(Bus::Pci);
    tokio::spawn(model.clone().run());
    model.lie(|mut element| {
        element.id = 16;
        element
    });
    ConsoleKind::type_in(&model, b"hello");
    let told = console.read(&mut [0; 10]).await.unwrap_err();
    assert!(told.to_string().contains("names descriptor 16"), "{told}");
    assert_eq!(console.write(b"x"), 0);
    assert_eq!(console.read(&mut [0; 10]).await, Err(told));
}
