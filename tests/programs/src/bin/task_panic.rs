//! A task panics; the others go on.
use std::time::Duration;

#[fata::main]
async fn main() {
    let other = tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        "the other task is alive"
    });
    let failed = tokio::spawn(async { None::<u32>.expect("this task is meant to panic") }).await;
    println!("panicked: {}", failed.is_err_and(|error| error.is_panic()));
    println!("{}", other.await.unwrap_or("lost"));
}
