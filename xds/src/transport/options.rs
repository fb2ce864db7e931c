//! Options of the transport.

use std::num::NonZeroU32;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::ServeError;
use super::metrics::TransportMetrics;
use super::rate::RateLimit;
use super::tls::Tls;

/// A fleet that comes back at once is within the burst; a client in a reconnect loop is not for long.
const NEW_STREAMS: RateLimit =
    RateLimit { per_second: NonZeroU32::new(1000).unwrap(), burst: NonZeroU32::new(10_000).unwrap() };

/// How connections are served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransportOptions {
    /// TLS, if any. `None` by default: cleartext HTTP/2, for loopback or behind something that encrypts.
    pub tls: Option<Tls>,
    /// A ping is sent after this time without requests. 30 s by default: some middleboxes forget connections
    /// after a minute without traffic.
    pub keepalive_interval: Duration,
    /// A connection whose client does not answer a ping for this time is dropped, with its streams. 10 s by
    /// default. It is dropped as well when no byte could be written to it for `keepalive_interval` and this.
    pub keepalive_timeout: Duration,
    /// Time from the connection to the first bytes of HTTP/2, the TLS handshake included; connections that
    /// take longer are dropped. 10 s by default, enough for several lost packets.
    pub handshake_timeout: Duration,
    /// Time from the connection to its first stream that is accepted; one that has none by then is told to end. 60 s
    /// by default: a client opens its stream at once.
    pub first_stream_timeout: Duration,
    /// Bytes that a client may send on one stream before they are read: 1 to 2,147,483,647, 256 KiB by
    /// default. Not a limit of a request: larger ones flow as they are read.
    pub initial_stream_window_bytes: u32,
    /// The same for all streams of a connection together: 65,535 to 2,147,483,647, 1 MiB by default. It
    /// bounds what one client can make the server hold before requests are looked at.
    pub initial_connection_window_bytes: u32,
    /// Bytes of responses that wait in a stream for a client that does not read, beyond those of one
    /// message: 1 to 4,294,967,295, 128 KiB by default. Larger is faster where the network is long, and
    /// costs as much for each slow client.
    pub max_send_buffer_bytes: u32,
    /// Bytes of one frame that a client may send: 16,384 to 16,777,215, 16 KiB by default, the least there
    /// is, since a connection's read buffer grows to it. The client says how large frames of responses may be.
    pub max_frame_bytes: u32,
    /// Streams open at a time on one connection; a client waits, or opens another connection, for more. 1,000
    /// by default: gRPC clients of one process share a connection.
    pub max_concurrent_streams: u32,
    /// Bytes of all headers of one request, beyond which it is refused. 16 KiB by default, twice what gRPC
    /// implementations let through.
    pub max_header_list_bytes: u32,
    /// Bytes of header compression state that a client may make the server keep for a connection. 4,096 by
    /// default, as the protocol has it: streams are few and long, so more gains nothing.
    pub header_table_bytes: u32,
    /// Connections at a time; more are closed at once. 10,000 by default, as many as there are streams by
    /// default. Each one takes a file descriptor, of which a process often has only 1,024: raise that limit.
    pub max_connections: usize,
    /// Connections of one peer at a time, an IPv4 address or a /64 of IPv6; more are closed at once. No limit of its own
    /// by default: a whole fleet may come through one address.
    pub max_connections_per_peer: usize,
    /// New connections per second; more are closed before TLS begins. `None` by default: no limit. Of use
    /// with TLS, whose handshake costs about a millisecond of CPU.
    pub new_connections: Option<RateLimit>,
    /// New streams per second, of all connections together; more are answered with `RESOURCE_EXHAUSTED`. 1,000
    /// with a burst of 10,000 by default, so that a whole fleet can come at once, but not again and again.
    pub new_streams: Option<RateLimit>,
    /// Age at which a client is told to open a new connection, so that clients spread over new replicas.
    /// `None` by default: connections stay.
    pub max_connection_age: Option<Duration>,
    /// By which part of itself the age varies, 0 to 1, so that connections that came together do not go
    /// together: 0.2, the default, is between 0.8 and 1.2 times the age.
    pub connection_age_jitter: f64,
    /// On shutdown, streams are ended one connection after the other over this time, so that other replicas
    /// do not get all clients at once. 5 s by default.
    pub drain: Duration,
    /// A connection whose streams were told to end, by age or shutdown, is cut off after this time. 5 s by
    /// default. Shutdown takes at most `drain` and this.
    pub grace: Duration,
    /// Where jitter begins. Random by default, so that replicas differ; the same number gives the same times.
    pub seed: u64,
    /// Counters. Not exported by default.
    pub metrics: TransportMetrics,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            tls: None,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            first_stream_timeout: Duration::from_secs(60),
            initial_stream_window_bytes: 256 << 10,
            initial_connection_window_bytes: 1 << 20,
            max_send_buffer_bytes: 128 << 10,
            max_frame_bytes: 16 << 10,
            max_concurrent_streams: 1000,
            max_header_list_bytes: 16 << 10,
            header_table_bytes: 4096,
            max_connections: 10_000,
            max_connections_per_peer: usize::MAX,
            new_connections: None,
            new_streams: Some(NEW_STREAMS),
            max_connection_age: None,
            connection_age_jitter: 0.2,
            drain: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            seed: rand::random(),
            metrics: TransportMetrics::default(),
        }
    }
}

