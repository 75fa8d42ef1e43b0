//! Environment variables laid over the file: `BINLAKE_LAKE__URL`, `BINLAKE_SOURCE__<NAME>__URL` (the source's name in
//! upper case, `-` as `_`), `BINLAKE_TABLE__<NUMBER>__MODE` (rules are numbered from 1 in the file's order),
//! `BINLAKE_EXPORT__<NAME>__WHERE`.

use toml::{Table, Value};

use super::{
    ConfigError,
    keys::{self, SECTIONS},
};

/// Applies every variable that starts with `BINLAKE_` and has `__` in it; one that fits nothing is refused.
pub fn apply(
    root: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let mut variables: Vec<Variable> =
        environment.into_iter().filter_map(|(name, text)| Variable::read(name, text)).collect();
    // `kind` first: it decides which other keys of its section are known.
    variables.sort_by_key(|v| (v.path.last().is_none_or(|key| key != "kind"), v.name.clone()));
    for variable in variables {
        variable.apply(root)?;
    }
    Ok(())
}

struct Variable {
    name: String,
    // The parts between `__`, in lower case.
    path: Vec<String>,
    text: String,
}

impl Variable {
    fn read(name: String, text: String) -> Option<Self> {
        let rest = name.strip_prefix("BINLAKE_")?;
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        (path.len() > 1).then_some(Self { name, path, text })
    }

    fn apply(&self, root: &mut Table) -> Result<(), ConfigError> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let section = path.first().copied().unwrap_or_default();
        let Some(&(_, is_list)) = SECTIONS.iter().find(|(name, _)| *name == section) else {
            let known: Vec<String> = SECTIONS.iter().map(|(name, _)| name.to_string()).collect();
            return Err(self.unknown(section, "the file".into(), &known));
        };
        let (table, key) = match path.as_slice() {
            [_, key] if !is_list => {
                let value = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
                (value.as_table_mut(), *key)
            }
            [_, item, key] if is_list => (Some(self.item(root, section, item)?), *key),
            _ => (None, ""),
        };
        let Some(table) = table else {
            let form = if is_list { "__<NAME>__<KEY>" } else { "__<KEY>" };
            let form = format!("BINLAKE_{}{form}", section.to_uppercase());
            return Err(self.refused(section, format!("its form is {form}")));
        };
        let known = keys::known_keys(section, table);
        if known.len() > 1 && !known.iter().any(|k| k == key) {
            return Err(self.unknown(key, keys::title(section), &known));
        }
        let value = self.value(section, key, table);
        table.insert(key.to_string(), value);
        Ok(())
    }

    fn item<'a>(
        &self,
        root: &'a mut Table,
        section: &str,
        item: &str,
    ) -> Result<&'a mut Table, ConfigError> {
        let items = root.get_mut(section).and_then(Value::as_array_mut);
        let mut tables = items.into_iter().flatten().filter_map(Value::as_table_mut);
        let found = if matches!(section, "source" | "export") {
            tables.find(|table| {
                let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
                name.to_lowercase().replace('-', "_") == item
            })
        } else {
            let number = item.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            number.and_then(|number| tables.nth(number))
        };
        found.ok_or_else(|| {
            let reason = match section {
                "source" | "export" => format!("there is no {section} named {item}"),
                _ => format!("there is no [[{section}]] number {item}"),
            };
            self.refused(section, reason)
        })
    }

    /// The text as TOML reads it (a number, a list) where the key takes that, otherwise as it is.
    fn value(&self, section: &str, key: &str, table: &Table) -> Value {
        let plain = Value::String(self.text.clone());
        let typed = toml::from_str::<Table>(&format!("value = {}", self.text))
            .ok()
            .and_then(|mut table| table.remove("value"));
        match typed {
            Some(typed)
                if keys::refuses_type(section, key, &plain, table)
                    && !keys::refuses_type(section, key, &typed, table) =>
            {
                typed
            }
            _ => plain,
        }
    }

    fn unknown(&self, key: &str, section: String, known: &[String]) -> ConfigError {
        ConfigError::UnknownKey {
            place: format!("environment variable {}", self.name),
            key: key.into(),
            section,
            advice: keys::advice(key, known),
        }
    }

    fn refused(&self, section: &str, reason: String) -> ConfigError {
        ConfigError::Value {
            place: format!("environment variable {}", self.name),
            section: keys::title(section),
            reason,
        }
    }
}
