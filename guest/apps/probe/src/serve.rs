//! Servers that work, more or less. None of them reads more of a request than its arrival.

use embedded_io_async::{Read, Write};
use weir_libos::net::{TcpListener, TcpStream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-type: text/plain\r\n\r\nok\n";
const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\ncontent-type: text/plain\r\n\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Half of what `LONG` promises.
const HALF: usize = 500_000;

fn listen() -> TcpListener {
    match weir_libos::listen(crate::port()) {
        Ok(listener) => listener,
        Err(error) => panic!("listen: {error}"),
    }
}

/// Waits for the end of a request head; false: there will be none.
async fn request(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 512];
    let mut seen = 0;
    while seen < END_OF_HEAD.len() {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return false };
        for byte in &buffer[..length] {
            seen = match *byte {
                byte if seen < END_OF_HEAD.len() && byte == END_OF_HEAD[seen] => seen + 1,
                b'\r' => 1,
                _ => 0,
            };
        }
    }
    true
}

/// Answers each request.
pub(crate) async fn answer() {
    let listener = listen();
    loop {
        let mut stream = listener.accept().await;
        weir_libos::spawn(async move {
            while request(&mut stream).await && stream.write_all(OK).await.is_ok() {}
        })
        .detach();
    }
}

/// Accepts, reads, never answers.
pub(crate) async fn ignore() {
    let listener = listen();
    loop {
        let mut stream = listener.accept().await;
        weir_libos::spawn(async move { while request(&mut stream).await {} }).detach();
    }
}

/// Crashes half-way through its first answer.
pub(crate) async fn die() {
    let listener = listen();
    let mut stream = listener.accept().await;
    if request(&mut stream).await && stream.write_all(LONG).await.is_ok() {
        let block = [b'x'; 1000];
        for _ in 0..HALF / block.len() {
            if stream.write_all(&block).await.is_err() {
                break;
            }
        }
    }
    // What was written leaves with the next PARK; a moment later nothing of it is left in here.
    weir_libos::sleep(core::time::Duration::from_millis(5)).await;
    panic!("asked to die in the middle of a response");
}
