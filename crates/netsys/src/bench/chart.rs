//! The result as a picture: for each case the share of raw that is left, with its range.

use std::fmt::Display;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::error::{Context, Error, Result};
use super::plan::{Payload, Workload};
use super::report::{CaseReport, Report, Summary};
use super::roles::Implementation;
use super::table::short;

const ROW: u32 = 44;
const HEAD: u32 = 70;
const FOOT: u32 = 50;
const WIDTH: u32 = 960;
const LABELS: i32 = 250;
const FIGURES: i32 = 250;

const BAR: RGBColor = RGBColor(58, 124, 165);
const CEILING: RGBColor = RGBColor(150, 150, 150);

/// One bar.
struct Bar<'a> {
    case: &'a CaseReport,
    row: &'a Summary,
    median: f64,
    min: f64,
    max: f64,
}

/// Writes the chart of `report` to `path`.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let svg = render(report)?;
    std::fs::write(path, svg).context(format!("cannot write {}", path.display()))
}

/// The chart as SVG text.
fn render(report: &Report) -> Result<String> {
    let bars: Vec<Bar> = report.cases.iter().flat_map(bars).collect();
    let rows = u32::try_from(bars.len()).unwrap_or(u32::MAX);
    if rows == 0 {
        return Err(Error::Usage(
            "--svg shows shares of raw, and nothing has one".into(),
        ));
    }
    let mut svg = String::new();
    {
        let size = (WIDTH, HEAD + FOOT + ROW.saturating_mul(rows));
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area, report, &bars).map_err(|error| Error::Failed(format!("chart: {error}")))?;
    }
    Ok(svg)
}

/// The bars of one case: everyone but raw; only raw, when nobody else was measured.
fn bars(case: &CaseReport) -> Vec<Bar<'_>> {
    let raw = Implementation::Raw.name();
    let alone = case.summary.iter().all(|row| row.peer == raw);
    let rows = case.summary.iter().filter(|row| alone || row.peer != raw);
    rows.filter_map(|row| {
        let share = row.share_of_raw?;
        Some(Bar {
            case,
            row,
            median: share.median,
            min: share.min,
            max: share.max,
        })
    })
    .collect()
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Drawing<'_>, report: &Report, bars: &[Bar<'_>]) -> DrawResult {
    area.fill(&WHITE)?;
    let bottom = (HEAD + ROW * bars.len() as u32) as i32;
    let scale = Scale::over(bars);
    text(
        area,
        (16, 14),
        20,
        HPos::Left,
        "Share of raw sockets in the same run",
    )?;
    let machine = report
        .machine
        .cpu
        .as_deref()
        .unwrap_or(report.machine.architecture);
    let settings = &report.settings;
    let of_json = match settings.payload {
        Payload::Bytes => "",
        Payload::Json => " of JSON",
    };
    let subtitle = format!(
        "netsys {}, {machine}, {} cores, {}; messages{of_json}, median of {} rounds of {} s, whiskers: min..max",
        report.tool.version,
        report.machine.cores,
        report.machine.kernel,
        settings.rounds,
        settings.seconds,
    );
    text(area, (16, 42), 13, HPos::Left, &subtitle)?;
    for step in 0..=scale.steps {
        let share = f64::from(step) * 0.25;
        let x = scale.x(share);
        let is_ceiling = step == 4;
        let style = if is_ceiling {
            BLACK.stroke_width(2)
        } else {
            CEILING.stroke_width(1)
        };
        area.draw(&PathElement::new(
            vec![(x, HEAD as i32), (x, bottom)],
            style,
        ))?;
        let label = if is_ceiling {
            "1 = raw".to_owned()
        } else {
            share.to_string()
        };
        text(area, (x, bottom + 6), 12, HPos::Center, label)?;
    }
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(area, bar, &scale, HEAD as i32 + index as i32 * ROW as i32)?;
    }
    let note = "ping: p50 / p50 of raw, shorter is better; all others: rate / rate of raw";
    text(area, (LABELS, bottom + 26), 12, HPos::Left, note)?;
    area.present()?;
    Ok(())
}

