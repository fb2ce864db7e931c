//! The recorded series and request sizes that are compiled in.

/// Mean demand per window of ten minutes, in requests per second, with gaps where nothing was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandSeries {
    rps: Vec<Option<f64>>,
}

/// Lengths of one recorded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSize {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// A recorded series, or a replay of one, that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SeriesError {
    /// A line does not have two numbers.
    #[error("line {line}: `{text}` is not two numbers")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The line as it stands.
        text: String,
    },
    /// The cut lies outside the series.
    #[error("window {window} is outside a series of {len} windows")]
    NoWindow {
        /// The window asked for.
        window: usize,
        /// Windows in the series.
        len: usize,
    },
    /// The scale is not a positive number.
    #[error("scale {0} is not a positive number")]
    Scale(f64),
    /// The anchor is not on the grid of steps.
    #[error("anchor {anchor_unix_s} s is not a whole number of steps of {step_seconds} s")]
    Anchor {
        /// The anchor asked for, Unix seconds.
        anchor_unix_s: i64,
        /// Length of a step.
        step_seconds: u32,
    },
}

impl DemandSeries {
    /// Returns the series with the larger ramp: about ×2.3 within six windows of window 1697.
    ///
    /// # Errors
    ///
    /// When the compiled-in data is damaged.
    pub fn large() -> Result<Self, SeriesError> {
        Self::parse(include_str!("../data/demand_large.csv"))
    }

    /// Returns the series of the smaller client: about ×2.7 within six windows of window 1632.
    ///
    /// # Errors
    ///
    /// When the compiled-in data is damaged.
    pub fn small() -> Result<Self, SeriesError> {
        Self::parse(include_str!("../data/demand_small.csv"))
    }

    /// Reads `timestamp_s,rps` with a header line, one line per window in order; an empty `rps` is a gap.
    ///
    /// # Errors
    ///
    /// When a line is not two numbers, naming the line.
    pub fn parse(csv: &str) -> Result<Self, SeriesError> {
        let mut rps = Vec::new();
        for (line, text) in data_lines(csv) {
            let error = || SeriesError::Line { line, text: text.to_owned() };
            let (timestamp, value) = text.split_once(',').ok_or_else(error)?;
            timestamp.parse::<u64>().map_err(|_| error())?;
            rps.push(match value {
                "" => None,
                value => {
                    let value = value.parse::<f64>().map_err(|_| error())?;
                    Some(value).filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(error)?.into()
                }
            });
        }
        Ok(Self { rps })
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.rps.len()
    }

    /// True when the series has no window.
    pub fn is_empty(&self) -> bool {
        self.rps.is_empty()
    }

    /// The rate of a window, or nothing outside the series and in its gaps.
    pub fn get(&self, window: usize) -> Option<f64> {
        self.rps.get(window).copied().flatten()
    }
}

/// Returns the recorded request sizes in the order of their arrival.
///
/// # Errors
///
/// When the compiled-in data is damaged.
pub fn request_sizes() -> Result<Vec<RequestSize>, SeriesError> {
    parse_sizes(include_str!("../data/request_sizes.csv"))
}

/// Returns the recorded sizes of a chat service, in the order of arrival: prompts with a heavy tail, long answers.
///
/// # Errors
///
/// When the compiled-in data is damaged.
pub fn heavy_request_sizes() -> Result<Vec<RequestSize>, SeriesError> {
    parse_sizes(include_str!("../data/request_sizes_heavy.csv"))
}

fn parse_sizes(csv: &str) -> Result<Vec<RequestSize>, SeriesError> {
    let mut sizes = Vec::new();
    for (line, text) in data_lines(csv) {
        let error = || SeriesError::Line { line, text: text.to_owned() };
        let (prompt, output) = text.split_once(',').ok_or_else(error)?;
        sizes.push(RequestSize {
            prompt_tokens: prompt.parse().map_err(|_| error())?,
            output_tokens: output.parse().map_err(|_| error())?,
        });
    }
    Ok(sizes)
}

fn data_lines(csv: &str) -> impl Iterator<Item = (usize, &str)> {
    csv.lines().enumerate().skip(1).map(|(index, text)| (index + 1, text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_recorded_series_cover_two_weeks() {
        for series in [DemandSeries::large().unwrap(), DemandSeries::small().unwrap()] {
            assert_eq!(series.len(), 2016);
            assert!((0..series.len()).any(|window| series.get(window).is_none()), "outages stay gaps");
        }
    }

    #[test]
    fn recorded_requests_have_tokens() {
        for (sizes, count) in [(request_sizes(), 3000), (heavy_request_sizes(), 4000)] {
            let sizes = sizes.unwrap();
            assert_eq!(sizes.len(), count);
            assert!(sizes.iter().all(|size| size.prompt_tokens > 0 && size.output_tokens > 0));
        }
    }

    #[test]
    fn a_damaged_line_is_named() {
        let error = DemandSeries::parse("timestamp_s,rps\n0,1.5\n600,many\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3: `600,many` is not two numbers");
    }
}
