use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::push::Surface;
use crate::push::doors::Full;

use super::site::{A, Site};

async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends a sample; whether it was answered, rather than the connection closed.
async fn is_answered(connection: &mut TcpStream) -> bool {
    let body = format!(r#"{{"backend":"{A}","queue_depth":1}}"#);
    let request = format!(
        "POST /api/v1/telemetry HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.is_ok_and(|_| answer == *b"HTTP/1.1 200")
}

#[tokio::test]
async fn connections_are_bounded_in_whole_and_by_peer() {
    let site = Site::new(|push| (push.max_connections, push.max_connections_per_peer) = (5, 3)).assemble();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(site.intake.clone().serve(listener, Surface::Http, None, stop.clone()));
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let mut connection = connect("127.0.0.2", address).await;
        assert!(is_answered(&mut connection).await);
        greedy.push(connection);
    }
    assert!(!is_answered(&mut connect("127.0.0.2", address).await).await, "the fourth of one address");
    let refused = |bound| site.metrics.connections_refused(bound);
    assert_eq!((refused(Full::Peer), refused(Full::All)), (1, 0));

    let mut others = Vec::new();
    for peer in ["127.0.0.3", "127.0.0.4"] {
        let mut connection = connect(peer, address).await;
        assert!(is_answered(&mut connection).await, "others are served all the same");
        others.push(connection);
    }
    assert!(!is_answered(&mut connect("127.0.0.5", address).await).await, "the sixth of all");
    assert_eq!((refused(Full::Peer), refused(Full::All)), (1, 1));

    drop(greedy);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_answered(&mut connect("127.0.0.2", address).await).await {
        assert!(Instant::now() < deadline, "there is room again");
    }
    drop(others);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), served).await.unwrap().unwrap();
}
