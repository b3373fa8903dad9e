//! What a test may choose, from the environment.

use std::path::PathBuf;
use std::str::FromStr;

/// How strict, and in which of EFA's shapes. The variable is the field's name in capitals after `BATON_STRICT_`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Of everything that is left to chance here. What two processes do at the same time is not up to it.
    pub(crate) seed: u64,
    /// Where violations go, one a line, appended; standard error without it.
    pub(crate) log: Option<PathBuf>,
    /// Largest write or read (FI_OPT_MAX_RMA_SIZE). The endpoint's attributes promise more, as they do for EFA.
    pub(crate) max_rma_bytes: u64,
    /// Operations in flight before FI_EAGAIN.
    pub(crate) tx_size: usize,
    /// FI_MR_LOCAL is demanded, as by efa-direct. A descriptor is needed in any case.
    pub(crate) mr_local: bool,
    /// FI_DELIVERY_COMPLETE is offered.
    pub(crate) delivery: bool,
    /// A completion queue has a descriptor to sleep on.
    pub(crate) wait_fd: bool,
    /// FI_HMEM is offered.
    pub(crate) hmem: bool,
    /// What FI_OPT_EFA_EMULATED_WRITE says.
    pub(crate) emulated_write: bool,
    /// One post of so many is told FI_EAGAIN although there is room; 0 for none.
    pub(crate) eagain: u32,
    /// Rounds of progress for which something accepted is held back, at most.
    pub(crate) hold: u32,
    /// NICs that there are, named `strict0`, `strict1`…
    pub(crate) devices: u32,
    /// The queue pair's number, to come back as another process's; chosen freely without it.
    pub(crate) qpn: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            log: None,
            max_rma_bytes: 256 << 10,
            tx_size: 64,
            mr_local: true,
            delivery: true,
            wait_fd: false,
            hmem: true,
            emulated_write: false,
            eagain: 8,
            hold: 6,
            devices: 1,
            qpn: None,
        }
    }
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, String> {
        let d = Self::default();
        Ok(Self {
            seed: number("SEED", d.seed)?,
            log: std::env::var_os("BATON_STRICT_LOG").map(PathBuf::from),
            max_rma_bytes: number("MAX_RMA_BYTES", d.max_rma_bytes)?,
            tx_size: number("TX_SIZE", d.tx_size)?,
            mr_local: switch("MR_LOCAL", d.mr_local)?,
            delivery: switch("DELIVERY", d.delivery)?,
            wait_fd: switch("WAIT_FD", d.wait_fd)?,
            hmem: switch("HMEM", d.hmem)?,
            emulated_write: switch("EMULATED_WRITE", d.emulated_write)?,
            eagain: number("EAGAIN", d.eagain)?,
            hold: number("HOLD", d.hold)?,
            devices: number("DEVICES", d.devices)?,
            qpn: variable("QPN").map(|text| parse("QPN", &text)).transpose()?,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("BATON_STRICT_{name}")).ok()
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("BATON_STRICT_{name}={text} is not a number in range"))
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T, String> {
    variable(name).map_or(Ok(default), |text| parse(name, &text))
}

fn switch(name: &str, default: bool) -> Result<bool, String> {
    match variable(name).as_deref() {
        None => Ok(default),
        Some("1") => Ok(true),
        Some("0") => Ok(false),
        Some(text) => Err(format!("BATON_STRICT_{name}={text}: use 0 or 1")),
    }
}
