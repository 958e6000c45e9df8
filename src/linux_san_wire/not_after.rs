//! The header `sanpath-not-after`: until when a call is meant, by the SAN's clock in milliseconds.
//!
//! A caller that gives a call up resets its connection, which takes the call back, but not while other calls use the connection: a SAN that stood still does
//! then what was given up (seen in the lab, `san_stands_still`). An export that is done after its caller gave it up, and after the volume was taken away again,
//! would leave the volume with a node that nobody knows of.

use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

const NAME: HeaderName = HeaderName::from_static("sanpath-not-after");

/// The header that says it.
pub(crate) fn not_after(clock_ms: u64) -> (HeaderName, HeaderValue) {
    (NAME, HeaderValue::from(clock_ms))
}

/// Refuses a call that arrives when its time is over; one that says no time is always in time.
///
/// # Errors
/// ABORTED: it is too late. INVALID_ARGUMENT: the header cannot be read.
pub(crate) fn refuse_late(headers: &HeaderMap, clock_ms: u64) -> Result<(), Status> {
    let Some(value) = headers.get(NAME) else {
        return Ok(());
    };
    let told = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    match told {
        None => Err(Status::invalid_argument(format!(
            "{NAME} must be a decimal number of milliseconds"
        ))),
        Some(until) if clock_ms > until => Err(Status::aborted(format!(
            "this call arrived {} ms after its caller gave it up; nothing was done",
            clock_ms - until
        ))),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refused(value: &'static str) -> Option<Code> {
        let headers = [(NAME, HeaderValue::from_static(value))];
        let refused = refuse_late(&headers.into_iter().collect(), 1000);
        refused.err().map(|status| status.code())
    }

    #[test]
    fn what_comes_too_late_is_refused_and_nothing_else() {
        assert!(refuse_late(&HeaderMap::new(), u64::MAX).is_ok());
        assert_eq!(refused("1001"), None);
        assert_eq!(refused("1000"), None);
        assert_eq!(refused("999"), Some(Code::Aborted));
        assert_eq!(refused("0"), Some(Code::Aborted));
        for odd in ["", "-1", "1e9", "1000 ", "99999999999999999999"] {
            assert_eq!(refused(odd), Some(Code::InvalidArgument), "{odd:?}");
        }
        let written: HeaderMap = [not_after(1000)].into_iter().collect();
        assert!(refuse_late(&written, 1000).is_ok());
        assert!(refuse_late(&written, 1001).is_err());
    }
}
