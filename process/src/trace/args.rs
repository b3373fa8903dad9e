//! Options.

use std::path::PathBuf;

use clap::Args;

/// Stands last in a subcommand's help, after its own options.
const HEADING: &str = "Traces";

/// Trace options that every subcommand takes.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// OpenTelemetry collector that spans of requests are sent to by gRPC, such as http://127.0.0.1:4317, or https for TLS [default: no
    /// traces]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", global = true, help_heading = HEADING)]
    pub otlp_endpoint: Option<String>,

    /// Certificates that an https collector's is checked against [default: the system's]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE", global = true, help_heading = HEADING)]
    pub otlp_ca: Option<PathBuf>,

    /// Share of traces that are recorded, of those that begin here, 0 to 1; clients that send a traceparent decide for themselves [default: 1]
    #[arg(long, env = "BATON_TRACE_SAMPLE_RATIO", value_name = "RATIO", global = true, help_heading = HEADING, value_parser = parse_ratio)]
    pub trace_sample_ratio: Option<f64>,

    /// What spans say of this process beside its name, such as deployment.environment.name=test,service.version=7
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_name = "KEY=VALUE,…", global = true, help_heading = HEADING)]
    pub otel_resource_attributes: Option<String>,
}

impl TraceArgs {
    /// As words of a command line, for processes that this one starts.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let ratio = self.trace_sample_ratio.map(|ratio| ratio.to_string());
        let words = [
            ("--otlp-endpoint", self.otlp_endpoint.clone()),
            ("--otlp-ca", self.otlp_ca.as_ref().map(|path| path.display().to_string())),
            ("--trace-sample-ratio", ratio),
            ("--otel-resource-attributes", self.otel_resource_attributes.clone()),
        ];
        words.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
