//! The configuration file: TOML, flat, every key known.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::table::ALL;
use crate::failure::Failure;
use crate::nearest::nearest;

/// The values in the file at `path`, by setting name.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, Failure> {
    let fail = |what: &str| Failure::new(format!("{what} the configuration file `{}`", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail("could not read").because(&error))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        fail("could not understand")
            .because(&error)
            .with_hint("`pilotlight config --example` prints a valid one")
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let Some(setting) = ALL.iter().find(|setting| setting.toml_key() == key) else {
            return Err(Failure::new(format!("unknown key `{key}` in `{}`", path.display()))
                .with_hint(unknown_hint(&key)));
        };
        let texts = texts(value).ok_or_else(|| {
            Failure::new(format!("`{key}` in `{}` is neither a value nor a list of values", path.display()))
        })?;
        // As with variables: the example file shows settings without a default as "".
        if texts != [""] {
            values.insert(setting.name, texts);
        }
    }
    Ok(values)
}

fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => {
            values.into_iter().map(|value| texts(value)?.pop()).collect::<Option<Vec<_>>>()
        }
        Value::String(text) => Some(vec![text]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Float(number) => Some(vec![number.to_string()]),
        Value::Boolean(switch) => Some(vec![switch.to_string()]),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn unknown_hint(key: &str) -> String {
    let key = key.to_lowercase().replace('-', "_");
    match nearest(&key, ALL.iter().map(|setting| setting.toml_key())) {
        Some((known, edits)) if edits <= key.len().max(known.len()) / 2 => format!("did you mean `{known}`?"),
        _ => "`pilotlight config --example` lists the keys".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named() {
        assert_eq!(unknown_hint("max_sise"), "did you mean `max_size`?");
        assert_eq!(unknown_hint("max-size"), "did you mean `max_size`?");
        assert_eq!(unknown_hint("data_directory"), "did you mean `data_dir`?");
        assert_eq!(unknown_hint("zzzzzzzzzzzzzzz"), "`pilotlight config --example` lists the keys");
    }
}
