//! Every way to die has a readable end: words, a backtrace with names, an exit code.

use fata_tests::{Machine, build};
use std::process::Command;

/// Boots the program that ends in this way; returns its exit code and console.
fn boot(way: &str, extra: &[&str]) -> (Option<i32>, String) {
    let image = build("tests/programs", "virtio");
    let way = format!("--way={way}");
    let mut arguments = vec!["-t", "virtio", image.to_str().expect("UTF-8"), "--", &way];
    arguments.extend(extra);
    let (status, console) = Machine::run(arguments).wait();
    (status.code(), console)
}

/// The console has `words`, and a backtrace that was resolved to `function`.
#[track_caller]
fn assert_death(way: &str, code: i32, words: &[&str], function: &str) {
    let (status, console) = boot(way, &[]);
    assert!(console.contains("about to end"), "{way} did not get to its point:\n{console}");
    for word in words {
        assert!(console.contains(word), "{way}: no `{word}` in:\n{console}");
    }
    let backtrace = console.split("fata: backtrace of build ").nth(1);
    let backtrace = backtrace.unwrap_or_else(|| panic!("{way}: no backtrace in:\n{console}"));
    let named =
        backtrace.lines().any(|line| line.starts_with("fata:   ") && line.contains(function));
    assert!(named, "{way}: no frame of `{function}` in:\n{console}");
    assert_eq!(status, Some(code), "{way}:\n{console}");
}

#[test]
fn a_panic_in_main_ends_with_its_message_and_101() {
    assert_death(
        "panic",
        101,
        &["index out of bounds: the len is 2", "ways.rs"],
        "panic (tests/programs",
    );
}

#[test]
fn a_null_pointer_is_a_page_fault_at_the_function_that_read() {
    assert_death("page-fault", 103, &["page fault", "0x0"], "read_nothing");
}

#[test]
fn code_is_not_writable() {
    assert_death("write-to-code", 103, &["page fault"], "overwrite");
}

#[test]
fn data_is_not_executable() {
    let (status, console) = boot("execute-data", &[]);
    assert!(console.contains("page fault"), "{console}");
    assert!(!console.contains("data is executable"), "{console}");
    assert_eq!(status, Some(103), "{console}");
}

#[test]
fn a_stack_overflow_is_called_that() {
    assert_death("stack-overflow", 104, &["stack overflow"], "deeper");
}

#[test]
fn running_out_of_memory_is_an_end_with_words_not_a_hang() {
    assert_death("out-of-memory", 102, &["out of memory"], "out_of_memory");
}

#[test]
fn a_double_fault_is_reported_from_a_stack_of_its_own() {
    let (status, console) = boot("double-fault", &[]);
    assert!(console.contains("double fault"), "{console}");
    assert_eq!(status, Some(105), "{console}");
}

#[test]
fn a_panicking_task_leaves_the_others_running() {
    let (status, console) = boot("task-panic", &[]);
    assert!(console.contains("this task is meant to panic"), "{console}");
    assert!(console.contains("panicked: true"), "{console}");
    assert!(console.contains("the other task is alive"), "{console}");
    assert_eq!(status, Some(0), "{console}");
}

#[test]
fn stds_own_backtraces_are_nameless_and_harmless() {
    let image = build("tests/programs", "virtio");
    // Without names, std's short form finds no frame between its two markers.
    let words = ["--", "RUST_BACKTRACE=full", "--way=std-backtrace"];
    let arguments = ["-t", "virtio", image.to_str().expect("UTF-8")].into_iter().chain(words);
    let (status, console) = Machine::run(arguments).wait();
    let (captured, panicked) = console.split_once("captured").expect("a backtrace was captured");
    for part in [captured, panicked] {
        assert!(part.contains("<unknown>"), "no frames in:\n{console}");
    }
    assert!(panicked.contains("std's hook tells of this"), "{console}");
    assert!(panicked.contains("stack backtrace:"), "std's hook is not in force:\n{console}");
    assert!(console.contains("panicked: true"), "{console}");
    assert_eq!(status.code(), Some(0), "{console}");
}

#[test]
fn the_exit_code_reaches_the_caller() {
    for code in [0, 1, 42, 126, 127, 255] {
        let (status, console) = boot("exit", &[&format!("--code={code}")]);
        assert_eq!(status, Some(code), "{console}");
    }
}

#[test]
fn every_c_symbol_answers_as_it_should() {
    let (status, console) = boot("symbols", &[]);
    assert!(console.contains("all symbols answer as they should"), "{console}");
    assert_eq!(status, Some(0), "{console}");
}

/// Memory is moved in another way where the processor is not known to be emulated.
#[test]
fn every_c_symbol_answers_on_a_processor_that_says_nothing_of_qemu() {
    let image = build("tests/programs", "virtio");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args("-M q35,usb=off,smbus=off,sata=off -accel tcg".split(' '));
    qemu.args("-cpu max,tcg-cpuid=off,model-id=unnamed -m 64M -nodefaults".split(' '));
    qemu.args("-no-user-config -no-reboot -display none -serial stdio".split(' '));
    qemu.args("-device isa-debug-exit,iobase=0xf4,iosize=0x04".split(' '));
    qemu.arg("-kernel").arg(image).args(["-append", "--way=symbols"]);
    let (_, console) = Machine::spawn(qemu).wait();
    assert!(console.contains("all symbols answer as they should"), "{console}");
}
