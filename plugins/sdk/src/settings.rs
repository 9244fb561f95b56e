//! The plugin's settings: read once by `init`, there in every later call.

use serde::de::DeserializeOwned;

/// Reads the plugin's settings table from the JSON text that `init` gets.
///
/// # Errors
/// What is wrong and where, for whoever starts the gateway.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        // Line and column are those of a JSON text that nobody has seen.
        let text = error.to_string();
        let end = text.rfind(" at line ").unwrap_or(text.len());
        format!("settings: {}", &text[..end])
    })
}

/// What `init` made of the settings, kept in a static.
///
/// In tests every thread has its own value, which may be set again.
#[derive(Debug)]
pub struct Settings<T: 'static> {
    value: cell::Cell<T>,
}

impl<T> Settings<T> {
    /// Makes an empty one, for a static.
    pub const fn new() -> Self {
        Self {
            value: cell::Cell::new(),
        }
    }
}

impl<T: Send + Sync> Settings<T> {
    /// Keeps what was made of the settings. Made to be the last line of `init`.
    ///
    /// # Errors
    /// `init` was called before in this instance.
    pub fn set(&'static self, value: T) -> Result<(), String> {
        self.value.set(value)
    }

    /// Returns what `init` kept.
    ///
    /// # Panics
    /// `init` did not run: the plugin does not export `lifecycle`.
    pub fn get(&'static self) -> &'static T {
        self.value
            .get()
            .expect("init ran: the plugin exports `lifecycle`")
    }
}

impl<T> Default for Settings<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_family = "wasm")]
mod cell {
    use std::sync::OnceLock;

    /// The one value of the instance.
    #[derive(Debug)]
    pub(super) struct Cell<T>(OnceLock<T>);

    impl<T> Cell<T> {
        pub(super) const fn new() -> Self {
            Self(OnceLock::new())
        }

        pub(super) fn set(&'static self, value: T) -> Result<(), String> {
            self.0
                .set(value)
                .map_err(|_| "init was called twice".to_owned())
        }

        pub(super) fn get(&'static self) -> Option<&'static T> {
            self.0.get()
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod cell {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};

    /// A value per thread, so that tests that run side by side have their own settings. They are leaked: tests end
    /// soon.
    #[derive(Debug)]
    pub(super) struct Cell<T: 'static> {
        values: Mutex<Option<HashMap<ThreadId, &'static T>>>,
    }

    impl<T> Cell<T> {
        pub(super) const fn new() -> Self {
            Self {
                values: Mutex::new(None),
            }
        }

        pub(super) fn set(&'static self, value: T) -> Result<(), String> {
            let mut values = self
                .values
                .lock()
                .map_err(|_| "a test panicked while it set its settings".to_owned())?;
            values
                .get_or_insert_default()
                .insert(thread::current().id(), Box::leak(Box::new(value)));
            Ok(())
        }

        pub(super) fn get(&'static self) -> Option<&'static T> {
            self.values
                .lock()
                .ok()?
                .as_ref()?
                .get(&thread::current().id())
                .copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only errors are looked at")]
        number: u32,
    }

    #[test]
    fn errors_name_the_setting_and_no_place_in_a_text_nobody_saw() {
        let error = |text| parse::<Example>(text).expect_err("wrong settings");
        assert_eq!(
            error(r#"{"nunber": 1}"#),
            "settings: unknown field `nunber`, expected `number`"
        );
        assert_eq!(error("{}"), "settings: missing field `number`");
    }

    #[test]
    fn every_thread_has_its_own_settings() {
        static SETTINGS: Settings<u32> = Settings::new();
        SETTINGS.set(1).expect("first");
        std::thread::spawn(|| SETTINGS.set(2))
            .join()
            .expect("no panic")
            .expect("first there");
        assert_eq!(*SETTINGS.get(), 1);
    }
}
