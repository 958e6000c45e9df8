//! The server under the simulators does what a test tells it to: what it is worth is what they are worth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::simulators::http::{Array, Fault, Reply, Request, Server, Trap};

/// Counts what it was told to do, and says what it heard.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Array for Counter {
    fn answer(&self, request: &Request) -> Reply {
        if request.is_mutation() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Reply::json(
            200,
            json!({"path": request.path, "asked": request.asked("name"), "body": request.body, "at": request.address}),
        )
    }
}

fn client() -> reqwest::Client {
    // A connection that is kept would break, and not be refused.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0);
    let builder = builder.tls_backend_preconfigured(sanpath::tls::trust_nobody().unwrap());
    builder.retry(reqwest::retry::never()).build().unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_meant() {
    let server = Server::clear(Counter::default(), 2);
    let address = &server.addresses()[1];
    let url = format!("http://{address}/api/x%20y?name=%2Fvol%2F*&other=a+b");
    let sent = client().post(url).body(r#"{"size":"1"}"#).send().await;
    let text = sent.unwrap().text().await.unwrap();
    let heard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = json!({"path": "/api/x y", "asked": "/vol/*", "body": {"size": "1"}, "at": 1});
    assert_eq!(heard, expected);
    assert_eq!(server.take_seen()[0].asked("other"), Some("a b"));
}

#[tokio::test]
async fn an_address_fails_as_it_was_told_to() {
    let server = Server::clear(Counter::default(), 2);
    let urls: Vec<String> = server
        .addresses()
        .iter()
        .map(|it| format!("http://{it}/"))
        .collect();
    let client = client();
    let done = || server.array.0.load(Ordering::SeqCst);
    let post = |url: &String| client.post(url).send();
    server.set(Trap::mutation(1, Fault::CutsReply));
    assert_eq!(post(&urls[0]).await.unwrap().status(), 200);
    let cut = post(&urls[0]).await.unwrap_err();
    assert!(!cut.is_connect(), "{cut}");
    assert_eq!(done(), 2, "carried out");
    assert!(server.clear_traps());
    server.set(Trap::mutation(0, Fault::CutsRequest));
    assert!(post(&urls[0]).await.is_err());
    assert_eq!(done(), 2, "not carried out");
    server.set(Trap::mutation(0, Fault::IsBusy));
    assert_eq!(post(&urls[0]).await.unwrap().status(), 503);
    assert_eq!(done(), 2);
    let late = Duration::from_millis(300);
    server.set(Trap::mutation(0, Fault::AnswersAfter(late)));
    let begun = Instant::now();
    assert_eq!(post(&urls[0]).await.unwrap().status(), 200);
    assert!(begun.elapsed() >= late);
    server.refuse(0);
    assert!(post(&urls[0]).await.unwrap_err().is_connect());
    assert_eq!(post(&urls[1]).await.unwrap().status(), 200);
    server.serve(0);
    assert_eq!(post(&urls[0]).await.unwrap().status(), 200);
    server.set(Trap::mutation(5, Fault::IsBusy));
    assert!(!server.clear_traps(), "never sprung");
}
