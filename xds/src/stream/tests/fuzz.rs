//! Requests of any content: the state machine takes them or ends the stream, and always comes to rest.
//!
//! A few seconds by default, minutes with `CLAIRVOY_LONG=1`.

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use proptest::prelude::*;
use prost::Message;

use super::super::worlds::{World, cases, world};
use super::*;

/// Responses in a row before something must have gone wrong: a handful of types, each in halves, each again.
const ENDLESS: usize = 300;

#[derive(Clone, Debug)]
struct Said {
    type_url: String,
    names: Vec<String>,
    others: Vec<String>,
    nonce: Nonce,
    refuses: bool,
}

#[derive(Clone, Debug)]
enum Nonce {
    None,
    /// That of the last response.
    Last,
    Other(String),
}

#[derive(Clone, Debug)]
enum Step {
    Say(Said),
    Bytes(Vec<u8>),
    Publish(World),
    Respond,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let known = prop::sample::select(ResourceType::ALL.to_vec()).prop_map(|t| t.type_url().to_owned());
    let type_url = prop_oneof![12 => known, 1 => "[a-z/.]{0,10}"];
    let name = prop_oneof![
        4 => "cluster-[a-d]|routes-[a-b]|listener-[a-b]",
        1 => Just("*".to_owned()),
        1 => ".{0,6}",
    ];
    let names = || prop::collection::vec(name.clone(), 0..5);
    let nonce =
        prop_oneof![1 => Just(Nonce::None), 3 => Just(Nonce::Last), 1 => ".{0,6}".prop_map(Nonce::Other)];
    let said = (type_url, names(), names(), nonce, any::<bool>()).prop_map(
        |(type_url, names, others, nonce, refuses)| Said { type_url, names, others, nonce, refuses },
    );
    prop_oneof![
        8 => said.prop_map(Step::Say),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        2 => world().prop_map(Step::Publish),
        6 => Just(Step::Respond),
        1 => (0..40_000_u64).prop_map(Step::Wait),
    ]
}

/// The requests that say this.
fn requests(said: &Said, nonce: String) -> (DeltaDiscoveryRequest, DiscoveryRequest) {
    let Said { type_url, names, others, refuses, .. } = said.clone();
    let error_detail = refuses.then(|| Status { message: "fuzz".into(), ..Default::default() });
    let delta = DeltaDiscoveryRequest {
        type_url: type_url.clone(),
        resource_names_subscribe: names.clone(),
        resource_names_unsubscribe: others.clone(),
        initial_resource_versions: others.into_iter().map(|name| (name, "0".repeat(32))).collect(),
        response_nonce: nonce.clone(),
        error_detail: error_detail.clone(),
        ..Default::default()
    };
    let sotw = DiscoveryRequest {
        type_url,
        resource_names: names,
        response_nonce: nonce.clone(),
        version_info: nonce,
        error_detail,
        ..Default::default()
    };
    (delta, sotw)
}

struct Fuzzed {
    stream: Stream,
    newest: Option<Published>,
    now: Instant,
    last_nonce: String,
}

impl Fuzzed {
    /// False when the stream has to end.
    fn step(&mut self, step: &Step) -> bool {
        self.now += Duration::from_millis(1);
        match step {
            Step::Say(said) => {
                let nonce = match &said.nonce {
                    Nonce::None => String::new(),
                    Nonce::Last => self.last_nonce.clone(),
                    Nonce::Other(nonce) => nonce.clone(),
                };
                let (delta, sotw) = requests(said, nonce);
                return self.say(&delta, &sotw);
            }
            Step::Bytes(bytes) => {
                let (Ok(delta), Ok(sotw)) =
                    (DeltaDiscoveryRequest::decode(&**bytes), DiscoveryRequest::decode(&**bytes))
                else {
                    return true;
                };
                return self.say(&delta, &sotw);
            }
            Step::Publish(world) => self.newest = Some(Published::first(world.snapshot(), self.now)),
            Step::Respond => {
                self.respond();
            }
            Step::Wait(ms) => self.now += Duration::from_millis(*ms),
        }
        true
    }

    fn say(&mut self, delta: &DeltaDiscoveryRequest, sotw: &DiscoveryRequest) -> bool {
        match self.stream.variant {
            Variant::Delta => self.stream.delta_request(delta, self.now).is_ok(),
            Variant::Sotw => self.stream.sotw_request(sotw, self.now).is_ok(),
        }
    }

    fn respond(&mut self) -> bool {
        let Some(response) = self.stream.next_response(self.newest.as_ref(), self.now) else { return false };
        self.last_nonce = match self.stream.variant {
            Variant::Delta => decode::<DeltaDiscoveryResponse>(&response).nonce,
            Variant::Sotw => decode::<DiscoveryResponse>(&response).nonce,
        };
        true
    }
}

proptest! {
    #![proptest_config(cases(200, 20_000))]

    #[test]
    fn t5_no_requests_break_the_state_machine(
        is_delta in any::<bool>(),
        only in prop::option::of(prop::sample::select(ResourceType::ALL.to_vec())),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let variant = if is_delta { Variant::Delta } else { Variant::Sotw };
        let now = Instant::now();
        let stream = Stream::new(variant, only, "n", limits(), Arc::default(), now);
        let mut fuzzed = Fuzzed { stream, newest: None, now, last_nonce: String::new() };
        for step in &steps {
            if !fuzzed.step(step) {
                break;
            }
        }
        let mut responses = 0;
        while fuzzed.respond() {
            responses += 1;
            prop_assert!(responses < ENDLESS, "responses without end");
        }
        // Nothing is left that would wake the stream at once, again and again.
        prop_assert!(fuzzed.stream.deadline(fuzzed.newest.as_ref(), fuzzed.now).is_none_or(|at| at > fuzzed.now));
        for resource_type in ResourceType::ALL {
            if let Some(subscription) = fuzzed.stream.subscription(resource_type) {
                subscription.status();
            }
        }
    }
}
