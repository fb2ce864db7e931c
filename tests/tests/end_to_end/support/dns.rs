use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A DNS server on loopback that answers for whatever it is told. Dropping it ends it.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Zone {
    records: BTreeMap<(Name, RecordType), (u32, Vec<RData>)>,
    /// Answers to all questions, instead of the records.
    code: Option<ResponseCode>,
    asked: Vec<(RecordType, Instant)>,
}

impl Dns {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let task = tokio::spawn(answer(socket, Arc::clone(&zone)));
        Self { address, zone, task }
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes these the services of a name, each target with a name of its own.
    pub(crate) fn services(&self, name: &str, ttl: u32, backends: &[SocketAddr]) {
        let target = |backend: &SocketAddr| Name::from_ascii(format!("b{}.test.", backend.port())).unwrap();
        let services = backends.iter().map(|at| RData::SRV(SRV::new(0, 0, at.port(), target(at)))).collect();
        let mut zone = self.zone();
        zone.records.insert((Name::from_ascii(name).unwrap(), RecordType::SRV), (ttl, services));
        for backend in backends {
            let SocketAddr::V4(at) = backend else { panic!("only IPv4 here") };
            zone.records.insert((target(backend), RecordType::A), (3600, vec![RData::A(A(*at.ip()))]));
        }
    }

    /// Makes these the addresses of a name.
    pub(crate) fn addresses(&self, name: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        let addresses = addresses.iter().map(|ip| RData::A(A(*ip))).collect();
        self.zone().records.insert((Name::from_ascii(name).unwrap(), RecordType::A), (ttl, addresses));
    }

    /// Has all answers be of this code, or of the records again.
    pub(crate) fn fail(&self, code: Option<ResponseCode>) {
        self.zone().code = code;
    }

    /// When questions of a type came.
    pub(crate) fn asked(&self, record: RecordType) -> Vec<Instant> {
        self.zone().asked.iter().filter(|(of, _)| *of == record).map(|(_, at)| *at).collect()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let reply = reply(&question, &mut zone.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = socket.send_to(&reply, client).await;
    }
}

fn reply(question: &Message, zone: &mut Zone) -> Vec<u8> {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    let query = question.queries[0].clone();
    let mut name = query.name().to_lowercase();
    name.set_fqdn(true);
    zone.asked.push((query.query_type(), Instant::now()));
    reply.metadata.response_code = match (zone.code, zone.records.get(&(name.clone(), query.query_type()))) {
        (Some(code), _) => code,
        (None, Some((ttl, records))) => {
            reply
                .add_answers(records.iter().map(|data| Record::from_rdata(name.clone(), *ttl, data.clone())));
            ResponseCode::NoError
        }
        (None, None) if zone.records.keys().any(|(known, _)| *known == name) => ResponseCode::NoError,
        (None, None) => ResponseCode::NXDomain,
    };
    reply.add_query(query);
    reply.to_vec().unwrap()
}
