//! The files of `docs/vectors`: their cases, and the values in these.
//!
//! What it is not: what a value stands for.

use std::fmt::Debug;

use data_encoding::HEXLOWER;
use serde_json::Value;

/// The vectors of this name.
pub(crate) fn vectors(name: &str) -> Value {
    let path = format!("{}/../../docs/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path)
}

/// The cases under a path of keys, of which there must be some.
pub(crate) fn cases<'a>(vectors: &'a Value, path: &str) -> &'a [Value] {
    let list = vectors.pointer(path).and_then(Value::as_array).expect(path);
    assert!(!list.is_empty(), "{path}");
    list
}

/// A text in a case.
pub(crate) fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} in {case}"))
}

/// A number in a case.
pub(crate) fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap_or_else(|| panic!("{field} in {case}"))
}

/// Whether something is so in a case.
pub(crate) fn flag(case: &Value, field: &str) -> bool {
    case[field].as_bool().unwrap_or_else(|| panic!("{field} in {case}"))
}

/// The bytes that hexadecimal digits in a case stand for.
pub(crate) fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex(text(case, field))
}

/// So many bytes in a case.
pub(crate) fn array<const LEN: usize>(case: &Value, field: &str) -> [u8; LEN] {
    bytes(case, field).try_into().unwrap_or_else(|_| panic!("{field} of {LEN} bytes in {case}"))
}

/// The bytes that hexadecimal digits stand for.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    HEXLOWER.decode(digits.as_bytes()).expect("hex")
}

/// Asserts that a result is the error whose `Debug` form begins as the case says.
#[track_caller]
pub(crate) fn assert_refused<T: Debug, E: Debug>(result: Result<T, E>, case: &Value) {
    let expected = text(case, "error");
    match result {
        Ok(value) => panic!("{}: accepted as {value:?}", case["why"]),
        Err(error) => {
            let got = format!("{error:?}");
            assert!(got.starts_with(expected), "{}: expected {expected}, got {got}", case["why"]);
        }
    }
}
