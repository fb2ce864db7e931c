//! A process that obeys orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process in one of the roles of this program. Killed when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a role with its arguments.
    pub(super) fn start(program: &Path, role: &str, args: &[(&str, String)], flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(role).args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in args {
            command.arg(name).arg(value);
        }
        let mut process = command.spawn().with_context(|| format!("cannot start the {role}"))?;
        let orders = process.stdin.take().context("a child without standard input")?;
        let answers = BufReader::new(process.stdout.take().context("a child without standard output")?);
        Ok(Self { process, orders, answers })
    }

    /// Gives an order and waits for the answer.
    pub(super) fn ask<R: DeserializeOwned>(&mut self, order: &impl Serialize) -> Result<R> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).context("a process ended early")?;
        self.answer()
    }

    /// Waits for an answer.
    pub(super) fn answer<R: DeserializeOwned>(&mut self) -> Result<R> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            anyhow::bail!("a process ended early");
        }
        serde_json::from_str(&line).with_context(|| format!("no such answer: {line}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
