//! The C symbols of an image, called the way `std` and C would, and compared with what a plain loop
//! or POSIX says. Any difference is a panic.

#![expect(clippy::undocumented_unsafe_blocks, reason = "each call is C's contract, tried out")]
use std::ffi::{c_char, c_int, c_long, c_void};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    fn memset(to: *mut c_void, value: c_int, bytes: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, bytes: usize) -> c_int;
    fn bcmp(a: *const c_void, b: *const c_void, bytes: usize) -> c_int;
    fn memchr(memory: *const c_void, value: c_int, bytes: usize) -> *mut c_void;
    fn memrchr(memory: *const c_void, value: c_int, bytes: usize) -> *mut c_void;
    fn strlen(text: *const c_char) -> usize;
    fn strnlen(text: *const c_char, max: usize) -> usize;
    fn malloc(bytes: usize) -> *mut c_void;
    fn calloc(count: usize, bytes: usize) -> *mut c_void;
    fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn posix_memalign(place: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int;
    fn mmap64(a: *mut c_void, n: usize, p: c_int, f: c_int, d: c_int, o: i64) -> *mut c_void;
    fn munmap(a: *mut c_void, n: usize) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
    fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
    fn pthread_key_create(key: *mut u32, destructor: *const c_void) -> c_int;
    fn pthread_setspecific(key: u32, value: *const c_void) -> c_int;
    fn pthread_getspecific(key: u32) -> *mut c_void;
    fn getrandom(buffer: *mut u8, bytes: usize, flags: u32) -> isize;
    fn open64(path: *const c_char, flags: c_int, ...) -> c_int;
    fn close(descriptor: c_int) -> c_int;
    fn read(descriptor: c_int, buffer: *mut u8, bytes: usize) -> isize;
    fn sysconf(name: c_int) -> c_long;
    fn pow(x: f64, y: f64) -> f64;
    fn log2(x: f64) -> f64;
}

const ROOM: usize = 1024;
fn errno() -> c_int {
    unsafe { *__errno_location() }
}

/// A cheap pseudo-random sequence: the same every time.
struct Sequence(u64);
impl Sequence {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..ROOM).map(|i| (i * 7 + seed * 13 + (i >> 3)) as u8).collect()
}

fn copies() {
    let mut sequence = Sequence(1);
    let sizes: Vec<usize> = (0..300).chain([511, 512, 513, 640]).collect();
    for &bytes in &sizes {
        for round in 0..40 {
            let (from, to) = if round < 8 {
                (round, round * 3 % 17)
            } else {
                (sequence.next(ROOM - 700), sequence.next(ROOM - 700))
            };
            let mut ours = pattern(bytes);
            let mut expected = ours.clone();
            let source: Vec<u8> = expected[from..from + bytes].to_vec();
            for (i, byte) in source.iter().enumerate() {
                expected[to + i] = *byte;
            }
            let base = ours.as_mut_ptr();
            let result = unsafe { memmove(base.add(to).cast(), base.add(from).cast(), bytes) };
            assert_eq!(result as usize, base as usize + to);
            assert!(ours.iter().eq(expected.iter()), "memmove {bytes} {from} {to}");
            let fresh = pattern(bytes + 1);
            let mut ours = pattern(bytes);
            let mut expected = ours.clone();
            for i in 0..bytes {
                expected[to + i] = fresh[from + i];
            }
            unsafe {
                memcpy(ours.as_mut_ptr().add(to).cast(), fresh.as_ptr().add(from).cast(), bytes)
            };
            assert!(ours.iter().eq(expected.iter()), "memcpy {bytes} {from} {to}");
            let mut ours = pattern(bytes);
            let mut expected = ours.clone();
            for i in 0..bytes {
                expected[to + i] = 0xa5;
            }
            unsafe { memset(ours.as_mut_ptr().add(to).cast(), 0x1a5, bytes) };
            assert!(ours.iter().eq(expected.iter()), "memset {bytes} {to}");
        }
    }
}

