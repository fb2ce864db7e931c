use tokio::sync::mpsc;

use super::{Insight, Learner, Lesson};

/// Lessons that may wait: a few seconds of a large fleet. What comes when it is full is dropped and counted.
const QUEUE: usize = 20_000;

/// The way to the learner's thread.
#[derive(Clone)]
pub struct LearnerHandle {
    lessons: mpsc::Sender<Lesson>,
}

impl LearnerHandle {
    /// Sends a lesson; false when the learner is too far behind to take it.
    pub fn send(&self, lesson: Lesson) -> bool {
        self.lessons.try_send(lesson).is_ok()
    }
}

/// Runs a learner on a thread of its own until its handles are gone. Insights come back by the receiver.
pub fn spawn(mut learner: Learner) -> std::io::Result<(LearnerHandle, mpsc::Receiver<Insight>)> {
    let (lessons, mut inbox) = mpsc::channel(QUEUE);
    let (outbox, insights) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("learner".to_owned()).spawn(move || {
        while let Some(lesson) = inbox.blocking_recv() {
            for insight in learner.learn(lesson) {
                if outbox.blocking_send(insight).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok((LearnerHandle { lessons }, insights))
}
