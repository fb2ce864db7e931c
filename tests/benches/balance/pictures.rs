//! A picture of each cell: shares and times to the first token over time, policies side by side. Plain SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use clairvoy_tests::{Cell, CellResult, Gpu, SecondShare, per_second, quantile};

use crate::report::file_name;

const PANEL: f64 = 220.0;
const HEIGHT: f64 = 130.0;
const GAP: f64 = 18.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 52.0;
/// Seconds of one step of the curves: single ones have too few requests.
const BIN: usize = 4;
/// Of the four classes, fastest first; tell apart in print and by those who see no red.
const COLOURS: [&str; Gpu::ALL.len()] = ["#1b4f72", "#2e86c1", "#85c1e9", "#d6eaf8"];
/// Of the backend to which something happens.
const MARKED: &str = "#e67e22";

/// Draws a picture for each cell and seed into the folder.
pub(crate) fn draw(results: &[CellResult], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut cells: Vec<(Cell, u64)> = results.iter().map(|result| (result.cell, result.seed)).collect();
    cells.dedup();
    for (cell, seed) in cells {
        let of_cell = results.iter().filter(|result| result.cell == cell && result.seed == seed);
        let path = folder.join(file_name(cell, seed));
        fs::write(&path, picture(&cell.to_string(), &of_cell.collect::<Vec<_>>()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Times from `low` on a logarithmic scale, so that a queue and an idle fleet fit into one panel.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn y(&self, seconds: f64) -> f64 {
        let part = (seconds.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        HEIGHT * (1.0 - part.min(1.0))
    }
}

fn picture(cell: &str, results: &[&CellResult]) -> String {
    let width = LEFT + results.len() as f64 * (PANEL + GAP);
    let height = TOP + 2.0 * (HEIGHT + GAP) + 50.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{cell}</text>\n"
    );
    let seconds: Vec<Vec<SecondShare>> = results.iter().map(|result| per_second(result)).collect();
    let longest = seconds.iter().flatten().filter_map(|second| second.ttft_max).fold(1.0, f64::max);
    let scale = Scale { low: 0.1, high: 10f64.powf(longest.log10().ceil()) };
    axes(&mut svg, &scale);
    for (index, (result, seconds)) in results.iter().zip(&seconds).enumerate() {
        let x = LEFT + index as f64 * (PANEL + GAP);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>", TOP - 8.0, result.policy);
        let _ = writeln!(svg, "<g transform=\"translate({x:.1} {TOP})\">{}</g>", shares(result, seconds));
        let below = TOP + HEIGHT + GAP;
        let _ = writeln!(
            svg,
            "<g transform=\"translate({x:.1} {below:.1})\">{}</g>",
            times(result, seconds, &scale)
        );
    }
    legend(&mut svg, height - 14.0);
    svg + "</svg>\n"
}

fn axes(svg: &mut String, scale: &Scale) {
    for percent in [0, 50, 100] {
        let y = TOP + HEIGHT * (1.0 - f64::from(percent) / 100.0) + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{percent} %</text>",
            LEFT - 6.0
        );
    }
    let mut seconds = scale.low;
    while seconds <= scale.high * 1.001 {
        let y = TOP + HEIGHT + GAP + scale.y(seconds) + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{seconds} s</text>",
            LEFT - 6.0
        );
        seconds = (seconds * 100.0).round() / 10.0;
    }
}

/// Stacked shares of the classes; a backend to which something happens lies apart, at the bottom.
fn shares(result: &CellResult, seconds: &[SecondShare]) -> String {
    let marked: Vec<usize> = result.plan.events.iter().map(|event| event.machine).collect();
    let layer_of = |machine: usize| match marked.contains(&machine) {
        true => 0,
        false => 1 + result.machines[machine].class as usize,
    };
    let bins: Vec<[f64; 5]> = seconds
        .chunks(BIN)
        .map(|bin| {
            let mut counts = [0.0; 5];
            for (machine, count) in bin.iter().flat_map(|second| second.by_machine.iter().enumerate()) {
                counts[layer_of(machine)] += *count as f64;
            }
            let all = counts.iter().sum::<f64>().max(1.0);
            counts.map(|count| count / all)
        })
        .collect();
    let mut svg = String::new();
    let mut below = vec![0.0; bins.len()];
    for layer in 0..5 {
        let above: Vec<f64> = bins.iter().zip(&below).map(|(bin, below)| below + bin[layer]).collect();
        let x = |index: usize| PANEL * index as f64 / (bins.len().max(2) - 1) as f64;
        let point = |(index, share): (usize, &f64)| format!("{:.1},{:.1}", x(index), HEIGHT * (1.0 - share));
        let edge = above.iter().enumerate().map(point);
        let back: Vec<String> = below.iter().enumerate().map(point).collect();
        let points: Vec<String> = edge.chain(back.into_iter().rev()).collect();
        let colour = layer.checked_sub(1).map_or(MARKED, |class| COLOURS[class]);
        let _ = write!(svg, "<polygon fill=\"{colour}\" points=\"{}\"/>", points.join(" "));
        below = above;
    }
    svg + &frame(result)
}

/// The median and the 95th percentile of each step.
fn times(result: &CellResult, seconds: &[SecondShare], scale: &Scale) -> String {
    let mut steps = vec![Vec::new(); seconds.len().div_ceil(BIN)];
    for one in &result.served {
        if let Some(step) = steps.get_mut(one.at as usize / BIN) {
            step.push(one.ttft_seconds());
        }
    }
    steps.iter_mut().for_each(|step| step.sort_by(f64::total_cmp));
    let mut svg = String::new();
    for (level, colour) in [(0.5, COLOURS[1]), (0.95, COLOURS[0])] {
        let known = steps.iter().enumerate().filter(|(_, step)| !step.is_empty());
        let points = known.map(|(index, step)| {
            let x = PANEL * index as f64 / (steps.len().max(2) - 1) as f64;
            format!("{x:.1},{:.1}", scale.y(quantile(step, level)))
        });
        let points: Vec<String> = points.collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    let floor = scale.y(result.floor_seconds());
    let _ = write!(
        svg,
        "<line x1=\"0\" x2=\"{PANEL}\" y1=\"{floor:.1}\" y2=\"{floor:.1}\" stroke=\"#888\" stroke-dasharray=\"3 3\"/>"
    );
    let end = result.plan.measured_seconds;
    svg + &frame(result)
        + &format!(
            "<text x=\"0\" y=\"{0:.1}\">0</text><text x=\"{PANEL}\" y=\"{0:.1}\" text-anchor=\"end\">{end:.0} s</text>",
            HEIGHT + 13.0
        )
}

/// The border, and a line where something happens.
fn frame(result: &CellResult) -> String {
    let mut svg = format!("<rect width=\"{PANEL}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#444\"/>");
    if let Some(at) = result.plan.first_change() {
        let x = PANEL * at / result.plan.measured_seconds;
        let _ =
            write!(svg, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\" stroke=\"#c0392b\"/>");
    }
    svg
}

fn legend(svg: &mut String, y: f64) {
    let classes = Gpu::ALL.map(Gpu::name);
    let names = classes.iter().copied().zip(COLOURS).chain([("backends that change", MARKED)]);
    let mut x = LEFT;
    for (name, colour) in names {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{name}</text>",
            y - 9.0,
            x + 14.0
        );
        x += 30.0 + 7.0 * name.len() as f64;
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\">above: share of requests by class; below: TTFT, median and 95th percentile, dashed: floor</text>",
        y - 16.0
    );
}
