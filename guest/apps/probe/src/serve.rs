//! Servers that work, more or less.

use alloc::rc::Rc;

use weir_libos::net::TcpListener;

use crate::http::Connection;
use crate::paths::State;

/// What a broken response promises, bytes.
const LONG: u64 = 1_000_000;

fn listen() -> TcpListener {
    match weir_libos::listen(crate::port()) {
        Ok(listener) => listener,
        Err(error) => panic!("listen: {error}"),
    }
}

/// Answers each request, as `paths` says.
pub(crate) async fn answer() {
    let listener = listen();
    let state = Rc::new(State::default());
    loop {
        let mut connection = Connection::new(listener.accept().await);
        let state = Rc::clone(&state);
        weir_libos::spawn(async move {
            while let Some(target) = connection.request().await {
                if state.answer(&mut connection, &target).await.is_err() {
                    break;
                }
            }
        })
        .detach();
    }
}

/// Accepts, reads, never answers.
pub(crate) async fn ignore() {
    let listener = listen();
    loop {
        let mut connection = Connection::new(listener.accept().await);
        weir_libos::spawn(async move { while connection.request().await.is_some() {} }).detach();
    }
}

/// Resets every connection.
pub(crate) async fn refuse() {
    let listener = listen();
    loop {
        listener.accept().await.abort();
    }
}

/// Never comes back from its first request.
pub(crate) async fn spin() {
    let listener = listen();
    loop {
        let mut connection = Connection::new(listener.accept().await);
        weir_libos::spawn(async move {
            if connection.request().await.is_some() {
                crate::spin()
            }
        })
        .detach();
    }
}

/// Crashes half-way through its first answer.
pub(crate) async fn die() {
    let mut connection = Connection::new(listen().accept().await);
    if connection.request().await.is_some() {
        // Whether the client still is there or not: the end is the same.
        let _ = connection.stream(LONG, LONG / 2).await;
    }
    // What was written leaves with the next PARK; a moment later nothing of it is left in here.
    weir_libos::sleep(core::time::Duration::from_millis(5)).await;
    panic!("asked to die in the middle of a response");
}
