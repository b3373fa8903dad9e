//! `strftime_now` of chat templates: Llama 3.1 and later put today's date into the system prompt. Times are UTC.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    weekday: usize,
    second_of_day: u64,
}

/// Python's `datetime.strftime` for the directives of dates and times of day; an unknown directive stays as it is.
pub(super) fn strftime(format: &str, now: SystemTime) -> String {
    let civil = Civil::at(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
        } else if let Some(directive) = chars.next() {
            match directive {
                '-' => civil.write_bare(&mut out, chars.next()),
                _ => civil.write(&mut out, directive),
            }
        } else {
            out.push('%');
        }
    }
    out
}

impl Civil {
    /// Days to year, month and day: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
    fn at(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let shifted = days + 719_468; // days since 0000-03-01
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((days + 4) % 7).unwrap_or(0);
        Self { year, month, day, weekday, second_of_day: seconds % 86_400 }
    }

    /// glibc's `%-d`: without the zeros in front.
    fn write_bare(&self, out: &mut String, directive: Option<char>) {
        let mut text = String::new();
        match directive {
            Some(directive) => self.write(&mut text, directive),
            None => text.push_str("%-"),
        }
        let bare = text.trim_start_matches(['0', ' ']);
        out.push_str(if bare.is_empty() && !text.is_empty() { "0" } else { bare });
    }

    fn write(&self, out: &mut String, directive: char) {
        let month = MONTHS[usize::try_from(self.month - 1).unwrap_or(0)];
        let weekday = DAYS[self.weekday];
        let (hour, minute, second) =
            (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        // Writing to a String does not fail.
        let _ = match directive {
            'Y' => write!(out, "{}", self.year),
            'y' => write!(out, "{:02}", self.year % 100),
            'm' => write!(out, "{:02}", self.month),
            'B' => out.write_str(month),
            'b' | 'h' => out.write_str(&month[..3]),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'A' => out.write_str(weekday),
            'a' => out.write_str(&weekday[..3]),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{:02}", (hour + 11) % 12 + 1),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            'p' => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            'F' => write!(out, "{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            '%' => out.write_str("%"),
            other => write!(out, "%{other}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(seconds: u64, format: &str, expected: &str) {
        assert_eq!(strftime(format, UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }

    // Expected: python3 -c 'import datetime as d; print(d.datetime.fromtimestamp(S, d.UTC).strftime(F))'
    #[test]
    fn dates_are_as_python_writes_them() {
        check(0, "%d %b %Y", "01 Jan 1970");
        check(951_782_400, "%A %d %B %y", "Tuesday 29 February 00");
        check(1_709_251_199, "%Y-%m-%d %H:%M:%S %p %I", "2024-02-29 23:59:59 PM 11");
        check(951_782_400, "%-d %e %-m %-H", "29 29 2 0");
        check(0, "%e|%-d|%-", " 1|1|%-");
        check(4_107_542_400, "%F %a %q 100%%", "2100-03-01 Mon %q 100%");
    }
}
