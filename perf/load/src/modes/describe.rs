//! A load in words and figures.

use std::time::Duration;

use baton_workload::{Load, Plan, Source, Spacing, Start, Workload};

/// What a document says of the load; `rate`: the one that was asked for, if it was one.
pub(super) fn load(workload: &Workload, plan: &Plan, rate: Option<f64>) -> baton_results::Load {
    if let Some(concurrency) = plan.pacing().concurrency {
        return baton_results::Load::Closed { concurrency };
    }
    let mut arrivals = arrivals(workload);
    let requests_per_second = rate.unwrap_or_else(|| {
        if let Some(planned) = planned_rate(workload) {
            arrivals += &format!(", {planned}/s planned");
        }
        mean_rate(plan)
    });
    baton_results::Load::Open { arrivals, requests_per_second }
}

fn arrivals(workload: &Workload) -> String {
    let times = match &workload.load {
        Load::Closed { .. } => "closed".to_owned(),
        Load::AtOnce { .. } => "all at once".to_owned(),
        Load::Recorded { time_scale, .. } if *time_scale == 1.0 => "as recorded".to_owned(),
        Load::Recorded { time_scale, .. } => format!("as recorded, times x{time_scale}"),
        Load::Open { profile, spacing, .. } => {
            let spacing = match spacing {
                Spacing::Constant => "constant".to_owned(),
                Spacing::Gamma { shape } if *shape == 1.0 => "poisson".to_owned(),
                Spacing::Gamma { shape } => format!("gamma({shape})"),
            };
            let varies = if profile.length().is_some() { ", rate varies" } else { "" };
            spacing + varies
        }
    };
    match &workload.source {
        Source::Trace(trace) => {
            let file = trace.path.file_name().unwrap_or_default().to_string_lossy();
            format!("{file} {times}")
        }
        Source::Synthetic(_) => times,
    }
}

/// The rate that was asked for, if it was one: what is drawn comes to about as much.
fn planned_rate(workload: &Workload) -> Option<f64> {
    match &workload.load {
        Load::Open { profile, .. } => profile.rate(),
        Load::Closed { .. } | Load::AtOnce { .. } | Load::Recorded { .. } => None,
    }
}

/// Requests a second that the plan comes to; of what comes all at once there is no rate.
fn mean_rate(plan: &Plan) -> f64 {
    let times = plan.requests().iter().filter_map(|request| match request.start {
        Start::At(time) => Some(time),
        Start::WhenFree | Start::After { .. } => None,
    });
    let span = plan.pacing().duration.or_else(|| times.max()).unwrap_or(Duration::ZERO);
    if span.is_zero() { 0.0 } else { plan.requests().len() as f64 / span.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        workload: baton_workload::WorkloadArgs,
    }

    fn described(options: &[&str], rate: Option<f64>) -> (String, f64) {
        let options = Options::parse_from(["test"].iter().chain(options));
        let workload = options.workload.workload().unwrap();
        let plan = workload.plan(&baton_workload::Estimate::default()).unwrap();
        match load(&workload, &plan, rate) {
            baton_results::Load::Open { arrivals, requests_per_second } => (arrivals, requests_per_second),
            closed => panic!("{closed:?}"),
        }
    }

    #[test]
    fn what_was_planned_stands_beside_what_it_came_to() {
        let (arrivals, rate) = described(&["--rate", "5", "-n", "100"], None);
        assert_eq!(arrivals, "poisson, 5/s planned");
        assert!(rate != 5.0 && (3.0..8.0).contains(&rate), "{rate}");
        assert_eq!(described(&["--rate", "5", "-n", "100"], Some(5.0)), ("poisson".to_owned(), 5.0));
        let (arrivals, _) = described(&["--rate-ramp", "1-20:1m"], None);
        assert_eq!(arrivals, "poisson, rate varies");
    }
}
