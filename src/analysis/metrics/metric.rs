//! The metrics by name: what each is called in a report, and its value in the report's unit.

use super::RunMetrics;
use crate::question::plan::COMPARED_METRICS;
use crate::statistics::Sample;
use crate::statistics::{Distribution, Percentile};

/// A kind of latency or rate of which a report shows the mean and three percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// Scheduled to first token.
    Ttft,
    /// Submitted to first token.
    TtftService,
    /// Gaps between token events.
    Itl,
    /// Gaps divided by the tokens that ended them.
    ItlPerToken,
    /// Time per output token after the first.
    TimePerOutputToken,
    /// Its reciprocal, by request.
    Tpot,
    /// Scheduled to last token.
    E2e,
    /// In the engine's queue.
    Queue,
    /// From the engine's queue to the first token.
    Prefill,
    /// First token to last, by the engine's stamps.
    Decode,
    /// Duration of an engine step.
    Step,
}

/// What is shown of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The arithmetic mean over samples.
    Average,
    /// A nearest-rank percentile.
    Percentile(Percentile),
}

/// A quantity of the whole measured window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// First submit to last token.
    Elapsed,
    /// Requests submitted, per second.
    Requests,
    /// Prompt tokens, per second.
    InputTokens,
    /// Output tokens, per second.
    OutputTokens,
    /// Both, per second.
    TotalTokens,
    /// Share of the prompt tokens that the design takes from the cache.
    PrefixHitRateExpected,
    /// Share of them that the engine took from it.
    PrefixHitRateMeasured,
}

/// One number of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A statistic of a series.
    Of(Series, Statistic),
    /// A quantity of the window.
    Total(Total),
}

/// A series' statistics in the report's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Number of samples.
    pub count: u64,
    /// Arithmetic mean.
    pub avg: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile; of a rate, what 99 % of the requests reach or exceed.
    pub p99: f64,
}

impl Series {
    /// All of them, in the order of a report.
    pub const ALL: [Series; 11] = [
        Series::Ttft,
        Series::TtftService,
        Series::Itl,
        Series::ItlPerToken,
        Series::TimePerOutputToken,
        Series::Tpot,
        Series::E2e,
        Series::Queue,
        Series::Prefill,
        Series::Decode,
        Series::Step,
    ];

    /// What stands after `avg_` or `p50_`: the name, the unit last.
    pub fn name(self) -> &'static str {
        match self {
            Series::Ttft => "ttft_s",
            Series::TtftService => "ttft_service_s",
            Series::Itl => "itl_s",
            Series::ItlPerToken => "itl_per_token_s",
            Series::TimePerOutputToken => "time_per_output_token_s",
            Series::Tpot => "tpot_tokens_per_s",
            Series::E2e => "e2e_s",
            Series::Queue => "queue_s",
            Series::Prefill => "prefill_s",
            Series::Decode => "decode_s",
            Series::Step => "step_s",
        }
    }

    /// How many of the samples' unit make a second. To divide by it rounds once; to multiply by 1e-9 rounds twice.
    pub fn units_per_s(self) -> f64 {
        match self {
            Series::ItlPerToken => 1e12,
            _ => 1e9,
        }
    }
}

impl Statistic {
    /// All of them, in the order of a report.
    pub const ALL: [Statistic; 4] = [
        Statistic::Average,
        Statistic::Percentile(Percentile::P50),
        Statistic::Percentile(Percentile::P90),
        Statistic::Percentile(Percentile::P99),
    ];

    fn prefix(self) -> &'static str {
        match self {
            Statistic::Average => "avg",
            Statistic::Percentile(Percentile::P50) => "p50",
            Statistic::Percentile(Percentile::P90) => "p90",
            Statistic::Percentile(_) => "p99",
        }
    }
}

impl Total {
    /// All of them, in the order of a report.
    pub const ALL: [Total; 7] = [
        Total::Elapsed,
        Total::Requests,
        Total::InputTokens,
        Total::OutputTokens,
        Total::TotalTokens,
        Total::PrefixHitRateExpected,
        Total::PrefixHitRateMeasured,
    ];

    fn name(self) -> &'static str {
        match self {
            Total::Elapsed => "elapsed_s",
            Total::Requests => "requests_per_s",
            Total::InputTokens => "input_tokens_per_s",
            Total::OutputTokens => "output_tokens_per_s",
            Total::TotalTokens => "total_tokens_per_s",
            Total::PrefixHitRateExpected => "prefix_hit_rate_expected",
            Total::PrefixHitRateMeasured => "prefix_hit_rate_measured",
        }
    }

    fn value(self, metrics: &RunMetrics) -> Option<f64> {
        let totals = &metrics.totals;
        match self {
            Total::Elapsed => (totals.answered > 0).then(|| totals.elapsed_ns as f64 / 1e9),
            // Throughput needs a window, and only requests that gave a token make one.
            Total::Requests => metrics.per_second(totals.requests),
            Total::InputTokens => metrics.per_second(totals.input_tokens),
            Total::OutputTokens => metrics.per_second(totals.output_tokens),
            Total::TotalTokens => metrics.per_second(totals.input_tokens + totals.output_tokens),
            Total::PrefixHitRateExpected => totals.cached_expected?.ratio(),
            Total::PrefixHitRateMeasured => totals.cached_measured?.ratio(),
        }
    }
}

