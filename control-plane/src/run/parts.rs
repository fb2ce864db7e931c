use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// The parts of the process that run until it ends, by name.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part that cannot fail.
    pub(super) fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.try_spawn(name, async move {
            part.await;
            Ok(())
        });
    }

    /// Starts a part.
    pub(super) fn try_spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits until a part ends before it is told to, which none should; the error names it and says why.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let (name, error) = self.said(ended);
                match error {
                    Some(error) => error.context(format!("{name} ended by itself")),
                    None => anyhow::anyhow!("{name} ended by itself"),
                }
            }
            // Of no parts none ends.
            None => std::future::pending().await,
        }
    }

    /// Waits for all parts, after they were told to end.
    pub(super) async fn finish(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let (name, Some(error)) = self.said(ended) {
                tracing::warn!(part = name, error = format!("{error:#}"), "a part did not end in order");
            }
        }
    }

    /// The parts that still run, by name.
    pub(super) fn running(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.names.values().copied().collect();
        names.sort_unstable();
        names
    }

    fn said(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> (&'static str, Option<anyhow::Error>) {
        let (id, error) = match ended {
            Ok((id, ended)) => (id, ended.err()),
            Err(error) => (error.id(), Some(error.into())),
        };
        (self.names.remove(&id).unwrap_or("a part"), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_part_that_ends_is_named() {
        let mut parts = Parts::default();
        parts.spawn("the scraper", std::future::pending());
        parts.spawn("the watch", async {});
        assert_eq!(parts.ended().await.to_string(), "the watch ended by itself");
        parts.try_spawn("the server", async { Err(anyhow::anyhow!("no socket")) });
        assert_eq!(format!("{:#}", parts.ended().await), "the server ended by itself: no socket");
        parts.spawn("the assembly", async { panic!("out of bounds") });
        let error = format!("{:#}", parts.ended().await);
        assert!(error.starts_with("the assembly ended by itself: ") && error.contains("panicked"), "{error}");
        assert_eq!(parts.running(), ["the scraper"]);
    }
}
