//! The example guest: `hello` on the libOS.
#![cfg_attr(weir_guest, no_std, no_main)]

extern crate alloc;

use alloc::rc::Rc;
use core::fmt::Display;
use core::future::Future;
use core::time::Duration;

use hello::{App, Crash, Platform, serve};

const DEFAULT_PORT: u16 = 8080;

struct Guest;

impl Platform for Guest {
    fn vm(&self) -> impl Display {
        weir_libos::vm_id()
    }

    fn uptime(&self) -> Duration {
        weir_libos::now().since(weir_libos::Instant::from_nanos(0))
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        weir_libos::sleep(duration)
    }

    fn spin(&self, duration: Duration) {
        weir_libos::busy_wait(duration);
    }

    fn crash(&self, how: Crash) -> ! {
        match how {
            Crash::Panic => panic!("asked to"),
            Crash::Fault => weir_libos::fault(),
            Crash::Halt => weir_libos::halt(),
        }
    }

    fn heap_used(&self) -> u64 {
        weir_libos::heap_used() as u64
    }
}

async fn run() {
    let port = weir_libos::env("PORT").map_or(Ok(DEFAULT_PORT), str::parse);
    let listener = match port.clone().map(weir_libos::listen) {
        Ok(Ok(listener)) => listener,
        Ok(Err(error)) => panic!("listen: {error}"),
        Err(error) => panic!("PORT: {error}"),
    };
    weir_libos::log::info!("listening on port {}", port.unwrap_or(DEFAULT_PORT));
    let greeting = weir_libos::env("GREETING").unwrap_or("hello");
    let app = Rc::new(App::new(greeting));
    loop {
        let mut stream = listener.accept().await;
        let app = Rc::clone(&app);
        weir_libos::spawn(async move { serve(&mut stream, &app, &Guest).await }).detach();
    }
}

weir_libos::main!(run);
