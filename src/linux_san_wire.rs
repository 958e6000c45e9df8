//! All that `san/` and `linux_san/` share, so that either could be replaced: the generated code of `proto/linux_san.proto`, and the header that it tells of.

mod not_after;

pub use self::generated::*;
pub(crate) use self::not_after::{not_after, refuse_late};

mod generated {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        rustdoc::all,
        reason = "generated code; its shape is the generator's"
    )]

    include!(concat!(env!("OUT_DIR"), "/linux_san.v1.rs"));
}
