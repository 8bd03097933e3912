//! Curves as SVG: small panels side by side, one for each figure.

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend, Text, TextStyle, WHITE,
};

/// Size of a panel, pixels.
const PANEL: (u32, u32) = (320, 200);
/// Width that a picture with named lines has beside each panel for their names, pixels.
const NAMES: u32 = 120;
/// Height of a name, pixels.
const NAME: i32 = 15;
/// Panels of a row.
const COLUMNS: usize = 3;
/// Values that are all positive and span more than this get a logarithmic axis.
const SPAN: f64 = 100.0;
/// Colours of a panel's lines, told apart also by those who see red and green alike (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A panel: its title and its lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What is drawn.
    pub title: String,
    /// What the horizontal axis counts.
    pub across: String,
    /// Each with its name, empty where there is only one.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// The panels as one SVG picture; panels without a point are left out.
///
/// # Errors
/// What the drawing said, which needs a fault in it.
pub fn draw(panels: &[Panel]) -> Result<String, String> {
    let panels: Vec<&Panel> = panels.iter().filter(|panel| panel.points().next().is_some()).collect();
    let (columns, rows) = (COLUMNS.min(panels.len()).max(1), panels.len().div_ceil(COLUMNS).max(1));
    let mut text = String::new();
    {
        let names = if panels.iter().any(|panel| panel.names().next().is_some()) { NAMES } else { 0 };
        let size = ((PANEL.0 + names) * columns as u32, PANEL.1 * rows as u32);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        for (panel, place) in panels.iter().zip(area.split_evenly((rows, columns))) {
            // Beside the curves, which would lie below them.
            let (place, beside) = place.split_horizontally(PANEL.0);
            panel.draw(&place).and_then(|()| panel.draw_names(&beside)).map_err(|error| error.to_string())?;
        }
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Panel {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|(_, points)| points.iter().copied())
    }

    /// Names of lines, with their colours.
    fn names(&self) -> impl Iterator<Item = (&str, RGBColor)> {
        let lines = self.lines.iter().zip(COLOURS.iter().cycle());
        lines.filter(|((name, _), _)| !name.is_empty()).map(|((name, _), colour)| (name.as_str(), *colour))
    }

    fn draw_names(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        // Below the title, as the curves begin.
        for ((name, colour), y) in self.names().zip((30..).step_by(NAME as usize)) {
            area.draw(&PathElement::new([(0, y), (14, y)], colour.stroke_width(2)))?;
            area.draw(&Text::new(name.to_owned(), (19, y - 5), ("sans-serif", 11)))?;
        }
        Ok(())
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (left, right) = bounds(&mut self.points().map(|(x, _)| x));
        let (low, high) = bounds(&mut self.points().map(|(_, y)| y));
        let right = if right > left { right } else { left + 1.0 };
        let is_wide = low > 0.0 && high / low > SPAN;
        // What is left of zero where ticks are counted up to it; a logarithmic axis has no zero.
        let nothing = if is_wide { 0.0 } else { (high - low) * 1e-9 };
        let height = |y: &f64| short(if y.abs() < nothing { 0.0 } else { *y });
        let style: TextStyle = ("sans-serif", 12).into_font().into();
        let mut chart = ChartBuilder::on(area);
        chart.caption(&self.title, ("sans-serif", 14)).margin(8).x_label_area_size(32).y_label_area_size(52);
        // The two kinds of axis are two types.
        macro_rules! lines {
            ($vertical:expr) => {{
                let mut chart = chart.build_cartesian_2d(left..right, $vertical)?;
                let mut mesh = chart.configure_mesh();
                mesh.x_desc(&self.across).x_labels(4).y_labels(5).label_style(style.clone()).axis_desc_style(style);
                mesh.x_label_formatter(&|x| short(*x)).y_label_formatter(&height);
                mesh.light_line_style(WHITE).bold_line_style(RGBColor(225, 225, 225)).draw()?;
                for ((_, points), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
                    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(1)))?;
                }
            }};
        }
        if is_wide {
            lines!((low..high * 1.05).log_scale())
        } else {
            let space = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
            lines!(low - space..high + space)
        }
        Ok(())
    }
}

/// A number in as few characters as tell it: `1200`, `1.2e5`, `0.034`.
fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:.1e}");
    }
    let places = if size >= 100.0 {
        0
    } else if size >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1200.0, 120_000.0, 0.034, 1.5, 0.000_12, -3.0].map(short);
        assert_eq!(texts, ["0", "1200", "1.2e5", "0.034", "1.5", "1.2e-4", "-3"]);
    }

    #[test]
    fn every_panel_with_a_point_is_drawn() {
        let line = |scale: f64| (1..50).map(|x| (f64::from(x), scale / f64::from(x))).collect::<Vec<_>>();
        let panel = |title: &str, points: Vec<(f64, f64)>| Panel {
            title: title.to_owned(),
            across: "step".to_owned(),
            lines: vec![(String::new(), points)],
        };
        let mut panels = vec![panel("falling", line(1.0)), panel("empty", vec![]), panel("one", vec![(1.0, 0.0)])];
        panels.push(Panel { lines: vec![("a".into(), line(1.0)), ("b".into(), line(-2.0))], ..panel("two", vec![]) });
        let text = draw(&panels).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        for title in ["falling", "one", "two"] {
            assert!(text.contains(title), "{title} is not in {text}");
        }
        assert!(!text.contains("empty"));
        // Ticks that are added up miss zero by a rounding.
        let down: Vec<_> = (0..100).map(|x| (f64::from(x), 0.06 * f64::from(100 - x) / 100.0 + 3e-4)).collect();
        let labels = draw(&[panel("down", down)]).unwrap();
        assert!(!labels.contains("e-1"), "{labels}");
        assert_eq!(draw(&panels).unwrap(), text);
        assert!(draw(&[]).unwrap().starts_with("<svg"));
    }
}
