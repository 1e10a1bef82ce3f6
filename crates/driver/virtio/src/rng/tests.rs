use super::*;
use crate::model::kinds::RngKind;
use crate::model::{Bus, Model, probe};
use crate::{Device, Options};

fn pair(bus: Bus) -> (VirtioRng, Model<RngKind>) {
    let model = Model::new(RngKind::default(), RngKind::spec());
    match probe(&model, bus, &Options::default()) {
        Ok(Some(Device::Entropy(rng))) => (rng, model),
        other => panic!("no entropy device: {other:?}"),
    }
}

#[test]
fn polling_fills_whatever_is_asked_for_and_gives_no_byte_twice() {
    for bus in [Bus::Mmio, Bus::Pci] {
        for stingy in [None, Some(1), Some(5)] {
            let (mut rng, model) = pair(bus);
            model.inner().kind.stingy = stingy;
            let mut out = [0; 200];
            for part in out.chunks_mut(37) {
                rng.fill_polling(part, || true).unwrap();
            }
            // The model counts up; a request's bytes are handed out from its end.
            out.sort_unstable();
            assert!(out.windows(2).all(|pair| pair[0] != pair[1]), "a byte came twice");
        }
    }
}

#[test]
fn polling_ends_when_it_is_told_to() {
    let (mut rng, model) = pair(Bus::Mmio);
    model.inner().paused = true;
    let mut looks = 0;
    let result = rng.fill_polling(&mut [0; 32], || {
        looks += 1;
        looks < 100
    });
    assert_eq!((result, looks), (Err(RngError::TimedOut), 100));
    model.inner().paused = false;
    model.work();
    rng.fill_polling(&mut [0; 32], || false).expect("the answer came since");
}

#[tokio::test]
async fn filling_sleeps_until_the_device_answers() {
    for bus in [Bus::Mmio, Bus::Pci] {
        let (mut rng, model) = pair(bus);
        model.inner().paused = true;
        let task = tokio::spawn(async move {
            let mut out = [0; 100];
            rng.fill(&mut out).await.map(|()| out)
        });
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        model.inner().paused = false;
        tokio::spawn(model.run());
        assert!(task.await.unwrap().unwrap().iter().any(|byte| *byte != 0));
    }
}

#[tokio::test]
async fn a_device_that_gives_nothing_is_closed() {
    let (mut rng, model) = pair(Bus::Mmio);
    model.inner().kind.stingy = Some(0);
    tokio::spawn(model.clone().run());
    let told = rng.fill(&mut [0; 8]).await.unwrap_err();
    assert_eq!(told, RngError::Misbehaved("it gave no bytes".into()));
    assert_eq!(rng.fill(&mut [0; 8]).await, Err(told), "final");
    assert_eq!(model.inner().status, 0);
}

#[test]
fn lies_close_the_device() {
    let (mut rng, model) = pair(Bus::Pci);
    model.lie(|mut element| {
        element.written = 65;
        element
    });
    let told = rng.fill_polling(&mut [0; 8], || true).unwrap_err().to_string();
    assert!(told.contains("65 bytes were written where 64 may be"), "{told}");
}
