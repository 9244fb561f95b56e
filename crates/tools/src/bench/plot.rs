//! Latency against load, as SVG.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;

use super::{Report, report::figures::Figures};

const SIZE: (u32, u32) = (900, 560);
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

/// Draws the median and the 99th percentile of each target against its good answers a second.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub(crate) fn write(report: &Report, targets: &[String], file: &Path) -> anyhow::Result<()> {
    let mut svg = String::new();
    draw(report, targets, &mut svg).map_err(|e| anyhow!("the plot cannot be drawn: {e}"))?;
    std::fs::write(file, svg).with_context(|| format!("{} cannot be written", file.display()))
}

fn draw(
    report: &Report,
    targets: &[String],
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let figures = || report.rows.iter().map(|row| &row.figures);
    let most = figures().map(|f| f.requests_per_second).fold(0.0, f64::max);
    let slowest = figures().map(|f| f.p99_ms).fold(0.0, f64::max);
    let quickest = figures()
        .map(|f| f.p50_ms)
        .filter(|ms| *ms > 0.0)
        .fold(f64::INFINITY, f64::min);
    if most <= 0.0 || !quickest.is_finite() {
        return Err("no good answers".into());
    }
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "latency against load: p50 (line), p99 (thin)",
            ("sans-serif", 20),
        )
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0.0..most * 1.05,
            (quickest * 0.7..slowest * 1.4).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("good answers a second")
        .y_desc("ms")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    for (i, target) in targets.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let points = |ms: fn(&Figures) -> f64| -> Vec<(f64, f64)> {
            report
                .of(target)
                .map(|row| (row.figures.requests_per_second, ms(&row.figures)))
                .filter(|(_, ms)| *ms > 0.0)
                .collect()
        };
        let (p50, p99) = (points(|f| f.p50_ms), points(|f| f.p99_ms));
        chart
            .draw_series(LineSeries::new(p50.clone(), color.stroke_width(3)))?
            .label(target)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3)));
        chart.draw_series(LineSeries::new(p99.clone(), color.stroke_width(1)))?;
        let dots = p50.into_iter().chain(p99);
        chart.draw_series(dots.map(|point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.4))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}
