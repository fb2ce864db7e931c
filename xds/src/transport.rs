//! placeholder
mod peer;
pub use self::peer::{Connection, Peer};
