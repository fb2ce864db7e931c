//! tmp
use clairvoy_forecaster::{Backtest, DemandConfig, Grid, QUANTILES, Series, backtest};
use std::io::Write as _;
use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().collect();
    let column: usize = a.get(3).map_or(2, |v| v.parse().unwrap());
    let train: usize = a.get(4).map_or(1008, |v| v.parse().unwrap());
    let every: usize = a.get(5).map_or(7, |v| v.parse().unwrap());
    let mut all: Vec<Series> = Vec::new();
    for line in std::fs::read_to_string(&a[1])?.lines().skip(1) {
        let f: Vec<&str> = line.split(',').collect();
        let v = f[column].parse::<f64>().ok();
        match all.iter_mut().find(|s| s.name == f[1]) {
            Some(s) => s.values.push(v),
            None => all.push(Series { name: f[1].to_owned(), values: vec![v] }),
        }
    }
    let horizons = vec![1, 2, 3, 6, 36, 144];
    let how = Backtest {
        config: DemandConfig { grid: Grid { step_seconds: 600, season_steps: 144 }, horizons },
        train_steps: train,
        every_steps: every,
    };
    let t = Instant::now();
    let issues = backtest(&all, &how, |_, _| {})?;
    eprintln!("{:.1} s", t.elapsed().as_secs_f64());
    for s in clairvoy_forecaster::score(&all, &how, &issues) {
        println!(
            "{} {:.4} {:.4} pl {:.4} cov {:.4?} {:.4}",
            s.horizon_steps,
            s.wape,
            s.cwape,
            s.mean_pinball(),
            s.coverage,
            s.coverage_error
        );
    }
    for s in
        clairvoy_forecaster::score_reference(&all, &how, &issues, clairvoy_forecaster::Reference::LastValue)
    {
        println!("last {} {:.4} {:.4} pl {:.4}", s.horizon_steps, s.wape, s.cwape, s.mean_pinball());
    }
    for p in [clairvoy_forecaster::Policy::Reactive, clairvoy_forecaster::Policy::Hybrid(0.9)] {
        println!("{p:?} {:?}", clairvoy_forecaster::score_replicas(&all, &how, &issues, p, 5));
    }
    let mut o = std::io::BufWriter::new(std::fs::File::create(&a[2])?);
    writeln!(o, "model,origin_s,horizon_s,quantile,value")?;
    for i in issues {
        for (q, v) in QUANTILES.iter().zip(i.quantiles.values()).skip(1) {
            writeln!(
                o,
                "{},{},{},{},{:.4}",
                all[i.series].name,
                i.origin * 600,
                i.horizon_steps * 600,
                q,
                v
            )?;
        }
    }
    Ok(())
}
