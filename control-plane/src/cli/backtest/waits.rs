use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};

use clairvoy_forecaster::{
    WaitBacktest, WaitConfig, WaitRow, WaitScore, WaitState, WaitView, backtest_waits, last_observed_waits,
    little_waits, score_waits,
};

/// Ages of the state that are judged, in seconds.
const AGES_SECONDS: [f64; 3] = [0.0, 1.0, 5.0];

/// The most rows that are read.
const ROWS_MAX: usize = 10_000_000;

/// The record of one server.
type Server = (String, Vec<WaitRow>);

/// Forecasts every request of a record in both views, prints how good that was, and writes the forecasts of `view`.
pub(super) fn run(path: &Path, view: WaitView, out: Option<&mut impl Write>) -> anyhow::Result<()> {
    let servers = read(path).with_context(|| path.display().to_string())?;
    let mut rows = out.map(csv::Writer::from_writer);
    if let Some(rows) = &mut rows {
        rows.write_record(["server", "row", "age_s", "ttft_s", "ttft_q90_s"])?;
    }
    let mut text = format!(
        "{} servers, {} requests; the last three fifths of each are scored\n\nage   who{:26}WAPE  worst   rank  worst   <=q90\n",
        servers.len(),
        servers.iter().map(|(_, rows)| rows.len()).sum::<usize>(),
        ""
    );
    for age_seconds in AGES_SECONDS {
        for (name, asked) in
            [("router's view", WaitView::Router), ("control plane's view", WaitView::ControlPlane)]
        {
            let mut scores = Vec::new();
            for (server, requests) in &servers {
                let how = WaitBacktest { view: asked, age_seconds, config: WaitConfig::default() };
                let said = backtest_waits(requests, &how);
                let pairs: Vec<(f64, f64)> = said.iter().map(Into::into).collect();
                scores.extend(score_waits(requests, &pairs));
                if let Some(rows) = rows.as_mut().filter(|_| asked == view) {
                    for (row, (median, bound)) in pairs.iter().enumerate() {
                        let [row, age] = [row.to_string(), age_seconds.to_string()];
                        rows.write_record([server, &row, &age, &median.to_string(), &bound.to_string()])?;
                    }
                }
            }
            line(&mut text, age_seconds, name, &scores, true);
        }
        anchor(&mut text, age_seconds, "last observed TTFT", &servers, last_observed_waits);
        anchor(&mut text, age_seconds, "queue / completion rate", &servers, |rows| {
            little_waits(rows, age_seconds)
        });
    }
    if let Some(rows) = &mut rows {
        rows.flush()?;
    }
    text += "\nWAPE: absolute error of the median per second of wait; rank: Spearman's correlation of forecast and wait, by which\n\
             backends are told apart; mean over the servers, and the worst of them. <=q90: share of waits within the bound.\n";
    print!("{text}");
    Ok(())
}

fn anchor(text: &mut String, age: f64, name: &str, servers: &[Server], of: impl Fn(&[WaitRow]) -> Vec<f64>) {
    let alone = |rows: &[WaitRow]| of(rows).into_iter().map(|value| (value, value)).collect::<Vec<_>>();
    let scores: Vec<WaitScore> =
        servers.iter().filter_map(|(_, rows)| score_waits(rows, &alone(rows))).collect();
    line(text, age, name, &scores, false);
}

fn line(text: &mut String, age: f64, name: &str, scores: &[WaitScore], bounded: bool) {
    let Some(mean) = WaitScore::mean(scores) else { return };
    let worst_wape = scores.iter().map(|score| score.wape).fold(0.0, f64::max);
    let worst_rank = scores.iter().map(|score| score.spearman).fold(1.0, f64::min);
    let coverage = if bounded { format!("{:.3}", mean.coverage) } else { "–".to_owned() };
    let _ = writeln!(
        text,
        "{age:>2} s  {name:<26}  {:.3}  {worst_wape:.3}  {:.3}  {worst_rank:.3}   {coverage}",
        mean.wape, mean.spearman
    );
}

