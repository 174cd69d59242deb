//! Transfer and control messages: no bytes make a decoder panic, and what it takes it encodes again.

#![no_main]

use std::fmt::Debug;

use keyferry_proto::message::{
    CatalogueReply, ContentReply, ControlMessage, ItemStatus, Message, Request, ResolveReply,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    check::<Request>(input);
    check::<ControlMessage>(input);
    check::<ResolveReply>(input);
    check::<CatalogueReply>(input);
    check::<ContentReply>(input);
    if let Some(Ok(status)) = input.first().map(|byte| ItemStatus::from_byte(*byte)) {
        assert_eq!(status.to_byte(), input[0]);
    }
});

fn check<M: Message + PartialEq + Debug>(input: &[u8]) {
    if let Ok(message) = M::decode(input) {
        assert_eq!(message.encode(), input, "a message has one form only");
        assert!(input.len() <= M::LIMIT);
    }
}
