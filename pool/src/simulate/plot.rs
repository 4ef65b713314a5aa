//! A number over time in 80 columns of text.

use std::fmt;

/// Columns of the plot itself; the scale takes the rest.
const WIDTH: usize = 60;
/// Lines of the plot itself.
const HEIGHT: usize = 4;
/// From nothing to a whole character, in eighths.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// See the module's documentation.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// At equal distances.
    pub(super) values: &'a [f64],
    /// What reaches the top.
    pub(super) top: f64,
    /// Time at the right end, seconds.
    pub(super) end: f64,
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peak = self.values.iter().copied().fold(0.0, f64::max);
        writeln!(f, "{}, at most {peak:.1}", self.title)?;
        let eighths: Vec<_> = columns(self.values).map(|value| self.eighths(value)).collect();
        for line in (0..HEIGHT).rev() {
            let label = if line + 1 == HEIGHT { format!("{:.1}", self.top) } else { String::new() };
            let bar: String =
                eighths.iter().map(|total| BLOCKS[total.saturating_sub(line * 8).min(8)]).collect();
            writeln!(f, "{label:>8} {}", bar.trim_end())?;
        }
        write!(f, "{:>8} {:-<WIDTH$} {:.0} s", 0, "", self.end)
    }
}

impl Chart<'_> {
    /// Of the whole height; whatever is more than nothing is seen.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 8 times the height"
    )]
    fn eighths(&self, value: f64) -> usize {
        if value <= 0.0 || self.top <= 0.0 {
            return 0;
        }
        let whole = (HEIGHT * 8) as f64;
        (value / self.top * whole).round().clamp(1.0, whole) as usize
    }
}

/// The means over as many equal parts of the values as there are columns.
fn columns(values: &[f64]) -> impl Iterator<Item = f64> {
    (0..WIDTH.min(values.len() * WIDTH)).map(move |column| {
        let from = column * values.len() / WIDTH;
        let to = ((column + 1) * values.len() / WIDTH).max(from + 1);
        values[from..to].iter().sum::<f64>() / (to - from) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_drawn_in_eighths_of_characters() {
        let values: Vec<f64> = (0..u32::try_from(WIDTH).unwrap()).map(|n| f64::from(n * 32 / 59)).collect();
        let text = Chart { title: "x", values: &values, top: 32.0, end: 9.0 }.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "x, at most 32.0");
        assert!(lines[1].starts_with("    32.0 ") && lines[1].ends_with("▅▆▆▇█"), "{text}");
        assert!(lines[4].starts_with("           ▁▁▂▂▃▃▄"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn few_values_and_none_are_drawn() {
        let chart = |values: &[f64]| Chart { title: "x", values, top: 1.0, end: 1.0 }.to_string();
        assert_eq!(chart(&[1.0]).matches('█').count(), WIDTH * HEIGHT);
        assert_eq!(chart(&[1.0, 0.0]).matches('█').count(), WIDTH / 2 * HEIGHT);
        assert_eq!(chart(&[0.001, 0.0]).matches('▁').count(), WIDTH / 2);
        assert_eq!(chart(&[]).matches('█').count(), 0);
        assert_eq!(
            Chart { title: "x", values: &[0.0], top: 0.0, end: 1.0 }.to_string().matches('█').count(),
            0
        );
    }
}
