//! Each type from its own service: CDS, EDS, LDS, RDS, SDS and RTDS instead of ADS.

use std::time::Duration;

use crate::served::served;
use crate::stack::{self, Site};
use crate::{changes, faults, http, secrets};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_t1_separate_services_configure_change_and_heal() {
    for subscription in served(|subscription| !subscription.aggregated) {
        println!("with {subscription:?}");
        let port = http::origin("one").await;
        let site = Site::start(subscription, stack::stack(subscription, &[("a", port)], "a")).await;
        let listening = site.serves().await;

        let took = changes::change_cluster(&site, subscription, port).await;
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        faults::refuse_and_heal(&site, subscription, listening, port).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_t1_separate_services_serve_and_rotate_a_secret() {
    for subscription in served(|subscription| !subscription.aggregated) {
        println!("with {subscription:?}");
        secrets::rotate(subscription).await;
    }
}
