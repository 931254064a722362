//! TPUs, through the metric service that libtpu runs in the engine's process.

use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::sample::{DeviceKind, Quantity, Sample, SampledDevice};
use super::sampling::Found;

/// Where libtpu listens.
pub(super) const ADDRESS: &str = "http://localhost:8431";
/// How long an answer may take; a local one takes under a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

const METHOD: &str = "/tpu.monitoring.runtime.RuntimeMetricService/GetRuntimeMetric";
const MEMORY_SIZE: &str = "tpu.runtime.hbm.memory.total.bytes";
const MEMORY_USED: &str = "tpu.runtime.hbm.memory.usage.bytes";
const DUTY_CYCLE: &str = "tpu.runtime.tensorcore.dutycycle.percent";

/// Parts per million in a per cent.
const PPM_PER_PERCENT: f64 = 10_000.0;

/// The messages of `tpu_metric_service.proto`, with the fields that are read here.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricRequest {
        #[prost(string, tag = "1")]
        pub(super) metric_name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricResponse {
        #[prost(message, optional, tag = "1")]
        pub(super) metric: Option<TpuMetric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TpuMetric {
        #[prost(message, repeated, tag = "3")]
        pub(super) metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, optional, tag = "1")]
        pub(super) attribute: Option<Attribute>,
        #[prost(message, optional, tag = "3")]
        pub(super) gauge: Option<Gauge>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Attribute {
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AttrValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AttrValue {
        #[prost(int64, optional, tag = "3")]
        pub(super) int_attr: Option<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Gauge {
        #[prost(oneof = "GaugeValue", tags = "1, 2")]
        pub(super) value: Option<GaugeValue>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum GaugeValue {
        #[prost(double, tag = "1")]
        Double(f64),
        #[prost(int64, tag = "2")]
        Int(i64),
    }
}

/// The TPUs of this host, as libtpu numbers them.
pub(super) struct Tpus {
    runtime: Runtime,
    service: Grpc<Channel>,
    /// Device numbers of the memory metrics, then chip numbers of the duty cycle where these are others.
    cores: Vec<i64>,
    chips: Vec<i64>,
}

impl Tpus {
    /// Asks the service at `address` once; `None` if it does not answer.
    pub(super) fn open(address: &str, found: &mut Found) -> Option<Tpus> {
        match Tpus::connect(address) {
            Ok(tpus) => {
                found.sources.push(format!("libtpu's metric service ({address})"));
                let device = |name: String| SampledDevice { kind: DeviceKind::Tpu, name };
                found.devices.extend(tpus.cores.iter().map(|number| device(format!("tpu {number}"))));
                found.devices.extend(tpus.chips.iter().map(|number| device(format!("tpu chip {number}"))));
                found.missing.push("TPU power and energy: libtpu has no metric of them".to_owned());
                Some(tpus)
            }
            Err(problem) => {
                found.missing.push(format!("libtpu's metric service ({address}): {problem}"));
                None
            }
        }
    }

    fn connect(address: &str) -> Result<Tpus, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|error| error.to_string())?
            .connect_timeout(ANSWER_LIMIT)
            .timeout(ANSWER_LIMIT);
        let channel = {
            let _entered = runtime.enter();
            endpoint.connect_lazy()
        };
        let mut tpus = Tpus { runtime, service: Grpc::new(channel), cores: Vec::new(), chips: Vec::new() };
        tpus.cores = numbers(&tpus.ask(MEMORY_USED)?);
        // A runtime that has no duty cycle still has memory.
        tpus.chips = numbers(&tpus.ask(DUTY_CYCLE).unwrap_or_default());
        if tpus.chips == tpus.cores {
            tpus.chips.clear();
        }
        if tpus.cores.is_empty() {
            return Err(format!("it answers, and has no device with {MEMORY_USED}"));
        }
        Ok(tpus)
    }

    pub(super) fn len(&self) -> usize {
        self.cores.len() + self.chips.len()
    }

    /// Reads all of them, in the order of [`Found::devices`]. What does not come stays unknown.
    pub(super) fn read(&mut self, samples: &mut [Sample]) {
        let (by_core, by_chip) = samples.split_at_mut(self.cores.len());
        for (metric, quantity) in [(MEMORY_USED, Quantity::MemoryUsedBytes), (MEMORY_SIZE, Quantity::MemorySizeBytes)] {
            let values = self.ask(metric).unwrap_or_default();
            set(by_core, &self.cores, &values, quantity, 1.0);
        }
        let values = self.ask(DUTY_CYCLE).unwrap_or_default();
        let (samples, numbers) = if self.chips.is_empty() { (by_core, &self.cores) } else { (by_chip, &self.chips) };
        set(samples, numbers, &values, Quantity::DutyCyclePpm, PPM_PER_PERCENT);
    }

    /// The values of a metric by device or chip, in the order of their numbers.
    fn ask(&mut self, metric: &str) -> Result<Vec<(i64, f64)>, String> {
        let request = tonic::Request::new(wire::MetricRequest { metric_name: metric.to_owned() });
        let service = &mut self.service;
        let answer = self.runtime.block_on(async {
            service.ready().await.map_err(|error| causes(&error))?;
            let codec = ProstCodec::<wire::MetricRequest, wire::MetricResponse>::default();
            let answer = service.unary(request, PathAndQuery::from_static(METHOD), codec).await;
            answer.map_err(|status| format!("{}: {}", status.code(), status.message()))
        })?;
        let metrics = answer.into_inner().metric.map(|metric| metric.metrics).unwrap_or_default();
        let mut values: Vec<(i64, f64)> = metrics.iter().filter_map(value).collect();
        values.sort_by_key(|(number, _)| *number);
        Ok(values)
    }
}

/// The number and the value of one device. Proto3 leaves a number that is 0 out.
fn value(metric: &wire::Metric) -> Option<(i64, f64)> {
    let number = metric.attribute.as_ref()?.value.as_ref()?.int_attr.unwrap_or(0);
    let value = match metric.gauge.as_ref()?.value.as_ref()? {
        wire::GaugeValue::Double(value) => *value,
        wire::GaugeValue::Int(value) => *value as f64,
    };
    (value >= 0.0).then_some((number, value))
}

fn numbers(values: &[(i64, f64)]) -> Vec<i64> {
    values.iter().map(|(number, _)| *number).collect()
}

fn set(samples: &mut [Sample], numbers: &[i64], values: &[(i64, f64)], quantity: Quantity, scale: f64) {
    for (sample, number) in samples.iter_mut().zip(numbers) {
        let value = values.iter().find(|(other, _)| other == number);
        sample.set(quantity, value.map(|(_, value)| (value * scale).round() as u64));
    }
}

/// An error with all that caused it: the first word alone is `transport error`.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
