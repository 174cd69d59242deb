//! Paths in files and messages: Unix allows any bytes but NUL in them, and JSON has texts alone.
//!
//! ```text
//! JSON     "the path", or {"bytes": "hexadecimal digits"} if it is not UTF-8
//! bincode  u64 length, the bytes
//! ```
//! For `#[serde(with = "any_path")]`.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonPath {
    Text(String),
    Bytes { bytes: String },
}

pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return serializer.serialize_bytes(path.as_os_str().as_bytes());
    }
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => {
            let bytes = data_encoding::HEXLOWER.encode(path.as_os_str().as_bytes());
            JsonPath::Bytes { bytes }.serialize(serializer)
        }
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    if !deserializer.is_human_readable() {
        return Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into());
    }
    match JsonPath::deserialize(deserializer)? {
        JsonPath::Text(text) => Ok(text.into()),
        JsonPath::Bytes { bytes } => {
            let bytes = data_encoding::HEXLOWER.decode(bytes.as_bytes()).map_err(D::Error::custom)?;
            Ok(OsString::from_vec(bytes).into())
        }
    }
}

/// Lists of them.
pub(crate) mod list {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct AnyPath(#[serde(with = "super")] PathBuf);

    pub(crate) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| AnyPath(path.clone())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let paths: Vec<AnyPath> = Vec::deserialize(deserializer)?;
        Ok(paths.into_iter().map(|AnyPath(path)| path).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Place {
        #[serde(with = "super")]
        path: PathBuf,
        #[serde(with = "super::list")]
        others: Vec<PathBuf>,
    }

    #[test]
    fn any_path_comes_back_as_it_was() {
        for bytes in [&b"/home/me"[..], "/größe".as_bytes(), b"/caf\xe9/x", b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let place = Place { others: vec![path.clone(), path.clone()], path };
            let json = serde_json::to_string(&place).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&json).unwrap(), place, "{json}");
            let binary = keyferry_proto::codec::encode(&place);
            assert_eq!(keyferry_proto::codec::decode::<Place>(&binary, 1000).unwrap(), place);
        }
        let text = serde_json::to_string(&Place { path: "/a".into(), others: vec![] }).unwrap();
        assert_eq!(text, r#"{"path":"/a","others":[]}"#);
    }
}
