//! Log lines as JSON after the log data model of OpenTelemetry: `timestamp`, `severity_text`, `severity_number`, `body`, `attributes`,
//! `resource`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as one line.
pub(super) struct Otel {
    resource: Value,
    now: fn() -> SystemTime,
}

impl Otel {
    /// For the daemon of `role`.
    pub(super) fn new(role: &str) -> Self {
        let resource = json!({
            "service.name": format!("isthmus-{role}"),
            "service.version": env!("CARGO_PKG_VERSION"),
            "process.pid": std::process::id(),
        });
        Self { resource, now: time_of_day }
    }
}

impl<S, N> FormatEvent<S, N> for Otel
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.attributes.insert("code.namespace".to_owned(), metadata.target().into());
        let (text, number) = severity(metadata.level());
        let line = json!({
            "timestamp": rfc3339((self.now)()),
            "severity_text": text,
            "severity_number": number,
            "body": fields.body,
            "attributes": fields.attributes,
            "resource": self.resource,
        });
        writeln!(writer, "{line}")
    }
}

/// The names and numbers of OpenTelemetry.
fn severity(level: &Level) -> (&'static str, u8) {
    match *level {
        Level::ERROR => ("ERROR", 17),
        Level::WARN => ("WARN", 13),
        Level::INFO => ("INFO", 9),
        Level::DEBUG => ("DEBUG", 5),
        Level::TRACE => ("TRACE", 1),
    }
}

/// The fields of an event; `message` is its body.
#[derive(Default)]
struct Fields {
    body: String,
    attributes: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.body = text,
            (name, value) => drop(self.attributes.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// UTC to the microsecond, as in `2026-11-23T15:04:05.000006Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The day of the proleptic Gregorian calendar, so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that may be missing is the last one; 400 of them are 146 097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[expect(clippy::disallowed_methods, reason = "log lines say the time of day")]
fn time_of_day() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// 2026-11-23T15:04:05.000006Z.
    fn afternoon() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_795_446_245, 6_000)
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_follows_the_log_data_model() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let format = Otel { now: afternoon, ..Otel::new("xtr") };
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(format)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let rloc = "192.0.2.1";
            tracing::warn!(%rloc, up = false, count = 3_u64, name = "a\"b", "RLOC {}\nchanged", 7);
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["timestamp"], "2026-11-23T15:04:05.000006Z");
        assert_eq!(line["severity_text"], "WARN");
        assert_eq!(line["severity_number"], 13);
        assert_eq!(line["body"], "RLOC 7\nchanged");
        let attributes = json!({
            "rloc": "192.0.2.1", "up": false, "count": 3, "name": "a\"b",
            "code.namespace": module_path!(),
        });
        assert_eq!(line["attributes"], attributes);
        assert_eq!(line["resource"]["service.name"], "isthmus-xtr");
    }

    #[test]
    fn days_of_the_calendar() {
        let day = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(day(951_782_399), "2000-02-28T23:59:59.000000Z");
        assert_eq!(day(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(day(951_868_800), "2000-03-01T00:00:00.000000Z");
        assert_eq!(day(4_107_542_400), "2100-03-01T00:00:00.000000Z");
        assert_eq!(day(1_798_761_599), "2026-12-31T23:59:59.000000Z");
    }
}