fn comparisons() {
    let mut sequence = Sequence(2);
    for bytes in 0..200 {
        for _ in 0..60 {
            let (a_at, b_at) = (sequence.next(64), sequence.next(64));
            let mut a = pattern(3);
            let mut b = pattern(4);
            for i in 0..bytes {
                b[b_at + i] = a[a_at + i];
            }
            let differ = sequence.next(bytes + 3);
            if differ < bytes {
                b[b_at + differ] = b[b_at + differ].wrapping_add(1 + sequence.next(255) as u8);
            }
            if differ + 1 < bytes {
                a[a_at + differ + 1] ^= sequence.next(2) as u8;
            }
            let mut expected = 0;
            for i in 0..bytes {
                if a[a_at + i] != b[b_at + i] {
                    expected = if a[a_at + i] < b[b_at + i] { -1 } else { 1 };
                    break;
                }
            }
            let (pa, pb) = unsafe { (a.as_ptr().add(a_at).cast(), b.as_ptr().add(b_at).cast()) };
            assert_eq!(
                unsafe { memcmp(pa, pb, bytes) }.signum(),
                expected,
                "memcmp {bytes} at {differ}"
            );
            assert_eq!(unsafe { bcmp(pa, pb, bytes) } != 0, expected != 0);
            let needle = a[a_at + differ.min(bytes)];
            let first = (0..bytes).find(|i| a[a_at + i] == needle).map_or(0, |i| pa as usize + i);
            let last =
                (0..bytes).rev().find(|i| a[a_at + i] == needle).map_or(0, |i| pa as usize + i);
            assert_eq!(
                unsafe { memchr(pa, c_int::from(needle), bytes) } as usize,
                first,
                "memchr {bytes}"
            );
            assert_eq!(
                unsafe { memrchr(pa, c_int::from(needle), bytes) } as usize,
                last,
                "memrchr {bytes}"
            );
        }
    }
    for at in 0..40 {
        for bytes in 0..80 {
            let mut text = vec![0u8; at];
            text.extend(vec![b'x'; bytes]);
            text.extend([0, b'y', 0]);
            unsafe {
                assert_eq!(strlen(text.as_ptr().add(at).cast()), bytes);
                assert_eq!(strnlen(text.as_ptr().add(at).cast(), bytes + 1), bytes);
                assert_eq!(strnlen(text.as_ptr().add(at).cast(), bytes / 2), bytes / 2);
            }
        }
    }
}

fn heap() {
    unsafe {
        let mut sequence = Sequence(3);
        let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
        for round in 0..3000 {
            let bytes = sequence.next(2000);
            let fill = round as u8;
            match sequence.next(4) {
                0 | 1 => {
                    let p = malloc(bytes).cast::<u8>();
                    assert!(!p.is_null() && p as usize % 16 == 0);
                    p.write_bytes(fill, bytes);
                    live.push((p, bytes, fill));
                }
                2 if !live.is_empty() => {
                    let i = sequence.next(live.len());
                    let (p, n, f) = live.swap_remove(i);
                    for k in 0..n {
                        assert_eq!(*p.add(k), f)
                    }
                    free(p.cast());
                }
                3 if !live.is_empty() => {
                    let i = sequence.next(live.len());
                    let (p, n, f) = live[i];
                    let q = realloc(p.cast(), bytes).cast::<u8>();
                    for k in 0..n.min(bytes) {
                        assert_eq!(*q.add(k), f)
                    }
                    q.write_bytes(f, bytes);
                    live[i] = (q, bytes, f);
                }
                _ => {}
            }
        }
        for (p, ..) in live {
            free(p.cast())
        }
        free(std::ptr::null_mut());
        let zeroed = calloc(33, 7).cast::<u8>();
        for i in 0..231 {
            assert_eq!(*zeroed.add(i), 0)
        }
        free(zeroed.cast());
        assert!(std::hint::black_box(calloc(usize::MAX, 2)).is_null());
        assert_eq!(errno(), 12);
        assert!(std::hint::black_box(malloc(1 << 45)).is_null());
        assert_eq!(errno(), 12);
        for shift in 3..13 {
            let mut p = std::ptr::null_mut();
            assert_eq!(posix_memalign(&mut p, 1 << shift, 100), 0);
            assert_eq!(p as usize % (1 << shift), 0);
            p.cast::<u8>().write_bytes(1, 100);
            free(p)
        }
        let mut p = std::ptr::null_mut();
        assert_eq!(posix_memalign(&mut p, 24, 1), 22);
        let m = mmap64(std::ptr::null_mut(), 5000, 3, 0x22, -1, 0);
        assert_eq!(m as usize % 4096, 0);
        for i in 0..8192 {
            assert_eq!(*m.cast::<u8>().add(i), 0)
        }
        assert_eq!(munmap(m, 5000), 0);
        assert_eq!(mmap64(std::ptr::null_mut(), 4096, 7, 0x22, -1, 0) as isize, -1);
        assert_eq!(errno(), 1);
        assert_eq!(mmap64(std::ptr::null_mut(), 4096, 1, 2, 5, 0) as isize, -1);
        assert_eq!(errno(), 9);
    }
    assert!(Vec::<u8>::new().try_reserve(1 << 45).is_err());
}

