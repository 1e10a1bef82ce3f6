//! Curves as a picture, in SVG: both axes logarithmic, no script, readable on light and on dark.

use std::fmt::Write as _;

/// A curve.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// By x; all positive.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A picture of curves.
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) series: Vec<Series>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 56.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#d9822b", "#2a9d5c", "#8e5bb5"];

/// The powers of ten that enclose `values`, as exponents.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    let low = least.log10().floor() as i32;
    (low, (most.log10().ceil() as i32).max(low + 1))
}

impl Plot {
    pub(crate) fn to_svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let (x_low, x_high) = decades(all().map(|(x, _)| x));
        let (y_low, y_high) = decades(all().map(|(_, y)| y));
        let at_x = |x: f64| {
            let part = (x.log10() - f64::from(x_low)) / f64::from(x_high - x_low);
            LEFT + part * (WIDTH - LEFT - RIGHT)
        };
        let at_y = |y: f64| {
            let part = (y.log10() - f64::from(y_low)) / f64::from(y_high - y_low);
            HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"15\">{}</text>\n",
            self.title
        );
        for decade in x_low..=x_high {
            let (x, bottom) = (at_x(10f64.powi(decade)), HEIGHT - BOTTOM);
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#dddddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                10f64.powi(decade)
            );
        }
        for decade in y_low..=y_high {
            let (y, right) = (at_y(10f64.powi(decade)), WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                10f64.powi(decade)
            );
        }
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = series
                .points
                .iter()
                .map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
            for point in &points {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ =
                    writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\" fill=\"{colour}\"/>");
            }
            if let Some(&(x, y)) = series.points.last() {
                let (x, y) = (at_x(x) + 10.0, at_y(y) + 4.0);
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>",
                    series.name
                );
            }
        }
        let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0);
        let half = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(20 {half}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n\
             </svg>\n",
            self.x, self.y
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_inside_of_the_picture() {
        let points = vec![(1.0, 230.0), (100.0, 240.0), (10_000.0, 91_000.0)];
        let series = vec![Series { name: "ours", points }];
        let plot = Plot { title: "cost", x: "connections", y: "ns", series };
        let svg = plot.to_svg();
        let numbers = |attribute: &str| -> Vec<f64> {
            svg.split(attribute)
                .skip(1)
                .filter_map(|rest| rest.split('"').next()?.parse().ok())
                .collect()
        };
        let (xs, ys) = (numbers("cx=\""), numbers("cy=\""));
        assert_eq!((xs.len(), ys.len()), (3, 3));
        assert!(xs.iter().all(|x| (LEFT..=WIDTH - RIGHT).contains(x)), "{xs:?}");
        assert!(ys.iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(y)), "{ys:?}");
        assert!(ys[0] > ys[2], "more is higher up");
    }
}