impl Metric {
    /// What a comparison compares where nothing else is asked for.
    pub const COMPARED: [Metric; COMPARED_METRICS] = [
        Metric::Of(Series::Ttft, Statistic::Average),
        Metric::Of(Series::Ttft, Statistic::Percentile(Percentile::P99)),
        Metric::Of(Series::Itl, Statistic::Average),
        Metric::Of(Series::Itl, Statistic::Percentile(Percentile::P99)),
        Metric::Of(Series::TimePerOutputToken, Statistic::Average),
        Metric::Of(Series::E2e, Statistic::Average),
        Metric::Of(Series::E2e, Statistic::Percentile(Percentile::P99)),
        Metric::Total(Total::OutputTokens),
    ];

    /// All of them, in the order of a report.
    pub fn all() -> impl Iterator<Item = Metric> {
        let of_series = Series::ALL
            .into_iter()
            .flat_map(|series| Statistic::ALL.into_iter().map(move |statistic| Metric::Of(series, statistic)));
        Total::ALL.into_iter().map(Metric::Total).chain(of_series)
    }

    /// The metric of a name such as `p99_ttft_s`.
    pub fn named(name: &str) -> Option<Metric> {
        Metric::all().find(|metric| metric.name() == name)
    }

    /// Its name in reports and objectives.
    pub fn name(self) -> String {
        match self {
            Metric::Of(series, statistic) => format!("{}_{}", statistic.prefix(), series.name()),
            Metric::Total(total) => total.name().to_owned(),
        }
    }

    /// Its value in the unit that its name gives; `None` if it was not measured.
    pub fn value(self, metrics: &RunMetrics) -> Option<f64> {
        match self {
            Metric::Of(series, statistic) => metrics.spread(series).map(|spread| spread.of(statistic)),
            Metric::Total(total) => total.value(metrics),
        }
    }

    /// Whether more of it is better: rates and hit rates, not times.
    pub fn higher_is_better(self) -> bool {
        match self {
            Metric::Of(series, _) => series == Series::Tpot,
            Metric::Total(total) => total != Total::Elapsed,
        }
    }
}

impl Spread {
    /// One of its numbers.
    pub fn of(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Average => self.avg,
            Statistic::Percentile(Percentile::P50) => self.p50,
            Statistic::Percentile(Percentile::P90) => self.p90,
            Statistic::Percentile(_) => self.p99,
        }
    }

    fn scaled<T: Sample>(distribution: &Option<Distribution<T>>, units_per_s: f64) -> Option<Spread> {
        distribution.as_ref().map(|samples| Spread {
            count: samples.count,
            avg: samples.mean / units_per_s,
            p50: samples.p50.as_f64() / units_per_s,
            p90: samples.p90.as_f64() / units_per_s,
            p99: samples.p99.as_f64() / units_per_s,
        })
    }
}

impl RunMetrics {
    /// A series in the unit that its name gives; `None` without samples.
    pub fn spread(&self, series: Series) -> Option<Spread> {
        let times = match series {
            Series::Ttft => &self.ttft_ns,
            Series::TtftService => &self.ttft_service_ns,
            Series::Itl => &self.itl_ns,
            Series::ItlPerToken => &self.itl_per_token_ps,
            Series::E2e => &self.e2e_ns,
            Series::Queue => &self.queue_ns,
            Series::Prefill => &self.prefill_ns,
            Series::Decode => &self.decode_ns,
            Series::Step => &self.step_ns,
            Series::TimePerOutputToken => return Spread::scaled(&self.time_per_output_token_ns, series.units_per_s()),
            Series::Tpot => {
                return self.tpot.as_ref().map(|times| Spread {
                    count: times.count,
                    avg: times.mean,
                    p50: 1e9 / times.p50.as_f64(),
                    p90: 1e9 / times.p90.as_f64(),
                    p99: 1e9 / times.p99.as_f64(),
                });
            }
        };
        Spread::scaled(times, series.units_per_s())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_leads_back() {
        let names: Vec<String> = Metric::all().map(Metric::name).collect();
        for (metric, name) in Metric::all().zip(&names) {
            assert_eq!(Metric::named(name), Some(metric));
        }
        assert!(names.contains(&"p99_tpot_tokens_per_s".to_owned()));
        assert_eq!(Metric::named("p98_ttft_s"), None);
    }
}
