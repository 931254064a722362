//! TPUs, through a gRPC server that speaks libtpu's metric service.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bench::machine::device::DeviceClass;
use bench::measurement::telemetry::{Places, Quantity};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::machine::{Machine, open, series, twice};

/// `tpu_metric_service.proto`, as the service answers with it.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricRequest {
        #[prost(string, tag = "1")]
        pub metric_name: String,
        #[prost(bool, tag = "2")]
        pub skip_node_aggregation: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricResponse {
        #[prost(message, optional, tag = "1")]
        pub metric: Option<TpuMetric>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TpuMetric {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub description: String,
        #[prost(message, repeated, tag = "3")]
        pub metrics: Vec<Metric>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, optional, tag = "1")]
        pub attribute: Option<Attribute>,
        #[prost(message, optional, tag = "2")]
        pub timestamp: Option<Timestamp>,
        #[prost(oneof = "Measure", tags = "3, 4")]
        pub measure: Option<Measure>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Measure {
        #[prost(message, tag = "3")]
        Gauge(Gauge),
        #[prost(message, tag = "4")]
        Counter(Gauge),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Gauge {
        #[prost(oneof = "Number", tags = "1, 2")]
        pub value: Option<Number>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Number {
        #[prost(double, tag = "1")]
        AsDouble(f64),
        #[prost(int64, tag = "2")]
        AsInt(i64),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Attribute {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AttrValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AttrValue {
        #[prost(oneof = "Attr", tags = "1, 3")]
        pub attr: Option<Attr>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Attr {
        #[prost(string, tag = "1")]
        StringAttr(String),
        #[prost(int64, tag = "3")]
        IntAttr(i64),
    }
}

use proto::{Attr, AttrValue, Attribute, Gauge, Measure, Metric, MetricRequest, MetricResponse, Number, TpuMetric};

/// What the service answers: by metric, the values of devices by their numbers.
type Values = Arc<Mutex<Vec<(&'static str, Vec<(i64, Number)>)>>>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Clone)]
struct RuntimeMetricService(Values);

impl NamedService for RuntimeMetricService {
    const NAME: &'static str = "tpu.monitoring.runtime.RuntimeMetricService";
}

impl UnaryService<MetricRequest> for RuntimeMetricService {
    type Response = MetricResponse;
    type Future = Boxed<Result<Response<MetricResponse>, Status>>;

    fn call(&mut self, request: Request<MetricRequest>) -> Self::Future {
        let name = request.into_inner().metric_name;
        let found = self.0.lock().unwrap().iter().find(|(known, _)| *known == name).cloned();
        Box::pin(async move {
            let (_, values) = found.ok_or_else(|| Status::new(Code::InvalidArgument, format!("no metric {name}")))?;
            let metrics = values.into_iter().map(|(number, value)| Metric {
                attribute: Some(Attribute {
                    key: "device-id".to_owned(),
                    value: Some(AttrValue { attr: Some(Attr::IntAttr(number)) }),
                }),
                timestamp: Some(proto::Timestamp { seconds: 1_790_000_000 }),
                measure: Some(Measure::Gauge(Gauge { value: Some(value) })),
            });
            let metric = TpuMetric { name, description: "of a test".to_owned(), metrics: metrics.collect() };
            Ok(Response::new(MetricResponse { metric: Some(metric) }))
        })
    }
}

impl Service<http::Request<Body>> for RuntimeMetricService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/tpu.monitoring.runtime.RuntimeMetricService/GetRuntimeMetric");
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(service, request).await) })
    }
}

/// A server on a thread of its own, until the test ends; its address, and what it answers.
fn serve(values: Vec<(&'static str, Vec<(i64, Number)>)>) -> (String, Values) {
    let values: Values = Arc::new(Mutex::new(values));
    let service = RuntimeMetricService(Arc::clone(&values));
    let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener); // free again, and this test's until the server has it
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tonic::transport::Server::builder().add_service(service).serve(address)).unwrap();
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < deadline, "no server");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    (format!("http://{address}"), values)
}

