use super::report::{Report, show};
use super::{Map, MergeOptions, Tree};
use crate::compile::bootstrap::admin_interface;

/// Who the Envoy is, and its admin interface.
pub(super) fn merge(root: &mut Map, options: &MergeOptions, report: &mut Report) {
    let asked = &options.node;
    let Some(node) = report.child(root, "", "node") else { return };
    for (field, wanted, default, option) in [
        ("id", &asked.id, &options.default_node_id, "--node-id"),
        ("cluster", &asked.cluster, &options.default_node_cluster, "--node-cluster"),
    ] {
        match wanted {
            Some(wanted) => report.settle(node, "node", field, wanted, option),
            None if node.get(field).is_none_or(|found| found.as_text() == Some("")) => {
                node.set(field, default.as_str().into());
                report.change(format!("node.{field}: set to {default:?}; choose it with {option}"));
            }
            None => {}
        }
    }
    let places = [("region", &asked.region, "--region"), ("zone", &asked.zone, "--zone")];
    if places.iter().any(|(_, wanted, _)| wanted.is_some())
        && let Some(locality) = report.child(node, "node", "locality")
    {
        for (field, wanted, option) in places {
            if let Some(wanted) = wanted {
                report.settle(locality, "node.locality", field, wanted, option);
            }
        }
    }
    admin(root, options, report);
}

fn admin(root: &mut Map, options: &MergeOptions, report: &mut Report) {
    let Some(wanted) = options.admin else { return };
    let socket = |tree: &Tree| {
        let socket = tree.at(&["address", "socket_address"])?.as_map()?;
        Some(format!("{}:{}", socket.text("address")?, show(socket.get("port_value")?)))
    };
    let interface = Tree::from(admin_interface(wanted));
    let address = socket(&interface);
    match root.get("admin") {
        None => {
            root.set("admin", interface);
            report.change(format!("admin: added, on {wanted}"));
        }
        Some(found) if socket(found) == address => {}
        Some(found) => {
            let found = socket(found).unwrap_or_else(|| "something else".to_owned());
            let clash = format!("admin.address is {found}, and --admin says {wanted}");
            if report.may_replace(&clash, "leave --admin out")
                && let Some(admin) = report.child(root, "", "admin")
                && let Some(address) = interface.at(&["address"])
            {
                admin.set("address", address.clone());
                report.change(format!("admin.address: set to {wanted}, was {found}"));
            }
        }
    }
}
