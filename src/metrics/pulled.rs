//! A family of metrics whose values are formed when they are asked for.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// A value as it is at this moment.
pub(super) enum Reading {
    Counter(u64),
    Gauge(i64),
    Histogram(proto::Histogram),
}

type Read = Box<dyn Fn() -> Reading + Send + Sync>;

/// All series of one name. Clones share them.
#[derive(Clone)]
pub(super) struct Pulled(Arc<Family>);

struct Family {
    desc: Desc,
    kind: proto::MetricType,
    series: Mutex<Vec<(Vec<String>, Read)>>,
}

impl Pulled {
    pub(super) fn new(name: &str, help: &str, labels: &[&str], kind: proto::MetricType) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::new())?;
        Ok(Self(Arc::new(Family { desc, kind, series: Mutex::default() })))
    }

    /// One more series; it takes the place of one with the same labels.
    pub(super) fn add(&self, labels: &[&str], read: impl Fn() -> Reading + Send + Sync + 'static) {
        self.remove(labels);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.0.series.lock().push((labels, Box::new(read)));
    }

    pub(super) fn remove(&self, labels: &[&str]) {
        self.0.series.lock().retain(|(its, _)| its != labels);
    }
}

impl Family {
    fn metric(&self, labels: &[String], read: &Read) -> proto::Metric {
        let pair = |(name, value): (&String, &String)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        let mut pairs: Vec<_> = self.desc.variable_labels.iter().zip(labels).map(pair).collect();
        pairs.sort();
        let mut metric = proto::Metric::from_label(pairs);
        #[expect(clippy::cast_precision_loss, reason = "the text format has floats")]
        match read() {
            Reading::Counter(value) => {
                let mut counter = proto::Counter::default();
                counter.set_value(value as f64);
                metric.set_counter(counter);
            }
            Reading::Gauge(value) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value as f64);
                metric.set_gauge(gauge);
            }
            Reading::Histogram(histogram) => metric.set_histogram(histogram),
        }
        metric
    }
}

impl Collector for Pulled {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(self.0.kind);
        let series = self.0.series.lock();
        family.set_metric(series.iter().map(|(labels, read)| self.0.metric(labels, read)).collect());
        vec![family]
    }
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulled").field("name", &self.0.desc.fq_name).finish_non_exhaustive()
    }
}
