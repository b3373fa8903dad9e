//! How much of the processors a worker may use: a control group of Linux, of either version.
//!
//! So several workers share a small machine in fixed parts, as if each had a machine of its own: splits of workers can be compared there.

use std::{
    fs, io,
    num::ParseFloatError,
    path::{Path, PathBuf},
    str::FromStr,
};

const ROOT: &str = "/sys/fs/cgroup";
/// The shortest run that the kernel grants at a time. Short ones make a slow processor; long ones one that stops and goes.
const RUN_US: f64 = 1_000.0;

/// Processor time, in cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cpus(f64);

/// Not an amount of processor time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpusInvalid {
    #[error("{0}; it must be a number of cores, such as 0.5")]
    Number(#[from] ParseFloatError),
    #[error("it must be from 0.01 to 1024 cores")]
    Range,
}

/// A group that one process is in, with all its threads. Removed when dropped, which must be after the process's end.
#[derive(Debug)]
pub(crate) struct CpuQuota {
    folder: PathBuf,
}

impl Cpus {
    pub(crate) fn cores(self) -> f64 {
        self.0
    }

    /// Threads that can compute at a time, at least one.
    pub(crate) fn threads(self) -> u16 {
        self.0.ceil() as u16
    }

    /// Microseconds of processor time in a period of microseconds.
    fn quota_and_period(self) -> (u32, u32) {
        let period = (RUN_US / self.0).max(RUN_US).round();
        ((self.0 * period).max(RUN_US).round() as u32, period as u32)
    }
}

impl FromStr for Cpus {
    type Err = CpusInvalid;

    fn from_str(text: &str) -> Result<Self, CpusInvalid> {
        let cores = text.parse()?;
        if (0.01..=1024.0).contains(&cores) { Ok(Self(cores)) } else { Err(CpusInvalid::Range) }
    }
}

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl CpuQuota {
    /// Takes `pid` into a new group `name` that may use `cpus`.
    ///
    /// # Errors
    /// The system has no such groups, or not for this user; says what to do.
    pub(crate) fn grant(name: &str, pid: u32, cpus: Cpus) -> io::Result<Self> {
        Self::inside(Path::new(ROOT), name, pid, cpus).map_err(|error| {
            let text = format!(
                "no control group for --worker-cpus: {error}; run as a user who may make groups in {ROOT} (root), or without --worker-cpus"
            );
            io::Error::new(error.kind(), text)
        })
    }

    fn inside(root: &Path, name: &str, pid: u32, cpus: Cpus) -> io::Result<Self> {
        let is_unified = root.join("cgroup.controllers").exists();
        let parent = if is_unified { root.to_owned() } else { root.join("cpu") };
        let group = Self { folder: parent.join(name) };
        let describe = |path: PathBuf| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(&group.folder).map_err(describe(group.folder.clone()))?;
        let write = |file: &str, text: String| {
            let path = group.folder.join(file);
            fs::write(&path, text).map_err(describe(path))
        };
        let (quota, period) = cpus.quota_and_period();
        if is_unified {
            write("cpu.max", format!("{quota} {period}"))?;
        } else {
            write("cpu.cfs_period_us", period.to_string())?;
            write("cpu.cfs_quota_us", quota.to_string())?;
        }
        write("cgroup.procs", pid.to_string())?;
        Ok(group)
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "a control group stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Cpus {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for bad in ["", "x", "0", "-1", "NaN", "inf", "2000"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad:?}");
        }
        assert_eq!([cpus("0.4").threads(), cpus("1").threads(), cpus("2.5").threads()], [1, 1, 3]);
    }

    #[test]
    fn runs_are_as_short_as_the_kernel_grants() {
        let expected = [
            ("0.4", (1_000, 2_500)),
            ("1", (1_000, 1_000)),
            ("2.5", (2_500, 1_000)),
            ("0.01", (1_000, 100_000)),
        ];
        for (cores, quota) in expected {
            assert_eq!(cpus(cores).quota_and_period(), quota, "{cores}");
        }
    }

    #[test]
    fn a_process_is_put_into_a_group_of_either_version() {
        for (is_unified, limits) in [
            (true, vec![("cpu.max", "1000 4000")]),
            (false, vec![("cpu.cfs_period_us", "4000"), ("cpu.cfs_quota_us", "1000")]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let parent = if is_unified {
                fs::write(root.path().join("cgroup.controllers"), "cpu").unwrap();
                root.path().to_owned()
            } else {
                root.path().join("cpu")
            };
            let group = CpuQuota::inside(root.path(), "g", 77, cpus("0.25")).unwrap();
            let read = |file: &str| fs::read_to_string(parent.join("g").join(file)).unwrap();
            for (file, text) in limits {
                assert_eq!(read(file), text);
            }
            assert_eq!(read("cgroup.procs"), "77");
            drop(group);
        }
    }
}