const TOTAL: &str = "tpu.runtime.hbm.memory.total.bytes";
const USAGE: &str = "tpu.runtime.hbm.memory.usage.bytes";
const DUTY_CYCLE: &str = "tpu.runtime.tensorcore.dutycycle.percent";
const GIB: i64 = 1 << 30;

fn names(record: &bench::measurement::telemetry::TelemetryRecord) -> Vec<&str> {
    record.devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn memory_and_duty_cycle_of_each_device() {
    let machine = Machine::bare();
    let (libtpu, values) = serve(vec![
        (TOTAL, vec![(0, Number::AsInt(96 * GIB)), (1, Number::AsInt(95 * GIB))]),
        (USAGE, vec![(1, Number::AsInt(7 * GIB)), (0, Number::AsInt(90 * GIB))]), // in any order
        (DUTY_CYCLE, vec![(0, Number::AsDouble(97.25)), (1, Number::AsDouble(0.0))]),
    ]);
    let telemetry = open(&Places { libtpu, ..machine.places() }, DeviceClass::Tpu);
    let (_, record, samples) = twice(telemetry, || {
        values.lock().unwrap()[1].1[0].1 = Number::AsInt(8 * GIB);
    });
    assert_eq!(names(&record), ["host", "tpu 0", "tpu 1"]);
    assert_eq!(series(&samples, 1, Quantity::MemoryUsedBytes), [Some(90 << 30); 2]);
    assert_eq!(series(&samples, 2, Quantity::MemoryUsedBytes), [Some(7 << 30), Some(8 << 30)]);
    assert_eq!(series(&samples, 2, Quantity::MemorySizeBytes), [Some(95 << 30); 2]);
    assert_eq!(series(&samples, 1, Quantity::DutyCyclePpm), [Some(972_500); 2]);
    assert_eq!(series(&samples, 2, Quantity::DutyCyclePpm), [Some(0); 2]);
    assert_eq!(series(&samples, 1, Quantity::EnergyTotalUj), [None; 2]);
    assert!(record.missing.iter().any(|missing| missing.starts_with("TPU power and energy")), "{:?}", record.missing);
}

#[test]
fn a_duty_cycle_by_chip_is_not_that_of_a_core() {
    let machine = Machine::bare();
    let (libtpu, _) = serve(vec![
        (TOTAL, vec![(0, Number::AsInt(96 * GIB)), (1, Number::AsInt(96 * GIB))]),
        (USAGE, vec![(0, Number::AsInt(90 * GIB)), (1, Number::AsInt(91 * GIB))]),
        (DUTY_CYCLE, vec![(0, Number::AsDouble(50.0))]),
    ]);
    let telemetry = open(&Places { libtpu, ..machine.places() }, DeviceClass::Tpu);
    let (_, record, samples) = twice(telemetry, || ());
    assert_eq!(names(&record), ["host", "tpu 0", "tpu 1", "tpu chip 0"]);
    assert_eq!(series(&samples, 1, Quantity::DutyCyclePpm), [None; 2]);
    assert_eq!(series(&samples, 3, Quantity::DutyCyclePpm), [Some(500_000); 2]);
    assert_eq!(series(&samples, 3, Quantity::MemoryUsedBytes), [None; 2]);
}

#[test]
fn a_service_that_is_not_there_or_knows_no_device_is_named() {
    let machine = Machine::bare();
    let missing = |places: &Places| {
        let (_, record, _) = twice(open(places, DeviceClass::Tpu), || ());
        assert_eq!(names(&record), ["host"]);
        record.missing.last().unwrap().clone()
    };
    let nobody = missing(&machine.places());
    assert!(nobody.starts_with("libtpu's metric service (http://127.0.0.1:9): "), "{nobody}");
    assert!(nobody.to_lowercase().contains("connect"), "{nobody}");
    let (libtpu, _) = serve(vec![(DUTY_CYCLE, vec![])]);
    let other = missing(&Places { libtpu, ..machine.places() });
    assert!(other.contains("no metric tpu.runtime.hbm.memory.usage.bytes"), "{other}");
    let (libtpu, _) = serve(vec![(USAGE, vec![])]);
    assert!(missing(&Places { libtpu, ..machine.places() }).contains("has no device"));
}