/// Reads a record; its servers in the order in which they come first.
fn read(path: &Path) -> anyhow::Result<Vec<Server>> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let place = |name: &str| header.iter().position(|found| found.trim() == name);
    let need = |name: &str| place(name).with_context(|| format!("there is no column `{name}`"));
    let (server, at, prompt, ttft) = (need("server")?, need("t_s")?, need("prompt_tokens")?, need("ttft_s")?);
    let state = [
        "waiting",
        "waiting_prompt_tokens",
        "running",
        "kv_usage",
        "itl_s",
        "gen_tps",
        "prefill_tps",
        "recent_wait_s",
        "recent_ttft_s",
    ]
    .map(place);
    let mut servers: Vec<Server> = Vec::new();
    let mut record = csv::StringRecord::new();
    let mut count = 0;
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        count += 1;
        if count > ROWS_MAX {
            bail!("more than {ROWS_MAX} rows");
        }
        let known = |place: usize| -> anyhow::Result<Option<f64>> {
            let text = record.get(place).unwrap_or("").trim();
            if text.is_empty() {
                return Ok(None);
            }
            let value: f64 = text.parse().with_context(|| format!("line {line}: `{text}` is no number"))?;
            Ok(Some(value).filter(|value| value.is_finite()))
        };
        let needed = |place: usize| known(place)?.with_context(|| format!("line {line}: a value is missing"));
        let optional = |index: usize| state[index].map_or(Ok(None), known);
        let row = WaitRow {
            at_seconds: needed(at)?,
            prompt_tokens: needed(prompt)?,
            ttft_seconds: needed(ttft)?,
            state: WaitState {
                waiting: optional(0)?,
                waiting_prompt_tokens: optional(1)?,
                running: optional(2)?,
                kv_used: optional(3)?,
                inter_token_seconds: optional(4)?,
                output_tps: optional(5)?,
                prompt_tps: optional(6)?,
                recent_wait_seconds: optional(7)?,
                recent_ttft_seconds: optional(8)?,
                ..WaitState::default()
            },
        };
        let name = record.get(server).unwrap_or("").trim();
        let rows = match servers.iter_mut().position(|(known, _)| known == name) {
            Some(index) => &mut servers[index].1,
            None => {
                servers.push((name.to_owned(), Vec::new()));
                let last = servers.len() - 1;
                &mut servers[last].1
            }
        };
        if rows.last().is_some_and(|last| last.at_seconds > row.at_seconds) {
            bail!("line {line}: {name} has an earlier request after a later one");
        }
        rows.push(row);
    }
    if servers.is_empty() {
        bail!("there are no requests in it");
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> anyhow::Result<Vec<Server>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn reads_what_is_there_and_leaves_the_rest_unknown() {
        let text = "server,t_s,waiting,kv_usage,prompt_tokens,ttft_s\na,0,3,,100,0.5\nb,1,,0.5,20,0.1\na,2,1,0.25,7,0.2\n";
        let servers = recorded(text).unwrap();
        assert_eq!(
            servers.iter().map(|(name, rows)| (&**name, rows.len())).collect::<Vec<_>>(),
            [("a", 2), ("b", 1)]
        );
        assert_eq!((servers[0].1[0].state.waiting, servers[0].1[0].state.kv_used), (Some(3.0), None));
        assert_eq!((servers[0].1[1].state.running, servers[0].1[1].ttft_seconds), (None, 0.2));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let fault = |text| format!("{:#}", recorded(text).unwrap_err());
        assert!(fault("server,t_s,ttft_s\n").contains("no column `prompt_tokens`"));
        let head = "server,t_s,prompt_tokens,ttft_s\n";
        assert!(fault(head).contains("no requests"));
        assert!(
            recorded(&format!("{head}a,0,1,x\n")).is_err_and(|e| format!("{e:#}").contains("line 2: `x`"))
        );
        let late = format!("{head}a,5,1,1\na,4,1,1\n");
        assert!(recorded(&late).is_err_and(|e| format!("{e:#}").contains("line 3: a has an earlier")));
    }
}
