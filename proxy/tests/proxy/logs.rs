//! What is told of a request: to whoever reads the access log, and to the page that sent it.

use weir_config::model::LogFormat;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, get};
use crate::site::{Site, config, ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_combined_line_holds_whatever_clients_send() {
    let backend = Backend::start(|mut connection| async move {
        // Whatever comes, which is no UTF-8.
        while connection.some().await.is_some_and(|bytes| !bytes.is_empty()) {
            connection.answer(b"vm").await;
        }
    })
    .await;
    let mut config = config();
    config.access_log.format = LogFormat::Combined;
    let site = Site::start(config, ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    let request: &[u8] = b"GET /name HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
        referer: http://x/\" 200 5 \"\r\nuser-agent: \\\"\xff\xc3\xa4\t\r\n\r\n";
    client.send_bytes(request).await;
    assert_eq!(client.response().await.text(), "vm");
    let (_, text) = site.end_with_text().await;
    let (before, after) = text.trim_end().split_once(" - - [").unwrap();
    assert_eq!(before, "127.0.0.1");
    let (_time, line) = after.split_once(" +0000] ").unwrap();
    assert_eq!(line, r#""GET /name HTTP/1.1" 200 2 "http://x/\" 200 5 \"" "\\\"\xff\xc3\xa4""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_holds_failures() {
    let mut config = config();
    config.access_log.sample = weir_config::model::Thousandths(1);
    // Nobody listens there.
    let site = Site::start(config, ready("127.0.0.1:1".parse().unwrap())).await;
    let response = get(site.address, "/fails").await;
    assert!(response.status() >= 500, "{response:?}");
    let (_, log) = site.end().await;
    assert_eq!(log.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_say_where_the_time_went() {
    let backend = Backend::start(|mut connection| async move {
        while connection.head().await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\nserver-timing: db;dur=1\r\ncontent-length: 2\r\n\r\nvm";
            connection.send(answer).await;
        }
    })
    .await;
    let config =
        routed("[[route]]\npool = 'p'\nserver_timing = true\n[[route]]\npath = '/silent'\npool = 'p'\n");
    let site = Site::start(config, ready(backend.address)).await;
    let wakes = ["cold", "warm"];
    for wake in wakes {
        let response = get(site.address, "/").await;
        let values: Vec<_> =
            response.head.lines().filter_map(|line| line.strip_prefix("server-timing: ")).collect();
        assert_eq!((values.len(), values[0]), (2, "db;dur=1"), "{response:?}");
        let metrics: Vec<_> = values[1].split(", ").collect();
        assert_eq!(metrics[2], format!("wake;desc={wake}"));
        let duration = |metric: &str, name: &str| -> f64 {
            metric.strip_prefix(name).unwrap().strip_prefix(";dur=").unwrap().parse().unwrap()
        };
        let (all, queue) = (duration(metrics[0], "weir"), duration(metrics[1], "queue"));
        assert!((all - queue - duration(metrics[3], "upstream")).abs() < 0.01, "{metrics:?}");
    }
    assert_eq!(get(site.address, "/silent").await.header("server-timing"), Some("db;dur=1"));
}
