use std::io::Write as _;

use super::*;
use crate::random::Purpose;

fn draws(text: &str) -> Vec<u32> {
    let distribution: Distribution<Tokens> = text.parse().unwrap();
    let mut draws: Vec<u32> = (0..20_000)
        .map(|index| distribution.tokens(&mut Stream::new(1, Purpose::InputTokens, index)))
        .collect();
    draws.sort_unstable();
    draws
}

fn check_percentile(text: &str, percentile: usize, expected: f64) {
    let draws = draws(text);
    let got = f64::from(draws[draws.len() * percentile / 100]);
    assert!((got / expected - 1.0).abs() < 0.04, "{text}: p{percentile} is {got}, not {expected}");
}

fn check_range(text: &str, from: u32, to: u32) {
    let draws = draws(text);
    assert_eq!((draws[0], draws[draws.len() - 1]), (from, to), "{text}");
}

fn check_error(text: &str, problem: &str) {
    let error = text.parse::<Distribution<Tokens>>().unwrap_err().to_string();
    assert!(error.contains(problem), "{text}: {error}");
}

#[test]
fn draws_follow_their_text() {
    check_range("1024", 1024, 1024);
    check_range("fixed:7", 7, 7);
    check_range("uniform:10-12", 10, 12);
    check_percentile("uniform:1-1000", 25, 250.0);
    check_percentile("normal:mean=500,stddev=100", 50, 500.0);
    check_percentile("normal:mean=500,stddev=100", 84, 600.0);
    check_percentile("lognormal:median=350,p99=1100", 50, 350.0);
    check_percentile("lognormal:median=350,p99=1100", 99, 1100.0);
    check_percentile("lognormal:median=100,p90=200", 90, 200.0);
    check_percentile("lognormal:median=100,sigma=1", 84, 270.0);
    check_percentile("exponential:mean=1000", 50, 693.0);
    check_percentile("histogram:1=1,1000=3", 20, 1.0);
    check_percentile("histogram:1=1,1000=3", 30, 1000.0);
}

#[test]
fn what_is_cut_off_is_drawn_again_not_piled_up_at_the_end() {
    check_range("normal:mean=500,stddev=300,min=400,max=600", 400, 600);
    let at_the_end =
        draws("normal:mean=500,stddev=300,min=400,max=600").iter().filter(|&&n| n == 600).count();
    assert!(at_the_end < 300, "{at_the_end} of 20,000");
    check_range("lognormal:median=10,sigma=3,min=10,max=10", 10, 10);
}

#[test]
fn histograms_are_read_from_files() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "# range weight\n\n5-6 1\r\n7\t0\n8 0.5\n").unwrap();
    check_range(&format!("file:{}", file.path().display()), 5, 8);
    writeln!(file, "9 x").unwrap();
    check_error(&format!("file:{}", file.path().display()), ":6: `x` is not a weight");
    check_error("file:/nowhere/lengths", "/nowhere/lengths: ");
}

#[test]
fn bad_texts_are_told_what_is_wrong() {
    check_error("", "write 1024, or one of fixed:");
    check_error("0", "a whole number from 1");
    check_error("12.5", "`12.5` is not a number of tokens");
    check_error("zipf:3", "write 1024, or one of fixed:");
    check_error("uniform:20-10", "20 is over 10");
    check_error("uniform:-10", "`` is not a number");
    check_error("normal:mean=5", "stddev= is missing");
    check_error("normal:mean=5,stddev=1,mean=6", "mean= is there twice");
    check_error("normal:mean=5,stddev=1,mode=6", "mode= is unknown");
    check_error("normal:mean=5,stddev=1,min=6", "the mean is not from min to max");
    check_error("normal:5,1", "`5` is not name=value");
    check_error("lognormal:median=5", "say one of p90=");
    check_error("lognormal:median=5,p99=4", "p99 is under the median");
    check_error("lognormal:median=5,p99=8,sigma=1", "say one of p90=");
    check_error("lognormal:median=5,sigma=NaN", "from 0 to 10");
    check_error("histogram:1-5", "has no weight");
    check_error("histogram:1=0", "all its weights are 0");
    check_error("histogram:1=-1", "`-1` is not a weight");
}

#[test]
fn times_have_units() {
    let time = |text: &str| {
        text.parse::<Distribution<Seconds>>().unwrap().time(&mut Stream::new(1, Purpose::ThinkTime, 0))
    };
    assert_eq!(time("250ms"), Duration::from_millis(250));
    assert_eq!(time("fixed:1.5s"), Duration::from_millis(1500));
    assert_eq!(time("0s"), Duration::ZERO);
    assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
    let drawn = time("uniform:1s-2s");
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&drawn));
    for bad in ["5", "s", "1.2.3s", "-1s", "1e3s", "3d", "9999999h"] {
        parse_time(bad).unwrap_err();
    }
}
