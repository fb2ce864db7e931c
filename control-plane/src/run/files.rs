use rustix::io::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for all connections that are let in, and for those to backends.
const ENOUGH: u64 = 65_536;

/// Raises the number of files and connections that the process may have open, as far as the system allows. Many systems begin
/// with 1,024.
pub(super) fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let Some(wanted) = wanted(before.current, before.maximum) else { return };
    let raised: Result<()> =
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: before.maximum });
    match raised {
        Ok(()) => tracing::debug!(from = before.current, to = wanted, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, limit = before.current, "cannot raise the limit of open files"),
    }
}

/// What the limit is to be, if it is to change; none stands for no limit.
fn wanted(current: Option<u64>, maximum: Option<u64>) -> Option<u64> {
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    current.is_some_and(|current| current < wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_files_is_raised_and_never_lowered() {
        assert_eq!(wanted(Some(1024), Some(1_000_000)), Some(ENOUGH));
        assert_eq!(wanted(Some(1024), None), Some(ENOUGH));
        assert_eq!(wanted(Some(1024), Some(4096)), Some(4096));
        assert_eq!(wanted(Some(1_000_000), Some(1_000_000)), None);
        assert_eq!(wanted(None, None), None);
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let reached = current.unwrap_or(u64::MAX);
        assert!(reached >= maximum.unwrap_or(u64::MAX).min(ENOUGH), "{reached}");
    }
}
