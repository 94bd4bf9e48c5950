//! The page's part on how the origin's statistics compare with what viewers know.

use super::super::plot::Escaped;
use crate::report::Report;
use crate::verify::compare::Verdict;
use std::fmt::{self, Write};

/// By channel and run, one table each.
pub(super) fn proof(report: &Report, out: &mut String) -> fmt::Result {
    for verification in &report.recorded.verification {
        let (class, verdict) = if verification.passed { ("good", "passed") } else { ("bad", "failed") };
        write!(
            out,
            "<h2>Origin's statistics of {} against what viewers know: <span class=\"{class}\">{verdict}</span></h2>\
             <p class=\"soft\">{} sessions with media, at most {} at once, over {} s",
            Escaped(&verification.channel),
            verification.sessions,
            verification.peak_viewers,
            verification.seconds
        )?;
        if !verification.run.is_empty() && report.recorded.processes > 1 {
            write!(out, "; run {}", Escaped(&verification.run))?;
        }
        write!(
            out,
            "</p><div class=\"scroll\"><table class=\"words\"><thead><tr><th>Metric</th><th>Verdict</th><th>Bar</th>\
             <th>Measured</th><th>Worst case</th></tr></thead><tbody>"
        )?;
        for metric in &verification.metrics {
            let (class, verdict) = match metric.verdict {
                Verdict::Pass => ("good", "pass"),
                Verdict::Fail => ("bad", "FAIL"),
                Verdict::Skip => ("soft", "skip"),
            };
            write!(
                out,
                "<tr><td>{}</td><td class=\"{class}\">{verdict}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                Escaped(&metric.name),
                Escaped(&metric.bar),
                Escaped(&metric.measured),
                Escaped(&metric.worst)
            )?;
        }
        write!(out, "</tbody></table></div>")?;
    }
    Ok(())
}