fn futexes_and_time() {
    let word = 7u32;
    unsafe {
        assert_eq!(syscall(202, &word, 128, 8u32, 0usize, 0usize, 0u32), -1);
        assert_eq!(errno(), 11);
        let wait = [0i64, 20_000_000];
        let before = Instant::now();
        assert_eq!(syscall(202, &word, 128, 7u32, &wait, 0usize, 0u32), -1);
        assert_eq!(errno(), 110);
        assert!(
            before.elapsed() >= Duration::from_millis(20)
                && before.elapsed() < Duration::from_millis(500)
        );
        let mut now = [0i64; 2];
        assert_eq!(clock_gettime(1, &mut now), 0);
        let deadline = [now[0], now[1] + 30_000_000];
        let deadline = if deadline[1] >= 1_000_000_000 {
            [deadline[0] + 1, deadline[1] - 1_000_000_000]
        } else {
            deadline
        };
        assert_eq!(syscall(202, &word, 128 | 9, 7u32, &deadline, 0usize, u32::MAX), -1);
        assert_eq!(errno(), 110);
        assert!(before.elapsed() >= Duration::from_millis(50));
        let bad = [0i64, 1_000_000_000];
        assert_eq!(syscall(202, &word, 128, 7u32, &bad, 0usize, 0u32), -1);
        assert_eq!(errno(), 22);
        assert_eq!(syscall(202, &word, 128 | 1, 1u32, 0usize, 0usize, 0u32), 0);
        assert_eq!(syscall(9999), -1);
        assert_eq!(errno(), 38);
        assert_eq!(clock_gettime(77, &mut now), -1);
        assert_eq!(errno(), 22);
        assert_eq!(sysconf(30), 4096);
        assert_eq!(sysconf(84), 1);
        assert_eq!(sysconf(12345), -1);
    }
    let mut last = Instant::now();
    for _ in 0..100_000 {
        let now = Instant::now();
        assert!(now >= last);
        last = now;
    }
    let before = Instant::now();
    std::thread::sleep(Duration::from_millis(30));
    assert!(before.elapsed() >= Duration::from_millis(30));
}

fn the_rest() {
    unsafe {
        let (mut a, mut b) = (0, 0);
        assert_eq!(pthread_key_create(&mut a, std::ptr::null()), 0);
        assert_eq!(pthread_key_create(&mut b, std::ptr::null()), 0);
        assert!(a != 0 && b != 0 && a != b);
        assert!(pthread_getspecific(a).is_null());
        assert_eq!(pthread_setspecific(a, 5 as _), 0);
        assert_eq!(pthread_getspecific(a) as usize, 5);
        assert!(pthread_getspecific(b).is_null());
        assert_eq!(pthread_setspecific(0, std::ptr::null()), 22);
        let (mut x, mut y) = ([0u8; 64], [0u8; 64]);
        assert_eq!(getrandom(x.as_mut_ptr(), 64, 0), 64);
        assert_eq!(getrandom(y.as_mut_ptr(), 64, 0), 64);
        assert_ne!(x, y);
        assert_eq!(open64(c"/etc/passwd".as_ptr(), 0), -1);
        assert_eq!(errno(), 2);
        assert_eq!(close(77), -1);
        assert_eq!(errno(), 9);
        assert_eq!(read(0, x.as_mut_ptr(), 1), 0);
        assert_eq!(read(7, x.as_mut_ptr(), 1), -1);
        assert_eq!(pow(2.0, 10.0), 1024.0);
        assert_eq!(log2(8.0), 3.0);
    }
    assert_eq!(
        std::thread::Builder::new().spawn(|| ()).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert_eq!(std::fs::read("x").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(std::net::TcpListener::bind("0.0.0.0:1").is_err());
    assert!("example.org:80".parse::<std::net::SocketAddr>().is_err());
    assert!(std::net::ToSocketAddrs::to_socket_addrs("example.org:80").is_err());
    assert!(std::process::Command::new("x").status().is_err());
    assert!(
        std::env::current_dir().is_err()
            && std::env::current_exe().is_err()
            && std::fs::read_dir("/").is_err()
    );
    assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
    unsafe {
        std::env::set_var("COLOUR", "blue");
    }
    assert_eq!(std::env::var("COLOUR").unwrap(), "blue");
    unsafe {
        std::env::remove_var("COLOUR");
    }
    assert!(std::env::var("COLOUR").is_err());
    assert_eq!(std::env::args().next().as_deref(), Some("fata"));
    std::panic::set_hook(Box::new(|_| ()));
    let caught = std::panic::catch_unwind(|| {
        let _a = vec![1];
        panic!("caught")
    });
    assert!(caught.is_err());
    let _ = std::panic::take_hook();
}

/// Tries them all.
pub fn run() {
    copies();
    comparisons();
    heap();
    futexes_and_time();
    the_rest();
    println!("all symbols answer as they should");
}
