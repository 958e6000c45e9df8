//! A store that is cut off in the middle of what is sent to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Bucket, Objects, Put, StoreError};
use crate::config::{Archive, ArchiveKind, S3};
use crate::host::Host;

/// As much of S3 as a put needs. So many puts end with their connection before anything is answered.
fn store(cuts: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let puts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&puts);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || attend(stream.unwrap(), &seen, cuts));
        }
    });
    (port, puts)
}

fn attend(stream: TcpStream, seen: &AtomicU32, cuts: u32) {
    let mut writing = stream.try_clone().unwrap();
    let mut reading = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reading.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.to_lowercase());
        }
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |it| it.trim().parse().unwrap());
        let is_put = head[0].starts_with("put ");
        if is_put && seen.fetch_add(1, Ordering::SeqCst) < cuts {
            return;
        }
        let mut content = vec![0; length];
        reading.read_exact(&mut content).unwrap();
        let (status, told) = match (is_put, head[0].contains("list-type=2")) {
            (true, _) => ("200 OK", String::new()),
            (false, true) => ("200 OK", "<ListBucketResult></ListBucketResult>".to_owned()),
            (false, false) => (
                "404 Not Found",
                "<Error><Code>NoSuchKey</Code></Error>".to_owned(),
            ),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        );
        writing.write_all(answer.as_bytes()).unwrap();
    }
}

fn opened(folder: &Path, port: u16) -> Bucket {
    std::fs::write(folder.join("AWS_ACCESS_KEY_ID"), "key").unwrap();
    std::fs::write(folder.join("AWS_SECRET_ACCESS_KEY"), "hunter2").unwrap();
    let archive = Archive {
        kind: ArchiveKind::S3(S3 {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "us-east-1".to_owned(),
            bucket: "snapshots".to_owned(),
            prefix: String::new(),
            credentials: folder.to_owned(),
            ca: None,
            path_style: true,
        }),
        transfers: 1,
        bytes_per_second: None,
        encryption_key: None,
    };
    let host = Host::real(Path::new("/"));
    Bucket::open(&host, &"away".parse().unwrap(), &archive).unwrap()
}

#[test]
fn a_put_outlives_each_connection_that_was_kept_open() {
    let folder = tempfile::tempdir().unwrap();
    let content = vec![7; 1 << 20];
    for cuts in [0, 1, 4] {
        let (port, puts) = store(cuts);
        let bucket = opened(folder.path(), port);
        assert_eq!(bucket.put("a", content.clone()).unwrap(), Put::Made);
        assert_eq!(puts.load(Ordering::SeqCst), cuts + 1);
    }
    // A store that never lets one through is told.
    let (port, _) = store(u32::MAX);
    let refused = opened(folder.path(), port).put("a", content).unwrap_err();
    assert!(
        matches!(refused, StoreError::Unreachable { .. }),
        "{refused}"
    );
}