fn draw_bar(area: &Drawing<'_>, bar: &Bar<'_>, scale: &Scale, top: i32) -> DrawResult {
    let middle = top + ROW as i32 / 2;
    let zero = scale.x(0.0);
    let body = [(zero, top + 9), (scale.x(bar.median), top + ROW as i32 - 9)];
    area.draw(&Rectangle::new(body, BAR.filled()))?;
    let (min, max) = (scale.x(bar.min), scale.x(bar.max));
    for line in [
        vec![(min, middle), (max, middle)],
        vec![(min, middle - 5), (min, middle + 5)],
        vec![(max, middle - 5), (max, middle + 5)],
    ] {
        area.draw(&PathElement::new(line, BLACK.stroke_width(2)))?;
    }
    let title = format!("{} ({})", bar.case.title, bar.row.peer);
    text(area, (LABELS - 10, middle - 8), 14, HPos::Right, title)?;
    let latency = match (bar.case.case.workload, bar.row.latency_us) {
        (Workload::Ping, Some(latency)) => format!(", p50 {} us", short(latency.p50)),
        _ => String::new(),
    };
    let figures = format!(
        "{:.2}: {} {}{latency}",
        bar.median,
        short(bar.row.value.median),
        bar.row.unit
    );
    text(
        area,
        (scale.right + 12, middle - 8),
        14,
        HPos::Left,
        figures,
    )
}

fn text(
    area: &Drawing<'_>,
    at: (i32, i32),
    size: i32,
    side: HPos,
    what: impl Display,
) -> DrawResult {
    let style = ("sans-serif", size)
        .into_text_style(area)
        .pos(Pos::new(side, VPos::Top));
    area.draw(&Text::new(what.to_string(), at, style))?;
    Ok(())
}

/// Shares to columns; reaches to the longest whisker, at least to raw.
struct Scale {
    steps: u32,
    right: i32,
}

impl Scale {
    fn over(bars: &[Bar<'_>]) -> Self {
        // Beyond four times raw a bar is cut: the figure beside it still tells.
        let longest = bars.iter().map(|bar| bar.max).fold(1.0, f64::max).min(4.0);
        Self {
            steps: (longest / 0.25).ceil() as u32,
            right: WIDTH as i32 - FIGURES,
        }
    }

    fn x(&self, share: f64) -> i32 {
        let full = f64::from(self.steps) * 0.25;
        let width = f64::from(self.right - LABELS);
        LABELS + (share.clamp(0.0, full) / full * width).round() as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{case_of, report_of};

    #[test]
    fn the_chart_has_bars_in_proportion_and_figures_as_text() {
        let figures = [("raw", 4e6), ("other", 1e6)];
        let report = report_of(vec![
            case_of(Workload::Stream, &figures),
            case_of(Workload::Idle, &figures),
        ]);
        let svg = render(&report).unwrap();
        assert!(
            svg.contains("stream 64 B (other)") && !svg.contains("(raw)"),
            "{svg}"
        );
        assert!(svg.contains("0.25: 1.00 M msg/s"), "{svg}");
        // A quarter of the way from the labels to raw.
        let width = (WIDTH as i32 - FIGURES - LABELS) / 4;
        let bar = format!("width=\"{width}\" height=\"{}\"", ROW - 18);
        assert!(svg.contains(&bar), "{svg}");
    }

    #[test]
    fn raw_alone_is_shown_and_memory_alone_is_refused() {
        let alone = report_of(vec![case_of(Workload::Echo, &[("raw", 1e6), ("raw", 2e6)])]);
        assert!(
            render(&alone)
                .unwrap()
                .contains("echo 64 B, window 1 (raw)")
        );
        let memory = report_of(vec![case_of(Workload::Idle, &[("raw", 1.0)])]);
        assert!(matches!(render(&memory), Err(Error::Usage(_))));
    }
}