impl TransportOptions {
    pub(super) fn check(&self) -> Result<(), ServeError> {
        let window = (1 << 31) - 1;
        let sizes = [
            ("initial_stream_window_bytes", self.initial_stream_window_bytes, 1, window),
            ("initial_connection_window_bytes", self.initial_connection_window_bytes, 65_535, window),
            ("max_send_buffer_bytes", self.max_send_buffer_bytes, 1, u32::MAX),
            ("max_frame_bytes", self.max_frame_bytes, 16_384, (1 << 24) - 1),
            ("max_concurrent_streams", self.max_concurrent_streams, 1, u32::MAX),
        ];
        for (option, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                let reason = format!("not between {least} and {most}");
                return Err(ServeError::Option { option, value: value.to_string(), reason });
            }
        }
        let times = [
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("first_stream_timeout", self.first_stream_timeout),
        ];
        for (option, value) in times {
            if value.is_zero() {
                let reason = "no time at all".into();
                return Err(ServeError::Option { option, value: format!("{value:?}"), reason });
            }
        }
        if !(0.0..=1.0).contains(&self.connection_age_jitter) {
            return Err(ServeError::Option {
                option: "connection_age_jitter",
                value: self.connection_age_jitter.to_string(),
                reason: "not between 0 and 1".into(),
            });
        }
        Ok(())
    }

    /// The age of a connection at its place between 0 and 1.
    pub(super) fn age_at(&self, place: f64) -> Option<Duration> {
        let factor = 1.0 + self.connection_age_jitter * (2.0 * place - 1.0);
        self.max_connection_age.map(|age| age.mul_f64(factor))
    }

    pub(super) fn write_timeout(&self) -> Duration {
        self.keepalive_interval + self.keepalive_timeout
    }

    pub(super) fn http2(&self) -> hyper::server::conn::http2::Builder<TokioExecutor> {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .initial_stream_window_size(self.initial_stream_window_bytes)
            .initial_connection_window_size(self.initial_connection_window_bytes)
            .max_send_buf_size(self.max_send_buffer_bytes as usize)
            .max_frame_size(self.max_frame_bytes)
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_header_list_size(self.max_header_list_bytes)
            .header_table_size(self.header_table_bytes)
            // Streams that end before they were looked at. The default of 20 is less than what a client that
            // opens and cancels streams in a row sends at once, and ends its connection.
            .max_pending_accept_reset_streams(self.max_concurrent_streams as usize)
            .auto_date_header(false);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_faults_are_named() {
        TransportOptions::default().check().unwrap();
        let options = TransportOptions { max_frame_bytes: 100, ..TransportOptions::default() };
        let message = options.check().unwrap_err().to_string();
        assert_eq!(message, "invalid max_frame_bytes 100: not between 16384 and 16777215");
        let options = TransportOptions { connection_age_jitter: f64::NAN, ..TransportOptions::default() };
        assert!(options.check().unwrap_err().to_string().starts_with("invalid connection_age_jitter NaN"));
    }

    #[test]
    fn ages_lie_around_the_maximum() {
        let age = |place| {
            let max_connection_age = Some(Duration::from_secs(100));
            TransportOptions { max_connection_age, ..TransportOptions::default() }.age_at(place).unwrap()
        };
        assert_eq!([age(0.0), age(0.5), age(1.0)].map(|age| age.as_secs_f64().round()), [80.0, 100.0, 120.0]);
        assert_eq!(TransportOptions::default().age_at(0.5), None);
    }
}
