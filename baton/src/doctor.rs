//! `baton doctor`: what this machine can do, what would be chosen, and why the rest is passed over.

mod machine;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use baton_kv_transfer::{LibfabricSurvey, NixlSurvey, ProviderFacts, ProviderSurvey, UcxSurvey};

/// Options of `baton doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Looks, starts nothing and changes nothing. Each finding stands with what follows from it.

Examples:
  baton doctor
  baton doctor --libfabric /opt/amazon/efa/lib/libfabric.so.1 --listen-ip 10.0.1.7")]
pub(crate) struct DoctorArgs {
    /// Where libfabric.so.1 is, if not where the system looks
    #[arg(long, env = "BATON_LIBFABRIC", value_name = "FILE")]
    libfabric: Option<PathBuf>,

    /// Where NIXL's libnixl_capi.so is: the file, its folder, or the site-packages with NIXL [default: where the loader finds it]
    #[arg(long, env = "BATON_NIXL", value_name = "PATH")]
    nixl: Option<PathBuf>,

    /// Where libucp.so.0 is, if not where the system looks
    #[arg(long, env = "BATON_UCX", value_name = "FILE")]
    ucx: Option<PathBuf>,

    /// Address of this host that peers reach, for providers that speak IP
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    listen_ip: IpAddr,
}

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let mut text = String::new();
    section(&mut text, "processor", &machine::processor());
    section(&mut text, "memory", &machine::memory());
    section(&mut text, "devices", &machine::devices());
    section(&mut text, "fabrics", &fabrics(args));
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// No pool is as large, so it is no limit.
const MANY: u64 = 1 << 50;

/// A finding: what it is about, and what there is.
type Finding = (String, String);

fn section(text: &mut String, title: &str, findings: &[Finding]) {
    const WIDTH: usize = 22;
    let _ = writeln!(text, "{title}");
    for (about, finding) in findings {
        let _ = writeln!(text, "  {about:<WIDTH$} {finding}");
    }
}

fn fabrics(args: &DoctorArgs) -> Vec<Finding> {
    let mut found =
        vec![finding("shm", "usable: workers of one host; what `baton up` takes unless told otherwise")];
    match LibfabricSurvey::take(args.libfabric.as_deref(), args.listen_ip) {
        Err(missing) => found.push(finding("libfabric", format!("absent: {missing}"))),
        Ok(survey) => {
            let choice = match &survey.choice {
                Some(choice) => format!("version {}; `--fabric libfabric` takes {choice}", survey.version),
                None => format!("version {}; no provider of it is usable", survey.version),
            };
            found.push(finding("libfabric", choice));
            found.extend(survey.providers.iter().map(provider));
        }
    }
    found.push(ucx(args.ucx.as_deref(), args.listen_ip));
    found.push(finding("nixl", nixl(args.nixl.as_deref())));
    found
}

fn nixl(path: Option<&Path>) -> String {
    let NixlSurvey { plugins } = match NixlSurvey::take(path) {
        Ok(survey) => survey,
        Err(missing) => return format!("absent: {missing}"),
    };
    let choice = if plugins.iter().any(|plugin| plugin == "UCX") {
        "`--fabric nixl` takes UCX"
    } else {
        "no UCX among its plugins, so name one with `--fabric nixl:BACKEND`"
    };
    format!("present; {choice} (plugins: {})", plugins.join(", "))
}

fn ucx(path: Option<&Path>, ip: IpAddr) -> Finding {
    let what = match UcxSurvey::take(path, ip) {
        Err(missing) => format!("absent: {missing}"),
        Ok(UcxSurvey { version, verdict: Ok(()) }) => {
            format!(
                "version {version}; usable: `--fabric ucx` leaves the transport to UCX, `ucx:tcp` names it"
            )
        }
        Ok(UcxSurvey { version, verdict: Err(reason) }) => format!("version {version}; unusable: {reason}"),
    };
    finding("ucx", what)
}

fn provider(survey: &ProviderSurvey) -> Finding {
    let verdict = match &survey.verdict {
        Ok(ProviderFacts { rails, max_write_bytes, queue_depth, delivery_complete }) => {
            let completion = if *delivery_complete {
                "completion means delivery"
            } else {
                "completion comes before delivery"
            };
            let size = match max_write_bytes {
                MANY.. => "any size".to_owned(),
                bytes => format!("up to {bytes} bytes"),
            };
            let rails = rails.join(", ");
            format!("usable: {queue_depth} writes of {size} in flight; {completion}; takes {rails}")
        }
        Err(reason) => format!("passed over: {reason}"),
    };
    let devices = match &survey.devices[..] {
        [] => String::new(),
        devices => format!(" (on {})", devices.join(", ")),
    };
    finding(format!("libfabric:{}", survey.name), verdict + &devices)
}

fn finding(about: impl Into<String>, what: impl Into<String>) -> Finding {
    (about.into(), what.into())
}
