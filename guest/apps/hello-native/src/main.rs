//! `hello` without a VM around it, on one thread like the guest: what the VM costs is the difference.
//!
//! Listens on 127.0.0.1, port PORT (default: any free one), and prints the address.
#![forbid(unsafe_code)]

use std::env;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use embedded_io_async::{ErrorType, Read, Write};
use hello::{App, Crash, Platform, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::LocalSet;

struct Native {
    start: Instant,
}

impl Platform for Native {
    fn vm(&self) -> impl Display {
        "native"
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(duration)
    }

    fn spin(&self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    fn crash(&self, _how: Crash) -> ! {
        process::abort()
    }

    fn heap_used(&self) -> u64 {
        0
    }
}

/// tokio's stream with the traits that guests use.
struct Stream(TcpStream);

impl ErrorType for Stream {
    type Error = io::Error;
}

impl Read for Stream {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

impl Write for Stream {
    async fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }
}

async fn run() -> io::Result<()> {
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(io::Error::other)?,
        Err(_) => 0,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{}", listener.local_addr()?);
    let app = Rc::new(App::new(&env::var("GREETING").unwrap_or_else(|_| "hello".into())));
    let platform = Rc::new(Native { start: Instant::now() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (app, platform) = (Rc::clone(&app), Rc::clone(&platform));
        tokio::task::spawn_local(async move { serve(&mut Stream(stream), &app, &*platform).await });
    }
}

fn main() -> ExitCode {
    let result = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| LocalSet::new().block_on(&runtime, run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello-native: {error}");
            ExitCode::FAILURE
        }
    }
}
